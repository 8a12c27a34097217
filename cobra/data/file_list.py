"""Files of a source that has several: a folder, a pattern, or one."""

import glob
from collections.abc import Iterable, Sequence
from os.path import expanduser
from pathlib import Path

from rich.console import Console
from rich.progress import track


def find_files(files: str | Path, ending: str) -> list[Path]:
    """The files of a folder with an ending such as `.tar`, at any depth, or of a pattern; sorted.

    Raises:
        FileNotFoundError: where there is none.
    """
    pattern = expanduser(files)
    if Path(pattern).is_dir():
        found = [path for path in Path(pattern).rglob(f"*{ending}") if path.is_file()]
    # also one whose name would be a pattern
    elif Path(pattern).is_file():
        found = [Path(pattern)]
    else:
        found = [Path(name) for name in glob.glob(pattern, recursive=True) if Path(name).is_file()]
    if not found:
        raise FileNotFoundError(f"there is no {ending} file in or of {pattern!r}: check `files`")
    return sorted(path.absolute() for path in found)


def tracked(files: Sequence[Path], name: str) -> Iterable[Path]:
    """The files one after the other, with a bar of those that are done."""
    console = Console(stderr=True)
    return track(files, f"Reading {name}", len(files), console=console, disable=len(files) == 1)
