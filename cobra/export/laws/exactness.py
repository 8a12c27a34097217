"""Laws of numbers: an engine computes what its weights say, pictures included."""

from collections.abc import Iterator

import numpy as np

from cobra.export.engine import Engine
from cobra.export.laws.law import Difference, Law, Probe, difference
from cobra.export.laws.reading import behind


def _oracle(engine: Engine, probe: Probe) -> Iterator[Difference]:
    assert probe.oracle is not None
    ids, logits = probe.oracle.ids, probe.oracle.logits
    for position in range(1, len(ids)):
        got, step = behind(engine, [ids[:position]], int(ids[position]))
        yield difference(got, logits[position - 1], position, "logits behind a prompt")
        yield difference(step, logits[position], position, "logits of a step behind it")


def _dequantised(engine: Engine, probe: Probe) -> Iterator[Difference]:
    assert probe.dequantised is not None
    ids, last = probe.ids[:-1], int(probe.ids[-1])
    for got, expected, what in zip(
        behind(engine, [ids], last),
        behind(probe.dequantised, [ids], last),
        ("logits", "logits of a step"),
        strict=True,
    ):
        yield difference(got, expected, len(ids), what)


def _pictures(engine: Engine, probe: Probe) -> Iterator[Difference]:
    """Pictures are the same alone and among others, read in one piece or in several, and after any text."""
    together = engine.read_pictures(probe.pictures)
    for number, picture in enumerate(probe.pictures):
        (alone,) = engine.read_pictures([picture])
        yield difference(together[number], alone, 0, f"image tokens of picture {number} among others")
    first, ids, last = together[0], probe.ids[:-1], int(probe.ids[-1])
    whole, stepped = behind(engine, [first, ids], last)
    for position in sorted({1, len(first) // 2, len(first) - 1} - {0, len(first)}):
        logits, step = behind(engine, [first[:position], first[position:], ids], last)
        yield difference(logits, whole, position, "logits, the picture cut there")
        yield difference(step, stepped, position, "logits of a step, the picture cut there")
    _, unseen = behind(engine, [ids], last)
    engine.reset()
    engine.prefill(ids)
    engine.turn_to(pictures=True)
    engine.read_pictures(probe.pictures)
    engine.turn_to(pictures=False)
    yield difference(engine.step(last), unseen, len(ids), "logits of a step, pictures seen before it")
    blind, _ = behind(engine, [np.zeros_like(first), ids], last)
    # of a model that has hardly learned to see, less than what is rounded
    if np.array_equal(whole, blind):
        yield Difference(float("inf"), 0, "the picture changes no answer")


def _seen(engine: Engine, probe: Probe) -> Iterator[Difference]:
    assert probe.oracle is not None
    seen = probe.oracle.picture
    assert seen is not None
    with seen.file() as path:
        (tokens,) = engine.read_pictures([path])
    yield difference(tokens, seen.tokens, 0, "image tokens")
    logits, _ = behind(engine, [tokens, seen.ids], int(seen.ids[0]))
    yield difference(logits, seen.logits, len(tokens), "logits behind a picture and a text")


EXACTNESS = [
    Law(
        "oracle", "Logits are those of exact arithmetic on the same weights", _oracle, ("oracle",), 3.0, (2,)
    ),
    Law("dequantised", "Quantised weights compute as their values do", _dequantised, ("dequantised",), 2.0),
    Law("pictures", "A picture is read alike alone, among others and in pieces", _pictures, ("pictures",)),
    Law(
        "pictures-oracle",
        "A picture is seen as exact arithmetic sees it",
        _seen,
        ("pictures", "picture-oracle"),
        3.0,
        (2,),
    ),
]
