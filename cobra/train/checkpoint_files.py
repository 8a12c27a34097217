"""Lightning's checkpoints as files that are never half written, and that name nothing to be removed."""

import os
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
            OSError: where it cannot be written, e.g. on a full disk.
        """
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with saving(target.parent) as folder:
                with (folder / target.name).open("wb") as file:
                    torch.save(checkpoint, file)
                put(folder / target.name, target)
        except (OSError, RuntimeError) as error:
            kept = "the one before is kept; " if target.exists() else ""
            # torch's writer stumbles over what it met
            reason = error.__context__ or error
            raise OSError(
                f"checkpoint {target} cannot be written ({reason}): {kept}make room, or set "
                "trainer.default_root_dir"
            ) from error

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a checkpoint in one of the folders; a path may be any that a file says."""
        target = Path(path)
        target = target.parent.resolve() / target.name
        folders = [Path(folder).resolve() for folder in self.folders()]
        if target.suffix == ".ckpt" and any(target.is_relative_to(folder) for folder in folders):
            super().remove_checkpoint(target)
        else:
            rank_zero_warn(f"{path} is not removed: it is no checkpoint of this run")


class SaveFolder:
    """A strategy's `save_checkpoint`, if it writes folders: beside what they replace, then in its place."""

    def __init__(self, strategy: Strategy) -> None:
        self.strategy, self.write = strategy, strategy.save_checkpoint

    def __call__(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        """Write a checkpoint; all devices must call it."""
        strategy, target = self.strategy, Path(self.strategy.broadcast(filepath))
        if not strategy.is_global_zero:
            self._write(checkpoint, target.name, None)
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        with saving(target.parent) as folder:
            self._write(checkpoint, target.name, folder)
            put(folder / target.name, target)

    def _write(self, checkpoint: dict[str, Any], name: str, folder: Path | None) -> None:
        """Write into the first device's folder, and wait for all."""
        self.write(checkpoint, Path(self.strategy.broadcast(folder)) / name)
        self.strategy.barrier()
