"""The contract of an engine: a model in whatever runtime, asked for logits and state, one sequence at a time.

Arrays are numpy's, in fp32, so that an engine needs no torch in memory.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cobra.export.oracle import Oracle

Ids = NDArray[np.integer]
Floats = NDArray[np.float32]

# what not every engine can, by what it then need not have
ABILITIES = {
    "pictures": "read_pictures",
    "embeddings": "embed",
    "batch": "prefill_rows of several rows, and step_rows",
    "mask": "prefill_rows with a mask, and step_rows",
    "packed": "prefill_packed",
    "dequantised": "dequantised",
    "end": "an eos_id that ends a text",
}


class Engine(ABC):
    """A model in a runtime. It reads one sequence, forward, and what it has read is its state.

    Attributes:
        vocab_size: logits V.
        eos_id: ends a text; -1 where `lacks` names `end`.
        version: of the runtime, for reports.
        rounding: relative RMS by which logits may differ that were computed in two ways: 1e-5 in fp32, 2e-3
            in fp16; more where activations are quantised.
        lacks: the `ABILITIES` that it has not, and why, in a few words that follow "n/a: ".
    """

    vocab_size: int
    eos_id: int
    version: str = ""
    rounding: float = 1e-5
    lacks: Mapping[str, str] = MappingProxyType({})

    @abstractmethod
    def reset(self) -> None:
        """Forget everything that was read; a new engine has read nothing."""

    @abstractmethod
    def prefill(self, tokens: Ids | Floats) -> Floats:
        """Token ids (T,), or embeddings (T, D), to the logits (V,) behind the last; continues the state."""

    @abstractmethod
    def step(self, token: int) -> Floats:
        """The logits (V,) behind one more token, by what the runtime decodes with."""

    @abstractmethod
    def snapshot(self) -> Any:
        """The state, to be restored any number of times; nothing that is read later changes it."""

    @abstractmethod
    def restore(self, snapshot: Any) -> None:
        """Go on from where the snapshot was taken, whatever was read since."""

    def oracle(self) -> Oracle | None:
        """What exact arithmetic makes of its weights as they are stored; None where nobody has measured it.

        An export's lies in its folder: `Oracle.read(folder / ORACLE)`.
        """
        return None

    def turn_to(self, pictures: bool) -> None:  # noqa: B027  (most hold both)
        """Take the memory that pictures need, or that text needs, and let go of the other's.

        Not needed before any call: it is for those who read in turns, and have little memory. What was read
        stays read.
        """

    def close(self) -> None:  # noqa: B027  (most have nothing to close)
        """Let go of processes and files; the engine is not used again."""

    # what follows is asked of an engine only where `lacks` does not name it

    def read_pictures(self, paths: Sequence[Path]) -> list[Floats]:
        """Image tokens (M, D) of each picture, to be read by `prefill` as embeddings."""
        raise NotImplementedError

    def embed(self, ids: Ids) -> Floats:
        """Token ids (T,) to the embeddings (T, D) that `prefill` reads them as."""
        raise NotImplementedError

    def prefill_rows(self, ids: Ids, mask: NDArray[np.bool_] | None = None) -> Floats:
        """Rows of ids (B, T), read from nothing, to logits (B, V) behind the last token of each.

        The rows have a state of their own, which `step_rows` goes on from. Tokens where the mask (B, T) is
        False are padding. An engine that lacks `batch`, but not `mask`, gets one row.
        """
        raise NotImplementedError

    def step_rows(self, tokens: Ids) -> Floats:
        """One more token of each row (B,) to logits (B, V)."""
        raise NotImplementedError

    def prefill_packed(self, texts: Sequence[Ids]) -> list[Floats]:
        """The logits (V,) behind each of several texts that are laid end to end and read in one pass."""
        raise NotImplementedError

    def dequantised(self) -> "Engine":
        """The same model and runtime with weights that were unpacked to fp32 beforehand."""
        raise NotImplementedError
