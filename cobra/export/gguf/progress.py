"""GGUF files written under a progress bar."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from cobra.export.gguf.file import Value, Weight, write_gguf


def write_shown(path: Path, metadata: Mapping[str, Value], weights: Mapping[str, Weight], what: str) -> None:
    """Write a GGUF file under a progress bar.

    Args:
        path: written over.
        metadata: as of `write_gguf`.
        weights: by their names.
        what: it is, for the bar.

    Raises:
        OSError: where the disk has no room for it.
        ValueError: as of `write_gguf`.
    """
    size = sum(weight.nbytes for weight in weights.values())
    free = shutil.disk_usage(path.parent).free
    if size > free:
        raise OSError(f"{path.name} needs {size / 1e6:.1f} MB, {free / 1e6:.1f} MB are free: make room")
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=size)
        write_gguf(path, metadata, weights, lambda written: bar.advance(task, written))
