"""Laws of rows: a sequence is the same alone, in a batch, beside padding and packed behind another."""

from collections.abc import Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from cobra.export.engine import Engine, Floats, Ids
from cobra.export.laws.law import Difference, Law, Probe, difference

# tokens that follow a prompt
_STEPS = 3


def _alone(engine: Engine, text: Ids, steps: Ids) -> list[Floats]:
    """Logits behind a text that is read from nothing, and behind each of some steps."""
    engine.reset()
    return [engine.prefill(text), *(engine.step(int(token)) for token in steps)]


def _rows_apart(
    engine: Engine, ids: Ids, steps: Ids, texts: list[Ids], mask: NDArray[np.bool_] | None, what: str
) -> Iterator[Difference]:
    """Rows (B, T) and their steps (B, S) beside the same texts alone."""
    logits = [engine.prefill_rows(ids, mask), *(engine.step_rows(tokens) for tokens in steps.T)]
    for row, text in enumerate(texts):
        for number, expected in enumerate(_alone(engine, text, steps[row])):
            where = f"row {row} of {len(texts)}{what}, " + (
                f"logits of step {number}" if number else "logits"
            )
            yield difference(logits[number][row], expected, len(text) + number, where)


def _batch(engine: Engine, probe: Probe) -> Iterator[Difference]:
    for rows in (2, 3, 5):
        ids = np.stack([np.roll(probe.ids, row) for row in range(rows)])
        yield from _rows_apart(engine, ids, ids[:, :_STEPS], list(ids), None, "")


def _ended(engine: Engine, probe: Probe) -> Iterator[Difference]:
    """A row that has ended is given its end of text again and again, until all have ended."""
    ids = np.stack([probe.ids, np.roll(probe.ids, 1)])
    steps = np.stack([np.full(_STEPS, engine.eos_id), probe.ids[np.arange(_STEPS) % len(probe.ids)]])
    yield from _rows_apart(engine, ids, steps, list(ids), None, ", the first of which has ended")


def _padded(engine: Engine, probe: Probe, where: str) -> Iterator[Difference]:
    text, other = probe.ids, np.roll(probe.ids, 1)
    # a convolution's width and more
    for pads in (1, 2, 5):
        kept = np.ones(len(text) + pads, bool)
        start = {"left": 0, "right": len(text), "middle": len(text) // 2}[where]
        kept[start : start + pads] = False
        # padding is tokens that would be seen in the logits
        row = np.resize(other, len(kept))
        row[kept] = text
        full = np.resize(other, len(kept))
        ids, mask, texts = np.stack([row, full]), np.stack([kept, np.ones_like(kept)]), [text, full]
        if "batch" in engine.lacks:
            ids, mask, texts = ids[:1], mask[:1], texts[:1]
        steps = np.resize(text, (len(ids), _STEPS))
        yield from _rows_apart(
            engine, ids, steps, texts, mask, f", {pads} of padding at the {where} of row 0"
        )


def _packed(engine: Engine, probe: Probe) -> Iterator[Difference]:
    for position in range(1, len(probe.ids)):
        texts = [probe.ids[:position], probe.ids[position:], probe.ids[:position]]
        for number, logits in enumerate(engine.prefill_packed(texts)):
            expected = _alone(engine, texts[number], texts[number][:0])[0]
            yield difference(logits, expected, position, f"logits behind text {number} of {len(texts)}")


ROWS = [
    Law("batch", "A batch is its rows alone", _batch, needs=("batch",)),
    Law("ended-row", "A row that has ended leaves the others alone", _ended, needs=("batch", "end")),
    *(
        Law(
            f"padding-{where}",
            f"Padding {place} leaves no trace",
            partial(_padded, where=where),
            needs=("mask",),
        )
        for where, place in (("left", "at the left"), ("right", "at the right"), ("middle", "in the middle"))
    ),
    Law("packed", "Packed texts are separate ones", _packed, needs=("packed",)),
]
