"""fit, validate, test and predict: LightningCLI with this project's defaults."""

import logging
import os
import re
import signal
import sys
import warnings
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import ActionYesNo

import cobra.torchvision_shim  # noqa: F401  (before lightning)

import torch  # isort: skip
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import (
    Callback,
    Checkpoint,
    ProgressBar,
)
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.strategies import (
    DDPStrategy,
    DeepSpeedStrategy,
    FSDPStrategy,
    SingleDeviceStrategy,
    StrategyRegistry,
)
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from cobra.config.check_bounds import check_bounds
from cobra.config.class_paths import refuse_functions, restrict_imports
from cobra.config.one_line import in_one_line
from cobra.config.text_file import read_text
from cobra.train.answer_samples import AnswerSamples
from cobra.train.checkpoint_files import protect_checkpoints
from cobra.train.checkpoints import CheckpointPlan, Checkpoints
from cobra.train.clock import TrainingClock
from cobra.train.data import DataModule
from cobra.train.dead_workers import end_workers, workers_told
from cobra.train.fully_sharded import NAME as SHARDED
from cobra.train.lengths import check_lengths, trial
from cobra.train.list_elements import merge_elements
from cobra.train.loggers import place_loggers, with_csv
from cobra.train.manifest import Manifest
from cobra.train.module import CobraModule
from cobra.train.run_folder import RunFolder, is_model
from cobra.train.save_result import SaveResult
from cobra.train.stages import Stage
from cobra.train.stop_when_terminated import StopWhenTerminated
from cobra.train.throughput import Bar, Throughput
from cobra.train.write_answers import WriteAnswers

# where a run writes that no yaml gives a place
_UNNAMED = "runs/unnamed"
# batches between two drawings of the progress bar on a GPU
_DRAWN = 10
# what a shell says of a process that SIGTERM ended
_TERMINATED = 128 + signal.SIGTERM


class Parser(LightningArgumentParser):
    """Tells what is wrong with a command line or yaml in one line: usage would push it off the screen."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Exit with the message, without the values and types around the one that is wrong."""
        words = " ".join(message.split())
        words = re.sub(
            r"Type \S.*? expects a function or a callable class: |\. Got value: Namespace\(.*", "", words
        )
        files = [path.name for path in _configs()]
        where = f" (in {', '.join(files)} or on the command line)" if files else ""
        if not files and "are required" in words:
            where = ": name the yaml of a run, e.g. -c configs/cobra_tiny.yaml"
        self.exit(2, f"{self.prog.partition(' [')[0]}: {words}{where}: see --help\n")
        raise AssertionError


def _configs() -> list[Path]:
    """The yamls that the command line names."""
    joined = [word.partition("=")[2] for word in sys.argv if word.startswith("--config=")]
    return [Path(file) for file in (*joined, *(b for a, b in pairwise(sys.argv) if a in ("-c", "--config")))]


