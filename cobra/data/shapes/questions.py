"""Questions about a scene, chosen so that no answer is likelier than another."""

from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import NamedTuple

from cobra.data.shapes.scene import ALLOWED, COLORS, GRID, HELD_OUT, NUMBERS, SHAPES, Object, Scene, Split

TYPES = ("exist", "count_color", "count_shape", "color", "shape", "where", "relation", "digit")

_YES_NO = ("yes", "no")
_CORNERS = ("top left", "top right", "bottom left", "bottom right")
_ALL = {
    "exist": _YES_NO,
    "count_color": NUMBERS[:5],
    "count_shape": NUMBERS[:5],
    "color": tuple(COLORS),
    "shape": SHAPES,
    "where": _CORNERS,
    "relation": _YES_NO,
    "digit": NUMBERS,
}
# Only pairs are held out: nothing is asked about digits, and what is counted includes a held-out pair.
_COMPOSITION = {
    **{kind: answers for kind, answers in _ALL.items() if kind != "digit"},
    "count_color": NUMBERS[1:5],
    "count_shape": NUMBERS[1:5],
    "color": tuple(color for color in COLORS if any(color == pair[0] for pair in HELD_OUT)),
}
# Possible answers of each type: a guess is right once in that many times, 0.255 on average in "test".
ANSWERS: dict[Split, dict[str, tuple[str, ...]]] = {"train": _ALL, "test": _ALL, "composition": _COMPOSITION}

# Relations are learned last: training asks about them as often as about two other types.
_TRAINING_SHARES = {"relation": 2}

# Most questions kept of a scene, and fewest: with less it is drawn again.
MAX_TURNS = 6
MIN_TURNS = 3

_SLACK = 2


class Question(NamedTuple):
    """A question with its one right answer."""

    kind: str
    text: str
    answer: str


class Balance:
    """Asks answers of a type equally often over all scenes of a split, and wordings with all their answers.

    Types get equal shares of the questions, but for `_TRAINING_SHARES`.

    Args:
        split: decides which answers there are.
    """

    def __init__(self, split: Split) -> None:
        self.answers = ANSWERS[split]
        self.shares = _TRAINING_SHARES if split == "train" else {}
        # by type, type and answer, wording, wording and answer
        self.asked: Counter[tuple[str, ...]] = Counter()

    def choose(self, questions: list[Question], rng: Random) -> list[Question]:
        """MIN_TURNS to MAX_TURNS questions, each of another type or answer, the least-served first.

        None if the scene has too few; it then leaves no trace in the counts.
        """
        open_types: dict[str, list[Question]] = {}
        for question in questions:
            open_types.setdefault(question.kind, []).append(question)
        chosen: list[Question] = []
        while open_types and len(chosen) < MAX_TURNS:
            kind = min(open_types, key=lambda k: (self.asked[k,] + rng.random()) / self.shares.get(k, 1))
            question = min(open_types[kind], key=lambda question: (*self._service(question), rng.random()))
            if self._is_over_asked(question):
                del open_types[kind]
                continue
            chosen.append(question)
            self._count(question, 1)
            open_types[kind] = [
                q for q in open_types[kind] if q.answer != question.answer and q.text != question.text
            ]
            if not open_types[kind]:
                del open_types[kind]
        if len(chosen) < MIN_TURNS:
            for question in chosen:
                self._count(question, -1)
            return []
        # otherwise the rare types would always come first
        rng.shuffle(chosen)
        return chosen

    def _service(self, question: Question) -> tuple[int, int]:
        """How often the answer was given, and how much more often than others to this wording."""
        kind, text, answer = question
        here, others = self.asked[kind, text, answer], self.asked[kind, text]
        return self.asked[kind, answer], here * len(self.answers[kind]) - others

    def _is_over_asked(self, question: Question) -> bool:
        share = self.asked[question.kind,] / len(self.answers[question.kind])
        return self.asked[question.kind, question.answer] > share + _SLACK

    def _count(self, question: Question, by: int) -> None:
        kind, text, answer = question
        for key in ((kind,), (kind, answer), (kind, text), (kind, text, answer)):
            self.asked[key] += by


