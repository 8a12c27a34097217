"""An engine in a process of its own: calls, errors, snapshots, and the end of the process."""

import os
from pathlib import Path

import numpy as np
import pytest

from cobra.export.engine import Engine, Floats, Ids
from cobra.export.engines.apart import EngineApart


class Sums(Engine):
    """Logits are the sum of what was read, and how many snapshots of it are alive."""

    def __init__(self, folder: Path) -> None:
        self.vocab_size, self.eos_id, self.version = 2, 1, folder.name
        self.lacks = {"mask": "none"}
        self.reset()

    def reset(self) -> None:
        self.sum, self.alive = 0, [0]

    def prefill(self, tokens: Ids | Floats) -> Floats:
        self.sum += int(tokens.sum())
        return np.array([self.sum, self.alive[0]], np.float32)

    def step(self, token: int) -> Floats:
        if token == 99:
            raise ValueError("no token 99")
        if token == 98:
            raise FileNotFoundError(2, "No such file", "lm.gguf")
        if token == 100:
            os._exit(3)
        return self.prefill(np.array([token]))

    def snapshot(self) -> "Counted":
        return Counted(self.sum, self.alive)

    def restore(self, snapshot: "Counted") -> None:
        self.sum = snapshot.sum


class Counted:
    """A snapshot that is counted for as long as it lives."""

    def __init__(self, sum: int, alive: list[int]) -> None:
        self.sum, self.alive = sum, alive
        alive[0] += 1

    def __del__(self) -> None:
        self.alive[0] -= 1


def test_an_engine_apart_is_the_engine_until_its_process_ends() -> None:
    engine = EngineApart(f"{__name__}:Sums", Path("/a/model"))
    assert (engine.vocab_size, engine.eos_id, engine.version) == (2, 1, "model")
    assert engine.lacks == {"mask": "none"}
    engine.prefill(np.array([1, 2]))
    first = engine.snapshot()
    second = engine.snapshot()
    assert engine.step(4).tolist() == [7, 2]
    engine.restore(first)
    del first
    engine.step(0)
    # it was dropped before that, and is so there now
    assert engine.step(1).tolist() == [4, 1]
    engine.restore(second)
    with pytest.raises(RuntimeError, match="ValueError: no token 99"):
        engine.step(99)
    with pytest.raises(OSError, match=r"No such file: 'lm\.gguf'"):
        engine.step(98)
    assert engine.step(0).tolist() == [3, 1]
    for _ in range(2):
        with pytest.raises(RuntimeError, match="the engine's process has ended"):
            engine.step(100)
    engine.close()


def test_an_engine_that_cannot_be_opened_says_why() -> None:
    with pytest.raises(RuntimeError, match=r"AttributeError: .* has no attribute 'Nothing'"):
        EngineApart(f"{__name__}:Nothing", Path("/a/model"))
