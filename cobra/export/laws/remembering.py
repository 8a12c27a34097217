"""Laws of snapshots: what is restored was never left, what is reset has read nothing."""

from collections.abc import Iterator

import numpy as np

from cobra.export.engine import Engine
from cobra.export.laws.law import Difference, Law, Probe, difference


def _restored(engine: Engine, probe: Probe) -> Iterator[Difference]:
    engine.reset()
    snapshots, stepped = [], []
    for token in probe.ids:
        snapshots.append(engine.snapshot())
        stepped.append(engine.step(int(token)))
    engine.prefill(np.flip(probe.ids).copy())
    read = []
    # a snapshot is taken after each token, and restored twice, the last first
    for position in reversed(range(len(probe.ids))):
        engine.restore(snapshots[position])
        yield difference(
            engine.step(int(probe.ids[position])), stepped[position], position, "logits of a step"
        )
        engine.restore(snapshots[position])
        read.append((position, engine.prefill(probe.ids[position:])))
    for position, logits in read:
        engine.restore(snapshots[position])
        again = engine.prefill(probe.ids[position:])
        yield difference(again, logits, position, "logits of a piece, restored once more")


def _reset(engine: Engine, probe: Probe) -> Iterator[Difference]:
    engine.reset()
    first = engine.prefill(probe.ids), engine.step(int(probe.ids[0]))
    engine.prefill(np.flip(probe.ids).copy())
    engine.reset()
    again = engine.prefill(probe.ids), engine.step(int(probe.ids[0]))
    yield difference(again[0], first[0], 0, "logits behind a prompt")
    yield difference(again[1], first[1], len(probe.ids), "logits of a step behind it")
    engine.reset()
    steps = [engine.step(int(token)) for token in probe.ids]
    engine.reset()
    for position, logits in enumerate(steps):
        yield difference(engine.step(int(probe.ids[position])), logits, position, "logits of a step")


REMEMBERING = [
    # as many snapshots are kept as there are tokens
    Law("restore", "A state restored at any token was never left", _restored, (), 0.0, (2, 3, 5, 9)),
    Law("reset", "A state that was reset has read nothing", _reset, slack=0.0),
]
