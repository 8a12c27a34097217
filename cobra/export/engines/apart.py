"""Engine: another one in a process of its own, whose packages do not mix with this one's."""

import itertools
import multiprocessing
import weakref
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cobra.export.engine import Engine, Floats, Ids
from cobra.export.targets import load

_ENDED = "the engine's process has ended, killed or for want of memory"


class _Snapshot:
    """A snapshot in the other process, which is dropped there when this is."""

    def __init__(self, number: int) -> None:
        self.number = number


class EngineApart(Engine):
    """Passes each call on; snapshots stay in the other process.

    Args:
        place: `module:Class` of the engine there.
        folder: that it is opened with.
    """

    def __init__(self, place: str, folder: Path) -> None:
        # spawned, because a forked process has what this one has imported
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, place, folder), daemon=True)
        self._process.start()
        theirs.close()
        self._dropped: list[int] = []
        self.vocab_size, self.eos_id, self.version, self.rounding, self.lacks = self._answer()

    def _answer(self) -> Any:
        try:
            answer = self._connection.recv()
        except (EOFError, OSError) as error:
            raise RuntimeError(_ENDED) from error
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _ask(self, name: str, *arguments: Any) -> Any:
        dropped, self._dropped[:] = list(self._dropped), []
        try:
            self._connection.send((name, arguments, dropped))
        except OSError as error:
            raise RuntimeError(_ENDED) from error
        return self._answer()

    def close(self) -> None:
        """End the process."""
        self._connection.close()
        self._process.join(10)
        self._process.kill()

    def reset(self) -> None:
        """See `Engine`, as for all others."""
        self._ask("reset")

    def prefill(self, tokens: Ids | Floats) -> Floats:
        """Passed on."""
        return self._ask("prefill", tokens)

    def step(self, token: int) -> Floats:
        """Passed on."""
        return self._ask("step", token)

    def snapshot(self) -> _Snapshot:
        """Passed on."""
        snapshot = _Snapshot(self._ask("snapshot"))
        weakref.finalize(snapshot, self._dropped.append, snapshot.number)
        return snapshot

    def restore(self, snapshot: _Snapshot) -> None:
        """Passed on."""
        self._ask("restore", snapshot.number)

    def read_pictures(self, paths: Sequence[Path]) -> list[Floats]:
        """Passed on."""
        return self._ask("read_pictures", paths)

    def embed(self, ids: Ids) -> Floats:
        """Passed on."""
        return self._ask("embed", ids)

    def prefill_rows(self, ids: Ids, mask: NDArray[np.bool_] | None = None) -> Floats:
        """Passed on."""
        return self._ask("prefill_rows", ids, mask)

    def step_rows(self, tokens: Ids) -> Floats:
        """Passed on."""
        return self._ask("step_rows", tokens)

    def prefill_packed(self, texts: Sequence[Ids]) -> list[Floats]:
        """Passed on."""
        return self._ask("prefill_packed", texts)


def _serve(connection: Connection, place: str, folder: Path) -> None:
    """The other process: answers until the connection is closed."""
    try:
        engine = load(place)(folder)
        said = (engine.vocab_size, engine.eos_id, engine.version, engine.rounding, dict(engine.lacks))
        connection.send(said)
    except Exception as error:
        connection.send(_sendable(error))
        return
    snapshots: dict[int, Any] = {}
    numbers = itertools.count()
    while True:
        try:
            name, arguments, dropped = connection.recv()
        except EOFError:
            return
        try:
            if name == "restore":
                arguments = [snapshots[arguments[0]]]
            for number in dropped:
                del snapshots[number]
            answer = getattr(engine, name)(*arguments)
            if name == "snapshot":
                number = next(numbers)
                snapshots[number], answer = answer, number
            connection.send(answer)
        except Exception as error:
            connection.send(_sendable(error))


def _sendable(error: Exception) -> Exception:
    """An error that every process can read; one of the machine stays one."""
    if isinstance(error, OSError):
        return OSError(str(error))
    return RuntimeError(f"{type(error).__name__}: {error}")
