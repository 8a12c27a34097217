"""ExecuTorch (XNNPACK) on an export, `--runtime executorch`, by the runner of its engine."""

from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from cobra.bench.exports import described, size_of
from cobra.bench.question import TEXT_TOKENS, picture_bytes
from cobra.bench.timing.case import Case, Stopwatch
from cobra.bench.timing.memory import status
from cobra.bench.timing.sample import Sample
from cobra.config.package_versions import package_versions
from cobra.data.image import load_rgb
from cobra.export.executorch.runner import Runner, Settings
from cobra.export.executorch.write import PROGRAMS
from cobra.export.manifest import read_manifest
from cobra.models.vision.pictures import ONE_TILE

_IDS = 256


@torch.inference_mode()
def e2e(folder: str, threads: int, new_tokens: int) -> Case:
    """As ours; the text is random ids."""
    before = status("VmRSS")
    runner = _runner(folder, threads)
    model: Any = described(Path(folder))
    picture, transform = picture_bytes(), model.vision.transform
    text, more = torch.randint(_IDS, (2, TEXT_TOKENS), generator=torch.Generator().manual_seed(0))

    @torch.inference_mode()
    def run(count: int = new_tokens) -> Sample:
        runner.reset()
        watch = Stopwatch("cpu")
        (tile,) = transform(load_rgb(picture)).tiles
        watch.mark("image")
        seen = runner.encode_image([plane[None] for plane in tree_leaves(tile)])
        watch.mark("vision")
        token = int(runner.prefill(torch.cat([seen, runner.embed(text)])).argmax())
        watch.mark("prefill")
        for _ in range(count - 1):
            token = int(runner.step(token).argmax())
        watch.mark("decode")
        runner.prefill(runner.embed(torch.cat([torch.tensor([token]), more])))
        watch.mark("second")
        return watch.sample("image", "vision", "prefill", "decode")

    image_tokens = model.num_image_tokens(ONE_TILE)
    about = {
        "image_tokens": image_tokens,
        "prompt_tokens": image_tokens + TEXT_TOKENS,
        "new_tokens": new_tokens,
        "before_bytes": before,
        **_settings(folder),
    }
    return Case(run, rehearsal=lambda: run(2), about=about)


@torch.inference_mode()
def decode(folder: str, threads: int, context: int, tokens: int, real: bool = False) -> Case:
    """As ours: greedy steps after a context of random keys, values and states."""
    runner = _runner(folder, threads)
    runner.reset()
    if real and context:
        runner.prefill(runner.embed(torch.randint(_IDS, (context,))))
    elif context:
        runner.memory = [torch.randn_like(buffer) for buffer in runner.memory]

    @torch.inference_mode()
    def run(count: int = tokens) -> Sample:
        runner.read, token = context, 0
        watch = Stopwatch("cpu")
        for _ in range(count):
            token = int(runner.step(token).argmax())
        watch.mark("decode")
        return watch.sample()

    return Case(run, rehearsal=lambda: run(2), about={"tokens": tokens, **_settings(folder)})


@torch.inference_mode()
def prefill(folder: str, threads: int, length: int) -> Case:
    """As ours: token ids to the logits of the last one, in the pieces of the program."""
    runner, ids = _runner(folder, threads), torch.randint(_IDS, (length,))

    @torch.inference_mode()
    def run() -> Sample:
        runner.reset()
        watch = Stopwatch("cpu")
        runner.prefill(runner.embed(ids))
        watch.mark("prefill")
        return watch.sample()

    return Case(run, about={"tokens": length, **_settings(folder)})


@cache
def _runner(folder: str, threads: int) -> Runner:
    import_module("executorch.extension.pybindings.portable_lib")._unsafe_reset_threadpool(threads)
    return Runner(Path(folder) / PROGRAMS, Settings.said_by(read_manifest(Path(folder))))


def _settings(folder: str) -> dict[str, Any]:
    model: Any = described(Path(folder))
    return {
        "model_bytes": size_of(Path(folder), PROGRAMS),
        "constant_state": getattr(model, "lm", model).recurrent,
        "build": f"executorch {package_versions(['executorch'])['executorch']}, XNNPACK: in fp32, of 8da4w "
        "inputs of products in 8 bits",
    }


CASES: dict[str, Callable[..., Case]] = {case.__name__: case for case in (e2e, decode, prefill)}
