"""A conversation in a file: messages as chat templates take them, paths of pictures, ids of the answers."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cobra.config.text_file import read_text
from cobra.data.record import ImageSource, Message, Part, Record
from cobra.inference.conversation import Conversation
from cobra.weights.saving import put, saving


def save_chat(conversation: Conversation, path: Path) -> None:
    """Write what was said; `cobra.data.llava.LlavaJson` reads it as well.

    Raises:
        OSError: where it cannot be written there.
        ValueError: where nothing was said, a picture has no file, or another file would be replaced.
    """
    if not conversation.messages:
        raise ValueError("nothing was said yet: there is nothing to save")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path} cannot be written: make the folder {path.parent} first")
    if path.exists():
        try:
            _read(path)
        except ValueError as error:
            raise ValueError(
                f"{path} is no saved conversation and would be replaced: name another"
            ) from error
    images, said = iter(conversation.images), iter(conversation.said)
    turns: list[dict[str, Any]] = []
    for message in conversation.messages:
        content = [{**part, **_named(part, images)} for part in message.content]
        ids = {"ids": next(said)} if message.role == "assistant" else {}
        turns.append({"role": message.role, "content": content, **ids})
    text = json.dumps({"messages": turns}, ensure_ascii=False, indent=1) + "\n"
    with saving(path.parent) as folder:
        (folder / path.name).write_text(text, encoding="utf-8")
        put(folder / path.name, path)


def load_chat(conversation: Conversation, path: Path) -> Conversation:
    """A conversation like the one given, in which the saved one was held; it goes on as if it had not ended.

    Raises:
        FileNotFoundError: where the file or a picture is missing.
        ValueError: where the file is no saved conversation, or does not fit the model.
    """
    record, answers = _read(path)
    chat, said = conversation.processor.chat, []
    for message, ids in zip(record.messages[1::2], answers, strict=True):
        # of another tokenizer, or the text was edited
        fits = all(0 <= number < len(chat) for number in ids) and chat.decode(ids).startswith(message.text)
        said.append(ids if ids and fits else [*chat.encode_words(message.text), chat.eos_id])
    return conversation.reread(record, said)


def _named(part: Part, images: Iterator[ImageSource]) -> dict[str, str]:
    """Where the file of a picture part is."""
    if part["type"] != "image":
        return {}
    image = next(images)
    if not isinstance(image, str | Path):
        raise ValueError("a picture of the conversation is no file, and cannot be named in another")
    return {"image": str(Path(image).absolute())}


def _read(path: Path) -> tuple[Record, list[list[int]]]:
    """The chat, and the token ids of its answers."""
    try:
        turns = json.loads(read_text(path))["messages"]
        messages: list[Message] = []
        images: list[ImageSource] = []
        said: list[list[int]] = []
        for turn in turns:
            content = [
                {name: part[name] for name in ("type", "text") if name in part} for part in turn["content"]
            ]
            messages.append(Message(turn["role"], content))
            images += [Path(part["image"]) for part in turn["content"] if part["type"] == "image"]
            said += [[int(number) for number in turn["ids"]]] if turn["role"] == "assistant" else []
        record = Record(str(path), messages, images)
        if messages[-1].role != "assistant":
            raise ValueError("it ends on a question")
    # anything may be in a file
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"{path} is no saved conversation ({type(error).__name__}: {error})") from error
    return record, said