class CobraCLI(LightningCLI):
    """One `stages` list for model and data; checkpoints, logs and results under trainer.default_root_dir."""

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """A parser whose mistakes end in one line."""
        self.parser_class = Parser
        return super().init_parser(**kwargs)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add what a yaml of this project has beside trainer, model and data."""
        # a list would take what it leaves out from one of the same length in an earlier yaml; no tuple does
        parser.add_argument(
            "--stages", type=tuple[Stage, ...], default=(), help="The stages of the run, in order."
        )
        parser.link_arguments("stages", "model.stages")
        parser.link_arguments("stages", "data.stages")
        parser.add_class_arguments(CheckpointPlan, "checkpoint")
        parser.add_argument(
            "--checkpoint_every", type=int | None, default=None, help="The same as checkpoint.every."
        )
        parser.add_argument(
            "--overwrite", action=ActionYesNo, default=False, help="Start anew in a folder that holds a run."
        )
        parser.add_argument(
            "--change_plan", action=ActionYesNo, default=False,
            help="Go on from a checkpoint with other stages, data, devices or batches, from the same step.",
        )  # fmt: skip

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Read the command line, where options may name elements of lists; refuse numbers out of bounds."""

        def parse(words: list[str]) -> dict[str, Any]:
            config = parser.parse_args(words)
            tree: dict[str, Any] = yaml.safe_load(parser.dump(config))[config.subcommand]
            return tree

        try:
            words = merge_elements(sys.argv[1:], parse)
        except ValueError as error:
            parser.error(str(error))
        self.config = parser.parse_args(words)
        check_bounds(self.config.as_dict())

    def _parse_ckpt_path(self) -> None:
        """Nothing to do: checkpoints hold no hyper-parameters, so reading gigabytes for them is spared."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """As Lightning's, without the choice to unpickle a checkpoint."""
        return {name: {*skipped, "weights_only"} for name, skipped in LightningCLI.subcommands().items()}

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        """The subcommand's arguments; a checkpoint is data, so nothing in it may run."""
        kwargs = super()._prepare_subcommand_kwargs(subcommand)
        if kwargs["ckpt_path"] is not None:
            # of `last` Lightning asks the callback that writes it, which a trial has not
            path = self.folder.named(kwargs["ckpt_path"])
            kwargs["ckpt_path"] = str(path)
            if subcommand != "fit" and is_model(path):
                self.model.opened, kwargs["ckpt_path"] = str(path), None
        return {**kwargs, "weights_only": True}

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """A trainer that logs to CSV, saves checkpoints and writes what it answers, unless it is a trial."""
        config = self._get(self.config_init, "trainer")
        root = self.folder.root
        if (setting := trial(config, self.subcommand)) is not None:
            rank_zero_info(f"{setting}: a trial, of which nothing is written")
            return self._try(root, config)
        if self.subcommand == "fit" or config["logger"] is None:
            kwargs["logger"] = self.subcommand == "fit" and with_csv(config["logger"], root)
        callbacks = [*(config["callbacks"] or []), WriteAnswers(root), *self._progress(config)]
        if self.subcommand == "fit":
            # one with the peak of a device that has no known one is the user's
            measured = any(isinstance(callback, Throughput) for callback in callbacks)
            callbacks += [TrainingClock(), *([] if measured else [Throughput()])]
        callbacks += self._checkpointing()
        return self._trainer(default_root_dir=str(root), callbacks=callbacks, **kwargs)

    def _progress(self, config: Mapping[str, Any]) -> list[Callback]:
        """A bar with the run's numbers, for which a GPU is seldom waited; unless there is another or none."""
        own = any(isinstance(callback, ProgressBar) for callback in config["callbacks"] or [])
        drawn = config["enable_progress_bar"] is not False and not own
        on_gpu = config["accelerator"] != "cpu" and torch.accelerator.is_available()
        return [Bar(refresh_rate=_DRAWN if on_gpu else 1)] if drawn else []

    def _try(self, root: Path, config: dict[str, Any]) -> Trainer:
        self.save_config_callback = None
        writing = (Checkpoint, AnswerSamples)
        own = [callback for callback in config["callbacks"] or [] if not isinstance(callback, writing)]
        # some callbacks refuse a trainer without a logger; a bare one refuses any
        logger, every = (False, 0) if config["barebones"] else (DummyLogger(), config["log_every_n_steps"])
        return self._trainer(
            default_root_dir=str(root), callbacks=[*own, WriteAnswers(None)], logger=logger,
            enable_checkpointing=False, log_every_n_steps=every,
        )  # fmt: skip

    def _trainer(self, **kwargs: Any) -> Trainer:
        config = self._get(self.config_init, "trainer")
        on_cpu = ("cpu",) if torch.accelerator.is_available() else ("cpu", "auto")
        count = devices_of(config)
        if config["accelerator"] in on_cpu and "," in str(config["devices"]):
            # Lightning takes a number alone there, which has no devices to name
            kwargs["devices"] = count
        _check_strategy(config["strategy"])
        if config["strategy"] == SHARDED and count * config["num_nodes"] == 1:
            # there is nobody to share with
            kwargs["strategy"] = "auto"
        trainer = super().instantiate_trainer(**kwargs)
        self._check_shares(trainer)
        protect_checkpoints(trainer)
        # how many devices `0,1`, `auto` or -1 are is Lightning's to say
        if config["strategy"] == "auto" and isinstance(trainer.strategy, DDPStrategy):
            # parts that a stage freezes, and the encoder in a batch of text, take no part in a step
            trainer.strategy._ddp_kwargs["find_unused_parameters"] = True
            # else gradients are there twice
            trainer.strategy._ddp_kwargs["gradient_as_bucket_view"] = True
        return trainer

    def _check_shares(self, trainer: Trainer) -> None:
        """Refuse a sharded checkpoint where weights are whole."""
        checkpoint = self._get(self.config, "ckpt_path")
        path = None if checkpoint is None else self.folder.named(checkpoint)
        whole = isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy)
        if path is not None and whole and path.is_dir() and not is_model(path):
            raise ValueError(
                f"{path} is a folder of shares, which a sharded run on several devices wrote: go on with it "
                f"under --trainer.strategy {SHARDED} on as many; to answer, `lightning consolidate {path}` "
                "makes a file of it"
            )

    def before_instantiate_classes(self) -> None:
        """Refuse a configuration that would call functions, a bad checkpoint and a folder that cannot be."""
        refuse_functions(self.config.as_dict())
        trainer, verb = self._get(self.config, "trainer"), self.subcommand
        # no shell has read a yaml's `~`
        self.folder = RunFolder(Path(trainer["default_root_dir"] or _UNNAMED).expanduser())
        checkpoint, fits = self.folder.chosen(self._get(self.config, "ckpt_path")), verb == "fit"
        self.config[verb]["ckpt_path"] = checkpoint
        if checkpoint is None and not fits:
            raise ValueError(f"say which weights to use, e.g. --ckpt_path {self.folder.last}")
        if fits:
            check_lengths(trainer)
            place_loggers(trainer["logger"], self.folder.root)
        writes = trial(trainer, verb) is None
        # the processes of further devices come here, too
        is_first = rank_zero_only.rank == 0 and os.environ.get("NODE_RANK", "0") == "0"
        if fits and writes and is_first:
            self.folder.claim()
        if checkpoint is not None and is_first:
            self.folder.check_start(checkpoint, fits)
        if fits and writes and not self._get(self.config, "overwrite"):
            self.folder.refuse_results(checkpoint)
        if writes:
            self.folder.make()
        if fits and writes and is_first:
            self.folder.claim()

    def before_fit(self) -> None:
        """A run that is resumed has its weights in the checkpoint; those it once started from may be gone.

        What was allowed to this launch is left out of the configuration that it writes: it may be run again.
        """
        if self._get(self.config, "ckpt_path") is not None:
            self.model.origin, self.model.weights = self.model.weights, {}
        self.model.change_plan = self._get(self.config, "change_plan")
        for allowed in ("overwrite", "change_plan"):
            self.config[self.subcommand][allowed] = False

    def _checkpointing(self) -> list[Callback]:
        plan, last = self._get(self.config_init, "checkpoint"), self.folder.last
        every = self._get(self.config, "checkpoint_every")
        plan = plan if every is None else replace(plan, every=every)
        # the last row of a log has what callbacks before it log
        stop = StopWhenTerminated(last)
        # the last: it says how the rest ended
        manifest = [Manifest(self.folder.root / "manifest.json")] if self.subcommand == "fit" else []
        return [Checkpoints(last, plan), stop, SaveResult(last, self.folder.model), *manifest]


