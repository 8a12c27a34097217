"""A split of ShapesVQA as arrays."""

from dataclasses import dataclass
from random import Random

import numpy as np

from cobra.data.shapes.questions import Balance, Question, feasible_questions
from cobra.data.shapes.render import load_digits, render
from cobra.data.shapes.scene import SPLITS, VERSION, Scene, Split, cell_labels, draw_scene


@dataclass(frozen=True, eq=False)
class Scenes:
    """Pictures and what can be said about them.

    Attributes:
        images: (n, 64, 64, 3) uint8.
        labels: classes of the cells (n, 16, 3) int8, see `cell_labels`.
        questions: three to six a scene.
    """

    images: np.ndarray
    labels: np.ndarray
    questions: list[list[Question]]

    def __len__(self) -> int:
        return len(self.images)


def build_scenes(n: int, seed: int, split: Split) -> Scenes:
    """The same scenes on every machine and in every process: nothing depends on hashes or on the clock.

    Raises:
        ValueError: if the split is unknown or there is less than one scene to make.
    """
    if split not in SPLITS:
        raise ValueError(f"split {split!r} must be one of {', '.join(SPLITS)}")
    if n < 1 or seed < 0:
        raise ValueError(f"size {n} must be at least 1 and seed {seed} at least 0")
    rng = Random(f"shapes {VERSION} {split} {seed}")
    digits = load_digits()[1]
    balance = Balance(split)
    scenes: list[Scene] = []
    questions: list[list[Question]] = []
    while len(scenes) < n:
        scene = draw_scene(rng, split, digits)
        if chosen := balance.choose(feasible_questions(scene, split, rng), rng):
            scenes.append(scene)
            questions.append(chosen)
    images = render(scenes, [VERSION, SPLITS.index(split), seed], varied=split == "train")
    return Scenes(images, np.stack([cell_labels(scene) for scene in scenes]), questions)
