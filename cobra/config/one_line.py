"""Errors as the commands show them: in one line what a user gave wrongly, with a traceback all else."""

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cobra.config.shown_text import harmless


@contextmanager
def in_one_line(command: str, *more: type[Exception]) -> Iterator[None]:
    """Within it, an error that says itself what the user is to change ends the program with that line.

    Such are a ValueError that this project raises, what it says of a package that is missing, every OSError,
    e.g. a file that is missing, and a lack of memory. Any other is a fault of ours, and a traceback tells
    where. With COBRA_DEBUG=1 all have one.

    Args:
        command: as the user typed it, e.g. `cobra generate`.
        more: further errors that a library raises for what a user gave.
    """
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # what read our output has ended, as `head` does; Python would complain again when it closes it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception as error:
        is_told = isinstance(error, (OSError, *more)) or _is_ours(error) or _lacks_memory(error)
        if not is_told or os.environ.get("COBRA_DEBUG", "0") not in ("", "0"):
            raise
        sys.exit(harmless(f"{command}: {told(error)}", sys.stderr))


def told(error: Exception) -> str:
    """What an error says, in one line; of one that the system raises, the path and what is wrong with it."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        names = (error.filename, error.filename2)
        text = f"{' -> '.join(str(name) for name in names if name is not None)}: {error.strerror}"
    return " ".join(text.splitlines()) or type(error).__name__


def _is_ours(error: Exception) -> bool:
    """Whether it is a ValueError that was raised in this package, or what that says of a missing one."""
    *_, last = traceback.walk_tb(error.__traceback__)
    file = Path(last[0].f_code.co_filename)
    # what `import` raises names the module, and no remedy
    is_said = isinstance(error, ValueError) or (isinstance(error, ModuleNotFoundError) and error.name is None)
    return is_said and file.is_relative_to(Path(__file__).parents[1])


def _lacks_memory(error: Exception) -> bool:
    # torch has a class of its own for devices, and none for the CPU
    is_named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return is_named or "can't allocate memory" in str(error)
