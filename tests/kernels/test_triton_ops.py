"""The Triton kernels against the reference in fp64: values, gradients and changed states.

On a GPU where there is one, else in Triton's interpreter.
"""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from cobra.kernels import ops, triton
from cobra.kernels.dispatch import BACKENDS, use_backend
from tests.kernels.cases import SEQUENCES, STEPS, Case, assert_near, each, floating, run
from tests.kernels.declared import AsDeclared
from tests.kernels.fast_interpreter import patch_once

pytestmark = pytest.mark.skipif(triton.unavailable() is not None, reason=str(triton.unavailable()))

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
LENGTHS = (0, 1, 63, 64, 65, 129)
# to which a token is a row like any other
NORMS = ("rms_norm", "add_rms_norm", "rms_norm_gated")
# whose tiles and chunks have 8 to 32 tokens; the interpreter takes 5 ms for each of a scan's
IN_TURN = ("causal_conv1d", "selective_scan")
BACKEND = next(backend for backend in BACKENDS if backend.name == "triton")
WRITTEN = [case for case in SEQUENCES + STEPS if triton.unavailable() is None and BACKEND.find(case.op)]


def lengths(case: Case) -> tuple[int, ...]:
    if case not in SEQUENCES:
        return (1,)
    if case.op in NORMS:
        return (0, 1, 9)
    return (0, 1, 31, 65) if case.op in IN_TURN else LENGTHS


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Triton or an error, and results that start as NaN."""
    patch_once(monkeypatch)
    torch.use_deterministic_algorithms(True)
    with use_backend("triton"):
        yield
    torch.use_deterministic_algorithms(False)


def placed(inputs: dict) -> dict:
    return {name: x.to(DEVICE) if isinstance(x, Tensor) else x for name, x in inputs.items()}


def with_gradients(inputs: dict) -> dict:
    return inputs | {name: inputs[name].requires_grad_() for name in floating(inputs)}


def both(case: Case, inputs: dict) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Results on Triton, and those that the specification gives in fp64."""
    exact, given = each(inputs, Tensor.double), placed(each(inputs, Tensor.clone))
    if case in SEQUENCES:
        exact, given = with_gradients(exact), with_gradients(given)
    with AsDeclared():
        actual = run(getattr(ops, case.op), case, given)
    return {name: value.cpu() for name, value in actual.items()}, run(case.spec, case, exact)


@pytest.mark.parametrize(
    ("case", "length"),
    [
        # one token shows that all of it runs; the others take minutes in the interpreter
        pytest.param(case, length, marks=() if length <= 1 else pytest.mark.triton)
        for case in WRITTEN
        for length in lengths(case)
    ],
    ids=str,
)
def test_values_and_gradients_are_the_references(case: Case, length: int) -> None:
    assert_near(*both(case, case.make(length)), 2e-5)


@pytest.mark.triton
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("case", WRITTEN, ids=str)
def test_half_precision_is_computed_in_fp32(case: Case, dtype: torch.dtype) -> None:
    length = 9 if case.op in NORMS else 17 if case.op in IN_TURN else 65
    actual, expected = both(case, each(case.make(length), lambda x: x.to(dtype)))
    assert actual["y"].dtype == dtype
    assert_near(actual, expected, 1.5e-2)
