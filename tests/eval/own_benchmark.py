"""A benchmark of one's own: this file is all that `cobra eval --benchmarks own_benchmark.py` needs."""

from collections.abc import Iterator

import numpy as np

from cobra.eval.benchmarks.base import Benchmark, Question
from cobra.eval.predictions import Prediction
from cobra.eval.protocols.protocol import Ask, Headline

_COLORS = ("red", "green", "blue", "yellow", "white")


class Own(Benchmark):
    """Questions of different length about noise, by generation and by likelihood."""

    name = "own"
    asks = (
        Ask("words", "{{ question }}", max_new_tokens=6),
        Ask("choose", "{{ question }}", choices_field="choices"),
    )
    headline = Headline("words", "accuracy")

    def questions(self) -> Iterator[Question]:
        """Two or three a picture, and some without a picture."""
        # one object a picture, by which questions about the same one are known
        pictures = list(np.random.default_rng(0).integers(0, 256, (9, 64, 64, 3), np.uint8))
        for number in range(24):
            yield Question(
                id=f"q{number}",
                fields={
                    "question": "what color is the " + "big " * (number % 5) + "ring?",
                    "choices": [*_COLORS[: 2 + number % 4], "top left"],
                },
                images=[] if number % 8 == 7 else [pictures[number * 9 // 24]],
                answers=["red"],
                kind="even" if number % 2 == 0 else "odd",
            )

    def credit(self, prediction: Prediction) -> float:
        """1 where it begins like the answer."""
        return float(prediction.prediction[:1] == prediction.answers[0][:1])
