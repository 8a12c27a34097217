"""Lightning's checkpoints as files that are never half written, and that name nothing to be removed."""

import os
import shutil
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import cobra.torchvision_shim  # noqa: F401  (before lightning)

import torch  # isort: skip
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import Strategy
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.utils._pytree import tree_leaves

from cobra.train.dead_workers import tells_of_worker
from cobra.weights.saving import put, saving


def protect_checkpoints(trainer: Trainer) -> None:
    """Have a trainer write checkpoints beside those that they replace, unless the user chose how."""
    strategy = trainer.strategy
    if type(strategy.checkpoint_io) is TorchCheckpointIO:
        strategy.checkpoint_io = CheckpointFiles(partial(_folders, trainer))
    # one that shards the model writes a folder itself, in place
    if type(strategy).save_checkpoint is not Strategy.save_checkpoint:
        vars(strategy)["save_checkpoint"] = SaveFolder(strategy)


def _folders(trainer: Trainer) -> list[str | os.PathLike[str]]:
    """Where a trainer's checkpoints go; a callback that was given no folder has one of the loggers' later."""
    chosen = [c.dirpath for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint) and c.dirpath]
    return [trainer.default_root_dir, *chosen]


class CheckpointFiles(TorchCheckpointIO):
    """Checkpoints of one file, written beside the one that they replace, then moved over it.

    Lightning's own are written to $TMPDIR; from there to another file system they are copied over the old
    one, which is lost where that is interrupted.

    Args:
        folders: where checkpoints may be removed; the names of those that it would remove come from one.
    """

    def __init__(self, folders: Callable[[], Iterable[str | os.PathLike[str]]]) -> None:
        self.folders = folders

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint; the one before is there until it is on the disk.

        Raises:
            OSError: where there is no room for it, or it cannot be written.
        """
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        check_room(target, _bytes(checkpoint))
        try:
            with saving(target.parent) as folder:
                with (folder / target.name).open("wb") as file:
                    torch.save(checkpoint, file)
                put(folder / target.name, target)
        except (OSError, RuntimeError) as error:
            # torch's writer stumbles over what it met
            reason = error.__context__ or error
            if tells_of_worker(reason):
                raise reason from None
            raise _unwritten(target, reason) from error

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a checkpoint in one of the folders; a path may be any that a file says."""
        target = Path(path)
        target = target.parent.resolve() / target.name
        folders = [Path(folder).resolve() for folder in self.folders()]
        if target.suffix == ".ckpt" and any(target.is_relative_to(folder) for folder in folders):
            super().remove_checkpoint(target)
        else:
            rank_zero_warn(f"{path} is not removed: it is no checkpoint of this run")


def check_room(target: Path, size: int) -> None:
    """Refuse to begin a checkpoint of so many bytes that its disk has no room for.

    Raises:
        OSError: saying how much is missing.
    """
    # other machines may see another folder of that name
    there = next(folder for folder in target.parents if folder.is_dir())
    free = shutil.disk_usage(there).free
    if free < size:
        raise _unwritten(target, f"it takes {size / 1e9:.3f} GB, and {free / 1e9:.3f} GB are free")


def _unwritten(target: Path, reason: object) -> OSError:
    kept = "the one before is kept; " if target.exists() else ""
    return OSError(
        f"checkpoint {target} cannot be written ({reason}): {kept}make room, or set trainer.default_root_dir"
    )


def _bytes(checkpoint: dict[str, Any]) -> int:
    """Of the tensors that this device writes, each memory once."""
    leaves = tree_leaves(checkpoint)
    tensors = [t.to_local() if isinstance(t, DTensor) else t for t in leaves if isinstance(t, Tensor)]
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


class SaveFolder:
    """A strategy's `save_checkpoint`, if it writes folders: beside what they replace, then in its place."""

    def __init__(self, strategy: Strategy) -> None:
        self.strategy, self.write = strategy, strategy.save_checkpoint

    def __call__(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        """Write a checkpoint; all devices must call it."""
        strategy, target = self.strategy, Path(self.strategy.broadcast(filepath))
        self._check_room(checkpoint, target)
        if not strategy.is_global_zero:
            self._write(checkpoint, target.name, None)
            return
        with saving(target.parent) as folder:
            self._write(checkpoint, target.name, folder)
            put(folder / target.name, target)

    def _check_room(self, checkpoint: dict[str, Any], target: Path) -> None:
        """On all devices alike, so that none waits for another that has ended."""
        mine = torch.tensor(float(_bytes(checkpoint)), device=self.strategy.root_device)
        size = int(self.strategy.reduce(mine, reduce_op="sum"))
        if self.strategy.is_global_zero:
            target.parent.mkdir(parents=True, exist_ok=True)
        self.strategy.barrier()
        check_room(target, size)

    def _write(self, checkpoint: dict[str, Any], name: str, folder: Path | None) -> None:
        """Write into the first device's folder, and wait for all."""
        self.write(checkpoint, Path(self.strategy.broadcast(folder)) / name)
        self.strategy.barrier()