def devices_of(trainer: Mapping[str, Any]) -> int:
    """Devices of a run on this machine."""
    devices, on_cpu = str(trainer["devices"]), trainer["accelerator"] == "cpu"
    if "," in devices or "[" in devices:
        return len(devices.strip("[], ").split(","))
    if devices in ("auto", "-1"):
        return 1 if on_cpu or not torch.accelerator.is_available() else torch.accelerator.device_count()
    if not devices.isdecimal():
        raise ValueError(f"trainer.devices {devices!r} must be a number, several of them as in 0,1, or auto")
    return int(devices)


def _check_strategy(strategy: Any) -> None:
    """Refuse a name that Lightning does not know, and strategies that flatten weights.

    Of flat pieces nobody can tell which are matrices, so that weight decay would spare all of them, as it
    does in Cobra's own code; and one flat piece holds what a stage trains beside what it freezes.
    """
    names = ["auto", *StrategyRegistry.available_strategies()]
    if isinstance(strategy, str) and strategy not in names:
        raise ValueError(f"trainer.strategy {strategy!r}: name one of {', '.join(names)}")
    named = isinstance(strategy, str) and strategy != "auto"
    kind = StrategyRegistry[strategy]["strategy"] if named else type(strategy)
    if issubclass(kind, FSDPStrategy | DeepSpeedStrategy):
        raise ValueError(
            f"trainer.strategy {strategy if named else kind.__name__} flattens weights, so that weight decay "
            f"and stages could not tell them apart: take {SHARDED}, which shares out as much memory (FSDP2)"
        )


def main(program: str = "cobra") -> None:
    """Run the subcommand of LightningCLI that sys.argv names; what a user gave wrongly ends in one line.

    `program` is what messages call it. sys.argv[0] stays: Lightning starts it again for each further device.
    """
    restrict_imports()
    for handler in logging.getLogger("lightning.pytorch").handlers:
        handler.addFilter(lambda record: "💡 Tip" not in record.getMessage())
    # said by lightning of its own code
    warnings.filterwarnings("ignore", message=r".*treespec, LeafSpec.*")
    try:
        with in_one_line(f"{program} {sys.argv[1]}", MisconfigurationException), workers_told():
            for path in filter(Path.is_file, _configs()):
                read_text(path)
            CobraCLI(
                CobraModule,
                DataModule,
                save_config_kwargs={"overwrite": True},
                trainer_defaults={"max_epochs": 1, "use_distributed_sampler": False, "log_every_n_steps": 20},
                seed_everything_default=0,
                auto_configure_optimizers=False,
                load_from_checkpoint_support=False,
                parser_kwargs={"prog": program},
            )
    except SIGTERMException:
        # Lightning kills all devices where one of those that it started fails
        sys.exit(_TERMINATED if rank_zero_only.rank == 0 else 0)
    finally:
        end_workers()
