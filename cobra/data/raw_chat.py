"""Raw chat to turns: the one place where published shapes of a conversation become ours.

A chat is a dictionary as LLaVA's (`conversations`), OpenAI's and Hugging Face's (`messages`, or TRL's
`prompt` and `completion`) or FineVision's (`texts`) files have it.
"""

import base64
import binascii
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cobra.data.record import ImageSource, Message, Part, Role

# Written where a picture goes.
PLACEHOLDER = "<image>"
_USERS, _ASSISTANTS = ("human", "user"), ("gpt", "assistant", "chatgpt", "bing", "bard", "model")
_ROLES: dict[str, Role] = {
    "system": "system", **dict.fromkeys(_USERS, "user"), **dict.fromkeys(_ASSISTANTS, "assistant")
}  # fmt: skip
_DATA_URL = re.compile(r"data:image/[\w.+-]+;base64,", re.ASCII)


@dataclass
class RawChat:
    """A chat as its file has it.

    Attributes:
        chat: the dictionary; whatever else it is, is no chat.
        meta: what a scorer needs of it.
        mended: what was left out of it already.
        problem: what is wrong with it, where that is known already.
        is_named: whether its parts may name pictures; else they are those beside it, in order.
    """

    chat: Any
    meta: dict[str, str] = field(default_factory=dict)
    mended: str = ""
    problem: str = ""
    is_named: bool = True


@dataclass
class Turns:
    """A chat in the one form that all importers store.

    Attributes:
        turns: role and text of each, pictures at their placeholders.
        images: one a placeholder: what names a picture, or its bytes.
        mended: what was left out.
    """

    turns: list[dict[str, str]]
    images: list[Any]
    mended: str


def to_turns(chat: Any, may_ask: bool = False, is_named: bool = True) -> Turns:
    """The turns of a raw chat.

    Answers before the first question and a question after the last answer are left out, as by LLaVA, and so
    is a system turn without words. Pictures that no text places come first.

    Args:
        chat: as its file has it.
        may_ask: whether it may end on a question, as in a benchmark whose answers are secret.
        is_named: whether its parts may name pictures.

    Raises:
        ValueError: where it is no chat, and why; the reason names no record.
    """
    said = _said(chat)
    beside = chat.get("image") or chat.get("images") or []
    beside = list(beside) if isinstance(beside, list | tuple) else [beside]
    images: list[Any] = []
    rest = iter(beside)
    turns = [_turn(turn, number, images, rest, is_named) for number, turn in enumerate(said)]
    images += rest
    system, turns, mended = _whole(turns, may_ask)
    if any(turn["role"] != ("assistant" if n % 2 else "user") for n, turn in enumerate(turns)):
        raise ValueError("roles do not alternate")
    if not any(turn["text"].strip() for turn in turns[1::2]) and not (may_ask and turns):
        raise ValueError("no answer" if turns else "no turns")
    placed = sum(turn["text"].count(PLACEHOLDER) for turn in turns)
    if images and not placed:
        turns[0]["text"] = PLACEHOLDER * len(images) + turns[0]["text"]
    elif placed != len(images):
        raise ValueError("<image> and pictures differ in number")
    return Turns([*system, *turns], [_image(image) for image in images], mended)


def to_messages(turns: Sequence[dict[str, str]]) -> list[Message]:
    """Turns as a record has them, their texts cut at the placeholders, without the space around them."""
    return [
        Message(turn["role"], _parts(turn["text"]))  # type: ignore[arg-type]  # checked when it was stored
        for turn in turns
    ]


def caption(messages: Sequence[Message]) -> list[Message]:
    """All pictures of a chat, with its first answer and no question."""
    pictures = [part for message in messages for part in message.content if part["type"] == "image"]
    answer = next((message for message in messages if message.role == "assistant"), None)
    if answer is None:
        raise ValueError("no answer, which could be a caption: leave its record out")
    return [Message("user", pictures), answer]


def open_image(image: str, root: Path) -> ImageSource:
    """The picture that a name stands for: a file under a folder, or the bytes that a data: address holds."""
    if not image.startswith("data:"):
        return root / image.removeprefix("file://")
    try:
        return base64.b64decode(image.partition(",")[2], validate=True)
    except binascii.Error as error:
        raise ValueError(f"a picture's data: address is no base64 ({error}): drop its record") from error


