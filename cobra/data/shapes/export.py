"""ShapesVQA as files, in the format of LLaVA's data."""

import json
from pathlib import Path
from typing import Any

from PIL import Image
from rich.progress import track

from cobra.data.record import Message, Record
from cobra.data.shapes.dataset import ShapesCaptions, ShapesPlaces, ShapesQuestions
from cobra.data.shapes.scene import VERSION, Split

_SPEAKERS = {"user": "human", "assistant": "gpt"}

# Of 20 scenes of the mix so many are asked about, described, and searched, as in the demo's last stage.
_SHARES = (13, 2, 5)


def export_llava(out: Path, split: Split = "train", size: int = 20000, seed: int = 0) -> Path:
    """Write pictures and what is said of them under `out`, for any trainer that reads LLaVA's format.

    `images/*.png` are shared by `{split}.json` (questions), `{split}_captions.json`, `{split}_places.json`
    and `{split}_mix.json`, which has each scene once, as one of the three. Where they are there already,
    nothing is done.

    Returns:
        The file of questions, written last, so that its presence means that the rest is there.

    Raises:
        ValueError: where `out` is a file.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file: name a folder to write to")
    path, told = out / f"{split}.json", out / f"{split}.settings.json"
    settings = {"version": VERSION, "size": size, "seed": seed}
    if path.is_file() and told.is_file() and json.loads(told.read_text(encoding="utf-8")) == settings:
        print(f"{path} is there already, with {size} scenes of seed {seed}")
        return path
    path.unlink(missing_ok=True)
    kinds = (
        ShapesQuestions(split, size, seed),
        ShapesCaptions(split, size, seed),
        ShapesPlaces(split, size, seed),
    )
    (out / "images").mkdir(parents=True, exist_ok=True)
    for index in track(range(size), f"Writing {out}"):
        record = kinds[0][index]
        pixels = record.images[0]
        Image.fromarray(pixels).save(out / _picture(record))  # type: ignore[arg-type]
    questions, captions, places = ([_row(source[n]) for n in range(size)] for source in kinds)
    mix = [(questions, captions, places)[_kind(n)][n] for n in range(size)]
    told.write_text(json.dumps(settings) + "\n", encoding="utf-8")
    for name, rows in (("_captions", captions), ("_places", places), ("_mix", mix), ("", questions)):
        (out / f"{split}{name}.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return path


def _kind(scene: int) -> int:
    """Which of the three the mix has of a scene; scenes are in random order."""
    place = scene % sum(_SHARES)
    return sum(place >= end for end in (_SHARES[0], _SHARES[0] + _SHARES[1]))


def _picture(record: Record) -> str:
    return f"images/{record.id}.png"


def _row(record: Record) -> dict[str, Any]:
    turns = [{"from": _SPEAKERS[message.role], "value": _value(message)} for message in record.messages]
    return {"id": record.id, "image": _picture(record), "conversations": turns}


def _value(message: Message) -> str:
    return "\n".join("<image>" if part["type"] == "image" else part["text"] for part in message.content)
