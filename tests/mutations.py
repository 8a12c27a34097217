"""Mutate files and load them: run as a process of its own, so that a crash or a hang is seen from outside.

`python -m tests.mutations images|models|checkpoints FOLDER COUNT` prints what became of the files. Allowed
are a ValueError or OSError in one line that names the file, or a result that is whole and what the file says.
"""

import json
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import cobra.torchvision_shim  # noqa: F401  (before timm)

import numpy as np  # isort: skip
import torch
from PIL import Image

from tests.mutate import mutate_bytes, mutate_header, mutate_json, mutate_member

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


def checkpoints(folder: Path, count: int) -> Counter[str]:
    """Files of torch.save: what a run is resumed from, and published weights that are converted.

    What loads has every tensor in its shape; what was converted has finite values.
    """
    from cobra.convert.run import convert
    from cobra.pretrained import lm_from_pretrained
    from cobra.train.module import CobraModule
    from cobra.train.resume import check_checkpoint
    from tests.convert import published_keys
    from tests.convert.fakes import random

    tied = {"lm_head.weight": "backbone.embedding.weight"}
    published = random(published_keys.mamba("", 64, 32, 1), tied)
    expected = {f"model.{name}": tensor for name, tensor in published.items()}
    resumed, source, out = folder / "last.ckpt", folder / "pytorch_model.bin", folder / "out"
    torch.save({"state_dict": expected, "global_step": 7, "optimizer_states": [{"state": {}}]}, resumed)
    torch.save(published, source)
    (folder / "config.json").write_text('{"d_model": 32, "n_layer": 1, "vocab_size": 64}')
    originals = {path: path.read_bytes() for path in (resumed, source)}
    module: Any = SimpleNamespace(
        state_dict=lambda: expected,
        trainer=SimpleNamespace(ckpt_path=str(resumed), state=SimpleNamespace(fn=None)),
    )
    rng = np.random.default_rng(0)

    def load() -> None:
        path = (resumed, source)[rng.integers(0, 2)]
        path.write_bytes(originals[path])
        if rng.random() < 0.6:
            mutate_member(path, rng)
        else:
            path.write_bytes(mutate_bytes(originals[path], rng))
        if path == resumed:
            check_checkpoint(path)
            # as Lightning does
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
            CobraModule.on_load_checkpoint(module, checkpoint)
            assert all(checkpoint["state_dict"][name].shape == t.shape for name, t in expected.items())
            return
        shutil.rmtree(out, ignore_errors=True)
        convert(str(source), out)
        state = lm_from_pretrained(out).state_dict()
        assert all(tensor.isfinite().all() for tensor in state.values())
        assert sum(tensor.numel() for tensor in state.values()) == sum(
            tensor.numel() for name, tensor in published.items() if name not in tied
        )

    return try_all([(str(folder), load)] * count)


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
    campaign = {"images": images, "models": models, "checkpoints": checkpoints}[sys.argv[1]]
    print(json.dumps(campaign(Path(sys.argv[2]), int(sys.argv[3]))))
