"""Which backend runs an op, and what is said when none does."""

import importlib.util
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from cobra.kernels import dispatch, reference
from cobra.kernels.call import Limit
from cobra.kernels.dispatch import Backend, explain, resolve, use_backend
from cobra.kernels.ops import causal_conv1d, rms_norm


def doubled(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return 2.0 * x


@pytest.fixture
def add_backend(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Leaves the reference and, before it, a backend named "fast" that runs rms_norm on the CPU in fp32.

    It also convolves, but not with five taps: y is x.
    """

    def add(reason: str | None = None) -> None:
        ops: dict[str, Callable[..., Any]] = {
            "rms_norm": doubled,
            "causal_conv1d": lambda x, *_, **__: (x, None),
        }
        limits = {"causal_conv1d": [Limit(lambda call: call.taps != 5, "is afraid of five taps")]}
        fast = Backend("fast", ("cpu",), (torch.float32,), ops, lambda: reason, limits)
        monkeypatch.setattr(dispatch, "BACKENDS", (fast, dispatch.BACKENDS[-1]))

    monkeypatch.setattr(dispatch, "_decided", {})
    monkeypatch.setattr(dispatch, "_asked", None)
    return add


X, WEIGHT = torch.ones(2, 4), torch.ones(4)


def test_the_first_backend_that_accepts_runs(add_backend: Callable[..., None]) -> None:
    add_backend()
    assert (rms_norm(X, WEIGHT) == 2.0).all()
    assert (rms_norm(X.double(), WEIGHT) < 2.0).all()
    assert resolve("ssd_chunk_scan", "cpu", torch.float32) is reference.OPS["ssd_chunk_scan"]


def test_an_unavailable_backend_is_passed_over(add_backend: Callable[..., None]) -> None:
    add_backend("no compiler was found at install time")
    assert (rms_norm(X, WEIGHT) < 2.0).all()


def test_a_backend_asked_for_never_falls_back(add_backend: Callable[..., None]) -> None:
    add_backend("no compiler was found at install time")
    with use_backend("fast"), pytest.raises(RuntimeError, match="fast: no compiler was found"):
        rms_norm(X, WEIGHT)


@pytest.mark.parametrize(
    ("op", "device", "dtype", "reason"),
    [
        ("rms_norm", "cuda", torch.float32, "runs on cpu, not on cuda"),
        ("rms_norm", "cpu", torch.float64, "takes torch.float32, not torch.float64"),
        ("mamba_step", "cpu", torch.float32, "has no mamba_step"),
    ],
)
def test_a_refusal_says_why(
    add_backend: Callable[..., None], op: str, device: str, dtype: torch.dtype, reason: str
) -> None:
    add_backend()
    with use_backend("fast"), pytest.raises(RuntimeError, match=reason):
        resolve(op, device, dtype)


@pytest.mark.parametrize("dynamic", [None, False, True])
def test_a_call_beyond_a_limit_goes_to_the_next_backend(
    add_backend: Callable[..., None], dynamic: bool | None
) -> None:
    add_backend()
    torch.compiler.reset()
    compiled = torch.compile(causal_conv1d, fullgraph=True, backend="eager", dynamic=dynamic)
    x = torch.ones(1, 3, 4)
    for taps in (4, 5, 4):
        for op in (causal_conv1d, compiled):
            assert torch.equal(op(x, torch.zeros(4, taps))[0], x) == (taps == 4)
    with use_backend("fast"), pytest.raises(RuntimeError, match="fast: is afraid of five taps"):
        causal_conv1d(x, torch.zeros(4, 5))


def test_use_backend_ends_with_its_block(add_backend: Callable[..., None]) -> None:
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


def test_an_integer_input_is_refused_by_all() -> None:
    with pytest.raises(
        RuntimeError, match=r"no backend runs rms_norm on cpu in torch.int32 .*reference: takes"
    ):
        resolve("rms_norm", "cpu", torch.int32)


def test_the_environment_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COBRA_BACKEND", "tritn")
    # a second copy of the module, because the variable is read once
    spec = importlib.util.spec_from_file_location("second_dispatch", dispatch.__file__)
    assert spec is not None
    assert spec.loader is not None
    second = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, second)
    spec.loader.exec_module(second)
    with pytest.raises(ValueError, match="no backend is called 'tritn'"):
        second.resolve("rms_norm", "cpu", torch.float32)
    with second.use_backend("reference"):
        assert second.resolve("rms_norm", "cpu", torch.float32) is reference.OPS["rms_norm"]


def test_explain_lists_every_op_on_every_backend(add_backend: Callable[..., None]) -> None:
    add_backend()
    rows = {(row.op, row.backend): row for row in explain()}
    assert len(rows) == 2 * len(reference.OPS)
    assert rows["rms_norm", "fast"].chosen
    assert rows["rms_norm", "reference"].reason == "ok"
    assert not rows["rms_norm", "reference"].chosen
    assert rows["mamba_step", "fast"].reason == "has no mamba_step"
    assert rows["mamba_step", "reference"].chosen
    assert rows["causal_conv1d", "fast"].chosen
    assert rows["causal_conv1d", "fast"].reason == "ok; is afraid of five taps"


def test_explain_follows_the_choice(add_backend: Callable[..., None]) -> None:
    add_backend()
    with use_backend("reference"):
        assert {row.backend for row in explain() if row.chosen} == {"reference"}
    with use_backend("fast"):
        assert [row.op for row in explain() if row.chosen] == ["causal_conv1d", "rms_norm"]


def test_export_takes_the_reference_only(add_backend: Callable[..., None]) -> None:
    add_backend()

    class Norm(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return rms_norm(x, WEIGHT)

    exported = torch.export.export(Norm(), (X,)).module()
    torch.testing.assert_close(exported(X), reference.OPS["rms_norm"](X, WEIGHT))
    with use_backend("fast"), pytest.raises(RuntimeError, match="exported graph holds only the reference"):
        torch.export.export(Norm(), (X,))


def test_a_compiled_call_follows_the_choice(add_backend: Callable[..., None]) -> None:
    add_backend()
    torch.compiler.reset()
    compiled = torch.compile(rms_norm, fullgraph=True, backend="eager")
    assert (compiled(X, WEIGHT) == 2.0).all()
    with use_backend("reference"):
        assert (compiled(X, WEIGHT) < 2.0).all()
    assert (compiled(X, WEIGHT) == 2.0).all()
