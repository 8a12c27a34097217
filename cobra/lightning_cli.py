"""fit, validate, test and predict: LightningCLI with this project's defaults."""

import logging
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cobra.torchvision_shim  # noqa: F401  (before lightning)

from lightning.pytorch import LightningModule, Trainer  # isort: skip
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger

from cobra.class_paths import restrict_imports
from cobra.data.batch import Batch
from cobra.data.image import load_rgb
from cobra.data.module import DataModule
from cobra.eval.contact_sheet import Answered, draw_contact_sheet, pick
from cobra.eval.predictions import accuracy, write_predictions
from cobra.module import CobraModule
from cobra.pretrained import save_pretrained
from cobra.stages import Stage


class CobraCLI(LightningCLI):
    """One `stages` list for model and data; checkpoints, logs and results under trainer.default_root_dir."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add what a yaml of this project has beside trainer, model and data."""
        parser.add_argument("--stages", type=list[Stage], default=[], help="The stages of the run, in order.")
        parser.link_arguments("stages", "model.stages")
        parser.link_arguments("stages", "data.stages")
        parser.add_argument("--checkpoint_every", type=int, default=200, help="Steps between checkpoints.")

    def _parse_ckpt_path(self) -> None:
        """Nothing to do: checkpoints hold no hyper-parameters, so reading gigabytes for them is spared."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """As Lightning's, without the choice to unpickle a checkpoint."""
        return {name: {*skipped, "weights_only"} for name, skipped in LightningCLI.subcommands().items()}

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        """The subcommand's arguments; a checkpoint is data, so nothing in it may run."""
        return {**super()._prepare_subcommand_kwargs(subcommand), "weights_only": True}

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """A trainer that logs to CSV, saves checkpoints and writes what it answers."""
        config = self._get(self.config_init, "trainer")
        root = Path(config["default_root_dir"] or "runs/unnamed")
        if config["logger"] is None:
            # a new folder every launch: a CSV that is opened again loses its first part
            kwargs["logger"] = CSVLogger(root, name="logs") if self.subcommand == "fit" else False
        callbacks = [*(config["callbacks"] or []), WriteAnswers(root), *self._checkpointing(root)]
        return super().instantiate_trainer(default_root_dir=str(root), callbacks=callbacks, **kwargs)

    def before_fit(self) -> None:
        """Refuse to start afresh where the user asked to go on."""
        checkpoint = self._get(self.config, "ckpt_path")
        last = Path(self.trainer.default_root_dir) / "checkpoints" / "last.ckpt"
        if checkpoint == "last" and not last.is_file():
            sys.exit(
                f"cobra fit: --ckpt_path last: there is no {last}; leave --ckpt_path out to start afresh"
            )

    def _checkpointing(self, root: Path) -> list[Callback]:
        every = self._get(self.config, "checkpoint_every")
        folder = root / "checkpoints"
        regular = ModelCheckpoint(folder, "last", every_n_train_steps=every, enable_version_counter=False)
        return [regular, SaveResult(folder / "last.ckpt", root / "model")]


class SaveResult(Callback):
    """When training ends, write the last checkpoint and the model for `from_pretrained`."""

    def __init__(self, checkpoint: Path, directory: Path) -> None:
        self.checkpoint = checkpoint
        self.directory = directory

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save what was trained since the last regular checkpoint."""
        trainer.save_checkpoint(self.checkpoint, weights_only=False)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gather the weights (a sharded model is whole only here) and write them on one device."""
        state = trainer.strategy.lightning_module_state_dict()
        weights = {
            key.removeprefix("model."): value for key, value in state.items() if key.startswith("model.")
        }
        if trainer.is_global_zero:
            save_pretrained(pl_module.model, trainer.datamodule.chat, self.directory, weights)


class WriteAnswers(Callback):
    """Collect the answers of test and predict, write them as JSON Lines, score them, draw some."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.answered: list[Answered] = []

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, *rest: Any
    ) -> None:
        """Keep the answers of a batch."""
        self.answered += zip(batch.records, outputs["predictions"], strict=True)

    # predict hands over the same outputs
    on_predict_batch_end = on_test_batch_end

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the answers, log their accuracy, draw some of them."""
        for split, answered in self._write(trainer):
            scores = accuracy(prediction for _, prediction in answered)
            pl_module.log_dict(
                {f"{split}/{kind}": value for kind, value in scores.items()}, rank_zero_only=True
            )
            if trainer.is_global_zero:
                draw_contact_sheet(pick(answered), self.directory / f"contact_sheet-{split}.png")
                first = next((record for record, _ in answered if record.images), None)
                if first is not None:
                    load_rgb(first.images[0]).save(self.directory / f"picture-{split}.png")

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the answers."""
        list(self._write(trainer))

    def _write(self, trainer: Trainer) -> Iterator[tuple[str, list[Answered]]]:
        for split in sorted({prediction.split for _, prediction in self.answered}):
            answered = [pair for pair in self.answered if pair[1].split == split]
            suffix = f"-rank{trainer.global_rank}" if trainer.world_size > 1 else ""
            path = self.directory / f"predictions-{split}{suffix}.jsonl"
            write_predictions(path, (prediction for _, prediction in answered))
            yield split, answered
        self.answered = []


def main() -> None:
    """Run the subcommand of LightningCLI that sys.argv names."""
    restrict_imports()
    for handler in logging.getLogger("lightning.pytorch").handlers:
        handler.addFilter(lambda record: "💡 Tip" not in record.getMessage())
    # said by lightning of its own code
    warnings.filterwarnings("ignore", message=r".*treespec, LeafSpec.*")
    CobraCLI(
        CobraModule,
        DataModule,
        save_config_kwargs={"overwrite": True},
        trainer_defaults={"max_epochs": 1, "use_distributed_sampler": False, "log_every_n_steps": 20},
        seed_everything_default=0,
        auto_configure_optimizers=False,
        load_from_checkpoint_support=False,
        parser_kwargs={"prog": Path(sys.argv[0]).name},
    )
