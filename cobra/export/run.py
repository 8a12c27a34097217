"""`cobra export run`: a question about a picture, answered by an export's own runtime."""

import resource
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from time import perf_counter

import numpy as np

from cobra.config.shown_text import harmless
from cobra.data.plain_chat import PlainChat
from cobra.data.record import ImageSource, Message, Record, assistant, user
from cobra.data.turn_ids import rendered_question, token_ids
from cobra.export.engine import Engine, Floats
from cobra.export.manifest import read_manifest
from cobra.export.targets import DEVICES, engine_of, open_engine
from cobra.inference.text_stream import TextStream
from cobra.models.special_ids import IMAGE_ID

_STATUS = Path("/proc/self/status")
# macOS counts bytes
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024


@dataclass
class Spent:
    """Seconds and tokens of a conversation, as Imp's and MobileVLM's tables count them, opened files aside.

    Attributes:
        seeing: seconds from the files of pictures to their tokens.
        reading: seconds of prompts.
        writing: seconds of answers.
        read: tokens of prompts, image tokens included.
        written: tokens of answers but the first of each, which comes with its prompt.
    """

    seeing: float = 0.0
    reading: float = 0.0
    writing: float = 0.0
    read: int = 0
    written: int = 0

    def __str__(self) -> str:
        total = self.seeing + self.reading + self.writing
        reading, writing = (
            tokens / max(seconds, 1e-9)
            for tokens, seconds in ((self.read, self.reading), (self.written, self.writing))
        )
        return (
            f"T_VE {self.seeing:.3f} s, S_prompt {reading:.1f} tokens/s, S_gen {writing:.1f} tokens/s, "
            f"T_total {total:.3f} s, peak RSS {_peak_memory() / 1e6:.0f} MB"
        )


def _peak_memory() -> int:
    """Bytes that this process has held at most."""
    if not _STATUS.is_file():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT
    # Linux's ru_maxrss counts what started this process, too
    said = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
    return int(said["VmHWM"].split()[0]) * 1024


@dataclass
class Talk:
    """A conversation with an engine: pictures are read once, and every question only what is new.

    Attributes:
        engine: has read nothing.
        chat: its tokenizer.
        max_new_tokens: longest answer.
        spent: so far.
    """

    engine: Engine
    chat: PlainChat
    max_new_tokens: int = 256
    spent: Spent = field(default_factory=Spent)
    _messages: list[Message] = field(default_factory=list)
    # said, but not read by the engine yet
    _unread: list[int] = field(default_factory=list)
    _images: list[ImageSource] = field(default_factory=list)

    def ask(self, question: str, images: Sequence[Path] = ()) -> Iterator[str]:
        """The answer in pieces of text, greedily.

        Raises:
            ValueError: where pictures are shown to an engine that reads none, or logits are no numbers.
        """
        if images and "pictures" in self.engine.lacks:
            raise ValueError(f"this export reads no pictures: {self.engine.lacks['pictures']}")
        seen = self._seen(images) if images else []
        self._messages.append(user(question, len(images)))
        self._images += images
        asked = rendered_question(self.chat, Record("chat", self._messages, self._images))
        new_ids, _ = token_ids(self.chat, asked, "chat", [len(tokens) for tokens in seen])
        ids = self._unread + new_ids
        self.engine.turn_to(pictures=False)
        start = perf_counter()
        logits = self._read(ids, seen)
        self.spent.reading += perf_counter() - start
        self.spent.read += len(ids)
        text, new = TextStream(self.chat.decode_part), list[int]()
        for token in self._tokens(logits):
            new.append(token)
            yield from filter(None, [text.add(token)])
        yield from filter(None, [text.end()])
        self._unread = [new[-1]] if new[-1] == self.chat.eos_id else [new[-1], self.chat.eos_id]
        self._messages.append(assistant(self.chat.decode(new)))

    def _seen(self, images: Sequence[Path]) -> list[Floats]:
        """Tokens of pictures."""
        self.engine.turn_to(pictures=True)
        start = perf_counter()
        seen = self.engine.read_pictures(images)
        self.spent.seeing += perf_counter() - start
        return seen

    def _read(self, ids: list[int], seen: Sequence[Floats]) -> Floats:
        """Logits behind ids in which pictures have their places."""
        pictures = np.concatenate(seen) if seen else np.empty((0, 0), np.float32)
        place = 0
        for is_picture, run in groupby(ids, lambda token: token == IMAGE_ID):
            piece = np.array(list(run))
            if is_picture:
                logits = self.engine.prefill(pictures[place : place + len(piece)])
                place += len(piece)
            else:
                logits = self.engine.prefill(piece)
        return logits

    def _tokens(self, logits: Floats) -> Iterator[int]:
        unknown = self.chat.unknown(len(logits))
        for number in range(1, self.max_new_tokens + 1):
            start = perf_counter()
            logits[unknown] = -np.inf
            token = int(logits.argmax())
            # which is the first that is none, where there is one
            if np.isnan(logits[token]):
                raise ValueError("its logits are no numbers: see `cobra export verify`, or export it again")
            is_last = token == self.chat.eos_id or number == self.max_new_tokens
            if not is_last:
                logits = self.engine.step(token)
                self.spent.written += 1
            self.spent.writing += perf_counter() - start
            yield token
            if is_last:
                return


def run_export(
    folder: Path,
    images: Sequence[Path],
    prompts: Sequence[str],
    max_new_tokens: int,
    device: str = DEVICES[0],
) -> None:
    """Print the answers while they are generated, and behind them how long each part took.

    Raises:
        OSError: where the folder, one of its files or a picture is missing.
        ValueError: where they are damaged, a question is empty, or the export cannot do what is asked.
    """
    if not all(prompt.strip() for prompt in prompts):
        raise ValueError("a question is empty: ask something about the picture")
    manifest = read_manifest(folder)
    manifest.check_tokenizer()
    engine = open_engine(engine_of(manifest.target, device), folder)
    try:
        talk = Talk(engine, PlainChat.read(folder), max_new_tokens)
        for number, prompt in enumerate(prompts):
            for text in talk.ask(prompt, () if number else images):
                print(harmless(text, sys.stdout), end="", flush=True)
            print(flush=True)
        print(talk.spent, file=sys.stderr)
    finally:
        engine.close()
