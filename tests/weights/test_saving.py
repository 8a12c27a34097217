"""What is saved is whole whenever its writer is killed, and a lock ends with who holds it."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from cobra.weights.saving import claim, hold, put, restore, saving


def killed(work: Callable[[], None]) -> None:
    """Do something in another process, which dies of it."""
    if (child := os.fork()) == 0:
        try:
            work()
        finally:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL


def dying_at(number: int) -> Callable:
    """An os.replace that ends the process when it is called for that time."""
    calls, replace = count(1), os.replace

    def move(*paths: Path) -> None:
        if next(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(*paths)

    return move


def write(target: Path, text: str, as_folder: bool = False) -> None:
    with saving(target.parent) as folder:
        made = folder / "anything"
        if as_folder:
            made.mkdir()
        (made / "inside" if as_folder else made).write_text(text)
        put(made, target)


def read(target: Path) -> str:
    return (target / "inside" if target.is_dir() else target).read_text()


@pytest.mark.parametrize(("before", "after"), [(False, False), (True, True), (False, True), (True, False)])
def test_a_writer_that_is_killed_leaves_what_was_there(before: bool, after: bool, tmp_path: Path) -> None:
    target = tmp_path / "last"
    write(target, "old", before)
    for number in (1, 2) if before or after else (1,):

        def replace(number: int = number) -> None:
            os.replace = dying_at(number)
            write(target, "new", after)

        killed(replace)
        restore(target)
        assert read(target) == "old"
    assert list(tmp_path.glob(".saving-*"))
    write(target, "new", after)
    assert read(target) == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["last"]


def test_a_folder_that_is_still_written_to_is_left_alone(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from cobra.weights.saving import saving\n"
    code += "with saving(Path(sys.argv[1])) as folder:\n    print(folder, flush=True); input()"
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        theirs = Path(other.stdout.readline().strip())
        (tmp_path / ".saving-of-an-earlier-version").mkdir()
        write(tmp_path / "a", "a")
        assert theirs.is_dir()
        other.kill()
    write(tmp_path / "a", "a")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_lock_is_refused_by_the_name_of_its_holder_until_that_dies(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from cobra.weights.saving import claim\n"
    code += "lock = claim(Path(sys.argv[1]) / 'lock'); print('held', flush=True); input()"
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        for _ in range(2):
            with pytest.raises(ValueError, match=rf"written to by another run \(process {other.pid} on "):
                claim(tmp_path / "lock")
        other.kill()
    claim(tmp_path / "lock").close()


def test_a_process_that_was_forked_does_not_keep_a_lock(tmp_path: Path) -> None:
    """As those of a loader do not, which may live on when the run is killed."""
    up, down = os.pipe(), os.pipe()
    if (parent := os.fork()) == 0:
        lock = claim(tmp_path / "lock")
        if os.fork() == 0:
            os.write(up[1], b"1")
            os.read(down[0], 1)
            os._exit(0)
        os.waitpid(-1, 0)
        del lock
        os._exit(0)
    os.read(up[0], 1)
    assert hold(tmp_path / "lock") is None
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    free = hold(tmp_path / "lock")
    os.write(down[1], b"1")
    assert free is not None
    free.close()


def test_a_file_system_without_locks_is_written_to_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def lockf(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", lockf)
    with pytest.warns(UserWarning, match=r"no locks \(No locks available\): see to it yourself"):
        claim(tmp_path / "lock").close()
