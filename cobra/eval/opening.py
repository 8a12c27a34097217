"""Models of any origin for an evaluation: opened, converted before where needed, told apart by a hash."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from cobra.config.config_json import CONFIG, LM, VLM, read_config
from cobra.convert.hub import fetch
from cobra.convert.run import convert
from cobra.data.cache_folder import cache_folder
from cobra.data.processor import Processor
from cobra.inference.answer import DTYPES
from cobra.models.quantize import Quantization
from cobra.models.vlm import CobraVLM
from cobra.pretrained import WEIGHTS, from_pretrained
from cobra.weights.file_hash import file_hash

# of a model folder's files those that an answer depends on
_READ = {".json", ".safetensors", ".jinja", ".model", ".txt"}


@dataclass(frozen=True)
class Settings:
    """How a model computes: all that changes its answers besides its files.

    Attributes:
        dtype: `fp32`, `bf16` or `fp16`, of weights and activations.
        quant: of the language model's weights; see `quantize_`.
        group_size: weights a scale in int4.
        adapter: folder of an adapter of the model.
    """

    dtype: str = "fp32"
    quant: Quantization = "none"
    group_size: int = 32
    adapter: Path | None = None


def model_path(name: str) -> Path:
    """The model folder or run's checkpoint of that name, or of what it is converted to.

    A published checkpoint is converted once, into $COBRA_CACHE/models (~/.cache/cobra/models); the folder is
    named after the checkpoint and a hash of its files' names, sizes and times.

    Args:
        name: folder, file or hub repository, in any layout of `cobra.convert`.
    """
    path = fetch(name)
    if path.is_dir() and (path / WEIGHTS).is_file() and _is_ours(path / CONFIG):
        return path
    if path.is_file() and path.suffix == ".ckpt":
        return path
    out = cache_folder("models") / f"{path.resolve().name}-{_digest_of_names(path)}"
    if not (out / WEIGHTS).is_file():
        convert(name, out)
    return out


def open_model(path: Path, settings: Settings, device: str) -> tuple[CobraVLM, Processor]:
    """The model of `model_path`, in evaluation mode, and the processor that feeds it.

    Raises:
        ValueError: where the device is not on this machine, or the model is damaged.
    """
    try:
        torch.empty(0, device=device)
    # torch without CUDA asserts
    except (AssertionError, RuntimeError) as error:
        reason = str(error).partition(". ")[0]
        raise ValueError(f"--device {device}: not on this machine ({reason})") from error
    return from_pretrained(
        path,
        device,
        DTYPES[settings.dtype],
        settings.quant,
        settings.group_size,
        settings.adapter,
    )


def fingerprint(path: Path, settings: Settings) -> str:
    """A hash of weights, configuration, tokenizer and settings: of what answers depend on."""
    digest = hashlib.sha256()
    said = {**asdict(settings), "adapter": None}
    if settings.quant != "int4":
        del said["group_size"]
    digest.update(json.dumps(said).encode())
    for folder in (path, settings.adapter):
        for file in [] if folder is None else _files(folder):
            digest.update(f"{file.name} {file_hash(file)}".encode())
    return digest.hexdigest()[:16]


def _is_ours(config: Path) -> bool:
    said: dict[str, Any] = read_config(config) if config.is_file() else {}
    return said.get("model_type") in (VLM, LM)


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return sorted(file for file in path.iterdir() if file.suffix in _READ and file.is_file())


def _digest_of_names(path: Path) -> str:
    """Of the files below a folder, or one file: 12 digits."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    told = [(str(file), (stat := file.stat()).st_size, stat.st_mtime_ns) for file in files]
    return hashlib.sha256(json.dumps([str(path.resolve()), told]).encode()).hexdigest()[:12]
