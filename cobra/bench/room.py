"""Memory of a bench: models that fit together are measured in turn, the others after them."""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cobra.bench.engines import Engine
from cobra.bench.exports import size_of
from cobra.bench.runtimes import BUILDS, TRANSFORMERS
from cobra.bench.systems.contexts import state_bytes_of_step
from cobra.bench.timing.case import dtype_of
from cobra.config.build import build_on_meta
from cobra.models.component import Component

# bits of a weight, scales included; the others have those of the dtype
_BITS = {"bf16": 16.0, "int8": 8.1, "int4": 4.5}
# of a process without a model, and of what a step or a short prompt needs
_PROCESS = 1.2e9


def needed(engine: Engine, length: int) -> float:
    """Bytes of the process that measures an engine at this length."""
    if engine.missing:
        return 0.0
    if engine.runtime in BUILDS:
        lm: Any = _described(json.dumps(engine.subject.lm))
        state = state_bytes_of_step(lm, length, torch.float16)
        return size_of(Path(engine.arguments["folder"])) + state + _PROCESS
    dtype = dtype_of(engine.arguments["dtype"])
    whole: Any = _described(json.dumps(engine.subject.vlm or engine.subject.lm))
    lm = whole if engine.subject.vlm is None else whole.lm
    bits = _BITS.get(engine.arguments.get("quantization", "none"), 8.0 * dtype.itemsize)
    weights = sum(m.weight.numel() for m in _matrices(lm)) * bits / 8
    if engine.subject.vlm is not None:
        eyes = [*whole.vision.parameters(), *whole.projector.parameters()]
        weights += sum(p.numel() for p in eyes) * dtype.itemsize
    lm.set_state_dtype(engine.arguments.get("state_dtype", "fp32"))
    # its cache is copied whenever it grows
    copies = 2 if engine.runtime == TRANSFORMERS else 1
    return weights + copies * state_bytes_of_step(lm, length, dtype) + _PROCESS


def available(device: str) -> float:
    """Bytes that models may take.

    Raises:
        ValueError: where the device is not on this machine.
    """
    check_device(device)
    return 0.9 * (float(torch.cuda.mem_get_info()[0]) if device == "cuda" else _free())


def check_device(device: str) -> None:
    """Refuse a device that is not on this machine, with a ValueError."""
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: torch sees no GPU on this machine")


def batches(sizes: Sequence[float], room: float) -> list[list[int]]:
    """Numbers of the sizes that fit together, in order; one that is too large alone is in none."""
    found: list[list[int]] = []
    left: list[float] = []
    for number, size in enumerate(sizes):
        if size > room:
            continue
        place = next((index for index, rest in enumerate(left) if size <= rest), None)
        if place is None:
            place = len(found)
            found.append([])
            left.append(room)
        found[place].append(number)
        left[place] -= size
    return found


@cache
def _described(tree: str) -> Component:
    """On the meta device: only shapes are asked for, once for every length."""
    return build_on_meta(json.loads(tree))


def _matrices(module: nn.Module) -> list[nn.Linear | nn.Embedding]:
    """Those with a weight of their own: a tied head is its embedding."""
    found = {id(m.weight): m for m in module.modules() if isinstance(m, nn.Linear | nn.Embedding)}
    return list(found.values())


def _free() -> float:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return float(next(line for line in lines if line.startswith("MemAvailable")).split()[1]) * 1024
    except (OSError, StopIteration):
        return float("inf")
