"""Which backend runs an op, and what is said when none does."""

import importlib.util
import inspect
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._ops import OpOverload

from cobra.kernels import dispatch, ops
from cobra.kernels.call import NO_GRADIENT, Call, Limit, limited
from cobra.kernels.dispatch import OPS, Backend, accepting, exporting_with, use_backend
from cobra.kernels.ops import causal_conv1d, embedding_bf16, rms_norm, selective_state_update
from cobra.kernels.show import explain


def doubled(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    # as a native kernel without a gradient: autograd does not see it
    return 2.0 * x.detach()


@limited(Limit(lambda call: call.shape("weight") != (4, 5), "is afraid of five taps"))
def unchanged(x: Tensor, *_: Any) -> tuple[Tensor, None]:
    return x, None


Add = Callable[..., None]


@pytest.fixture
def add_backend(monkeypatch: pytest.MonkeyPatch) -> Add:
    """Leaves the reference and, before it, a backend named "fast" that runs rms_norm on the CPU in fp32.

    It also convolves, but not with five taps: y is x.
    """

    def add(reason: str | None = None, **more: Callable[..., Any]) -> None:
        found: dict[str, Callable[..., Any]] = {"rms_norm": doubled, "causal_conv1d": unchanged, **more}
        fast = Backend("fast", ("cpu",), (torch.float32,), lambda: reason, lambda op: found.get(op))
        monkeypatch.setattr(dispatch, "BACKENDS", (fast, dispatch.BACKENDS[-1]))

    monkeypatch.setattr(dispatch, "_candidates_of", {})
    monkeypatch.setattr(dispatch, "_asked", None)
    return add


CPU = torch.device("cpu")
X, WEIGHT = torch.ones(2, 4), torch.ones(4)


def test_the_first_backend_that_accepts_runs(add_backend: Add) -> None:
    add_backend()
    assert (rms_norm(X, WEIGHT) == 2.0).all()
    assert (rms_norm(X.double(), WEIGHT) < 2.0).all()
    assert [backend.name for backend in accepting("ssd_chunk_scan", CPU, torch.float32)] == ["reference"]


def test_an_unavailable_backend_is_passed_over(add_backend: Add) -> None:
    add_backend("no compiler was found at install time")
    assert (rms_norm(X, WEIGHT) < 2.0).all()


def test_a_backend_asked_for_never_falls_back(add_backend: Add) -> None:
    add_backend("no compiler was found at install time")
    with use_backend("fast"), pytest.raises(RuntimeError, match="fast: no compiler was found"):
        rms_norm(X, WEIGHT)


@pytest.mark.parametrize(
    ("x", "reason"),
    [
        (X.to("meta"), "fast: runs on cpu, not on meta"),
        (X.double(), "fast: takes torch.float32, not torch.float64"),
    ],
)
def test_a_refusal_says_why(add_backend: Add, x: Tensor, reason: str) -> None:
    add_backend()
    with use_backend("fast"), pytest.raises(RuntimeError, match=reason):
        rms_norm(x, WEIGHT.to(x.device))
    with use_backend("fast"), pytest.raises(RuntimeError, match="fast: has no gelu_tanh"):
        ops.gelu_tanh(X)


@pytest.mark.parametrize("dynamic", [None, False, True])
def test_a_call_beyond_a_limit_goes_to_the_next_backend(add_backend: Add, dynamic: bool | None) -> None:
    add_backend()
    torch.compiler.reset()
    compiled = torch.compile(causal_conv1d, fullgraph=True, backend="eager", dynamic=dynamic)
    x = torch.ones(1, 3, 4)
    for taps in (4, 5, 4):
        for op in (causal_conv1d, compiled):
            assert torch.equal(op(x, torch.zeros(4, taps))[0], x) == (taps == 4)
    for op in (causal_conv1d, compiled):
        with use_backend("fast"), pytest.raises(RuntimeError, match="fast: is afraid of five taps"):
            op(x, torch.zeros(4, 5))


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("learns", ["x", "weight"])
def test_a_backend_without_a_gradient_never_runs_where_one_is_needed(
    add_backend: Add, learns: str, compiled: bool
) -> None:
    add_backend(rms_norm=limited(NO_GRADIENT)(doubled))
    torch.compiler.reset()
    norm = torch.compile(rms_norm, fullgraph=True, backend="eager") if compiled else rms_norm
    inputs: dict[str, Any] = {"x": X.clone(), "weight": WEIGHT.clone()}
    inputs[learns].requires_grad_()
    y = norm(**inputs)
    assert (y < 2.0).all()
    assert torch.autograd.grad(y.sum(), inputs[learns])[0].shape == inputs[learns].shape
    with torch.no_grad():
        assert (norm(**inputs) == 2.0).all()
    with use_backend("fast"), pytest.raises(RuntimeError, match="fast: has no gradient"):
        rms_norm(**inputs)


def test_the_gradient_of_any_tensor_of_any_op_is_seen(add_backend: Add) -> None:
    asked: list[bool] = []

    def note(call: Call) -> bool:
        asked.append(call.gradient)
        return True

    add_backend(**{name: limited(Limit(note, ""))(lambda *_: None) for name in OPS})
    state = torch.zeros(1, 4, 2)
    one = torch.ones(1, 1, 2, requires_grad=True)
    selective_state_update(state, torch.ones(1, 4), torch.ones(1, 4), torch.ones(4, 2), one.detach(), one)
    rms_norm(X, WEIGHT)
    assert asked == [True, False]


def test_the_dtype_is_that_of_the_result(add_backend: Add) -> None:
    add_backend(selective_state_update=lambda *_: "fast", embedding_bf16=lambda *_: "fast")
    half, x = torch.zeros(1, 4, 2).bfloat16(), torch.ones(1, 4)
    B = torch.ones(1, 1, 2)
    assert selective_state_update(half, x, x, torch.ones(4, 2), B, B) == "fast"
    assert selective_state_update(half.float(), x.double(), x, torch.ones(4, 2), B, B) != "fast"
    ids, table = torch.zeros(3, dtype=torch.int64), torch.zeros(5, 2).bfloat16()
    assert embedding_bf16(ids, table) == "fast"
    assert embedding_bf16(ids, table, torch.float64).dtype == torch.float64


def test_a_backend_takes_all_arguments_in_order(add_backend: Add) -> None:
    taken: list[Any] = []
    add_backend(causal_conv1d=lambda *values: taken.extend(values))
    x, weight = torch.ones(1, 3, 4), torch.ones(4, 2)
    causal_conv1d(x, grid=(1, 3), weight=weight, activation="silu")
    assert taken == [x, weight, None, None, None, "silu", None, "forward", (1, 3)]


def test_use_backend_ends_with_its_block(add_backend: Add) -> None:
    add_backend()
    with use_backend("reference"):
        assert (rms_norm(X, WEIGHT) < 2.0).all()
        with use_backend(None):
            assert (rms_norm(X, WEIGHT) == 2.0).all()
        assert (rms_norm(X, WEIGHT) < 2.0).all()
    assert (rms_norm(X, WEIGHT) == 2.0).all()


def test_an_unknown_backend_is_named() -> None:
    with pytest.raises(ValueError, match=r"'tritn'.*reference"), use_backend("tritn"):
        pass


def test_the_environment_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COBRA_BACKEND", "tritn")
    # a second copy of the module, because the variable is read once
    spec = importlib.util.spec_from_file_location("second_dispatch", dispatch.__file__)
    assert spec is not None
    assert spec.loader is not None
    second = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, second)
    spec.loader.exec_module(second)
    norm = second.op(inspect.unwrap(rms_norm))
    with pytest.raises(ValueError, match="no backend is called 'tritn'"):
        norm(X, WEIGHT)
    with second.use_backend("reference"):
        assert (norm(X, WEIGHT) < 2.0).all()


