"""A conversation about pictures in the terminal, or through a pipe."""

import io
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from cobra.config.one_line import told
from cobra.config.shown_text import harmless
from cobra.data.image import load_rgb
from cobra.inference.conversation import Conversation
from cobra.inference.saved_chat import load_chat, save_chat

HELP = """\
/image PATH ...  show pictures with the next question; quotes and ~ are understood
/again           forget what was said, but not the pictures of the first question
/reset           forget the conversation
/save PATH       write the conversation to a file
/load PATH       go on with one that was written
/help            this list
/exit            leave (or end of input)
Ctrl-C stops an answer."""


def chat(conversation: Conversation, images: Sequence[Path] = ()) -> None:
    """Answer question after question until the input ends; only answers go to standard output.

    Args:
        conversation: answers.
        images: go with the first question.

    Raises:
        OSError: where one of these is missing.
        ValueError: where one of these is no picture, or a line that came through a pipe was in vain.
    """
    session = Session(conversation)
    session.show(images)
    if sys.stdin.isatty():
        _note(HELP)
    for line in _lines():
        if line in ("/exit", "/quit"):
            break
        session.handle(line)
    if session.mistakes and not sys.stdin.isatty():
        raise ValueError(f"{session.mistakes} of the lines had no effect: see the messages marked with !")


class Session:
    """What lies between the lines that a user types and a conversation.

    Args:
        conversation: answers the questions.

    Attributes:
        mistakes: lines that could not be obeyed.
    """

    def __init__(self, conversation: Conversation) -> None:
        self.conversation = conversation
        self.mistakes = 0
        # as it was before the first question, its pictures read
        self._start: Conversation | None = None
        # why the next question would be asked without its picture
        self._missing = ""
        self._commands: dict[str, Callable[[str], None]] = {
            "/image": self._image,
            "/again": self._begin_again,
            "/reset": self._reset,
            "/save": self._save,
            "/load": self._load,
            "/help": lambda _: _note(HELP),
        }

    def handle(self, line: str) -> None:
        """Obey a command or answer a question; a mistake is told and leaves the conversation as it was."""
        command, _, argument = line.partition(" ")
        try:
            with _stopping() as stopped:
                if command in self._commands:
                    self._commands[command](argument.strip())
                elif command.startswith("/"):
                    raise ValueError(f"there is no command {command}: /help lists them")
                elif line:
                    self._answer(line, stopped)
        except BrokenPipeError:
            # nobody reads the answers any longer
            raise
        except (ValueError, OSError) as error:
            self.mistakes += 1
            _note(f"! {told(error)}")

    def show(self, images: Sequence[Path]) -> None:
        """Read pictures, which go with the next question.

        Raises:
            OSError: where one is missing.
            ValueError: where one is no picture, or they are too many.
        """
        sizes = [load_rgb(image).size for image in images]
        if images:
            self.conversation.look_at(images)
        for image, (width, height) in zip(images, sizes, strict=True):
            _note(f"{image}: {width} × {height}, goes with your next question")

    def _image(self, argument: str) -> None:
        try:
            self.show(_paths(argument, "/image"))
            self._missing = ""
        except (ValueError, OSError) as error:
            self._missing = str(error)
            raise

    def _begin_again(self, _: str) -> None:
        if self._start is None:
            raise ValueError("/again needs a conversation that began with a picture: /image shows one")
        # other random choices than the first time
        sampler = self.conversation.sampler
        self.conversation, self._missing = self._start.fork(), ""
        self.conversation.sampler = sampler
        _note("forgotten, but for the picture")

    def _reset(self, _: str) -> None:
        self.conversation.reset()
        self._start, self._missing = None, ""
        _note("forgotten")

    def _save(self, argument: str) -> None:
        (path,) = _paths(argument, "/save", 1)
        save_chat(self.conversation, path)
        _note(f"{len(self.conversation.said)} answers are in {path}")

    def _load(self, argument: str) -> None:
        (path,) = _paths(argument, "/load", 1)
        self.conversation = load_chat(self.conversation, path)
        self._start, self._missing = None, ""
        for message in self.conversation.messages:
            _note(("> " if message.role == "user" else "") + message.text)

    def _answer(self, question: str, stopped: list[int]) -> None:
        if self._missing:
            reason, self._missing = self._missing, ""
            raise ValueError(f"not asked, for want of its picture ({reason}); ask again to do without")
        if not self.conversation.messages:
            self._start = self.conversation.fork() if self.conversation.sees else None
        start = time.perf_counter()
        first: float | None = None
        pieces = self.conversation.ask(question)
        try:
            for text in pieces:
                first = first or time.perf_counter()
                print(harmless(text, sys.stdout), end="", flush=True)
                if stopped:
                    pieces.close()
                    break
        except ValueError:
            # the next answer begins a line
            print(end="\n" if first else "", flush=True)
            raise
        print(flush=True)
        end = time.perf_counter()
        # of an answer without text the first token is not seen
        _note(self._speed(start, first or end, end))

    def _speed(self, start: float, first: float, end: float) -> str:
        tokens = self.conversation.answer_tokens
        rate = f", then {(tokens - 1) / (end - first):.1f} tok/s" if tokens > 1 and end > first else ""
        return f"[{tokens} tokens, the first after {first - start:.2f} s{rate}]"


def _paths(argument: str, command: str, number: int | None = None) -> list[Path]:
    """Paths as a user types or drops them: one that is there, spaces and all, or as a shell reads them."""
    whole = Path(os.path.expanduser(argument))
    try:
        words = [argument] if whole.exists() else shlex.split(argument)
    except (ValueError, OSError):  # a quote without an end, or a name that is too long
        words = [argument]
    if not argument or len(words) != (number or len(words)):
        raise ValueError(
            f"{command} needs the path of {'one file' if number else 'a picture'}, in quotes if it has spaces"
        )
    return [Path(os.path.expanduser(word)) for word in words]


def _lines() -> Iterator[str]:
    """What the user types, a line at a time."""
    if sys.stdin.isatty():
        # gives input() history and editing, where the system has it; a pipe needs neither
        with suppress(ImportError):
            import readline  # noqa: F401
    if isinstance(sys.stdin, io.TextIOWrapper):
        # a line that is no UTF-8 is refused as a question, and may be the name of a file
        sys.stdin.reconfigure(errors="surrogateescape")
    while True:
        try:
            yield (input("> ") if sys.stdin.isatty() else input()).strip()
        except (EOFError, KeyboardInterrupt):
            return


@contextmanager
def _stopping() -> Iterator[list[int]]:
    """A list that fills at Ctrl-C: an answer stops between two tokens, never inside one.

    Inside one, some layers would have read the token and others not.
    """
    stopped: list[int] = []
    previous = signal.signal(signal.SIGINT, lambda number, frame: stopped.append(number))
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGINT, previous)


def _note(text: str) -> None:
    """Write what is no answer, dimmed where a person reads it."""
    text = harmless(text, sys.stderr)
    print(f"\033[2m{text}\033[0m" if sys.stderr.isatty() else text, file=sys.stderr, flush=True)