def feasible_questions(scene: Scene, split: Split, rng: Random) -> list[Question]:
    """Questions that the scene answers without doubt, of all types; in "composition" about held-out pairs."""
    held_out = split == "composition"
    questions = [
        *_exist(scene, HELD_OUT if held_out else ALLOWED, rng),
        *_count(scene, held_out),
        *_attributes(scene, held_out),
        *_relations(scene, held_out, rng),
    ]
    if not held_out:
        questions.append(Question("digit", "what digit is written?", NUMBERS[scene.digit]))
    return questions


def plural(shape: str) -> str:
    """The shape's name for several."""
    return shape + ("es" if shape.endswith("s") else "s")


def _exist(scene: Scene, pairs: tuple[tuple[str, str], ...], rng: Random) -> Iterator[Question]:
    there = {obj.pair for obj in scene.objects}
    colors = {obj.color for obj in scene.objects}
    shapes = {obj.shape for obj in scene.objects}
    absent = [pair for pair in pairs if pair not in there]
    # half of the absent pairs are adversarial: the colour is there, and the shape, but not together
    adversarial = [(color, shape) for color, shape in absent if color in colors and shape in shapes]
    if adversarial and rng.random() < 0.5:
        absent = adversarial
    # a choice of a few lets wordings be balanced; all 42 would take longer than the rest of the scene
    candidates = [pair for pair in pairs if pair in there] + rng.sample(absent, min(len(absent), 4))
    for color, shape in candidates:
        article = "an" if color[0] in "aeiou" else "a"
        yield Question(
            "exist", f"is there {article} {color} {shape}?", "yes" if (color, shape) in there else "no"
        )


def _count(scene: Scene, held_out: bool) -> Iterator[Question]:
    known = [obj.pair for obj in scene.objects if obj.pair in HELD_OUT]
    for kind, place, names in (("count_color", 0, tuple(COLORS)), ("count_shape", 1, SHAPES)):
        values = [obj.pair[place] for obj in scene.objects]
        for name in names:
            number = values.count(name)
            if number < len(_ALL[kind]) and (not held_out or name in [pair[place] for pair in known]):
                what = f"{name} objects" if kind == "count_color" else plural(name)
                yield Question(kind, f"how many {what} are there?", NUMBERS[number])


def _attributes(scene: Scene, held_out: bool) -> Iterator[Question]:
    colors = [obj.color for obj in scene.objects]
    shapes = [obj.shape for obj in scene.objects]
    for color, shape, cell in _unique(scene, held_out):
        if shapes.count(shape) == 1:
            yield Question("color", f"what color is the {shape}?", color)
        if colors.count(color) == 1:
            yield Question("shape", f"what shape is the {color} object?", shape)
        half = GRID // 2
        corner = _CORNERS[2 * (cell // GRID >= half) + (cell % GRID >= half)]
        yield Question("where", f"where is the {color} {shape}?", corner)


def _relations(scene: Scene, held_out: bool, rng: Random) -> Iterator[Question]:
    objects = _unique(scene, held_out)
    # four draws of a pair: all of them would take longer than the rest of the scene
    for _ in range(4 if len(objects) > 1 else 0):
        one, other = rng.sample(objects, 2)
        down, right = (b - a for a, b in zip(divmod(one.cell, GRID), divmod(other.cell, GRID), strict=True))
        for relation, lead in (("left of", right), ("right of", -right), ("above", down), ("below", -down)):
            if lead:
                text = f"is the {one.color} {one.shape} {relation} the {other.color} {other.shape}?"
                yield Question("relation", text, "yes" if lead > 0 else "no")


def _unique(scene: Scene, held_out: bool) -> list[Object]:
    """Objects that colour and shape single out."""
    pairs = [obj.pair for obj in scene.objects]
    return [
        obj for obj in scene.objects if pairs.count(obj.pair) == 1 and (not held_out or obj.pair in HELD_OUT)
    ]
