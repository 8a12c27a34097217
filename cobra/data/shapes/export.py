"""ShapesVQA as files, in the format of LLaVA's data."""

import json
from pathlib import Path

from PIL import Image
from rich.progress import track

from cobra.data.record import Message
from cobra.data.shapes.dataset import ShapesQuestions
from cobra.data.shapes.scene import Split

_SPEAKERS = {"user": "human", "assistant": "gpt"}


def export_llava(out: Path, split: Split = "train", size: int = 20000, seed: int = 0) -> Path:
    """Write `images/*.png` and `{split}.json` under `out`, for any trainer that reads LLaVA's format.

    Returns:
        The JSON file, written last, so that its presence means that all pictures are there.
    """
    source = ShapesQuestions(split, size, seed)
    (out / "images").mkdir(parents=True, exist_ok=True)
    rows = []
    for index in track(range(len(source)), f"Writing {out}"):
        record = source[index]
        name = f"images/{record.id}.png"
        pixels = record.images[0]
        Image.fromarray(pixels).save(out / name)  # type: ignore[arg-type]
        turns = [{"from": _SPEAKERS[message.role], "value": _value(message)} for message in record.messages]
        rows.append({"id": record.id, "image": name, "conversations": turns})
    path = out / f"{split}.json"
    path.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return path


def _value(message: Message) -> str:
    return "\n".join("<image>" if part["type"] == "image" else part["text"] for part in message.content)
