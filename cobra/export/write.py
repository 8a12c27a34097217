"""`cobra export MODEL`: the folder of a mobile build, which appears whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cobra.export.manifest import MANIFEST, write_manifest
from cobra.export.targets import TARGETS, load
from cobra.weights.saving import hold, put, restore, saving


def export_model(model: Path, target: str, quant: str | None, out: Path) -> None:
    """Write the export of a model folder to `out`, in the place of an earlier one.

    Raises:
        ValueError: where the target has no such quant, cannot express the model, or `out` holds something
            else, lies below a file, or is written by another process.
        OSError: where the model is missing, or the disk is full.
    """
    build = TARGETS[target]
    quant = quant or build.quants[0]
    if quant not in build.quants:
        raise ValueError(f"--target {target} has no --quant {quant}: take one of {', '.join(build.quants)}")
    # `.` and what ends in `..` have no name to put another folder under, and a link would be replaced
    out = Path(os.path.realpath(out))
    if file := next((above for above in out.parents if above.is_file()), None):
        raise ValueError(f"{out} cannot be written: {file} is a file; name another folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    with _alone(out), saving(out.parent) as folder:
        # what an export that was killed had moved aside
        restore(out)
        check_place(out)
        contents = load(build.writer)(model, quant, folder)
        write_manifest(folder, target, quant, model.resolve().name, contents)
        put(folder, out)
    print(f"{model} -> {out}: {_megabytes(out):.1f} MB, {target} {quant}")


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """No other process exports to `out` meanwhile."""
    path = out.with_name(f".exporting-{out.name}")
    lock = hold(path)
    if lock is None:
        raise ValueError(f"another process exports to {out}: wait for it, or name another folder")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.close()


def check_place(out: Path) -> None:
    """Refuse, with a ValueError, to write over what is no export."""
    is_export = out.is_dir() and ((out / MANIFEST).is_file() or not any(out.iterdir()))
    if out.exists() and not is_export:
        raise ValueError(f"{out} is there and no export: name another folder")


def _megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
