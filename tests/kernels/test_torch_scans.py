"""The scans of plain PyTorch against the reference in fp64, whatever is computed at once."""

import inspect
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from cobra.kernels import ops
from cobra.kernels.dispatch import BACKENDS, use_backend
from cobra.kernels.torch import segments
from tests.kernels.cases import Case, assert_near, each, floating, run
from tests.kernels.declared import AsDeclared
from tests.kernels.sequence_inputs import Inputs, normal, scan, scan_with_all, ssd, ssd_with_all

CASES = [
    Case("ssd_chunk_scan", ssd),
    Case("ssd_chunk_scan", ssd_with_all),
    Case("selective_scan", scan),
    Case("selective_scan", scan_with_all),
]
LENGTHS = (0, 1, 63, 64, 65, 129, 257)
# a chunk at a time, several, and the whole
ROOMS = (1, 25_000, 10**9)


@pytest.fixture(autouse=True)
def poisoned() -> Iterator[None]:
    """These kernels, and results that start as NaN."""
    torch.use_deterministic_algorithms(True)
    with use_backend("torch"):
        yield
    torch.use_deterministic_algorithms(False)


def with_gradients(inputs: Inputs) -> Inputs:
    return inputs | {name: inputs[name].requires_grad_() for name in floating(inputs)}


def truth(case: Case, inputs: Inputs) -> dict[str, Tensor]:
    return run(case.spec, case, with_gradients(each(inputs, Tensor.double)))


@pytest.mark.parametrize("room", ROOMS)
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_and_gradients_are_the_references(
    case: Case, length: int, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments, "CPU_ROOM", room)
    inputs = case.make(length)
    expected = truth(case, inputs)
    assert_near(run(getattr(ops, case.op), case, with_gradients(each(inputs, Tensor.clone))), expected, 1e-5)
    exact = with_gradients(each(inputs, Tensor.double))
    assert_near(run(getattr(ops, case.op), case, exact), expected, 1e-10)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_half_precision_is_computed_in_fp32(case: Case, dtype: torch.dtype) -> None:
    rough = each(case.make(65), lambda x: x.to(dtype))
    expected = truth(case, rough)
    with torch.autocast("cpu", dtype=torch.bfloat16), AsDeclared():
        actual = run(getattr(ops, case.op), case, with_gradients(rough))
    assert actual["y"].dtype == dtype
    assert_near(actual, expected, 1.5e-2)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_is_kept_for_the_gradient_is_little(case: Case) -> None:
    """Beside inputs a quarter at most of what autograd keeps of the reference, and twice for two times L."""

    def kept(backend: str, length: int) -> int:
        inputs = with_gradients(case.make(length))
        found: dict[int, int] = {inputs[name].data_ptr(): 0 for name in floating(inputs)}

        def keep(x: Tensor) -> Tensor:
            found.setdefault(x.untyped_storage().data_ptr(), x.untyped_storage().nbytes())
            return x

        with use_backend(backend), torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            results = getattr(ops, case.op)(**inputs)
        assert results[0].requires_grad
        return sum(found.values())

    assert 0 < kept("torch", 256) < kept("reference", 256) / 4
    assert kept("torch", 512) < 2.2 * kept("torch", 256)


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_operator_is_what_it_declares(case: Case, keep: bool) -> None:
    assert next(backend for backend in BACKENDS if backend.name == "torch").find(case.op)
    bound = inspect.signature(getattr(ops, case.op)).bind(**case.make(70))
    bound.apply_defaults()
    arguments: list[Any] = [*bound.arguments.values(), keep]
    if keep:
        arguments = [
            x.requires_grad_() if isinstance(x, Tensor) and x.is_floating_point() else x for x in arguments
        ]
    operator = getattr(torch.ops.cobra_torch, case.op).default
    tests = ("test_schema", "test_faketensor", "test_autograd_registration")
    torch.library.opcheck(operator, tuple(arguments), test_utils=tests)


def test_a_strong_decay_between_weak_ones_costs_no_digits() -> None:
    inputs = scan(100)
    inputs["delta"] = 0.01 * inputs["delta"]
    inputs["delta"][:, 10::40] = 1e7
    expected = truth(CASES[2], inputs)
    assert_near(run(ops.selective_scan, CASES[2], with_gradients(inputs)), expected, 1e-5)


def test_a_model_of_scans_exports_without_operators_and_compiles_whole() -> None:
    def mix(tokens: Tensor) -> Tensor:
        B, C = tokens[..., None, 6:11], tokens[..., None, 11:]
        y, _ = ops.selective_scan(
            tokens[..., :6], tokens[..., :6], -torch.ones(6, 5), B, C, delta_softplus=True
        )
        x, dt = y.unflatten(2, (3, 2)), y[..., :3]
        y, _ = ops.ssd_chunk_scan(x, dt, -torch.ones(3), B, C, dt_softplus=True, chunk_size=8)
        return y

    class Mix(torch.nn.Module):
        def forward(self, tokens: Tensor) -> Tensor:
            return mix(tokens)

    tokens = normal(2, 20, 16)
    exported = torch.export.export(Mix(), (tokens,))
    assert not any("cobra" in str(node.target) for node in exported.graph.nodes)
    torch.testing.assert_close(exported.module()(tokens), mix(tokens))
    torch.compiler.reset()
    gradients: list[Tensor] = []
    for function in (torch.compile(mix, fullgraph=True, backend="aot_eager"), mix):
        leaf = tokens.clone().requires_grad_()
        gradients.append(*torch.autograd.grad(function(leaf).square().sum(), leaf))
    torch.testing.assert_close(*gradients)