def _said(chat: Any) -> list[Any]:
    """The raw turns, whatever they are called."""
    if not isinstance(chat, dict):
        raise ValueError("no conversations")
    if isinstance(chat.get("texts"), list):
        pairs = [text if isinstance(text, dict) else {} for text in chat["texts"]]
        return [{"role": role, "content": pair.get(role)} for pair in pairs for role in ("user", "assistant")]
    said = chat.get("messages") or chat.get("conversations")
    if said is None and "completion" in chat:
        said = [*_half(chat.get("prompt"), "user"), *_half(chat["completion"], "assistant")]
    if not isinstance(said, list):
        raise ValueError("no conversations")
    system = chat.get("system")
    return [{"role": "system", "content": system}, *said] if isinstance(system, str) and system else said


def _half(said: Any, role: Role) -> list[Any]:
    # TRL's prompts and completions are messages, or the text of one
    return said if isinstance(said, list) else [{"role": role, "content": said}]


def _turn(turn: Any, number: int, images: list[Any], beside: Iterator[Any], is_named: bool) -> dict[str, str]:
    """Role and text; pictures that its parts name join `images`, else the next of those beside the chat."""
    role = turn.get("from", turn.get("role")) if isinstance(turn, dict) else None
    if not isinstance(role, str) or role not in _ROLES:
        raise ValueError("unknown role")
    role, text = _ROLES[role], turn.get("value", turn.get("content"))
    if isinstance(text, list):
        text = "".join(_part(part, number, images, beside, is_named) for part in text)
    elif isinstance(text, str):
        images += [image for _, image in zip(range(text.count(PLACEHOLDER)), beside, strict=False)]
    if text is not None and not isinstance(text, str):
        raise ValueError(f"turn {number} is no text, but {type(text).__name__}")
    if text is None or not (text.strip() or role != "user"):
        raise ValueError("empty turn")
    if role != "user" and PLACEHOLDER in text:
        raise ValueError(f"{'an answer' if role == 'assistant' else 'a system turn'} contains <image>")
    # half a surrogate pair is valid JSON but no UTF-8, which Arrow stores
    return {"role": role, "text": text.encode("utf-8", "replace").decode()}


def _part(part: Any, number: int, images: list[Any], beside: Iterator[Any], is_named: bool) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text" and isinstance(part.get("text"), str):
        return part["text"]
    if kind not in ("image", "image_url"):
        raise ValueError(f"turn {number} has a part that is no text and no picture")
    named = next((part[key] for key in ("image", "image_url", "path", "url") if part.get(key)), None)
    image = named.get("url") if isinstance(named, dict) and "url" in named else named
    # without a name of its own it is the next of those beside the chat
    images += [image] if image and is_named else [found for _, found in zip(range(1), beside, strict=False)]
    return PLACEHOLDER


def _whole(
    turns: list[dict[str, str]], may_ask: bool
) -> tuple[list[dict[str, str]], list[dict[str, str]], str]:
    """The system turn, if any; the turns from the first question to the last answer; what that leaves out."""
    system = [turn for turn in turns[:1] if turn["role"] == "system"]
    turns = turns[len(system) :]
    roles = [turn["role"] for turn in turns]
    start = roles.index("user") if "user" in roles else len(turns)
    stop = len(turns) - (roles[-1:] == ["user"] and not may_ask)
    left_out = {
        "has an empty system turn": any(not turn["text"].strip() for turn in system),
        "starts with an answer": start > 0,
        "ends on a question": stop < len(turns),
    }
    mended = ", ".join(what for what, is_so in left_out.items() if is_so)
    return [turn for turn in system if turn["text"].strip()], turns[start:stop], mended


def _image(image: Any) -> Any:
    """What names a picture, if it may."""
    if isinstance(image, bytes):
        return image
    if not isinstance(image, str) or not image:
        raise ValueError("image is no path")
    if re.match(r"https?://", image):
        raise ValueError("a picture is an address on the web: fetch it, and name its file")
    if image.startswith("data:") and not _DATA_URL.match(image):
        raise ValueError("a picture's data: address is no base64 of a picture")
    return image.encode("utf-8", "replace").decode()


def _parts(text: str) -> list[Part]:
    parts: list[Part] = []
    for number, piece in enumerate(text.split(PLACEHOLDER)):
        if number:
            parts.append({"type": "image"})
        if piece.strip():
            parts.append({"type": "text", "text": piece.strip()})
    # a question of pictures alone is one, too: without a text part it would be the start of a caption
    return parts if any("text" in part for part in parts) else [*parts, {"type": "text", "text": ""}]
