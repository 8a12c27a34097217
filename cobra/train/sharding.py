"""Fully sharded training (torch's FSDP2): every device keeps a share of each weight.

A block of a language model is gathered while it runs, everything else while a step of training does. So
devices gather the same weights in the same order whatever their batches hold: were the vision tower gathered
when it is called, a device that sees a picture would wait for ever for one that sees none.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import AdamW, Optimizer

from cobra.models.lm.base import LanguageModel
from cobra.models.vlm import CobraVLM


def data_parallel(mesh: DeviceMesh) -> DeviceMesh:
    """The devices of Lightning's ModelParallelStrategy, among which weights are sharded.

    Raises:
        ValueError: where it would have them compute parts of one product, which is not built here.
    """
    if mesh["tensor_parallel"].size() > 1:
        raise ValueError(
            "ModelParallelStrategy: weights are sharded among data-parallel devices only: set its "
            f"data_parallel_size to {mesh.size()}, the number of devices, and tensor_parallel_size to 1"
        )
    return mesh["data_parallel"]


def shard(module: nn.Module, mesh: DeviceMesh, *steps: str) -> None:
    """Shard a module in place.

    Args:
        module: holds models and all else that learns; the same on every device.
        mesh: the devices.
        steps: its methods through which everything in it runs, besides forward. The models in it can answer
            outside of them, too.
    """
    lms = [list(child.units()) for child in module.modules() if isinstance(child, LanguageModel)]
    for block in (block for blocks in lms for block in blocks):
        fully_shard(block, mesh=mesh)
    fully_shard(module, mesh=mesh)
    for blocks in ([module], *lms):
        _gather_backwards(blocks)
    setattr(module, _GATHER, _gather)
    for name in (*steps, _GATHER):
        register_fsdp_forward_method(module, name)
    for model in module.modules():
        if isinstance(model, CobraVLM):
            vars(model)["stream"] = partial(_stream, module, model, model.stream)


_GATHER = "gather_weights"


@contextmanager
def whole(module: nn.Module, part: nn.Module) -> Iterator[None]:
    """Inside, every device has all weights of a part of a sharded module; all devices must enter and leave.

    Between, none waits for another: answers may differ in number and length.
    """
    if not is_sharded(part):
        yield
        return
    blocks = [unit for unit in part.modules() if isinstance(unit, FSDPModule) and unit is not module]
    for block in blocks:
        block.set_reshard_after_forward(False)
    # memory that is first used in inference mode could not be trained in later
    with torch.inference_mode(False), torch.no_grad():
        getattr(module, _GATHER)(blocks)
    try:
        yield
    finally:
        for block in blocks:
            block.set_reshard_after_forward(True)
            block.reshard()
        assert isinstance(module, FSDPModule)
        module.reshard()


def is_sharded(module: nn.Module) -> bool:
    """Whether a device has only its share of some weights now."""
    return any(isinstance(parameter, DTensor) for parameter in module.parameters())


def zero(module: nn.Module) -> Tensor | int:
    """0, which gives each weight that learns and is gathered now a gradient, if of zeros.

    Devices add up their gradients of the same weights, also where one has used fewer of them.
    """
    learning = [p for p in module.parameters() if p.requires_grad and not isinstance(p, DTensor)]
    return sum(0 * p.flatten()[0] for p in learning)


def start_moments(optimizer: AdamW) -> None:
    """Make the moments of all weights, as AdamW would in their first step.

    A sharded checkpoint must hold those of every weight, also of those that no stage has trained yet.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            zeros = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
            optimizer.state[parameter] = {"step": torch.tensor(0.0), **zeros}


def take_moments(optimizer: Optimizer, whole: dict[str, Any]) -> None:
    """Give an optimizer of shares the moments of one that had whole weights, in groups of the same sizes.

    Those of weights that had not been trained yet stay as `start_moments` makes them. Lightning would look
    for them by their number among all weights, which is another, and find none.
    """
    for group, saved in zip(optimizer.param_groups, whole["param_groups"], strict=True):
        for parameter, number in zip(group["params"], saved["params"], strict=True):
            for name, value in whole["state"].get(number, {}).items():
                kept = optimizer.state[parameter][name]
                if isinstance(kept, DTensor):
                    # every device has read all of it, and takes its share
                    value = distribute_tensor(value, kept.device_mesh, kept.placements, src_data_rank=None)
                kept.copy_(value)


def gathered_state(module: nn.Module) -> dict[str, Tensor]:
    """The state of a sharded module, on the CPU of the first device; empty on others, which must ask too.

    A weight that has two names, e.g. a tied head, is there once.
    """
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    state: dict[str, Any] = get_model_state_dict(module, options=options)
    names: dict[int, str] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        names.setdefault(id(tensor), name)
    return {name: state[name] for name in names.values() if name in state}


def _gather_backwards(blocks: list[nn.Module]) -> None:
    """Have each block gather the one before it ahead of time, in the backward pass.

    By itself FSDP gathers what it saw run before, also to answer, which one device may have done alone. The
    first names itself, which is gathered by then: without a name it would do that, too.
    """
    for before, block in pairwise([*blocks[:1], *blocks]):
        assert isinstance(before, FSDPModule)
        assert isinstance(block, FSDPModule)
        block.set_modules_to_backward_prefetch([before])


def _gather(blocks: list[FSDPModule]) -> None:
    """What runs as a step of the module, which is gathered itself, too."""
    for block in blocks:
        block.unshard()


def _stream(module: nn.Module, model: CobraVLM, stream: Any, *args: Any, **options: Any) -> Iterator[Tensor]:
    """`CobraVLM.stream` with whole weights."""
    with whole(module, model):
        yield from stream(*args, **options)
