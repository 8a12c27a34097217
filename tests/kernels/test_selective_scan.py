"""`selective_scan` against the SSD recurrence, of which it is the case of one channel a head."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cobra.kernels.dispatch import use_backend
from cobra.kernels.ops import selective_scan, ssd_chunk_scan

BATCH, CHANNELS, STATE = 2, 6, 5


def make_inputs(length: int, groups: int = 1, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
    rng = torch.Generator().manual_seed(length + groups)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=rng, dtype=torch.float64).to(dtype)

    return {
        "u": normal(BATCH, length, CHANNELS),
        "delta": normal(BATCH, length, CHANNELS),
        "A": -torch.exp(normal(CHANNELS, STATE)),
        "B": normal(BATCH, length, groups, STATE),
        "C": normal(BATCH, length, groups, STATE),
    }


def every_option(length: int) -> dict[str, Any]:
    rng = torch.Generator().manual_seed(7)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=rng, dtype=torch.float64)

    return {
        "D": normal(CHANNELS),
        "z": normal(BATCH, length, CHANNELS),
        "delta_bias": normal(CHANNELS),
        "delta_softplus": True,
        "initial_state": normal(BATCH, CHANNELS, STATE),
        "seq_idx": (torch.arange(length) // 10).expand(BATCH, length).int(),
        "mask": torch.rand(BATCH, length, generator=rng) > 0.2,
    }


@pytest.mark.parametrize("length", [0, 1, 63, 65])
@pytest.mark.parametrize("groups", [1, 3])
def test_one_rate_a_channel_equals_ssd_with_one_channel_a_head(length: int, groups: int) -> None:
    inputs, options = make_inputs(length, groups), every_option(length)
    inputs["A"] = inputs["A"][:, :1].expand(CHANNELS, STATE)
    y, state = selective_scan(**inputs, **options)
    expected, expected_state = use_backend("reference")(ssd_chunk_scan)(
        inputs["u"].unsqueeze(-1),
        inputs["delta"],
        inputs["A"][:, 0],
        inputs["B"],
        inputs["C"],
        D=options["D"],
        dt_bias=options["delta_bias"],
        dt_softplus=True,
        initial_state=options["initial_state"].unsqueeze(2),
        seq_idx=options["seq_idx"],
        mask=options["mask"],
    )
    torch.testing.assert_close(y, expected.squeeze(-1) * F.silu(options["z"]))
    torch.testing.assert_close(state, expected_state.squeeze(2))


def test_each_state_decays_at_its_own_rate() -> None:
    inputs = make_inputs(12)
    inputs["C"] = torch.zeros_like(inputs["C"])
    inputs["C"][..., 3] = 1.0
    y, _ = selective_scan(**inputs, delta_softplus=True)
    inputs["A"] = inputs["A"][:, 3:4].expand(CHANNELS, STATE)
    torch.testing.assert_close(selective_scan(**inputs, delta_softplus=True)[0], y)


def test_gradients_are_those_of_finite_differences() -> None:
    inputs = make_inputs(4, groups=2) | {
        name: value
        for name, value in every_option(4).items()
        if name in ("D", "z", "delta_bias", "initial_state")
    }
    names = list(inputs)

    def scan(*values: Tensor) -> tuple[Tensor, Tensor]:
        arguments: dict[str, Any] = dict(zip(names, values, strict=True))
        return selective_scan(**arguments, delta_softplus=True)

    leaves = tuple(value.requires_grad_() for value in inputs.values())
    assert torch.autograd.gradcheck(scan, leaves, fast_mode=True)


@pytest.mark.parametrize("first", [0, 1, 20])
def test_a_scan_in_two_parts_equals_one(first: int) -> None:
    inputs = make_inputs(33, groups=2)
    whole, last = selective_scan(**inputs, delta_softplus=True)
    state, parts = None, []
    for tokens in (slice(0, first), slice(first, 33)):
        part = {name: value if name == "A" else value[:, tokens] for name, value in inputs.items()}
        y, state = selective_scan(**part, delta_softplus=True, initial_state=state)
        parts.append(y)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole)
    torch.testing.assert_close(state, last)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_output_has_the_inputs_dtype_and_the_state_stays_fp32(dtype: torch.dtype) -> None:
    rough = make_inputs(40, dtype=dtype)
    y, state = selective_scan(**rough, delta_softplus=True)
    assert (y.dtype, state.dtype) == (dtype, torch.float32)
    exact, _ = selective_scan(**{name: value.double() for name, value in rough.items()}, delta_softplus=True)
    tolerance = 16 * torch.finfo(dtype).eps
    torch.testing.assert_close(y.double(), exact, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("step", [0.0, 1e3, 1e30])
def test_no_time_step_makes_a_nan(step: float) -> None:
    inputs = make_inputs(20, dtype=torch.float32)
    inputs["delta"] = torch.full_like(inputs["delta"], step)
    inputs = {name: value.requires_grad_() for name, value in inputs.items()}
    y, _ = selective_scan(**inputs)
    y.mean().backward()
    assert not y.isnan().any()
    for name, value in inputs.items():
        assert value.grad is not None
        assert not value.grad.isnan().any(), name
