"""Writers of `--target executorch-cpu` and `executorch-vulkan`."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from cobra.config.config_json import CONFIG, LM, VLM, read_config, write_config
from cobra.config.package_versions import package_versions
from cobra.data.chat import Chat
from cobra.data.processor import Processor
from cobra.export.engines.exact import oracle_of
from cobra.export.executorch.lower import lower, quantize_linears
from cobra.export.executorch.programs import EncodeImage, lm_programs
from cobra.export.executorch.runner import Runner, Settings, runtime
from cobra.export.manifest import Contents
from cobra.export.oracle import ORACLE
from cobra.export.pixels import PIXELS, pixel_settings
from cobra.models.vision.fused import planes_of
from cobra.models.vision.pictures import ONE_TILE, Pictures, Pixels
from cobra.models.vlm import CobraVLM
from cobra.pretrained import from_pretrained

# of the programs, in an export folder
PROGRAMS = "model.pte"
# Tokens of a piece: a chunk of Mamba-2's scan, within which work grows with their square.
TOKENS = 64
# that a transformer's keys and values have room for
ROOM = 2048
_PACKAGES = ("executorch", "torchao")
_NOT_RUN = "lowered for Vulkan and inspected, not run: the runtime's packages for Python have no such backend"


def write_cpu(model: Path, quant: str, folder: Path) -> Contents:
    """Programs for ExecuTorch on a CPU (XNNPACK), compared with the model."""
    runtime()
    opened, settings, said = _written(model, quant, folder, "xnnpack")
    if quant == "fp32" and (exact := oracle_of(opened.lm, opened, Processor.of(opened, Chat(str(folder))))):
        exact.write(folder / ORACLE)
    parity = measured(Runner(folder / PROGRAMS, settings), opened)
    return Contents(parity, package_versions(_PACKAGES), (), said)


def write_vulkan(model: Path, quant: str, folder: Path) -> Contents:
    """Programs for ExecuTorch on a GPU (Vulkan), which nothing here can run."""
    runtime()
    _, _, said = _written(model, quant, folder, "vulkan")
    return Contents({}, package_versions(_PACKAGES), (_NOT_RUN,), said)


def _written(path: Path, quant: str, folder: Path, backend: str) -> tuple[CobraVLM, Settings, dict[str, Any]]:
    """The model whose programs were written, what they are called with, and all settings."""
    if (path / CONFIG).is_file() and read_config(path / CONFIG).get("model_type") == LM:
        raise ValueError(f"{path} is a language model alone, without pictures: export it with --target gguf")
    model, processor = from_pretrained(path)
    if model.lm.quantized is not None:
        raise ValueError(f"the weights of {path} are packed already: export the model that they were made of")
    pixels = blank_pixels(model)
    programs = lm_programs(model.lm, TOKENS, ROOM, embedding_bits=32 if quant == "fp32" else 8)
    stack = programs["prefill"][0].stack
    encode = EncodeImage(model, pixels)
    if quant == "8da4w":
        quantize_linears([programs[name][0] for name in ("prefill", "step")], 4, 32)
        quantize_linears([encode], 8, None)
    programs["encode_image"] = (encode, tuple(tree_leaves(pixels)))
    lowered = lower(programs, backend, folder / PROGRAMS)
    processor.chat.save(folder)
    write_config(folder, VLM, model.config())
    settings = Settings.of(stack, model.lm.vocab_size, model.lm.d_model)
    # the weights that were quantized in place
    model = model if quant == "fp32" else from_pretrained(path)[0]
    said = {
        **settings.as_json(),
        PIXELS: pixel_settings(planes_of(model.vision.transform)),
        "lowered": {name: asdict(found) for name, found in lowered.items()},
    }
    return model, settings, said


def blank_pixels(model: CobraVLM) -> Pixels:
    """Of a picture, (1, 3, side, side) for each encoder."""
    transform = model.vision.transform
    if getattr(transform, "layout", None) != ONE_TILE:
        raise ValueError(
            f"a {type(transform).__name__} cuts pictures into tiles, and ExecuTorch's programs see one: "
            "export to gguf, or a model with one tile a picture"
        )
    (tile,) = transform(Image.new("RGB", (64, 64))).tiles
    return tree_map(lambda x: x[None], tile)


@torch.inference_mode()
def measured(runner: Runner, model: CobraVLM) -> dict[str, float]:
    """Relative RMS of a program's image tokens, and of logits behind them and some text, from the model's."""
    draw = torch.Generator().manual_seed(0)
    pixels = tree_map(lambda x: torch.randn(x.shape, generator=draw), blank_pixels(model))
    ids = torch.randint(model.lm.vocab_size, (1, TOKENS + 32), generator=draw)
    image = model.image_tokens(Pictures.of(pixels))
    # a whole piece, a part of one, and steps
    state = model.lm.allocate_state(1, len(image) + ids.shape[1])
    prompt = torch.cat([image[None], model.lm.embed(ids[:, :-16])], dim=1)
    expected = [model.lm.head(model.lm.prefill(prompt, state)[0, -1])]
    expected += [
        model.lm.head(model.lm.step(model.lm.embed(i[:, None])[:, 0], state))[0] for i in ids.T[-16:]
    ]
    image_tokens = runner.encode_image(tree_leaves(pixels))
    runner.reset()
    found = [runner.prefill(torch.cat([image_tokens, runner.embed(ids[0, :-16])]))]
    found += [runner.step(int(i)) for i in ids[0, -16:]]
    return {
        "image_tokens": _difference(image_tokens, image),
        "prefill_logits": _difference(found[0], expected[0]),
        "step_logits": _difference(torch.stack(found[1:]), torch.stack(expected[1:])),
    }


def _difference(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())
