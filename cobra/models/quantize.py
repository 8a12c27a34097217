"""A language model in fewer bits: its linears, embedding and head replaced by packed ones. Inference only."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from cobra.kernels.quantize import check_group
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
_QUANTIZED = (nn.Linear, nn.Embedding, TiedEmbedding, FusedLinear)
# of random weights
_STD = 0.02


def quantize_(lm: LanguageModel, quantization: Quantization, group_size: int = 32) -> None:
    """Replace linears, embedding and head of `lm` in place, one after the other, each freed before the next.

    Activations keep the dtype that the model has. A weight that two modules share is packed once. Weights on
    the meta device (see `matrices_on_meta`) are drawn from N(0, 0.02^2) first: such a model shows speed only.

    Args:
        lm: a language model.
        quantization: none (the weights as they are), bf16, int8 (a scale a row) or int4 (a scale a group).
        group_size: columns that share a scale in int4: 32, 64 or 128. Fewer are more exact and larger.

    Raises:
        ValueError: if there is no such quantization or group size.
    """
    if quantization not in get_args(Quantization):
        raise ValueError(f"quantization is {quantization!r} but must be one of {get_args(Quantization)}")
    check_group(group_size, group_size)
    packers: dict[str, Callable[[Tensor], PackedMatrix]] = {
        "bf16": BF16Matrix,
        "int8": Int8Matrix,
        "int4": partial(Int4Matrix, group=group_size),
    }
    lm.requires_grad_(False)
    for places in _places_of_weights(lm):
        modules = [getattr(parent, name) for parent, name in places]
        weight = _materialised(modules[0].weight)
        if quantization == "none" or isinstance(modules[0], FusedLinear):
            dtype = weight.dtype if quantization == "none" else torch.bfloat16
            for module in modules:
                module.weight = nn.Parameter(weight.to(dtype), requires_grad=False)
        else:
            matrix = packers[quantization](weight)
            for (parent, name), module in zip(places, modules, strict=True):
                setattr(parent, name, _packed(module, matrix))


@contextmanager
def matrices_on_meta() -> Iterator[None]:
    """Modules built inside hold the weights of their linears and embeddings on the meta device.

    So a language model is built without the memory of its weights, which `quantize_` then makes one by one.
    """

    def hook(module: nn.Module, name: str, parameter: Any) -> Any:
        is_matrix = isinstance(module, nn.Linear | nn.Embedding) and name == "weight"
        # one that is on meta already may be a head's that shares it, and must stay the same object
        if not is_matrix or parameter is None or parameter.is_meta:
            return parameter
        return nn.Parameter(parameter.detach().to("meta"))

    handle = register_module_parameter_registration_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def _places_of_weights(lm: nn.Module) -> list[list[tuple[nn.Module, str]]]:
    """Parents and names of the modules to replace; those that share a weight are together."""
    places: dict[int, list[tuple[nn.Module, str]]] = {}
    for parent in lm.modules():
        for name, child in parent.named_children():
            if type(child) in _QUANTIZED:
                places.setdefault(id(child.weight), []).append((parent, name))
    return list(places.values())


def _materialised(weight: nn.Parameter) -> Tensor:
    return torch.empty_like(weight, device="cpu").normal_(std=_STD) if weight.is_meta else weight.detach()


def _packed(module: Any, matrix: PackedMatrix) -> nn.Module:
    if isinstance(module, nn.Embedding):
        return PackedEmbedding(matrix, module.weight.dtype)
    return PackedLinear(matrix, module.bias)
