"""`cobra models --training`: what a device's memory must hold in each stage of the configured runs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError, ArgumentParser
from rich.console import Console
from rich.table import Table

from cobra.bench.systems.configs import chosen, read_systems
from cobra.bench.systems.measure import System, measure
from cobra.config.class_paths import check_class_paths, refuse_functions
from cobra.config.text_file import read_text
from cobra.models.adapters import Lora
from cobra.train.data import DataModule
from cobra.train.fully_sharded import NAME as SHARDED
from cobra.train.memory import Step, steps
from cobra.train.pace import Assumptions, pace
from cobra.train.stages import Stage

# of a device's memory, what the driver, communication and gaps between tensors take
_RESERVE = 5e9
_MAX_LENGTH = signature(DataModule).parameters["max_length"].default
_COLUMNS = ("system", "stage", "batch", "weights", "gradients", "moments", "kept", "recomputed", "work")
_WIDTH = 150
_NOTE = """\
GB on a device, counted in a step on tensors without data. Weights, gradients and moments are all of them.
kept: activations between the forward and the backward pass; recomputed: those with the config's `recompute`,
or of all blocks of the language model where it has none. work: what else exists at the peak.
DDP, FSDP2: totals as the config recomputes, with what FSDP2 gathers; * is what its trainer.strategy does.
They fit where 5 GB are left to the driver and communication.
All sequences are as long as data.max_length, with one picture; all of the text is answers."""


_PACE_COLUMNS = (
    "system", "stage", "devices", "s computing", "s exchanging", "examples/s", "tokens/s", "h a million",
)  # fmt: skip
_PACE_NOTE = """\
Seconds are of a batch on a device, whose longer one counts: computing and exchanging run side by side.
Assumed, not measured: {mfu:.0%} of {tflops:g} TFLOP/s a device (recomputing counts as work); an example
has one picture and {text_tokens} tokens of text, all of them answers; a device exchanges {bandwidth:g} GB/s
within a node of 8, and {network:g} GB/s where there are more; data come as fast as they are read. To be set
by --tflops, --mfu, --text-tokens, --bandwidth and --network."""


@dataclass(frozen=True)
class Run:
    """What of a run's yaml its memory depends on."""

    tree: dict[str, Any]
    stages: Sequence[Stage]
    recompute: dict[str, int]
    muon: list[str]
    precision: str
    max_length: int
    is_sharded: bool
    packing: dict[str, Any]


# a system: its name, run and costs, and of each stage the step and the activations kept, without and with
# recomputing
_Counted = tuple[str, Run, System, list[tuple[Stage, Step, tuple[int, int]]]]


def print_memory(
    configs: Path,
    names: Sequence[str],
    devices: Sequence[int] = (8,),
    batch_size: int | None = None,
    max_length: int | None = None,
    memory: float = 80.0,
    **assumed: float,
) -> None:
    """Count the memory of a training step and print it with the pace, a row for each stage.

    Args:
        configs: the folder of the yamls.
        names: those that are shown; none are all but variants.
        devices: of the run; several numbers are compared.
        batch_size: sequences on each device; those of the stages if left out.
        max_length: tokens of a sequence; the config's if left out.
        memory: of a device, in GB.
        assumed: `Assumptions` of the pace.

    Raises:
        ValueError: where there is no config of a name, or a sequence has no room for its picture.
    """
    assumptions = Assumptions(**assumed)  # type: ignore[arg-type]
    counted = [
        (name, run, measure(name, run.tree), list(_counted(run, batch_size, max_length)))
        for name, run in _runs(configs, names)
    ]
    console = Console()
    if not console.is_terminal:  # a file or a pager, whose lines may be long
        console.width = max(console.width, _WIDTH)
    for count in devices:
        console.print(_memory_table(counted, count, batch_size, max_length, memory))
    console.print(_NOTE)
    console.print(_pace_table(counted, devices, batch_size, assumptions))
    console.print(_PACE_NOTE.format(**vars(assumptions)))


