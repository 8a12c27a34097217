"""ShapesVQA as benchmarks that need no files: words, yes and no, soft accuracy, boxes."""

from collections import Counter
from collections.abc import Iterator, Sequence
from random import Random
from statistics import mean
from typing import Any

import numpy as np

from cobra.data.shapes.build import Scenes
from cobra.data.shapes.dataset import ShapesEval
from cobra.data.shapes.questions import ANSWERS
from cobra.data.shapes.scene import ALLOWED, CELL_NAMES, COLORS, GRID, SHAPES, Split, name_places
from cobra.eval.benchmarks.base import Benchmark, Question, Scores
from cobra.eval.benchmarks.base import Box as ShareBox
from cobra.eval.benchmarks.pope import SPLITS, Pope
from cobra.eval.predictions import Prediction
from cobra.eval.protocols.protocol import Ask, Headline
from cobra.eval.scorers.vqa_accuracy import soft_accuracy

# as ShapesVQA teaches it: the bare question, a short answer
_WORDS = Ask("plain", "{{ question }}", max_new_tokens=16)
# other scenes than those that a run validates and tests on, the same for all; questions of each split
_SEED = 4
_SIZES: dict[Split, int] = {"test": 1600, "composition": 400}
# of 2 present and 2 absent pairs in each split
_POPE_SCENES, _POPE_PAIRS = 250, 2
# pixels of a cell around its middle, which is as large as most objects
_MARGIN = 2
# of ten people so many give another answer of the kind
_DISSENT = 2
# of a picture, in pixels
_SIDE = 16 * GRID
# pixels of a picture's ground differ less from each other, and objects more from it
_CONTRAST = 45

Pair = tuple[str, str]
Box = tuple[int, int, int, int]


class Shapes(Benchmark):
    """Eight kinds of questions, each answer equally often; scenes of new pairs of colour and shape beside."""

    name = "shapes"
    asks = (_WORDS, Ask("plain_likelihood", "{{ question }}", choices_field="choices"))
    headline = Headline("plain", "macro")

    def questions(self) -> Iterator[Question]:
        """2,006 questions; see the base class."""
        for split, size in _SIZES.items():
            records = ShapesEval(split, size, _SEED)
            pictures = _pictures(records.scenes)
            for index, (scene, _) in enumerate(records.picks):
                record, kind = records[index], records[index].meta["type"]
                yield Question(
                    id=record.id,
                    fields={"question": record.messages[0].text, "choices": list(ANSWERS[split][kind])},
                    images=[pictures[scene]],
                    answers=[record.messages[1].text],
                    split=split,
                    kind=kind,
                )

    def credit(self, prediction: Prediction) -> float:
        """1 where it is the answer, letter for letter."""
        return float(prediction.is_right)

    def score(self, predictions: Sequence[Prediction]) -> Scores:
        """As the base class, of `test`; of `composition` as `composition/...`."""
        parts = {split: [p for p in predictions if p.split == split] for split in _SIZES}
        scores = {split: super(Shapes, self).score(part) for split, part in parts.items()}
        composition = {f"composition/{name}": value for name, value in scores["composition"].items()}
        return {**scores["test"], **composition}


class ShapesPope(Pope):
    """Is there such a shape? As POPE asks: what is not there is random, popular, or adversarial.

    Popular pairs are in the most scenes; of adversarial ones colour and shape are there, but not together.
    """

    name = "shapes_pope"
    downloads = ()
    asks = (_WORDS, Ask("plain_likelihood", "{{ question }}", choices=("yes", "no")))
    headline = Headline("plain", "f1")

    def questions(self) -> Iterator[Question]:
        """3,000 questions, twelve a picture; see the base class."""
        scenes = _test_scenes()
        pictures, held = _pictures(scenes), [_pairs(labels) for labels in scenes.labels]
        often = Counter(pair for pairs in held for pair in pairs)
        popular = [pair for pair, _ in often.most_common()]
        drawn = 0
        for scene, there in enumerate(held):
            rng = Random(f"{_SEED} {scene}")
            crossed = [
                (c, s) for c, _ in there for _, s in there if (c, s) in ALLOWED and (c, s) not in there
            ]
            crossed = list(dict.fromkeys(crossed))
            if min(len(there), len(crossed)) < _POPE_PAIRS or drawn == _POPE_SCENES:
                continue
            drawn += 1
            absent = [pair for pair in popular if pair not in there]
            yes = rng.sample(there, _POPE_PAIRS)
            no = (rng.sample(absent, _POPE_PAIRS), absent[:_POPE_PAIRS], rng.sample(crossed, _POPE_PAIRS))
            for split, pairs in zip(SPLITS, no, strict=True):
                for number, pair in enumerate(yes + pairs):
                    yield Question(
                        id=f"{split}-{scene}-{number}",
                        fields={"question": _is_there(pair)},
                        images=[pictures[scene]],
                        answers=["yes" if pair in yes else "no"],
                        split=split,
                    )


