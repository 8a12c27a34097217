"""A language model in fewer bits: its linears, embedding and head replaced by packed ones, which stay so."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from cobra.kernels.quantize import check_group
from cobra.models.linear import Linear
from cobra.models.lm.base import LanguageModel
from cobra.models.lm.layers import TiedEmbedding
from cobra.models.lm.mamba import FusedLinear
from cobra.models.packed import (
    BF16Matrix,
    Int4Matrix,
    Int8Matrix,
    PackedEmbedding,
    PackedLinear,
    PackedMatrix,
)

Quantization = Literal["none", "bf16", "int8", "int4"]

# these and no subclasses, which may compute something else
_QUANTIZED = (nn.Linear, Linear, nn.Embedding, TiedEmbedding, FusedLinear)
# of random weights
_STD = 0.02


def drawn(weight: Tensor) -> Tensor:
    """A weight from N(0, 0.02^2) in the place of one on the meta device: such a model shows speed only."""
    return torch.empty_like(weight, device="cpu").normal_(std=_STD)


def quantize_(
    lm: LanguageModel,
    quantization: Quantization,
    group_size: int = 32,
    make: Callable[[Tensor], Tensor] = drawn,
) -> None:
    """Replace linears, embedding and head of `lm` in place, one after the other, each freed before the next.

    Activations keep the dtype that the model has. A weight that two modules share is packed once. `lm` then
    remembers how it is quantized, which a saved model's config.json says.

    Args:
        lm: a language model whose weights are not packed yet.
        quantization: none (the weights as they are), bf16, int8 (a scale a row) or int4 (a scale a group).
        group_size: columns that share a scale in int4: 32, 64 or 128. Fewer are more exact and larger.
        make: what stands for a weight that is on the meta device (see `matrices_on_meta`); it may be on meta,
            too, and then so is what is packed.

    Raises:
        ValueError: if there is no such quantization or group size, or the weights are packed already.
    """
    if quantization not in get_args(Quantization):
        raise ValueError(f"quantization is {quantization!r} but must be one of {get_args(Quantization)}")
    check_group(group_size, group_size)
    if lm.quantized is not None and quantization != "none":
        raise ValueError(
            f"the weights are in {lm.quantized['quantization']} already, and {quantization} would round them "
            "a second time: leave it out, or load the model that they were made from"
        )
    packers: dict[str, Callable[[Tensor], PackedMatrix]] = {
        "bf16": BF16Matrix,
        "int8": Int8Matrix,
        "int4": partial(Int4Matrix, group=group_size),
    }
    lm.requires_grad_(False)
    for places in _places_of_weights(lm):
        modules = [getattr(parent, name) for parent, name in places]
        weight = modules[0].weight.detach()
        weight = make(modules[0].weight) if weight.is_meta else weight
        if quantization == "none" or isinstance(modules[0], FusedLinear):
            dtype = weight.dtype if quantization == "none" else torch.bfloat16
            for module in modules:
                module.weight = nn.Parameter(weight.to(dtype), requires_grad=False)
        else:
            matrix = packers[quantization](weight)
            for (parent, name), module in zip(places, modules, strict=True):
                setattr(parent, name, _packed(module, matrix))
    if quantization != "none":
        lm.quantized = {"quantization": quantization, "group_size": group_size}


def matrices_on_meta() -> AbstractContextManager[None]:
    """Modules built inside hold the weights of their linears and embeddings on the meta device.

    So a language model is built without the memory of its weights, which `quantize_` then makes one by one.
    """
    return parameters_on_meta(
        lambda module, name: isinstance(module, nn.Linear | nn.Embedding) and name == "weight"
    )


@contextmanager
def lms_on_meta() -> Iterator[None]:
    """A `CobraVLM` that is built inside has a language model as `matrices_on_meta` makes it, to be packed."""
    token = _building.set(matrices_on_meta)
    try:
        yield
    finally:
        _building.reset(token)


def building_lm() -> AbstractContextManager[None]:
    """What a `CobraVLM` builds its language model in."""
    return _building.get()()


_building: ContextVar[Callable[[], AbstractContextManager[None]]] = ContextVar(
    "building", default=nullcontext
)


@contextmanager
def parameters_on_meta(
    chosen: Callable[[nn.Module, str], bool] = lambda module, name: True,
) -> Iterator[None]:
    """Modules built inside hold their parameters, or some of them, on the meta device, but no buffers."""

    def hook(module: nn.Module, name: str, parameter: Any) -> Any:
        # one that is on meta already may be a head's that shares it, and must stay the same object
        if parameter is None or parameter.is_meta or not chosen(module, name):
            return parameter
        made = nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)
        made.__dict__.update(parameter.__dict__)
        return made

    handle = register_module_parameter_registration_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def _places_of_weights(lm: nn.Module) -> list[list[tuple[nn.Module, str]]]:
    """Parents and names of the modules to replace; those that share a weight are together."""
    places: dict[int, list[tuple[nn.Module, str]]] = {}
    # in dictionaries peft keeps adapters, which are small, and to be merged as they are
    for parent in (module for module in lm.modules() if not isinstance(module, nn.ModuleDict)):
        for name, child in parent.named_children():
            if type(child) in _QUANTIZED:
                places.setdefault(id(child.weight), []).append((parent, name))
    return list(places.values())


def _packed(module: Any, matrix: PackedMatrix) -> nn.Module:
    if isinstance(module, nn.Embedding):
        return PackedEmbedding(matrix, module.weight.dtype)
    return PackedLinear(matrix, module.bias)
