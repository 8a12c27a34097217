"""Laws of reading: what a model remembers of a text does not depend on how it was read."""

from collections.abc import Iterator, Sequence

import numpy as np

from cobra.export.engine import Engine, Floats, Ids
from cobra.export.laws.law import Difference, Law, Probe, difference

# pieces of a long text: single tokens, a scan's chunk and one more, and what is longer than a piece that an
# engine reads at once
_PIECES = (1, 2, 7, 64, 65, 128, 53)
# tokens of two texts that begin otherwise and end alike; an engine's pieces of 64, 128 or 256 part there
_BEGINNING, _END = 256, 8


def behind(engine: Engine, pieces: Sequence[Ids | Floats], next_token: int) -> tuple[Floats, Floats]:
    """Logits behind a text in pieces, read from nothing, and behind one more token."""
    engine.reset()
    logits = [engine.prefill(piece) for piece in pieces][-1]
    return logits, engine.step(next_token)


def _cut(engine: Engine, probe: Probe) -> Iterator[Difference]:
    ids, last = probe.ids[:-1], int(probe.ids[-1])
    whole, stepped = behind(engine, [ids], last)
    for position in range(1, len(ids)):
        logits, step = behind(engine, [ids[:position], ids[position:]], last)
        yield difference(logits, whole, position, "logits behind the second piece")
        yield difference(step, stepped, position, "logits of a step behind the second piece")


def _steps(engine: Engine, probe: Probe) -> Iterator[Difference]:
    engine.reset()
    stepped = [engine.step(int(token)) for token in probe.ids]
    after = engine.prefill(probe.ids[:2])
    for position, logits in enumerate(stepped):
        engine.reset()
        read = engine.prefill(probe.ids[: position + 1])
        yield difference(logits, read, position, "logits of a step")
    yield difference(after, engine.prefill(probe.ids[:2]), len(probe.ids), "logits of a piece behind steps")


def _embeddings(engine: Engine, probe: Probe) -> Iterator[Difference]:
    ids, last = probe.ids[:-1], int(probe.ids[-1])
    embeds = engine.embed(ids)
    whole, stepped = behind(engine, [ids], last)
    for position in range(len(ids)):
        # a picture's tokens come first, then text
        engine.reset()
        logits = engine.prefill(embeds[: len(ids) - position])
        if position:
            logits = engine.prefill(ids[len(ids) - position :])
        yield difference(logits, whole, len(ids) - position, "logits, read as embeddings up to there")
        yield difference(engine.step(last), stepped, len(ids) - position, "logits of a step behind them")


def _long(engine: Engine, probe: Probe) -> Iterator[Difference]:
    cuts = np.cumsum(_PIECES)
    assert len(probe.ids) > cuts[-1]
    ids, last = probe.ids[: cuts[-1]], int(probe.ids[cuts[-1]])
    whole, stepped = behind(engine, [ids], last)
    logits, step = behind(engine, np.split(ids, cuts[:-1]), last)
    what = f"after pieces of {', '.join(map(str, _PIECES))} tokens"
    yield difference(logits, whole, len(ids), f"logits {what}")
    yield difference(step, stepped, len(ids), f"logits of a step {what}")
    # where much is rounded, more is allowed above than a beginning that was forgotten may make
    begun, ended = ids[:_BEGINNING], ids[_BEGINNING : _BEGINNING + _END]
    others = np.flip(begun)
    texts = (np.concatenate([before, ended]) for before in (begun, others))
    first, second = (behind(engine, [text], last)[0] for text in texts)
    if not np.array_equal(begun, others) and np.array_equal(first, second):
        yield Difference(float("inf"), _BEGINNING, f"the last {_END} tokens alone make the logits")


def _end_of_text(engine: Engine, probe: Probe) -> Iterator[Difference]:
    """An end of text is read like any other token: the next turn of a chat goes on behind it."""
    first, last, end = probe.ids[:-1], int(probe.ids[-1]), np.array([engine.eos_id])
    second = np.flip(first).copy()
    text = np.concatenate([first, end, second])
    whole, stepped = behind(engine, [text], last)
    for position in (len(first), len(first) + 1):
        logits, step = behind(engine, [text[:position], text[position:]], last)
        yield difference(logits, whole, position, "logits, cut at the end of text")
        yield difference(step, stepped, position, "logits of a step, cut at the end of text")
    engine.reset()
    logits = [engine.step(int(token)) for token in text][-1]
    yield difference(logits, whole, len(first), "logits of steps over the end of text")
    others = np.flip(probe.ids)[:-1]
    ended, otherwise = (behind(engine, [np.concatenate([b, end])], last)[0] for b in (first, others))
    # two texts of one length are computed alike, so that what was forgotten leaves no trace
    if not np.array_equal(first, others) and np.array_equal(ended, otherwise):
        yield Difference(float("inf"), len(first), "what is before the end of text was forgotten there")


READING = [
    Law("cut", "A prompt cut at any position gives the state of the whole", _cut, lengths=(3, 4, 6, 10, 18)),
    Law("steps", "Steps give the state that a prompt gives", _steps),
    Law("embeddings", "Embeddings in are tokens in", _embeddings, needs=("embeddings",)),
    Law("long", "A long text is many short ones", _long, slack=3.0, lengths=(sum(_PIECES) + 1,)),
    Law("end-of-text", "An end of text is read like any other token", _end_of_text, needs=("end",)),
]