class ShapesVqa(Benchmark):
    """ShapesVQA's test questions, which ten people answered, of whom two were wrong."""

    name = "shapes_vqa"
    asks = (_WORDS,)
    headline = Headline("plain", "accuracy")

    def questions(self) -> Iterator[Question]:
        """800 questions; see the base class."""
        records = ShapesEval("test", _SIZES["test"], _SEED)
        pictures = _pictures(records.scenes)
        for index, (scene, _) in list(enumerate(records.picks))[::2]:
            record, kind = records[index], records[index].meta["type"]
            true = record.messages[1].text
            others = [answer for answer in ANSWERS["test"][kind] if answer != true]
            wrong = Random(record.id).choice(others)
            yield Question(
                id=record.id,
                fields={"question": record.messages[0].text},
                images=[pictures[scene]],
                answers=[true] * (10 - _DISSENT) + [wrong] * _DISSENT,
                split="test",
                kind=kind,
            )

    def credit(self, prediction: Prediction) -> float:
        """VQA's soft accuracy, as VQAv2's script has it."""
        return soft_accuracy(prediction.prediction, prediction.answers, official=True)


class ShapesRefcoco(Benchmark):
    """Where is it? The model names one of 16 cells, whose middle is held to the box of the object."""

    name = "shapes_refcoco"
    asks = (_WORDS,)
    headline = Headline("plain", "accuracy")

    def questions(self) -> Iterator[Question]:
        """1,000 questions; see the base class."""
        scenes = _test_scenes()
        pictures, asked = _pictures(scenes), 0
        for scene, labels in enumerate(scenes.labels):
            for thing, cell in name_places(labels, Random(scene)):
                if asked == 1000:
                    return
                asked += 1
                yield Question(
                    id=f"{scene}-{cell}",
                    fields={"question": f"find the {thing}."},
                    images=[pictures[scene]],
                    answers=[cell],
                    split="test",
                    truth={"box": list(_object_box(pictures[scene], CELL_NAMES.index(cell)))},
                )

    def credit(self, prediction: Prediction) -> float:
        """1 where it names the cell that holds the object."""
        return float(prediction.is_right)

    def boxes(self, prediction: Prediction) -> tuple[ShareBox | None, ShareBox | None]:
        """The object's, and that of the cell that is named."""
        said = _named_box(prediction)
        return _in_shares(prediction.truth["box"]), said and _in_shares(said)

    def score(self, predictions: Sequence[Prediction]) -> Scores:
        """`accuracy`, cells that are named right; `acc@0.5`, as RefCOCO's, of boxes; `iou`, their overlap.

        A cell does not say where in it the object lies: true cells reach 87 at IoU 0.5.
        """
        if not predictions:
            return {}
        overlaps = [_overlap(p) for p in predictions]
        return {
            **super().score(predictions),
            "acc@0.5": 100 * mean(overlap >= 0.5 for overlap in overlaps),
            "iou": 100 * mean(overlaps),
        }


def _test_scenes() -> Scenes:
    return ShapesEval("test", _SIZES["test"], _SEED).scenes


def _pictures(scenes: Scenes) -> list[np.ndarray]:
    """One array a scene, so that questions about one picture are seen to be."""
    return [np.asarray(picture) for picture in scenes.images]


def _pairs(labels: np.ndarray) -> list[Pair]:
    """The colours and shapes together that a scene's cells (16, 3) hold, each once."""
    colors = list(COLORS)
    found = [(colors[color - 1], SHAPES[shape - 1]) for color, shape, _ in labels.tolist() if color]
    return list(dict.fromkeys(found))


def _is_there(pair: Pair) -> str:
    return f"is there {'an' if pair[0][0] in 'aeiou' else 'a'} {' '.join(pair)}?"


def _cell_box(cell: int, side: int) -> Box:
    """Left, top, right and bottom of a cell in a square picture."""
    size = side // GRID
    top, left = (size * i for i in divmod(cell, GRID))
    return left, top, left + size, top + size


def _object_box(picture: np.ndarray, cell: int) -> Box:
    """The box of what stands out from the ground in a cell of a picture (H, W, 3)."""
    left, top, right, bottom = _cell_box(cell, len(picture))
    ground = np.median(picture.reshape(-1, 3), axis=0)
    stands_out = (abs(picture[top:bottom, left:right] - ground) > _CONTRAST).any(-1)
    rows, columns = (np.flatnonzero(stands_out.any(axis)) for axis in (1, 0))
    return (
        left + int(columns[0]),
        top + int(rows[0]),
        left + int(columns[-1]) + 1,
        top + int(rows[-1]) + 1,
    )


def _overlap(prediction: Prediction) -> float:
    """Intersection over union of the named cell's middle and the object; 0 where no cell is named."""
    said = _named_box(prediction)
    return _iou(said, prediction.truth["box"]) if said else 0.0


def _named_box(prediction: Prediction) -> Box | None:
    said = prediction.prediction.strip()
    if len(said) != 1 or said not in CELL_NAMES:
        return None
    left, top, right, bottom = _cell_box(CELL_NAMES.index(said), _SIDE)
    return left + _MARGIN, top + _MARGIN, right - _MARGIN, bottom - _MARGIN


def _in_shares(box: Sequence[int]) -> ShareBox:
    left, top, right, bottom = (value / _SIDE for value in box)
    return left, top, right, bottom


def _iou(one: Sequence[Any], other: Sequence[Any]) -> float:
    width, height = (min(one[i + 2], other[i + 2]) - max(one[i], other[i]) for i in (0, 1))
    shared = max(width, 0) * max(height, 0)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return float(shared / (areas - shared))
