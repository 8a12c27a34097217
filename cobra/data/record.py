"""The canonical record: a chat and the pictures it speaks of. Every importer makes these."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

# A picture: its file, the bytes of a file, or pixels (H, W, 3) uint8; see `cobra.data.image.load_rgb`.
ImageSource = str | Path | bytes | np.ndarray

# {"type": "image"} or {"type": "text", "text": ...}, as chat templates take them.
Part = dict[str, str]

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class Message:
    """One turn of a chat.

    Attributes:
        role: who speaks.
        content: parts in reading order; a picture stands where its tokens go.
    """

    role: Role
    content: list[Part]

    @property
    def text(self) -> str:
        """The text parts, joined by spaces."""
        return " ".join(part["text"] for part in self.content if part["type"] == "text")

    def as_dict(self) -> dict[str, Any]:
        """The turn as `apply_chat_template` takes it."""
        return {"role": self.role, "content": self.content}


# identity, not equality: pixels have no single truth value
@dataclass(frozen=True, eq=False)
class Record:
    """A chat about pictures.

    Attributes:
        id: unique within its source.
        messages: turns, alternating, the user's first, or a system turn before it; in evaluation the last
            answer is the truth.
        images: one a picture part, in reading order.
        source: name of the data set.
        meta: whatever a scorer needs, such as the question's type.
        labels: what a vision objective learns from, such as classes of cells (cells, attributes).
        tokens: (T,) ids of plain text in the place of messages; all of them are learned.
        borders: where in `tokens` texts start that are to know nothing of those before; None: all are one.
    """

    id: str
    messages: list[Message]
    images: list[ImageSource] = field(default_factory=list, repr=False)
    source: str = ""
    meta: dict[str, str] = field(default_factory=dict)
    labels: np.ndarray | None = field(default=None, repr=False)
    tokens: np.ndarray | None = field(default=None, repr=False)
    borders: np.ndarray | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.tokens is not None and not (self.messages or self.images):
            return
        has_system = bool(self.messages) and self.messages[0].role == "system"
        if len(self.messages) == has_system:
            raise ValueError(f"record {self.id!r} has no messages: drop it when importing")
        for number, message in enumerate(self.messages[has_system:], int(has_system)):
            expected = "assistant" if (number - has_system) % 2 else "user"
            if message.role != expected:
                raise ValueError(
                    f"turn {number} of record {self.id!r} is by {message.role!r}, not {expected!r}: "
                    "turns must alternate and start with the user, or a system turn before"
                )
        kinds = [_kind(part, self.id) for message in self.messages for part in message.content]
        if kinds.count("image") != len(self.images):
            raise ValueError(
                f"record {self.id!r} has {len(self.images)} images but its messages place "
                f"{kinds.count('image')}: add one image part a picture"
            )


def _kind(part: Part, record: str) -> str:
    kind = part.get("type", "")
    if kind != "image" and not (kind == "text" and isinstance(part.get("text"), str)):
        raise ValueError(
            f"part {part!r} of record {record!r} must be {{'type': 'image'}} or "
            "{'type': 'text', 'text': a string}"
        )
    return kind


def user(text: str, images: int = 0) -> Message:
    """A question with its pictures in front."""
    return Message("user", [*({"type": "image"} for _ in range(images)), {"type": "text", "text": text}])


def assistant(text: str) -> Message:
    """An answer."""
    return Message("assistant", [{"type": "text", "text": text}])
