"""The data of a run as its yamls describe it: stages, sources and processor, without trainer and weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cobra.torchvision_shim  # noqa: F401  (before lightning)

import torch  # isort: skip
import yaml
from jsonargparse import ArgumentError, Namespace
from lightning.pytorch.cli import LightningArgumentParser

from cobra.config.build import build_on_meta
from cobra.config.check_bounds import check_bounds
from cobra.config.class_paths import check_class_paths, refuse_functions, restrict_imports
from cobra.config.text_file import read_text
from cobra.data.chat import Chat
from cobra.data.processor import Processor
from cobra.data.source import Source
from cobra.models.vlm import CobraVLM
from cobra.train.cli import devices_of
from cobra.train.data import DataModule
from cobra.train.module import CobraModule
from cobra.train.stages import Stage

_PARTS = ("stages", "model", "data")


@dataclass
class RunData:
    """What the batches of a run are made of.

    Attributes:
        stages: those that are looked at, by their numbers in the run.
        sources: that they use.
        answering: those that a stage learns answers from.
        processor: of the run's model.
        data: settings of the data.
        devices: of the run.
        accumulate: batches an optimizer step.
    """

    stages: dict[int, Stage]
    sources: dict[str, Source]
    answering: set[str]
    processor: Processor
    data: DataModule
    devices: int
    accumulate: int


def read_run_data(configs: Sequence[Path], names: Sequence[str] = (), devices: int | None = None) -> RunData:
    """The data of a run.

    Args:
        configs: its yamls, each laid over those before.
        names: of the stages that are looked at; all when empty.
        devices: of the run; those of the yamls when left out.

    Raises:
        ValueError: where the yamls describe no run, or there is no stage or source of a name.
    """
    restrict_imports()
    parsed, trainer = _read(configs)
    tree: dict[str, Any] = parsed.clone().as_dict()["model"]["model"]
    parser = _parser()
    data: DataModule = parser.instantiate(parsed.clone()).data
    if not data.stages:
        raise ValueError("no stages: say in `stages` what is trained, on what and for how long")
    known = [stage.name for stage in data.stages]
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"there is no stage {unknown[0]!r}: name some of {known}")
    stages = {number: stage for number, stage in enumerate(data.stages) if not names or stage.name in names}
    used = list(dict.fromkeys(name for stage in stages.values() for name in stage.data))
    factories = data.sources["train"]
    if lacking := [name for name in used if name not in factories]:
        raise ValueError(f"data.train has no source {lacking[0]!r}: it has {list(factories)}")
    model = build_on_meta(tree)
    assert isinstance(model, CobraVLM)
    with torch.device("meta"):
        reading = [stage for stage in stages.values() if stage.objective(model).reads_answers]
    chat = Chat(data.tokenizer, data.template)
    sources = {name: factories[name]() for name in used}
    for source in sources.values():
        source.prepare(chat, data.max_length)
    return RunData(
        stages, sources,
        {name for stage in reading for name in stage.data},
        Processor.of(model, chat, data.max_length, data.blind), data,
        devices or devices_of(trainer) * _count(trainer, "num_nodes"),
        _count(trainer, "accumulate_grad_batches"),
    )  # fmt: skip


def _count(trainer: dict[str, Any], name: str) -> int:
    if not isinstance(trainer[name], int):
        raise ValueError(f"trainer.{name} {trainer[name]!r} is no whole number: set it to one")
    return trainer[name]


def _parser() -> LightningArgumentParser:
    parser = LightningArgumentParser(exit_on_error=False)
    parser.add_argument("--stages", type=tuple[Stage, ...], default=())
    parser.add_class_arguments(CobraModule, "model", instantiate=False)
    parser.add_class_arguments(DataModule, "data")
    parser.link_arguments("stages", "model.stages")
    parser.link_arguments("stages", "data.stages")
    return parser


def _read(configs: Sequence[Path]) -> tuple[Namespace, dict[str, Any]]:
    """Stages, model and data as the commands read them, and the trainer's settings that matter here."""
    trainer = {"devices": "auto", "accelerator": "auto", "num_nodes": 1, "accumulate_grad_batches": 1}
    parser, parsed = _parser(), None
    for path in configs:
        try:
            tree = yaml.safe_load(read_text(path)) or {}
            trainer |= tree.get("trainer") or {}
            part = {name: tree[name] for name in _PARTS if name in tree}
        except (yaml.YAMLError, AttributeError, TypeError) as error:
            raise ValueError(f"{path} is no yaml of a run: {error}") from error
        check_class_paths(part)
        check_bounds(part)
        try:
            parsed = parser.parse_object(part, parsed, defaults=True)
        except ArgumentError as error:
            raise ValueError(f"{path} does not describe a run: {error}") from error
    assert parsed is not None
    refuse_functions(parsed.as_dict())
    return parsed, trainer
