"""Tokens under a False mask leave no trace: each row is what it is without them, in values and gradients."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from cobra.kernels import cpu, ops
from cobra.kernels.cpu import library
from cobra.kernels.dispatch import use_backend
from cobra.kernels.scan_order import visit

LEVELS = [] if cpu.unavailable() else library.levels()
PLAIN = ("reference", "torch")
# of the native kernels: more than they take at once; of the others: more than two chunks
LENGTHS = {"reference": 40, "torch": 70} | dict.fromkeys(LEVELS, 300)
# inputs that have a row for each token
PER_TOKEN = ("x", "dt", "B", "C", "z", "u", "delta")
Inputs = dict[str, Any]


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def conv(batch: int, length: int) -> tuple[Inputs, Inputs]:
    needed = {"x": normal(batch, length, 133), "weight": normal(133, 4)}
    return needed, {"bias": normal(133), "initial_state": normal(batch, 133, 3), "activation": "silu"}


def ssd(batch: int, length: int) -> tuple[Inputs, Inputs]:
    needed = {
        "x": normal(batch, length, 4, 5),
        "dt": normal(batch, length, 4),
        "A": -normal(4).exp(),
        "B": normal(batch, length, 2, 9),
        "C": normal(batch, length, 2, 9, seed=1),
        "dt_softplus": True,
        "chunk_size": 16,
    }
    more = {"D": normal(4), "dt_bias": normal(4)}
    return needed, more | {"initial_state": normal(batch, 4, 5, 9)}


def selective(batch: int, length: int) -> tuple[Inputs, Inputs]:
    needed = {
        "u": normal(batch, length, 22),
        "delta": normal(batch, length, 22),
        "A": -normal(22, 9).exp(),
        "B": normal(batch, length, 2, 9),
        "C": normal(batch, length, 2, 9, seed=1),
        "delta_softplus": True,
    }
    more = {"D": normal(22), "z": normal(batch, length, 22, seed=1), "delta_bias": normal(22)}
    return needed, more | {"initial_state": normal(batch, 22, 9)}


OPS: dict[Any, Callable[..., Any]] = {
    conv: ops.causal_conv1d,
    ssd: ops.ssd_chunk_scan,
    selective: ops.selective_scan,
}


def masks(length: int) -> Tensor:
    """A row each: False on the left, on the right, in the middle, anywhere, everywhere and nowhere."""
    index = torch.arange(length)
    left, right, middle = index >= 7, index < length - 7, (index < length // 3) | (index >= length // 2)
    anywhere = torch.rand(length, generator=torch.Generator().manual_seed(0)) > 0.4
    return torch.stack([left, right, middle, anywhere, index < 0, index >= 0])


@contextmanager
def backend(name: str) -> Iterator[None]:
    if name in PLAIN:
        with use_backend(name):
            yield
    else:
        with library.use_level(name), use_backend("cpu"):
            yield


def hidden(mask: Tensor, like: Tensor) -> Tensor:
    """Where tokens (B, L) of `like` (B, L, ...) are masked, with as many dimensions."""
    return ~mask.view(*mask.shape, *[1] * (like.dim() - 2))


def poisoned(inputs: Inputs, mask: Tensor) -> Inputs:
    """The inputs with what must not be read under the mask."""
    bad = {n: m.masked_fill(hidden(mask, m), torch.nan) for n, m in inputs.items() if n in PER_TOKEN}
    return inputs | bad | {n: m.where(mask, 77) for n, m in inputs.items() if n == "seq_idx"}


def without(inputs: Inputs, row: int, kept: Tensor) -> Inputs:
    """One row of the inputs, of some of its tokens."""
    here = slice(row, row + 1)
    tokens = {n: m[here, kept] for n, m in inputs.items() if n in (*PER_TOKEN, "seq_idx")}
    return inputs | tokens | {n: m[here] for n, m in inputs.items() if n == "initial_state"}


def differentiate(op: Callable[..., Any], inputs: Inputs, seeds: tuple[Tensor, ...]) -> tuple[Any, Inputs]:
    """y and the final state, and the gradient of each input where theirs are the seeds."""
    learnt = {
        n: m.detach().requires_grad_()
        for n, m in inputs.items()
        if isinstance(m, Tensor) and m.is_floating_point()
    }
    results = op(**inputs | learnt)
    # where there is no token nothing may depend on anything
    pairs = [(result, seed) for result, seed in zip(results, seeds, strict=True) if result.requires_grad]
    loss = [0 * m.sum() for m in learnt.values()] + [result for result, _ in pairs]
    weights = [None] * len(learnt) + [seed for _, seed in pairs]
    gradients = torch.autograd.grad(loss, tuple(learnt.values()), weights, materialize_grads=True)
    return [result.detach() for result in results], dict(zip(learnt, gradients, strict=True))


def assert_close(actual: Tensor, expected: Tensor, name: str) -> None:
    tolerance = 1e-9 if expected.dtype == torch.float64 else 2e-5
    scale = max([1.0, *expected.abs().flatten().tolist()])
    torch.testing.assert_close(
        actual, expected, rtol=0, atol=tolerance * scale, msg=lambda text: f"{name}: {text}"
    )


def case(make: Any, length: int, more: bool, rows: Inputs, dtype: torch.dtype) -> tuple[Inputs, Tensor]:
    """Inputs for every row of `masks`, and the order in which tokens are visited."""
    needed, options = make(len(masks(length)), length)
    order = visit(torch.arange(length)[None], **rows)[0]
    if more:
        # sequences that begin and end under masks, too
        needed = needed | options | {"seq_idx": (order.argsort() // 9).repeat(len(masks(length)), 1)}
    return {
        n: m.to(dtype) if isinstance(m, Tensor) and m.is_floating_point() else m for n, m in needed.items()
    }, order


@pytest.mark.parametrize("name", LENGTHS)
@pytest.mark.parametrize("make", OPS)
@pytest.mark.parametrize(
    ("more", "scan_order"), [(False, "forward"), (True, "forward"), (True, "columns_reversed")]
)
def test_masked_tokens_leave_no_trace(make: Any, more: bool, scan_order: str, name: str) -> None:
    op, length, mask = OPS[make], LENGTHS[name], masks(LENGTHS[name])
    rows = {"scan_order": scan_order, "grid": (10, length // 10)}
    inputs, order = case(make, length, more, rows, torch.float64 if name in PLAIN else torch.float32)
    with backend(name):
        dy, dfinal = (normal(*result.shape, seed=5).to(result.dtype) for result in op(**inputs))
        seeds = dy.masked_fill(hidden(mask, dy), torch.nan), dfinal
        (y, final), gradients = differentiate(op, poisoned(inputs, mask) | rows | {"mask": mask}, seeds)
        sums = {n: torch.zeros_like(gradient) for n, gradient in gradients.items()}
        for row in range(len(mask)):
            here, kept = slice(row, row + 1), order[mask[row, order]]
            alone, expected = differentiate(op, without(inputs, row, kept), (dy[here, kept], dfinal[here]))
            assert_close(y[here, kept], alone[0], "y")
            assert_close(final[here], alone[1], "the final state")
            for n, gradient in expected.items():
                if n in PER_TOKEN:
                    sums[n][here, kept] = gradient
                elif n == "initial_state":
                    sums[n][here] = gradient
                else:
                    sums[n] += gradient
    assert not y[~mask].any()
    for n, gradient in gradients.items():
        assert_close(gradient, sums[n], f"the gradient of {n}")
        assert n not in PER_TOKEN or not gradient[~mask].any()
