"""The Triton norms' backward pass: rows too wide for a program, and programs with several rows."""

from collections.abc import Callable

import pytest
import torch

from cobra.kernels import triton
from tests.kernels import sequence_inputs
from tests.kernels.cases import Case, assert_near
from tests.kernels.sequence_inputs import Inputs
from tests.kernels.test_triton_ops import both, poisoned  # noqa: F401  (a fixture)

pytestmark = [
    pytest.mark.triton,
    pytest.mark.skipif(triton.unavailable() is not None, reason=str(triton.unavailable())),
]


@pytest.mark.parametrize(
    ("op", "make"),
    [("add_rms_norm", sequence_inputs.add_norm), ("rms_norm_gated", sequence_inputs.grouped_norm)],
)
def test_gradients_of_wide_rows_and_of_several_rows_a_program(
    op: str, make: Callable[[int], Inputs], monkeypatch: pytest.MonkeyPatch
) -> None:
    from cobra.kernels.triton import norms

    monkeypatch.setattr(norms, "_PROGRAMS", 3)
    case = Case(op, make)
    assert_near(*both(case, make(5)), 2e-5)
    monkeypatch.setattr(norms, "_WIDEST", 16)
    monkeypatch.setattr(norms, "_PART", 8)
    assert_near(*both(case, make(5)), 2e-5)


def test_the_gradient_of_a_sum_that_alone_is_used_passes() -> None:
    from cobra.kernels.ops import add_rms_norm

    x = torch.randn(3, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    weight = torch.ones(5, requires_grad=True)
    _, total = add_rms_norm(x, None, weight)
    dx, dweight = torch.autograd.grad(total.square().sum(), (x, weight))
    torch.testing.assert_close(dx, 2 * x.detach())
    assert not dweight.any()