def _memory_table(
    counted: Sequence[_Counted], devices: int, batch_size: int | None, max_length: int | None, memory: float
) -> Table:
    ways = {"alone": Step.replicated} if devices == 1 else {"DDP": Step.replicated, "FSDP2": Step.sharded}
    table = Table(title=f"training on {devices} × {memory:g} GB", title_justify="left")
    for column in (*_COLUMNS, *ways, "fits"):
        table.add_column(column, justify="left" if column in ("system", "stage", "fits") else "right")
    for name, run, _, stages in counted:
        for stage, step, kept in stages:
            totals = {way: total(step, devices).total for way, total in ways.items()}
            own = devices > 1 and ("FSDP2" if run.is_sharded else "DDP")
            fits = [way for way, total in totals.items() if total <= memory * 1e9 - _RESERVE]
            alone, size = step.alone, (batch_size or stage.batch_size, max_length or run.max_length)
            table.add_row(
                name, stage.name, "{} × {}".format(*size),
                *map(_giga, (alone.weights, alone.gradients, alone.optimizer, *kept, alone.work)),
                *(_giga(total) + "*" * (way == own) for way, total in totals.items()),
                ", ".join(fits) or "no",
            )  # fmt: skip
    return table


def _pace_table(
    counted: Sequence[_Counted], devices: Sequence[int], batch_size: int | None, assumed: Assumptions
) -> Table:
    table = Table(title="pace, estimated", title_justify="left")
    for column in _PACE_COLUMNS:
        table.add_column(column, justify="left" if column in ("system", "stage") else "right")
    for name, run, system, stages in counted:
        for stage, step, _ in stages:
            for count in devices:
                batch = batch_size or stage.batch_size
                found = pace(system, stage, step, run.recompute, count, run.is_sharded, batch, assumed)
                table.add_row(
                    name, stage.name, str(count), f"{found.compute:.3g}", f"{found.exchange:.3g}",
                    f"{found.examples:.4g}", f"{found.tokens:.4g}", f"{found.hours:.3g}",
                )  # fmt: skip
    return table


def _counted(
    run: Run, batch_size: int | None, max_length: int | None
) -> Iterator[tuple[Stage, Step, tuple[int, int]]]:
    """Each stage, its step as the config has it, and the activations kept without and with recomputing."""
    settings = (run.muon, run.precision, max_length or run.max_length, batch_size)
    plain, again = (
        steps(run.tree, run.stages, every, *settings, **run.packing)
        for every in ({}, run.recompute or {"lm": 1})
    )
    for (stage, without), (_, recomputed) in zip(list(plain), list(again), strict=True):
        kept = without.alone.activations, recomputed.alone.activations
        yield stage, recomputed if run.recompute else without, kept


def _runs(configs: Path, names: Sequence[str]) -> Iterator[tuple[str, Run]]:
    """The runs of some names, or of all configs."""
    systems = read_systems(configs)
    for name in chosen(systems, names) or [name for name in systems if "/" not in name]:
        base, _, variant = name.partition("/")
        yamls = [configs / f"{base}.yaml", *([configs / "variants" / f"{name}.yaml"] if variant else [])]
        yield name, _read(yamls, systems[name])


def _read(yamls: Sequence[Path], tree: dict[str, Any]) -> Run:
    """What yamls laid over each other say; defaults are those of the commands."""
    laid: dict[str, Any] = {}
    for path in yamls:
        for key, value in (yaml.safe_load(read_text(path)) or {}).items():
            laid[key] = {**laid.get(key, {}), **value} if isinstance(value, dict) else value
    check_class_paths(laid)
    refuse_functions(laid)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--stages", type=tuple[Stage, ...], default=())
    parser.add_argument("--adapters", type=dict[str, Lora], default={})
    model, trainer = laid["model"], laid.get("trainer", {})
    try:
        said = {"stages": laid.get("stages") or (), "adapters": model.get("adapters") or {}}
        parsed = parser.instantiate_classes(parser.parse_object(said))
    except ArgumentError as error:
        raise ValueError(f"{yamls[-1]} does not describe a run: {error}") from error
    packing = {name: model[name] for name in ("quantization", "group_size") if name in model}
    return Run(
        tree,
        parsed.stages,
        model.get("recompute") or {},
        model.get("muon") or [],
        str(trainer.get("precision") or "32-true"),
        laid.get("data", {}).get("max_length", _MAX_LENGTH),
        is_sharded=trainer.get("strategy") == SHARDED,
        packing={"adapters": parsed.adapters, **packing},
    )


def _giga(size: int) -> str:
    return f"{size / 1e9:.1f}"
