"""A conversation about pictures in the terminal, or through a pipe."""

import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from cobra.data.image import load_rgb
from cobra.inference.conversation import Conversation

HELP = """\
/image PATH  show a picture with the next question
/again       forget what was said, but not the pictures of the first question
/reset       forget the conversation
/help        this list
/exit        leave (or end of input)
Ctrl-C stops an answer."""


def chat(conversation: Conversation, images: Sequence[Path] = ()) -> None:
    """Answer question after question until the input ends; only answers go to standard output.

    Args:
        conversation: answers.
        images: go with the first question.
    """
    session = Session(conversation)
    for image in images:
        session.handle(f"/image {image}")
    if sys.stdin.isatty():
        _note(HELP)
    for line in _lines():
        if line in ("/exit", "/quit"):
            return
        session.handle(line)


class Session:
    """What lies between the lines that a user types and a conversation.

    Args:
        conversation: answers the questions.
    """

    def __init__(self, conversation: Conversation) -> None:
        self.conversation = conversation
        self.pictures: list[str] = []
        # as it was before the first question, its pictures read
        self.start: Conversation | None = None

    def handle(self, line: str) -> None:
        """Obey a command or answer a question; a mistake is told and leaves the conversation as it was."""
        command, _, argument = line.partition(" ")
        try:
            if command == "/image":
                self._show(argument.strip())
            elif command == "/reset":
                self.conversation.reset()
                self.pictures, self.start = [], None
                _note("forgotten")
            elif command == "/again":
                self._begin_again()
            elif command == "/help":
                _note(HELP)
            elif command.startswith("/"):
                raise ValueError(f"there is no command {command}: /help lists them")
            elif line:
                self._answer(line)
        except (ValueError, OSError) as error:
            _note(f"! {error}")

    def _show(self, path: str) -> None:
        if not path:
            raise ValueError("/image needs the path of a picture")
        width, height = load_rgb(path).size
        self.pictures.append(path)
        _note(f"{path}: {width} × {height}, goes with your next question")

    def _begin_again(self) -> None:
        if self.start is None:
            raise ValueError("/again needs a conversation that began with a picture: /image shows one")
        self.conversation = self.start.fork()
        _note("forgotten, but for the picture")

    def _answer(self, question: str) -> None:
        start = time.perf_counter()
        first: float | None = None
        with _stopping() as stopped:
            if self.pictures and not self.conversation.messages:
                self.conversation.look_at(self.pictures)
                self.pictures, self.start = [], self.conversation.fork()
            pieces = self.conversation.ask(question, self.pictures)
            for text in pieces:
                first = first or time.perf_counter()
                print(text, end="", flush=True)
                if stopped:
                    pieces.close()
                    break
        print(flush=True)
        self.pictures = []
        _note(self._speed(start, first or time.perf_counter(), time.perf_counter()))

    def _speed(self, start: float, first: float, end: float) -> str:
        tokens = self.conversation.answer_tokens
        rate = f", then {(tokens - 1) / (end - first):.1f} tok/s" if tokens > 1 and end > first else ""
        return f"[{tokens} tokens, the first after {first - start:.2f} s{rate}]"


def _lines() -> Iterator[str]:
    """What the user types, a line at a time."""
    if sys.stdin.isatty():
        # gives input() history and editing, where the system has it; a pipe needs neither
        with suppress(ImportError):
            import readline  # noqa: F401
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
    print(f"\033[2m{text}\033[0m" if sys.stderr.isatty() else text, file=sys.stderr, flush=True)