def parameters(function: Any) -> list[str]:
    if isinstance(function, OpOverload):
        return [argument.name for argument in function._schema.arguments]
    names = list(inspect.signature(function).parameters)
    if names != ["inputs"]:
        return names
    # one that only adds to an operator's arguments whether to keep something
    return parameters(inspect.getclosurevars(function).globals[f"_{function.__name__}"])[:-1]


@pytest.mark.parametrize("backend", dispatch.BACKENDS, ids=lambda backend: backend.name)
@pytest.mark.parametrize("op", OPS)
def test_every_backend_has_every_op_of_the_same_parameters(op: str, backend: Backend) -> None:
    if reason := backend.unavailable():
        pytest.skip(reason)
    if backend.name in ("mamba_ssm", "hub") and backend.find(op) is None:
        pytest.skip(f"{backend.name} has no {op}")
    assert parameters(backend.find(op)) == list(inspect.signature(OPS[op]).parameters)


def test_every_op_can_be_imported_from_the_folder() -> None:
    assert all(getattr(ops, name) is op for name, op in OPS.items())


def test_explain_lists_every_op_on_every_backend(add_backend: Add) -> None:
    add_backend()
    rows = {(row.op, row.backend): row for row in explain(CPU, torch.float32)}
    assert len(rows) == 2 * len(OPS)
    assert rows["rms_norm", "fast"].chosen
    assert rows["rms_norm", "reference"].reason == "ok"
    assert not rows["rms_norm", "reference"].chosen
    assert rows["mamba_step", "fast"].reason == "has no mamba_step"
    assert rows["mamba_step", "reference"].chosen
    assert rows["causal_conv1d", "fast"].chosen
    assert rows["causal_conv1d", "fast"].reason == "ok; is afraid of five taps"


def test_explain_follows_the_choice(add_backend: Add) -> None:
    add_backend()
    with use_backend("reference"):
        assert {row.backend for row in explain(CPU, torch.float32) if row.chosen} == {"reference"}
    with use_backend("fast"):
        assert [row.op for row in explain(CPU, torch.float32) if row.chosen] == ["causal_conv1d", "rms_norm"]


def test_export_takes_plain_pytorch_only(add_backend: Add) -> None:
    add_backend()

    class Norm(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return rms_norm(x, WEIGHT)

    exported = torch.export.export(Norm(), (X,)).module()
    with use_backend("reference"):
        torch.testing.assert_close(exported(X), rms_norm(X, WEIGHT))
    with use_backend("fast"), pytest.raises(RuntimeError, match="exported graph holds only plain PyTorch"):
        torch.export.export(Norm(), (X,))


def test_export_takes_what_it_is_given_first(add_backend: Add) -> None:
    add_backend()

    class Norm(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return rms_norm(x, WEIGHT)

    with exporting_with({"rms_norm": lambda x, weight, eps: 3.0 * x}):
        assert (torch.export.export(Norm(), (X,)).module()(X) == 3.0).all()
        assert (rms_norm(X, WEIGHT) == 2.0).all()
    assert (torch.export.export(Norm(), (X,)).module()(X) < 2.0).all()


def test_a_compiled_call_follows_the_choice(add_backend: Add) -> None:
    add_backend()
    torch.compiler.reset()
    compiled = torch.compile(rms_norm, fullgraph=True, backend="eager")
    assert (compiled(X, WEIGHT) == 2.0).all()
    with use_backend("reference"):
        assert (compiled(X, WEIGHT) < 2.0).all()
    assert (compiled(X, WEIGHT) == 2.0).all()
