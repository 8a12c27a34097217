"""Files and folders that are replaced whole or not at all, whatever ends the process that writes them."""

import errno
import fcntl
import os
import shutil
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TextIO

_SAVING, _BEFORE = ".saving-", ".before-"


@contextmanager
def saving(directory: Path) -> Iterator[Path]:
    """A new folder on the file system of `directory` and inside it, gone when the block ends.

    Those that processes left there when they were killed are removed first.
    """
    for old in directory.glob(f"{_SAVING}*"):
        if (lock := hold(old / "lock")) is not None:
            lock.close()
            shutil.rmtree(old)
    with TemporaryDirectory(dir=directory, prefix=_SAVING) as name:
        lock, folder = hold(Path(name) / "lock"), Path(name) / "new"
        folder.mkdir()
        try:
            yield folder
        finally:
            if lock is not None:
                lock.close()


def put(source: Path, target: Path) -> None:
    """Move what was written in `saving` to where it belongs; it is on the disk by then.

    A file is there at any time, as it was or as it is to be. What a folder replaces, or is replaced by, is
    moved aside for a moment, and `restore` brings it back where the process is killed in it.
    """
    sync(source)
    before = _before(target)
    if target.exists() and (source.is_dir() or (target.is_dir() and not target.is_symlink())):
        remove(before)
        os.replace(target, before)
    os.replace(source, target)
    _sync(target.parent)
    remove(before)


def sync(path: Path) -> None:
    """Wait until a file, or a folder with all that is in it, is on the disk."""
    for inside in path.rglob("*") if path.is_dir() else ():
        _sync(inside)
    _sync(path)


def is_there(target: Path) -> bool:
    """Whether a file or folder is there, or `restore` will bring it back."""
    return target.exists() or _before(target).exists()


def restore(target: Path) -> None:
    """Bring back what `put` had moved aside when it was killed; for the one process that writes there."""
    if not target.exists() and _before(target).exists():
        os.replace(_before(target), target)


def hold(path: Path) -> TextIO | None:
    """A lock, which lasts until it is closed or this process ends in any way; None where another has it.

    On a file system that knows no locks everyone gets it, with a warning.
    """
    file = path.open("a+", encoding="utf-8")
    try:
        # not flock: processes that are forked later, e.g. a loader's, would keep that
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            file.close()
            return None
        warnings.warn(
            f"{path.parent}: this file system has no locks ({error.strerror}): see to it yourself that "
            "nothing else writes there meanwhile",
            stacklevel=2,
        )
    return file


def claim(path: Path) -> TextIO:
    """The lock of a folder that one process alone may write to, for as long as the lock is kept.

    Raises:
        ValueError: where another process has it, saying which.
    """
    lock = hold(path)
    if lock is None:
        raise ValueError(
            f"{path.parent} is written to by another run ({path.read_text(encoding='utf-8').strip()}): wait "
            "for it, end it, or name another folder"
        )
    lock.truncate(0)
    lock.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    lock.flush()
    return lock


def _before(target: Path) -> Path:
    return target.with_name(f"{_BEFORE}{target.name}")


def remove(path: Path) -> None:
    """Remove a file, a link or a folder with all that is in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        # not every file system can do that with a folder
        with suppress(OSError) if path.is_dir() else nullcontext():
            os.fsync(opened)
    finally:
        os.close(opened)
