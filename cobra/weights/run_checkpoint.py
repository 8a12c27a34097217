"""The model in a training run's checkpoint: its weights, and the other files of a model folder."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor

from cobra.weights.tensors import Stored

# where a checkpoint has the files
FILES = "model_files"
# Of all files: a tokenizer has at most some 20 million bytes.
_MAX_BYTES = 1 << 28
_WEIGHTS = "state_dict/model."


@dataclass(frozen=True)
class ModelFiles:
    """A model's configuration, tokenizer and weights.

    Attributes:
        folder: holds config.json and the tokenizer's files.
        path: the file of weights.
        weights: by their names in the model.
        unpacked: keeps a folder that was made of a checkpoint until it is not needed any longer.
    """

    folder: Path
    path: Path
    weights: dict[str, Stored]
    unpacked: TemporaryDirectory | None = field(default=None, repr=False)


def pack(folder: Path) -> dict[str, Tensor]:
    """The files of a folder as bytes (N,) by name, for a checkpoint to hold."""
    files = (path for path in sorted(folder.iterdir()) if path.is_file())
    # torch's own function of that kind refuses a file without bytes
    return {path.name: torch.from_numpy(np.fromfile(path, np.uint8)) for path in files}


def is_run_checkpoint(tensors: Mapping[str, Stored]) -> bool:
    """Whether these are the tensors of a checkpoint that a training run writes to go on from."""
    return any(name.startswith(_WEIGHTS) for name in tensors)


def refuse_shares(path: Path) -> None:
    """Refuse the folder that sharded training writes as its checkpoint.

    Raises:
        ValueError: naming the remedy.
    """
    if (path / "meta.pt").is_file():
        raise ValueError(
            f"{path} holds shares of the weights: join them with `lightning consolidate {path}` and name the "
            "file that it writes, or let the run end and name its model folder"
        )


def model_files(path: Path, tensors: Mapping[str, Stored]) -> ModelFiles:
    """The model in a checkpoint, which need not be trusted; no weight is read.

    Args:
        path: the checkpoint's.
        tensors: what it holds.

    Raises:
        ValueError: where it does not hold a model with its files.
    """
    weights = {n.removeprefix(_WEIGHTS): t for n, t in tensors.items() if n.startswith(_WEIGHTS)}
    if not weights:
        raise ValueError(f"{path} is no checkpoint of a training run, nor a model folder: name one of them")
    files = {n.removeprefix(f"{FILES}/"): t for n, t in tensors.items() if n.startswith(f"{FILES}/")}
    if not files:
        raise ValueError(
            f"{path} does not say what model it is of: an earlier version wrote it; train one step more with "
            "--ckpt_path, or name the run's model folder"
        )
    unpacked = TemporaryDirectory(prefix="cobra-")
    _unpack(path, files, Path(unpacked.name))
    return ModelFiles(Path(unpacked.name), path, weights, unpacked)


def _unpack(path: Path, files: dict[str, Stored], folder: Path) -> None:
    """Write the files of a checkpoint into an empty folder, and nowhere else."""
    foreign = [n for n, t in files.items() if Path(n).name != n or n in ("", "..") or t.dtype != torch.uint8]
    if foreign or sum(file.nbytes for file in files.values()) > _MAX_BYTES:
        raise ValueError(f"{path} holds files that are no tokenizer's ({foreign[:5]}): get it again")
    for name, stored in files.items():
        (folder / name).write_bytes(stored.read().numpy().tobytes())
