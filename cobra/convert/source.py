"""Find the configuration and the weights of a published checkpoint."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cobra.config.config_json import CONFIG, read_config
from cobra.weights.run_checkpoint import ModelFiles, is_run_checkpoint, model_files, refuse_shares
from cobra.weights.tensors import Stored, open_tensors

# Where weights lie in a folder; safetensors first. What they are, their contents decide.
_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "checkpoints/latest-checkpoint.pt",
    "latest-checkpoint.pt",
    # what LLaVA's first stage and training of adapters leave
    "adapter_model.safetensors",
    "adapter_model.bin",
    "mm_projector.bin",
)
_ADAPTER = "adapter_config.json"
_TOKENIZER = ("tokenizer.json", "tokenizer.model", "vocab.json")


@dataclass(frozen=True)
class Source:
    """What was published.

    Attributes:
        path: the file of weights, or its index.
        config: what its config.json says, empty where there is none.
        tensors: by their published names.
        files: what a training run's checkpoint holds, else nothing.
    """

    path: Path
    config: dict[str, Any]
    tensors: Mapping[str, Stored]
    files: ModelFiles | None = None

    @property
    def tokenizer(self) -> Path | None:
        """The folder beside the weights, or in them, that holds a tokenizer, if one does."""
        folders = [self.files.folder] if self.files else [self.path.parent, self.path.parent.parent]
        return next((f for f in folders if any((f / name).is_file() for name in _TOKENIZER)), None)


def open_source(path: Path) -> Source:
    """The checkpoint in a folder, or one file of weights; config.json is beside, one folder up or inside.

    Raises:
        FileNotFoundError: where there are no weights, naming the files that were looked for.
        ValueError: where a file is damaged, incomplete or holds anything but data.
    """
    refuse_shares(path)
    weights = path if path.is_file() else next((path / n for n in _WEIGHTS if (path / n).is_file()), None)
    if weights is None:
        raise FileNotFoundError(f"{path} has no weights: expected one of {', '.join(_WEIGHTS)}, or a file")
    tensors = open_tensors(weights)
    if is_run_checkpoint(tensors):
        files = model_files(weights, tensors)
        return Source(weights, read_config(files.folder / CONFIG), files.weights, files)
    configs = [weights.parent / CONFIG, weights.parent.parent / CONFIG]
    config = next((read_config(c) for c in configs if c.is_file()), {})
    _refuse_adapter(weights, tensors)
    return Source(weights, config, tensors)


def _refuse_adapter(weights: Path, tensors: Mapping[str, Stored]) -> None:
    """An adapter is no model: what it changes is published apart from it."""
    described = weights.parent / _ADAPTER
    if not (weights.name.startswith("adapter_model.") or any(".lora_" in name for name in tensors)):
        return
    base = read_config(described).get("base_model_name_or_path") if described.is_file() else None
    raise ValueError(
        f"{weights} is an adapter{f' of {base}' if base else ''} (LoRA), not a model: name its folder, with "
        "adapter_config.json, and its base with --base"
    )
