"""ShapesVQA as data sets: the same scenes asked about, described, labelled and examined."""

from dataclasses import replace
from random import Random

import numpy as np

from cobra.data.record import Message, Record, assistant, user
from cobra.data.shapes.build import Scenes
from cobra.data.shapes.cache import load_scenes
from cobra.data.shapes.questions import ANSWERS, MAX_TURNS
from cobra.data.shapes.scene import Split, caption, name_places
from cobra.data.source import Source

DESCRIBE = "describe the image."


class _Shapes(Source):
    """One record a scene.

    Args:
        split: "train", "test" (other scenes, other writers' digits) or "composition" (colour-shape pairs that
            "train" never shows).
        size: scenes.
        seed: of everything random.
    """

    def __init__(self, split: Split = "train", size: int = 20000, seed: int = 0) -> None:
        self.split, self.size, self.seed = split, size, seed
        # drawn now, not by every worker
        load_scenes(size, seed, split)

    @property
    def scenes(self) -> Scenes:
        """Looked up, not held, so that a worker is sent no pixels."""
        return load_scenes(self.size, self.seed, self.split)

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Record:
        return self._record(range(len(self))[index])

    def _record(self, scene: int) -> Record:
        raise NotImplementedError

    def _make(self, scene: int, messages: list[Message]) -> Record:
        image = np.asarray(self.scenes.images[scene])
        return Record(f"{self.split}-{self.seed}-{scene}", messages, [image], f"shapes-{self.split}")


class ShapesQuestions(_Shapes):
    """Chats of several questions about a picture.

    Args:
        split: "train", "test" (other scenes, other writers' digits) or "composition" (colour-shape pairs that
            "train" never shows).
        size: scenes.
        seed: of everything random.
        turns: most questions a scene, up to 6; a few scenes have as little as 3.
    """

    def __init__(
        self, split: Split = "train", size: int = 20000, seed: int = 0, turns: int = MAX_TURNS
    ) -> None:
        if not 1 <= turns <= MAX_TURNS:
            raise ValueError(f"turns {turns} must be 1 to {MAX_TURNS}: a scene has no more questions")
        super().__init__(split, size, seed)
        self.turns = turns

    def _record(self, scene: int) -> Record:
        questions = self.scenes.questions[scene][: self.turns]
        return self._make(scene, _chat([(question.text, question.answer) for question in questions]))


class ShapesCaptions(_Shapes):
    """Pictures and their description, cell by cell: "a red circle, k seven digit"."""

    def _record(self, scene: int) -> Record:
        return self._make(scene, [user(DESCRIBE, images=1), assistant(caption(self.scenes.labels[scene]))])


class ShapesPlaces(_Shapes):
    """Chats that ask for the cell of each thing in a picture, in random order: "find the red circle.", "k".

    Captions look up what a cell holds, these the cell that holds a thing, as a question about its place or
    about the relation of two must before it is answered.
    """

    def _record(self, scene: int) -> Record:
        places = name_places(self.scenes.labels[scene], Random(f"{self.seed} {scene}"))
        return self._make(scene, _chat([(f"find the {thing}.", cell) for thing, cell in places]))


class ShapesCells(_Shapes):
    """Pictures and the classes of each cell (16, 3), of 9 colours, 8 shapes, 11 digits; 0 is nothing."""

    def _record(self, scene: int) -> Record:
        record = self._make(scene, [user(DESCRIBE, images=1)])
        return replace(record, labels=self.scenes.labels[scene])


class ShapesEval(_Shapes):
    """Single questions, equally many of each type and of each answer; `meta["type"]` says which.

    Args:
        split: "train", "test" (other scenes, other writers' digits) or "composition" (colour-shape pairs that
            "train" never shows, asked about exclusively).
        size: questions, rounded up to a multiple of the number of types (8; 7 in "composition").
        seed: of everything random.
    """

    def __init__(self, split: Split = "test", size: int = 2000, seed: int = 0) -> None:
        types = len(ANSWERS.get(split, ())) or 1
        quota = -(-size // types)
        super().__init__(split, max(size // 3, min(size, 1)), seed)
        while len(picks := _picks(self.scenes, split, quota)) < quota * types:
            self.size *= 2
        self.picks = picks

    def __len__(self) -> int:
        return len(self.picks)

    def __getitem__(self, index: int) -> Record:
        scene, turn = self.picks[index]
        question = self.scenes.questions[scene][turn]
        record = self._make(scene, _chat([(question.text, question.answer)]))
        return replace(record, id=f"{record.id}-{turn}", meta={"type": question.kind})


def _picks(scenes: Scenes, split: Split, quota: int) -> list[tuple[int, int]]:
    """Scene and turn of the first `quota` questions of each type, each answer as often as the others."""
    room = {
        (kind, answer): quota // len(answers) + (number < quota % len(answers))
        for kind, answers in ANSWERS[split].items()
        for number, answer in enumerate(answers)
    }
    picks = []
    for scene, questions in enumerate(scenes.questions):
        for turn, question in enumerate(questions):
            if room[question.kind, question.answer]:
                room[question.kind, question.answer] -= 1
                picks.append((scene, turn))
    return picks


def _chat(pairs: list[tuple[str, str]]) -> list[Message]:
    """Turns of a question and its answer; the first shows the picture."""
    turns = [
        (user(text, images=int(number == 0)), assistant(answer))
        for number, (text, answer) in enumerate(pairs)
    ]
    return [message for turn in turns for message in turn]
