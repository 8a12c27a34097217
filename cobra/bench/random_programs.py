"""An export for ExecuTorch of a model of true size with random weights."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from cobra.bench.build import random_lm, random_vlm
from cobra.config.config_json import LM, VLM, write_config
from cobra.config.package_versions import package_versions
from cobra.export.executorch.lower import lower, quantize_linears
from cobra.export.executorch.programs import EncodeImage, lm_programs
from cobra.export.executorch.runner import Settings, runtime
from cobra.export.executorch.write import PROGRAMS, ROOM, TOKENS, blank_pixels
from cobra.export.manifest import Contents
from cobra.models.vlm import CobraVLM


def write_random_programs(tree: dict[str, Any], quant: str, folder: Path) -> Contents:
    """Fill a folder as `cobra export --target executorch-cpu` does, without a tokenizer, for speed alone.

    Args:
        tree: of a `CobraVLM` or a language model; it is in memory in fp32.
        quant: fp32 or 8da4w.
        folder: to fill.

    Raises:
        ValueError: where ExecuTorch is missing, or the model cannot be expressed, saying which part.
    """
    runtime()
    model = _random(tree)
    lm = model.lm if isinstance(model, CobraVLM) else model
    programs = lm_programs(lm, TOKENS, ROOM, embedding_bits=32 if quant == "fp32" else 8)
    settings = Settings.of(programs["prefill"][0].stack, lm.vocab_size, lm.d_model)
    if quant == "8da4w":
        quantize_linears([programs[name][0] for name in ("prefill", "step")], 4, 32)
    if isinstance(model, CobraVLM):
        pixels = blank_pixels(model)
        encode = EncodeImage(model, pixels)
        if quant == "8da4w":
            quantize_linears([encode], 8, None)
        programs["encode_image"] = (encode, tuple(tree_leaves(pixels)))
    lowered = {name: asdict(found) for name, found in lower(programs, "xnnpack", folder / PROGRAMS).items()}
    write_config(folder, VLM if isinstance(model, CobraVLM) else LM, model.config())
    versions = package_versions(("executorch", "torchao"))
    return Contents({}, versions, (), {**settings.as_json(), "lowered": lowered})


def _random(tree: dict[str, Any]) -> Any:
    is_whole = "vision" in tree["init_args"]
    make = random_vlm if is_whole else random_lm
    return make(tree, "none", torch.float32, "cpu")
