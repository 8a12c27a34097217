"""Weight-only linears, cycling over more weights than any cache holds, as a decoding model does."""

from collections.abc import Callable

import torch
from torch import Tensor

from cobra.bench.timing.case import Case, dtype_of
from cobra.kernels import huge_pages, ops
from cobra.kernels.step_graph import StepGraph


def linear_cycle(
    length: int, op: str, rows: int, width: int, mebibytes: int, dtype: str, group: int = 64
) -> Case:
    """Activations (length, width) through many weights (rows, width), without Python between them where ours.

    Args:
        length: rows of activations.
        op: linear_bf16, linear_w8 or linear_w4 of ours; torch_bf16, torch_int8 or torch_int4.
        rows: outputs.
        width: inputs.
        mebibytes: weights and scales in all.
        dtype: of the activations.
        group: inputs that share a scale, where 4 bits are asked for.
    """
    generator = torch.Generator(torch.get_default_device()).manual_seed(0)
    x = torch.randn(length, width, generator=generator).to(dtype_of(dtype))
    weight = 0.02 * torch.randn(rows, width, generator=generator)
    pack, multiply = _LINEARS[op]
    parts = pack(weight, group)
    size = sum(part.nbytes for part in parts)
    # equal values at distinct addresses: the memory is read all the same; huge pages, as in quantized models
    weights = [tuple(huge_pages.copy(part) for part in parts) for _ in range(-(-mebibytes * 2**20 // size))]

    def through(x: Tensor) -> Tensor:
        y = x
        for packed in weights:
            y = multiply(x, group, *packed)
        return y

    cycle = StepGraph(through)

    @torch.inference_mode()
    def run() -> object:
        return cycle(x)

    return Case(run, about={"step_bytes": size * len(weights)})


def _bf16(weight: Tensor, group: int) -> tuple[Tensor, ...]:
    return (weight.bfloat16(),)


def _torch_int8(weight: Tensor, group: int) -> tuple[Tensor, ...]:
    scales = weight.abs().amax(1) / 127
    return weight.div(scales[:, None]).round().to(torch.int8), scales.bfloat16()


def _torch_int4(weight: Tensor, group: int) -> tuple[Tensor, ...]:
    # which values they are does not matter to the speed
    codes = torch.full(weight.shape, 7, dtype=torch.int32)
    scales_and_zeros = torch.ones(weight.shape[1] // group, len(weight), 2, dtype=torch.bfloat16)
    return torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1), scales_and_zeros


# how a weight is packed, and a product with what that gives
_LINEARS: dict[str, tuple[Callable[[Tensor, int], tuple[Tensor, ...]], Callable[..., Tensor]]] = {
    "linear_bf16": (_bf16, lambda x, group, weight: ops.linear_bf16(x, weight)),
    "linear_w8": (
        lambda weight, group: ops.pack_w8(weight),
        lambda x, group, *packed: ops.linear_w8(x, *packed),
    ),
    "linear_w4": (
        ops.pack_w4,
        lambda x, group, packed, scales: ops.linear_w4(x, packed, scales, group),
    ),
    "torch_bf16": (_bf16, lambda x, group, weight: torch.nn.functional.linear(x, weight)),
    "torch_int8": (_torch_int8, lambda x, group, *packed: torch.ops.aten._weight_int8pack_mm(x, *packed)),
    "torch_int4": (
        _torch_int4,
        lambda x, group, packed, scales: torch.ops.aten._weight_int4pack_mm_for_cpu(x, packed, group, scales),
    ),
}
