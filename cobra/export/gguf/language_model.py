"""The language model of a model folder as a GGUF file."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from cobra.config.build import build_on_meta
from cobra.config.config_json import ADAPTERS, CONFIG, LM, read_config, read_quantized
from cobra.export.gguf import attention, state_space  # noqa: F401  (they register what they describe)
from cobra.export.gguf.described import Description, check_covers, described
from cobra.export.gguf.file import Value, Weight
from cobra.export.gguf.progress import write_shown
from cobra.export.gguf.quantize import quantize
from cobra.models.lm.base import LanguageModel
from cobra.models.vlm import CobraVLM
from cobra.pretrained import VLM, expected_shapes, open_model
from cobra.weights.check_fit import check_fit
from cobra.weights.run_checkpoint import ModelFiles
from cobra.weights.tensors import Stored

_DTYPES = {"f32": torch.float32, "f16": torch.float16}
# as exact as the files of trained models: the quantiser rounds what is stored, once
_EXACT = {torch.float32: torch.float32, torch.float16: torch.float16, torch.bfloat16: torch.bfloat16}
# of quantised files, see `cobra.export.gguf.quantize.FILE_TYPES`; of others 0 is fp32 and 1 fp16
_FILE_TYPE, _QUANTISATION = "general.file_type", "general.quantization_version"


@dataclass(frozen=True)
class Opened:
    """A language model whose weights are still on disk.

    Attributes:
        model: the whole model on the meta device, a language model alone if it is no more.
        lm: the language model in it.
        files: of the folder.
        weights: of the language model, by its own names.
    """

    model: CobraVLM | LanguageModel
    lm: LanguageModel
    files: ModelFiles
    weights: Mapping[str, Stored]


def open_language_model(path: Path) -> Opened:
    """The language model of a folder or a checkpoint; no weight is read.

    Raises:
        FileNotFoundError: where the folder or one of its files is missing.
        ValueError: where the weights do not fit, are packed already or have adapters beside them.
    """
    is_lm = (path / CONFIG).is_file() and read_config(path / CONFIG).get("model_type") == LM
    tree, files = open_model(path, LM if is_lm else VLM)
    config = files.folder / CONFIG
    if (packed := read_quantized(config)) is not None:
        raise ValueError(
            f"{path} is in {packed['quantization']} already, and would be rounded twice: export the model "
            "that it was made from"
        )
    if read_config(config).get(ADAPTERS):
        raise ValueError(f"{path} has adapters beside its weights: merge them first (cobra merge)")
    model = build_on_meta(tree)
    found = {name: stored.shape for name, stored in files.weights.items()}
    check_fit(expected_shapes(model), found, f"{files.path} does not fit its config.json")
    lm: LanguageModel = model if is_lm else model.lm  # type: ignore[assignment]
    prefix = "" if is_lm else "lm."
    weights = {
        name.removeprefix(prefix): stored for name, stored in files.weights.items() if name.startswith(prefix)
    }
    return Opened(model, lm, files, weights)  # type: ignore[arg-type]


def write_language_model(
    opened: Opened, quant: str, path: Path, more: Mapping[str, Value], threads: int = 1
) -> Description:
    """Write the file, tensor by tensor, under a progress bar.

    Args:
        opened: what to write.
        quant: f32, f16 or one of `cobra.export.gguf.quantize.FILE_TYPES`, of the matrices.
        path: written over.
        more: metadata besides the model's own: of its tokenizer.
        threads: of the quantiser.

    Raises:
        ValueError: where llama.cpp has no such architecture, or a value is not finite.
        OSError: where the disk is full.
    """
    description = described(opened.lm)
    check_covers(opened.lm, description)
    weights = {
        name: Weight(
            opened.weights[part.source],
            _dtype(opened.weights[part.source].dtype, quant) if part.is_matrix else torch.float32,
            part.change,
        )
        for name, part in description.parts.items()
    }
    metadata = {**description.metadata(), **more}
    if quant in _DTYPES:
        metadata |= {_FILE_TYPE: int(quant == "f16")}
        write_shown(path, metadata, weights, "language model")
        return description
    exact = path.with_suffix(".exact.gguf")
    write_shown(exact, {**metadata, _QUANTISATION: 2}, weights, "language model")
    try:
        quantize(exact, path, quant, description.kept, threads)
    finally:
        exact.unlink()
    return description


def _dtype(stored: torch.dtype, quant: str) -> torch.dtype:
    return _DTYPES.get(quant) or _EXACT.get(stored, torch.float32)
