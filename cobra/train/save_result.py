"""Lightning callback: the model folder that a finished training run leaves behind."""

from collections.abc import Collection, Mapping
from pathlib import Path

import cobra.torchvision_shim  # noqa: F401  (before lightning)

from lightning.pytorch import Callback, LightningModule, Trainer  # isort: skip
from lightning.pytorch.utilities import rank_zero_info
from safetensors import SafetensorError
from torch import Tensor

from cobra.data.chat import Chat
from cobra.models.vlm import CobraVLM
from cobra.pretrained import save_adapter, save_pretrained
from cobra.train.module import CobraModule
from cobra.train.selection import named_modules
from cobra.train.sharding import gathered_state, is_sharded
from cobra.weights.saving import remove


class SaveResult(Callback):
    """When training ends, write the last checkpoint and, where the plan is done, the model folder.

    While it is not done there is no model, also not one of an earlier run: it would pass for this one's.
    Adapters are in the model, and in a folder of their own beside it.
    """

    def __init__(self, checkpoint: Path, directory: Path) -> None:
        self.checkpoint = checkpoint
        self.directory, self.adapter = directory, directory.with_name("adapter")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove the model of a run that this one replaces or extends, and what one left that it replaces."""
        if not trainer.is_global_zero:
            return
        if trainer.global_step < pl_module.plan.total:
            remove(self.directory)
            remove(self.adapter)
        start = trainer.ckpt_path
        # until this run has one, `last` would go on with the run before
        if start is None or Path(start).resolve().parent != self.checkpoint.resolve().parent:
            remove(self.checkpoint)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save what was trained since the last regular checkpoint."""
        trainer.save_checkpoint(self.checkpoint, weights_only=False)

    def on_fit_end(self, trainer: Trainer, pl_module: CobraModule) -> None:
        """Gather the weights (a sharded model is whole only here) and write them on one device."""
        done, planned = trainer.global_step, pl_module.plan.total
        if done < planned:
            # by max_steps, max_time or a callback
            remedy = "; --ckpt_path last goes on" if self.checkpoint.exists() else ""
            rank_zero_info(f"stopped at step {done} of {planned}{remedy}")
            return
        model = pl_module.model
        assert model is not None
        if is_sharded(model):
            weights = gathered_state(model)
        else:
            state, prefix = trainer.strategy.lightning_module_state_dict(), "model."
            weights = {
                key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)
            }
        if trainer.is_global_zero:
            names = {name for stage in pl_module.stages for name in stage.train}
            trained = {path for name in names for path in named_modules(model, name)}
            sources = pl_module.weights or pl_module.origin
            self._write(model, trainer.datamodule.chat, weights, trained, sources)

    def _write(
        self,
        model: CobraVLM,
        chat: Chat,
        weights: dict[str, Tensor],
        trained: Collection[str] = (),
        sources: Mapping[str, str] | None = None,
    ) -> None:
        try:
            if model.adapters:
                save_adapter(model, chat, self.adapter, trained, sources or {}, weights)
            save_pretrained(model, chat, self.directory, weights)
        except (OSError, SafetensorError) as error:
            raise OSError(
                f"{self.directory} cannot be written ({error}): the run is whole in {self.checkpoint}; make "
                "room, then the same command with --ckpt_path last writes the model and trains no more"
            ) from error
