"""The `cobra` command in a process of its own, forked from one that has imported what it needs.

Imports take longer than a run of thirty small steps, which these tests start many times.
"""

import multiprocessing
import os
import sys
import tempfile
from pathlib import Path
from unittest import mock

from cobra.cli import main

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["cobra.train.cli"])


def launched(words: list[str], settings: dict[str, str], seconds: int) -> tuple[int, str]:
    """Run `cobra` with these words.

    Args:
        words: behind the name of the command.
        settings: the environment.
        seconds: after which it is killed.

    Returns:
        Its exit status, that of a signal negative, and what it wrote to stderr.

    Raises:
        TimeoutError: where it was killed for its time.
    """
    with tempfile.TemporaryDirectory() as folder:
        said = Path(folder) / "stderr"
        process = _SERVER.Process(target=_run, args=(words, settings, said))
        # threads are counted when torch is imported
        with mock.patch.dict(os.environ, OMP_NUM_THREADS="1"):
            process.start()
        process.join(seconds)
        late = process.exitcode is None
        process.kill()
        process.join()
        if late:
            raise TimeoutError(f"not done after {seconds} s: {' '.join(words)}\n{said.read_text()}")
        return process.exitcode or 0, said.read_text()


def _run(words: list[str], settings: dict[str, str], said: Path) -> None:
    with said.open("w") as stderr:
        os.dup2(stderr.fileno(), 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    # a loader would start its workers as this process was
    multiprocessing.set_start_method(None, force=True)
    os.environ.clear()
    os.environ.update(settings)
    sys.argv = ["cobra", *words]
    main()
