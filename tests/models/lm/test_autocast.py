"""What is fp32 under autocast to bf16: weights, decay rates, time steps, norms, states, the residual sum."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from cobra.kernels import ops
from cobra.kernels.dispatch import BACKENDS, OPS, Implementation, use_backend
from tests.models.builders import LMS

_BF16, _FP32 = torch.bfloat16, torch.float32
# arguments and results of the operators that a sequence is read by; all others come from a linear
FULL = {
    "A", "D", "dt_bias", "delta_bias", "weight", "bias", "residual", "initial_state", "final_state", "total",
}  # fmt: skip
RESULTS = {
    "add_rms_norm": ("y", "total"),
    "ssd_chunk_scan": ("y", "final_state"),
    "selective_scan": ("y", "final_state"),
}


def watch(monkeypatch: pytest.MonkeyPatch, seen: list[tuple[str, str, torch.dtype]]) -> None:
    """Note the dtypes of what any backend is given and returns."""

    def noting(name: str, run: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*values: Any) -> Any:
            results = run(*values)
            outputs = results if isinstance(results, tuple) else (results,)
            pairs = [*zip(inspect.signature(OPS[name]).parameters, values, strict=True)]
            pairs += zip(RESULTS.get(name, ()), outputs, strict=False)
            seen.extend((name, at, x.dtype) for at, x in pairs if isinstance(x, Tensor))
            return results

        return noted

    for backend in BACKENDS:
        backend.refusal("rms_norm", torch.device("cpu"), _FP32, "all")
        for name, (run, limits) in backend.ops.items():
            monkeypatch.setitem(backend.ops, name, Implementation(noting(name, run), limits))


@pytest.mark.parametrize("backend", ["reference", "torch", "cpu,torch"])
@pytest.mark.parametrize("lm", sorted(LMS))
def test_what_must_not_lose_digits_is_fp32(lm: str, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = LMS[lm](), list[tuple[str, str, torch.dtype]]()
    watch(monkeypatch, seen)
    with use_backend(backend), torch.autocast("cpu", _BF16):
        hidden = model.prefill(model.embed(torch.randint(0, 400, (2, 12))))
        logits = model.head(hidden)
    logits.float().square().mean().backward()
    assert {p.dtype for p in model.parameters()} == {
        p.grad.dtype for p in model.parameters() if p.grad is not None
    }
    assert {dtype for _, name, dtype in seen if name in FULL} <= {_FP32}
    assert logits.dtype == _BF16
    if "mamba" in lm or "hybrid" in lm:
        assert {("add_rms_norm", "residual"), ("add_rms_norm", "total")} < {
            (op, name) for op, name, _ in seen
        }
        scan = "selective_scan" if lm == "mamba" else "ssd_chunk_scan"
        assert {(scan, "A"), (scan, "D"), (scan, "final_state")} < {(op, name) for op, name, _ in seen}
        # what is large is not
        assert (scan, "u" if lm == "mamba" else "x", _BF16) in seen


@pytest.mark.parametrize("backend", ["reference", "torch", "cpu,torch"])
def test_operators_compute_under_autocast_what_they_do_without(backend: str) -> None:
    """Softplus, decays, states and mean squares in fp32, whatever their inputs came in."""
    torch.manual_seed(0)
    x, B, C = (torch.randn(2, 70, *shape).bfloat16() for shape in ((4, 8), (2, 6), (2, 6)))
    dt, z = torch.randn(2, 70, 4).bfloat16(), torch.randn(2, 70, 32).bfloat16()
    A, D, bias, weight = -torch.rand(4), torch.rand(4), torch.rand(4), torch.rand(32)

    def results() -> list[Tensor]:
        y, state = ops.ssd_chunk_scan(x, dt, A, B, C, D=D, dt_bias=bias, dt_softplus=True)
        u, A1 = x.flatten(2), -torch.rand(32, 6, generator=torch.Generator().manual_seed(1))
        delta = dt.repeat_interleave(8, 2)
        y1, state1 = ops.selective_scan(u, delta, A1, B, C, z=z, delta_bias=weight, delta_softplus=True)
        normed = ops.rms_norm_gated(u, z, weight), *ops.add_rms_norm(u, None, weight, residual_in_fp32=True)
        return [y, state, y1, state1, *normed]

    with use_backend(backend):
        plain = results()
        with torch.autocast("cpu", _BF16):
            cast = results()
    for first, second in zip(plain, cast, strict=True):
        assert first.dtype == second.dtype
        assert torch.equal(first, second)
    assert [result.dtype for result in plain].count(_FP32) == 3
