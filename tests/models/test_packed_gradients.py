"""Gradients through packed weights: those of the weight that packing left, and training over it."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cobra.kernels.dispatch import use_backend
from cobra.models import packed
from cobra.models.packed import BF16Matrix, Int4Matrix, Int8Matrix, PackedLinear, PackedMatrix

FORMATS: dict[str, Callable[[Tensor], PackedMatrix]] = {
    "bf16": BF16Matrix,
    "int8": Int8Matrix,
    "int4": lambda weight: Int4Matrix(weight, 32),
    "int4 of 128": lambda weight: Int4Matrix(weight, 128),
}


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("backend", [None, "torch", "reference"])
@pytest.mark.parametrize("name", FORMATS)
def test_the_gradient_is_that_of_the_unpacked_weight(
    name: str, backend: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of whole blocks of rows and some that are left over, more than are unpacked at a time."""
    monkeypatch.setattr(packed, "_UNPACKED", 16 * 100)
    for rows, columns in ((37, 100), (48, 64), (5, 31)):
        matrix = FORMATS[name](normal(rows, columns))
        linear = PackedLinear(matrix, normal(rows))
        whole = matrix.unpacked(slice(None))
        x, dy = normal(2, 3, columns), normal(2, 3, rows)
        mine, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
        with use_backend(backend):
            y = linear(mine)
        expected = F.linear(theirs, whole, linear.bias)
        torch.testing.assert_close(y, expected, rtol=1e-3, atol=1e-3)
        y.backward(dy)
        expected.backward(dy)
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-5, atol=1e-5)
        with torch.no_grad():
            torch.testing.assert_close(y, linear(x), rtol=0 if backend is None else 1e-3, atol=1e-3)


@pytest.mark.parametrize("name", FORMATS)
def test_nothing_but_the_packed_weight_is_kept_and_autocast_is_obeyed(name: str) -> None:
    linear = PackedLinear(FORMATS[name](normal(32, 64)), None)
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    x = normal(4, 64).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        y = linear(x)
    assert not kept
    assert y.dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        y = linear(x)
    assert y.dtype == torch.bfloat16
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == torch.float32
    expected = linear.matrix.unpacked(slice(None)).sum(0)
    torch.testing.assert_close(x.grad, expected.expand(4, -1), rtol=1e-2, atol=1e-2)


def test_a_compiled_graph_has_the_gradient() -> None:
    linear, x = PackedLinear(FORMATS["int4"](normal(32, 64)), None), normal(4, 64)
    gradients = []
    for function in (linear, torch.compile(linear, backend="aot_eager", fullgraph=True)):
        asked = x.clone().requires_grad_()
        function(asked).square().sum().backward()
        gradients.append(asked.grad)
    torch.testing.assert_close(*gradients)
