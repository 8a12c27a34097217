"""Engines that break a law each, as runtimes have done."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cobra.export.engine import Floats, Ids
from cobra.export.engines.ours import OwnEngine
from cobra.models.lm.state import State


class ForgetsBetweenPieces(OwnEngine):
    """Each piece of a prompt begins with nothing of the convolution's."""

    def prefill(self, tokens: Ids | Floats) -> Floats:
        for layer in self.state.layers:
            layer["conv"].zero_()
        return super().prefill(tokens)


class StepsWithoutTheConvolution(OwnEngine):
    """A step that does not move the convolution's inputs on."""

    def step(self, token: int) -> Floats:
        before = [layer["conv"].clone() for layer in self.state.layers]
        logits = super().step(token)
        for layer, conv in zip(self.state.layers, before, strict=True):
            layer["conv"].copy_(conv)
        return logits


class ScalesEmbeddings(OwnEngine):
    """Embeddings come in without a factor that ids get."""

    def embed(self, ids: Ids) -> Floats:
        return super().embed(ids) * np.float32(1.001)


class ForgetsAfter256(OwnEngine):
    """A long prompt is read in pieces, the last of them from nothing."""

    def prefill(self, tokens: Ids | Floats) -> Floats:
        if len(tokens) > 256:
            super().prefill(tokens[:256])
            self.state.reset()
            tokens = tokens[256:]
        return super().prefill(tokens)


class ReadsTheLastTokenAlone(OwnEngine):
    """Nothing is remembered, and there is no end of text by which that shows."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.lacks = {**self.lacks, "end": "none"}

    def prefill(self, tokens: Ids | Floats) -> Floats:
        self.state.reset()
        return super().prefill(tokens[-1:])

    def step(self, token: int) -> Floats:
        self.state.reset()
        return super().step(token)


class ResetsAtTheEnd(OwnEngine):
    """An end of text makes it forget, as packing by it would."""

    def prefill(self, tokens: Ids | Floats) -> Floats:
        ends: Any = np.flatnonzero(tokens == self.eos_id) if tokens.ndim == 1 else []
        if len(ends):
            self.state.reset()
            tokens = tokens[ends[-1] :]
        return super().prefill(tokens)

    def step(self, token: int) -> Floats:
        if token == self.eos_id:
            self.state.reset()
        return super().step(token)


class KeepsNoCopy(OwnEngine):
    """A snapshot is the state itself, which goes on."""

    def snapshot(self) -> State:
        return self.state


class RestoresAPart(OwnEngine):
    """The convolution's inputs are not restored."""

    def restore(self, snapshot: State) -> None:
        conv = [layer["conv"].clone() for layer in self.state.layers]
        super().restore(snapshot)
        for layer, before in zip(self.state.layers, conv, strict=True):
            layer["conv"].copy_(before)


class ResetsAPart(OwnEngine):
    """What a scan has summed up outlives a reset."""

    def reset(self) -> None:
        kept = [layer["ssm"].clone() for layer in self.state.layers]
        super().reset()
        for layer, before in zip(self.state.layers, kept, strict=True):
            layer["ssm"].copy_(before * 1e-3)


class MixesRows(OwnEngine):
    """The last row sees the one before it."""

    def step_rows(self, tokens: Ids) -> Floats:
        assert self.rows is not None
        for layer in self.rows.layers:
            layer["ssm"][-1] += 1e-3 * layer["ssm"][-2]
        return super().step_rows(tokens)


class DropsEndedRows(OwnEngine):
    """A row that ends leaves the batch, and the others move up."""

    def step_rows(self, tokens: Ids) -> Floats:
        assert self.rows is not None
        if (tokens == self.eos_id).any():
            self.rows.put([1], self.rows.take([0]))
        return super().step_rows(tokens)


class IgnoresTheMask(OwnEngine):
    """Padding is read, and only the place of the last token is right."""

    def prefill_rows(self, ids: Ids, mask: NDArray[np.bool_] | None = None) -> Floats:
        logits = super().prefill_rows(ids, mask)
        super().prefill_rows(ids)
        return logits


class PadsTheConvolution(OwnEngine):
    """Padding is masked in the scan, but moves the convolution's inputs on: transformers at the right."""

    def prefill_rows(self, ids: Ids, mask: NDArray[np.bool_] | None = None) -> Floats:
        logits = super().prefill_rows(ids, mask)
        assert self.rows is not None
        if mask is not None:
            for row in np.flatnonzero(~mask[:, -1]):
                for layer in self.rows.layers:
                    layer["conv"][row] = 0
        return logits


class PacksAsOne(OwnEngine):
    """Packed texts run into each other."""

    def prefill_packed(self, texts: Sequence[Ids]) -> list[Floats]:
        self.reset()
        return [self.prefill(text) for text in texts]


class RoundsWeights(OwnEngine):
    """Its own arithmetic is that of bf16 weights."""

    def prefill(self, tokens: Ids | Floats) -> Floats:
        return super().prefill(tokens) * np.float32(1 + 2**-9)


class GivesNoNumber(OwnEngine):
    """The first logit is none."""

    def step(self, token: int) -> Floats:
        logits = super().step(token)
        logits[0] = np.nan
        return logits


class Raises(OwnEngine):
    """Cannot go on from a snapshot."""

    def restore(self, snapshot: Any) -> None:
        raise RuntimeError("not implemented\nfor this runtime")


class SeesNothing(OwnEngine):
    """Pictures change no answer."""

    def read_pictures(self, paths: Sequence[Any]) -> list[Floats]:
        return [np.zeros_like(tokens) for tokens in super().read_pictures(paths)]


class ForgetsWhileItSees(OwnEngine):
    """A picture takes the memory of what was read."""

    def read_pictures(self, paths: Sequence[Any]) -> list[Floats]:
        self.reset()
        return super().read_pictures(paths)


class ForgetsWhenItTurns(OwnEngine):
    """What was read is gone with the file of the language model."""

    def turn_to(self, pictures: bool) -> None:
        if pictures:
            self.reset()


class SeesTheFirst(OwnEngine):
    """All pictures of a batch are the first one."""

    def read_pictures(self, paths: Sequence[Any]) -> list[Floats]:
        return super().read_pictures([paths[0]] * len(paths))


class SeesOtherColours(OwnEngine):
    """Red and blue change places."""

    def read_pictures(self, paths: Sequence[Any]) -> list[Floats]:
        return [tokens[:, ::-1].copy() for tokens in super().read_pictures(paths)]
