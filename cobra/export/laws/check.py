"""Engines held to laws: the smallest text that breaks one is what is shown."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image

from cobra.export.engine import Engine, Ids
from cobra.export.laws.law import GREEN, NONE, RED, Difference, Finding, Law, Probe

# an ability that takes room on a disk
_UNPACKS = "dequantised"


def check_laws(engine: Engine, laws: Iterable[Law], pictures: Sequence[Path]) -> list[Finding]:
    """What each law finds in an engine, in order.

    Args:
        engine: is asked for nothing that it lacks.
        laws: those to try.
        pictures: two files at least, for an engine that reads pictures.

    Raises:
        OSError: where there is no room for unpacked weights.
    """
    probe = Probe(text(0, engine), pictures, engine.oracle())
    lacks = dict(engine.lacks)
    if probe.oracle is None:
        lacks["oracle"] = "nothing exact to compare with"
    if probe.oracle is None or probe.oracle.picture is None:
        lacks["picture-oracle"] = "nothing exact to compare with"
    return [_check(engine, law, lacks, probe) for law in laws]


def _check(engine: Engine, law: Law, lacks: Mapping[str, str], probe: Probe) -> Finding:
    reasons = [lacks[need] for need in law.needs if need in lacks]
    if reasons:
        return Finding(law.name, NONE, reason=reasons[0])
    tolerance, worst = law.slack * engine.rounding, 0.0
    reproduction: dict[str, Any] = {}
    ids = text(law.lengths[0], engine)
    try:
        with _unpacked(engine, law) as other:
            for length in law.lengths:
                ids = text(length, engine)
                for found in law.check(engine, replace(probe, ids=ids, dequantised=other)):
                    worst = max(worst, found.error)
                    if found.error > tolerance and not reproduction:
                        reproduction = _reproduction(ids, found)
    # whatever an engine raises is its answer, and the other laws are still asked
    except Exception as error:
        # but where unpacked weights had no room, nothing was answered
        if isinstance(error, OSError) and _UNPACKS in law.needs:
            raise
        raised = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        reproduction = reproduction or _reproduction(ids, Difference(inf, 0, "it raised an error"))
        return Finding(law.name, RED, inf, tolerance, raised, reproduction)
    return Finding(law.name, RED if reproduction else GREEN, worst, tolerance, "", reproduction)


@contextmanager
def _unpacked(engine: Engine, law: Law) -> Iterator[Engine | None]:
    """The engine on unpacked weights, made once for all texts of a law that needs it."""
    other = engine.dequantised() if _UNPACKS in law.needs else None
    try:
        yield other
    finally:
        if other is not None:
            other.close()


def _reproduction(ids: Ids, found: Difference) -> dict[str, Any]:
    return {"ids": ids.tolist(), "position": found.position, "what": found.what, "error": found.error}


def text(length: int, engine: Engine) -> Ids:
    """Token ids (T,), drawn by lot, always the same, of a text that does not end."""
    drawn = np.random.default_rng(length).integers(engine.vocab_size - 1, size=length)
    return drawn + (drawn >= engine.eos_id)


@contextmanager
def drawn_pictures() -> Iterator[list[Path]]:
    """Files of two pictures of different sizes, of colours drawn by lot, for as long as the block lasts."""
    random = np.random.default_rng(0)
    with TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{number}.png" for number in range(2)]
        for path, size in zip(paths, ((60, 80, 3), (90, 64, 3)), strict=True):
            Image.fromarray(random.integers(256, size=size).astype(np.uint8)).save(path)
        yield paths
