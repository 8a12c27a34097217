"""Gradients through packed weights: those of the weight that packing left, and training over it."""

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cobra.kernels.dispatch import use_backend
from cobra.models import packed
from cobra.models.adapters import Lora, adapt
from cobra.models.packed import BF16Matrix, Int4Matrix, Int8Matrix, PackedLinear, PackedMatrix
from cobra.models.quantize import quantize_
from cobra.models.vlm import CobraVLM
from tests.models.test_adapters import vlm

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


def losses(model: CobraVLM, step: int, steps: int = 200, rate: float = 3e-3) -> list[float]:
    """Of training, bf16 under autocast, on texts that count on by so much."""
    learning = [parameter for parameter in model.lm.parameters() if parameter.requires_grad]
    optimizer, generator = torch.optim.AdamW(learning, rate), torch.Generator().manual_seed(0)
    found = []
    for _ in range(steps):
        start = torch.randint(0, 64, (8, 1), generator=generator)
        noise = torch.rand(8, 24, generator=generator) < 0.1
        ids = (start + step * torch.arange(24)).remainder(64).masked_fill(noise, 70)
        with torch.autocast("cpu", torch.bfloat16):
            loss = model.loss(model(ids), ids)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append(loss.item())
    return found


@pytest.mark.slow
def test_adapters_over_four_bits_learn_as_over_bf16() -> None:
    base = vlm("mamba2").eval()
    assert losses(base, step=1)[-1] < losses(vlm("mamba2"), step=1, steps=1)[0]
    final = []
    for quantization in ("none", "int4"):
        model = copy.deepcopy(base)
        if quantization == "int4":
            quantize_(model.lm, "int4")
        torch.manual_seed(1)
        adapt(model, {"lm": Lora(16, 32)})
        learnt = losses(model, step=3)
        assert sum(learnt[-20:]) < 0.7 * sum(learnt[:5]) * 4
        final.append(sum(learnt[-20:]) / 20)
    assert final[1] == pytest.approx(final[0], rel=0.01), final
