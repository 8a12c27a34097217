"""Mutate files and load them: run as a process of its own, so that a crash or a hang is seen from outside.

`python -m tests.mutations images|models FOLDER COUNT` prints what became of the files. Allowed are: a
ValueError or OSError in one line that names the file, or a result that is whole and is what the file says.
"""

import json
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import cobra.torchvision_shim  # noqa: F401  (before timm)

import numpy as np  # isort: skip
import torch
from PIL import Image

# longest that one file may take, in seconds of computing: a busy machine is no hang
LIMIT = 30


class Hang(BaseException):
    """One file took more than LIMIT; no loader catches this."""


def try_all(cases: list[tuple[str, Callable[[], None]]]) -> Counter[str]:
    """How many files loaded and were refused; the first that ends in any other way is raised."""
    ends: Counter[str] = Counter()
    for number, (name, load) in enumerate(cases):
        signal.setitimer(signal.ITIMER_PROF, LIMIT)
        try:
            load()
            ends["loaded"] += 1
        except (ValueError, OSError) as error:
            message = str(error)
            told = name in message and "\n" not in message
            assert told, f"case {number}: {message!r} is not about {name}"
            ends["refused"] += 1
        except BaseException as error:
            raise RuntimeError(f"case {number}, {name}: {type(error).__name__}") from error
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    return ends


def mutate_bytes(data: bytes, rng: np.random.Generator) -> bytes:
    """The bytes with a few changed, lost, repeated or added, or cut; headers are hit as often as the rest."""
    at = int(rng.integers(0, min(len(data), 200) if rng.random() < 0.5 else len(data)))
    size = int(rng.integers(1, 33))
    noise = rng.integers(0, 256, size, np.uint8).tobytes()
    kind = rng.integers(0, 6)
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data[:at] + data[at + size :]
    if kind == 2:
        return data[:at] + noise + data[at:]
    if kind == 3:
        return data[:at] + noise + data[at + size :]
    if kind == 4:
        return (
            data[:at] + rng.choice([b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff"]) + data[at + 4 :]
        )
    flipped = bytearray(data)
    for place in rng.integers(0, len(data), int(rng.integers(1, 9))):
        flipped[place] ^= 1 << int(rng.integers(0, 8))
    return bytes(flipped)


# what may stand in a JSON file in place of anything else
_VALUES: list[Any] = [
    None, True, 0, -1, 3, 2**40, 10**400, 0.5, float("nan"), float("inf"), "", "x", "os.system", [], [1], {},
    {"class_path": "os.system", "init_args": {"command": "exit 99"}}, "../../x",
]  # fmt: skip


def mutate_json(text: bytes, rng: np.random.Generator) -> bytes:
    """The JSON with one value replaced, removed or added, anywhere in it."""
    tree = json.loads(text)
    places: list[tuple[Any, Any]] = []
    pending = [tree]
    while pending:
        node = pending.pop()
        keys = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else []
        places += [(node, key) for key in keys]
        pending += [node[key] for key in keys]
    node, key = places[rng.integers(0, len(places))]
    kind = rng.integers(0, 4)
    if kind == 0:
        del node[key]
    elif kind == 1 and isinstance(node, dict):
        node[f"{key}x"] = node.pop(key)
    else:
        node[key] = _VALUES[rng.integers(0, len(_VALUES))]
    return json.dumps(tree).encode()


def mutate_header(data: bytes, rng: np.random.Generator) -> bytes:
    """Safetensors whose header says something else about the same bytes."""
    size = int.from_bytes(data[:8], "little")
    header = mutate_json(data[8 : 8 + size], rng)
    return len(header).to_bytes(8, "little") + header + data[8 + size :]


def images(folder: Path, count: int) -> Counter[str]:
    """Pictures in every common format: any mutant that can be decoded is a picture."""
    from cobra.data.image import MAX_PIXELS, load_rgb
    from tests.data.test_image import encoded

    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (40, 48, 3), np.uint8)).resize((96, 80))
    sixteen = Image.fromarray(rng.integers(0, 2**16, (40, 48), np.uint16))
    exif = Image.Exif()
    exif[0x0112] = 6
    originals = [
        encoded(picture, "PNG"), encoded(picture.convert("P"), "PNG", transparency=3), 
        encoded(sixteen, "PNG"), encoded(picture.convert("RGBA"), "PNG"), encoded(picture, "JPEG", exif=exif),
        encoded(picture, "JPEG", progressive=True), encoded(picture.convert("CMYK"), "JPEG"),
        encoded(picture, "GIF", save_all=True, append_images=[picture.rotate(9)]), encoded(picture, "WEBP"),
        encoded(picture, "WEBP", lossless=True), encoded(picture, "BMP"), encoded(sixteen, "TIFF"),
        encoded(picture, "TIFF", compression="tiff_lzw"), encoded(picture, "PPM"), encoded(picture, "TGA"),
    ]  # fmt: skip
    path = folder / "mutant.img"

    def load() -> None:
        path.write_bytes(mutate_bytes(originals[rng.integers(0, len(originals))], rng))
        loaded = load_rgb(path)
        assert loaded.mode == "RGB"
        assert 0 < loaded.width * loaded.height <= MAX_PIXELS
        assert np.asarray(loaded).shape == (loaded.height, loaded.width, 3)

    return try_all([(path.name, load)] * count)


def models(folder: Path, count: int) -> Counter[str]:
    """Folders of models: what loads has the arguments in config.json and the finite values in the weights."""
    from safetensors.torch import load_file

    from cobra.data.chat import Chat
    from cobra.data.record import user
    from cobra.pretrained import from_pretrained, save_pretrained
    from tests.test_pretrained import TOKENIZER, tiny

    model = folder / "model"
    save_pretrained(tiny(), Chat(TOKENIZER), model)
    originals = {path: path.read_bytes() for path in sorted(model.iterdir())}
    rng = np.random.default_rng(0)

    def load() -> None:
        for path, data in originals.items():
            path.write_bytes(data)
        path = list(originals)[rng.integers(0, len(originals))]
        structural = {".json": mutate_json, ".safetensors": mutate_header}.get(path.suffix, mutate_bytes)
        path.write_bytes((structural if rng.random() < 0.6 else mutate_bytes)(originals[path], rng))
        loaded, processor = from_pretrained(model)
        assert _says(loaded.config(), json.loads((model / "config.json").read_text())["model"])
        stored, state = load_file(model / "model.safetensors"), loaded.state_dict()
        assert all(torch.equal(state[name], tensor.to(state[name].dtype)) for name, tensor in stored.items())
        assert all(tensor.isfinite().all() for tensor in state.values())
        processor.chat.segments([user("where is it?").as_dict()], prompt=True)
        assert all(isinstance(token, int) for token in processor.chat.encode("where is it?"))

    return try_all([(str(model), load)] * count)


def _says(built: Any, written: Any) -> bool:
    """Whether all that was written is what was built; a default that was left out is no difference."""
    if isinstance(written, dict):
        return isinstance(built, dict) and all(_says(built.get(key), value) for key, value in written.items())
    return bool(built == written)


def _hang(number: int, frame: FrameType | None) -> None:
    raise Hang


if __name__ == "__main__":
    signal.signal(signal.SIGPROF, _hang)
    torch.set_num_threads(1)
    campaign = {"images": images, "models": models}[sys.argv[1]]
    print(json.dumps(campaign(Path(sys.argv[2]), int(sys.argv[3]))))
