"""`ssd_chunk_scan` against the recurrence that defines it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from cobra.kernels.dispatch import use_backend
from cobra.kernels.ops import ssd_chunk_scan

LENGTHS = (0, 1, 63, 64, 65, 129, 257)
BATCH, HEADS, HEAD_DIM, STATE = 2, 4, 3, 5  # odd widths: no kernel may count on round ones
recurrence = use_backend("reference")(ssd_chunk_scan)


def make_inputs(length: int, groups: int = 1, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
    rng = torch.Generator().manual_seed(length + groups)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=rng, dtype=torch.float64).to(dtype)

    return {
        "x": normal(BATCH, length, HEADS, HEAD_DIM),
        "dt": normal(BATCH, length, HEADS).abs(),
        "A": -torch.exp(normal(HEADS)),
        "B": normal(BATCH, length, groups, STATE),
        "C": normal(BATCH, length, groups, STATE),
    }


def every_option(length: int, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
    rng = torch.Generator().manual_seed(7)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=rng, dtype=torch.float64).to(dtype)

    return {
        "D": normal(HEADS),
        "dt_bias": normal(HEADS),
        "dt_softplus": True,
        "initial_state": normal(BATCH, HEADS, HEAD_DIM, STATE),
        "seq_idx": packed_ids(length),
        "mask": torch.rand(BATCH, length, generator=rng) > 0.2,
    }


def packed_ids(length: int) -> Tensor:
    """Sequences that end inside chunks and at their edges, others in each row."""
    position = torch.arange(length)
    return torch.stack([position // 50, (position >= 64).int() + 2 * (position >= 70).int()]).int()


def assert_same_values_and_gradients(
    inputs: dict[str, Any], options: dict[str, Any], chunk_size: int = 64
) -> None:
    arguments = inputs | options
    leaves = {
        name: value.detach().requires_grad_()
        for name, value in arguments.items()
        if isinstance(value, Tensor) and value.is_floating_point()
    }
    results = []
    arguments |= leaves
    scans: list[Callable[..., tuple[Tensor, Tensor]]] = [recurrence, ssd_chunk_scan]
    for scan in scans:
        y, state = scan(**arguments, chunk_size=chunk_size)
        weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
        loss = (y * weights).sum() + state.square().sum() + 0 * arguments["x"].sum()
        gradients = torch.autograd.grad(loss, [*leaves.values()], allow_unused=True, materialize_grads=True)
        results.append((y, state, *gradients))
    for name, expected, actual in zip(("y", "state", *leaves), *results, strict=True):
        assert actual.shape == expected.shape, name
        assert torch.allclose(actual, expected, rtol=1e-9, atol=1e-10), name


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_chunks_equal_the_recurrence(length: int, groups: int) -> None:
    assert_same_values_and_gradients(make_inputs(length, groups), {})


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("groups", [1, 4])
def test_chunks_equal_the_recurrence_with_every_option(length: int, groups: int) -> None:
    assert_same_values_and_gradients(make_inputs(length, groups), every_option(length))


@pytest.mark.parametrize("option", ["D", "dt_bias", "dt_softplus", "initial_state", "seq_idx", "mask"])
def test_each_option_alone(option: str) -> None:
    inputs = make_inputs(20, groups=2)
    assert_same_values_and_gradients(inputs, {option: every_option(20)[option]}, chunk_size=8)


@pytest.mark.parametrize("chunk_size", [1, 7, 16, 1000])
def test_chunk_size_changes_nothing(chunk_size: int) -> None:
    assert_same_values_and_gradients(make_inputs(33, groups=2), every_option(33), chunk_size)


def test_gradients_are_those_of_finite_differences() -> None:
    inputs = {name: value.requires_grad_() for name, value in make_inputs(5, groups=2).items()}

    def scan(*values: Tensor) -> tuple[Tensor, Tensor]:
        return ssd_chunk_scan(*values, dt_softplus=True, chunk_size=2)

    assert torch.autograd.gradcheck(scan, tuple(inputs.values()), fast_mode=True)


@pytest.mark.parametrize("first", [0, 1, 64, 100])
def test_a_scan_in_two_parts_equals_one(first: int) -> None:
    inputs, length = make_inputs(130, groups=2), 130
    whole, last = ssd_chunk_scan(**inputs, dt_softplus=True)
    state, parts = None, []
    for tokens in (slice(0, first), slice(first, length)):
        part = {name: value if name == "A" else value[:, tokens] for name, value in inputs.items()}
        y, state = ssd_chunk_scan(**part, dt_softplus=True, initial_state=state)
        parts.append(y)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole)
    torch.testing.assert_close(state, last)


@pytest.mark.parametrize("backend", ["reference", "torch", "cpu"])
def test_sequences_may_go_on_from_one_row_of_a_state(backend: str) -> None:
    inputs, states = make_inputs(9, groups=2, dtype=torch.float32), torch.randn(5, HEADS, HEAD_DIM, STATE)
    rows = torch.tensor([3, 0, 3, 4])[:BATCH]
    with use_backend(backend):
        expected = ssd_chunk_scan(**inputs, initial_state=states[rows])
        actual = ssd_chunk_scan(**inputs, initial_state=states, initial_rows=rows)
        torch.testing.assert_close(actual, expected)
        for wrong in (-1, 5):
            with pytest.raises(IndexError):
                ssd_chunk_scan(**inputs, initial_state=states, initial_rows=torch.full((BATCH,), wrong))
        with pytest.raises(ValueError, match="initial_rows are of no initial_state"):
            ssd_chunk_scan(**inputs, initial_rows=rows)
        with pytest.raises(ValueError, match="no_grad"):
            ssd_chunk_scan(**inputs, initial_state=states.requires_grad_(), initial_rows=rows)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_output_has_the_inputs_dtype_and_the_state_stays_fp32(dtype: torch.dtype) -> None:
    rough = make_inputs(70, groups=2, dtype=dtype)
    y, state = ssd_chunk_scan(**rough, dt_softplus=True)
    assert (y.dtype, state.dtype) == (dtype, torch.float32)
    exact, exact_state = recurrence(**{name: v.double() for name, v in rough.items()}, dt_softplus=True)
    tolerance = 16 * torch.finfo(dtype).eps
    torch.testing.assert_close(y.double(), exact, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(state.double(), exact_state, rtol=1e-5, atol=1e-5)


def test_autocast_does_not_lower_the_precision() -> None:
    inputs = make_inputs(70, dtype=torch.float32)
    expected, _ = ssd_chunk_scan(**inputs, dt_softplus=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual, _ = ssd_chunk_scan(**inputs, dt_softplus=True)
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


def test_strided_views_are_accepted() -> None:
    inputs = make_inputs(40, groups=2)
    joined = torch.cat([inputs[name].flatten(2) for name in ("x", "B", "C", "dt")], dim=-1)
    x, B, C, dt = joined.split([HEADS * HEAD_DIM, 2 * STATE, 2 * STATE, HEADS], dim=-1)
    y, _ = ssd_chunk_scan(
        x.unflatten(2, (HEADS, -1)), dt, inputs["A"], B.unflatten(2, (2, -1)), C.unflatten(2, (2, -1))
    )
    torch.testing.assert_close(y, ssd_chunk_scan(**inputs)[0])


@pytest.mark.parametrize("step", [0.0, 1e-30, 1e3, 1e30])
@pytest.mark.parametrize("rate", [-1e-8, -16.0, -1e6])
def test_no_time_step_makes_a_nan(step: float, rate: float) -> None:
    inputs = make_inputs(70, dtype=torch.float32)
    inputs["x"] = inputs["x"] * 1e-3
    inputs["dt"] = torch.full_like(inputs["dt"], step)
    inputs["A"] = torch.full_like(inputs["A"], rate)
    inputs = {name: value.requires_grad_() for name, value in inputs.items()}
    y, state = ssd_chunk_scan(**inputs, chunk_size=32)
    (y.mean() + state.mean()).backward()
    assert not y.isnan().any()
    assert not state.isnan().any()
    for name, value in inputs.items():
        assert value.grad is not None
        assert not value.grad.isnan().any(), name


def test_one_strong_decay_leaves_the_next_tokens_exact() -> None:
    inputs = make_inputs(64, dtype=torch.float32)
    inputs["dt"] = torch.full_like(inputs["dt"], 0.01)
    inputs["dt"][:, 5] = 1e7
    y, _ = ssd_chunk_scan(**inputs)
    exact, _ = recurrence(**{name: value.double() for name, value in inputs.items()})
    torch.testing.assert_close(y[:, 6:].double() / 1e7, exact[:, 6:] / 1e7, rtol=1e-5, atol=1e-8)


def test_the_given_state_is_left_alone() -> None:
    state = torch.ones(BATCH, HEADS, HEAD_DIM, STATE, dtype=torch.float64)
    for length in (0, 3):
        _, final = ssd_chunk_scan(**make_inputs(length), initial_state=state)
        final.zero_()
    assert (state == 1).all()


@pytest.mark.parametrize("chunk_size", [64, 256, 1000])
def test_tokens_between_strong_decays_keep_the_digits_of_fp32(chunk_size: int) -> None:
    rng = torch.Generator().manual_seed(3)
    inputs = make_inputs(400, dtype=torch.float32)
    inputs["dt"] = 100 * torch.rand(inputs["dt"].shape, generator=rng)
    # what these forget is little beside the sum of all before
    inputs["dt"][:, ::3] *= 1e-3
    leaves = {name: value.requires_grad_() for name, value in inputs.items()}
    exact = {name: value.detach().double().requires_grad_() for name, value in inputs.items()}
    with use_backend("torch"):
        results = ssd_chunk_scan(**leaves, chunk_size=chunk_size), recurrence(**exact)
    seeds = torch.randn(results[0][0].shape, generator=rng)
    # not that of A, a sum over tokens that cancel
    pairs = [
        [y, state, *torch.autograd.grad((y * seeds).sum(), [of[name] for name in ("x", "dt", "B", "C")])]
        for (y, state), of in zip(results, (leaves, exact), strict=True)
    ]
    for actual, expected in zip(*pairs, strict=True):
        assert (actual - expected).abs().max() < 3e-6 * expected.abs().max()
