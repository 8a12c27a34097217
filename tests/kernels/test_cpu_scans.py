"""The native scans where rounding, overflow or a split could go wrong, at every ISA level."""

import functools
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from cobra.kernels import cpu, ops
from cobra.kernels.cpu import library
from cobra.kernels.dispatch import use_backend
from tests.kernels.cases import Case, assert_near, each, floating, run
from tests.kernels.sequence_inputs import (
    BATCH,
    HEAD_DIM,
    HEADS,
    STATE,
    Inputs,
    conv,
    normal,
    packed,
    scan,
    scan_with_all,
    ssd,
    ssd_with_all,
)

pytestmark = pytest.mark.skipif(cpu.unavailable() is not None, reason=str(cpu.unavailable()))

LEVELS = [] if cpu.unavailable() else library.levels()
STEPS = {"ssd_chunk_scan": "dt", "selective_scan": "delta"}


def ssd_with_a_group_a_head(length: int) -> Inputs:
    B, C = (normal(BATCH, length, HEADS, STATE, seed=seed) for seed in (0, 1))
    return ssd(length) | {"B": B, "C": C}


def wide_ssd(length: int, batch: int, heads: int, groups: int) -> Inputs:
    maps = (batch, length, groups, STATE)
    position = torch.arange(length)
    return {
        "x": normal(batch, length, heads, HEAD_DIM),
        "dt": normal(batch, length, heads).abs(),
        "A": -normal(heads).exp(),
        "B": normal(*maps),
        "C": normal(*maps, seed=1),
        "D": normal(heads),
        "seq_idx": (position // 50).expand(batch, length),
    }


def ssd_in_uneven_parts(length: int) -> Inputs:
    """One group, whose 12 heads the backward pass deals to 8 parts."""
    return wide_ssd(length, 1, 12, 1)


def ssd_in_whole_groups(length: int) -> Inputs:
    """So many groups that each is a part, of two heads."""
    return wide_ssd(length, 3, 6, 3)


def hostile(inputs: Inputs, op: str) -> Inputs:
    """Time steps from none to huge, and inputs that keep y small."""
    steps = inputs[STEPS[op]]
    choices = torch.tensor([0.0, 1e-30, 1e-3, 0.1, 1.0, 50.0, 1e6])
    steps = choices[torch.randint(7, steps.shape, generator=torch.Generator().manual_seed(1))]
    first = next(iter(inputs))
    scale = steps.clamp(min=1.0).view(steps.shape + (1,) * (inputs[first].dim() - steps.dim()))
    return inputs | {STEPS[op]: steps, first: inputs[first] / scale}


def hostile_ssd(length: int) -> Inputs:
    return hostile(ssd(length), "ssd_chunk_scan") | {"A": -torch.tensor([1e-8, 1.0, 16.0, 1e4])}


def hostile_scan(length: int) -> Inputs:
    inputs = hostile(scan(length), "selective_scan")
    return inputs | {"A": -torch.logspace(-8, 4, inputs["A"].numel()).view_as(inputs["A"])}


PLAIN = [Case("ssd_chunk_scan", ssd), Case("selective_scan", scan)]
FULL = [Case("ssd_chunk_scan", ssd_with_all), Case("selective_scan", scan_with_all)]
SHARED = [Case("ssd_chunk_scan", make) for make in (ssd_in_uneven_parts, ssd_in_whole_groups)]
GROUPS = Case("ssd_chunk_scan", ssd_with_a_group_a_head)
HOSTILE = [Case("ssd_chunk_scan", hostile_ssd), Case("selective_scan", hostile_scan)]


@pytest.fixture(autouse=True)
def native() -> Iterator[None]:
    """The native kernels or an error, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with use_backend("cpu"):
        yield
    torch.set_num_threads(threads)


def with_gradients(inputs: Inputs) -> Inputs:
    return inputs | {name: inputs[name].requires_grad_() for name in floating(inputs)}


@functools.cache
def truth(case: Case, length: int) -> dict[str, Tensor]:
    return run(case.spec, case, with_gradients(each(case.make(length), Tensor.double)))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    ("case", "length"),
    [(case, 1000) for case in [*FULL, GROUPS]]
    # 128: the longest that the SSD takes as one chunk
    + [(case, length) for case in [*HOSTILE, *SHARED] for length in (128, 150)],
    ids=str,
)
def test_long_hostile_and_wide_sequences_are_the_references(case: Case, length: int, level: str) -> None:
    with library.use_level(level):
        actual = run(getattr(ops, case.op), case, with_gradients(case.make(length)))
    assert_near(actual, truth(case, length), 2e-5)


@pytest.mark.parametrize("case", SHARED, ids=str)
def test_threads_change_nothing_where_heads_share_a_part(case: Case) -> None:
    results = []
    for threads in (1, 2, 3, 5):
        torch.set_num_threads(threads)
        results.append(run(getattr(ops, case.op), case, with_gradients(case.make(150))))
    for name, first in results[0].items():
        assert all(torch.equal(result[name], first) for result in results), name


@pytest.mark.parametrize("backend", ["cpu", "torch"])
@pytest.mark.parametrize("length", [1, 65, 129])
@pytest.mark.parametrize("make", [ssd, ssd_with_all])
def test_y_needs_no_final_state(make: Callable[..., Inputs], length: int, backend: str) -> None:
    results = []
    for wanted in (True, False):
        inputs = with_gradients(make(length))
        with use_backend(backend):
            y, state = ops.ssd_chunk_scan(**inputs, return_final_state=wanted)
            with torch.no_grad():
                inferred, inferred_state = ops.ssd_chunk_scan(**inputs, return_final_state=wanted)
        y.sin().sum().backward()
        results.append((y, inferred, *(inputs[name].grad for name in floating(inputs))))
    for absent in (state, inferred_state):
        assert absent.shape == (0,)
        assert absent.dtype == torch.float32
    for expected, actual in zip(*results, strict=True):
        assert torch.equal(actual, expected)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("length", [0, 1, 3, 5, 16, 65, 129])
def test_sequences_go_on_from_rows_of_a_state(length: int, level: str) -> None:
    """Several from one, whose state is then read once, in whatever shares threads take."""
    inputs, rows = ssd(length), torch.tensor([2, 2, 0, 2])
    inputs |= {name: x.repeat(2, *[1] * (x.dim() - 1)) for name, x in inputs.items() if name in "x dt B C"}
    states = normal(3, HEADS, HEAD_DIM, STATE, seed=5)
    for wanted, threads in product((True, False), (1, 3)):
        torch.set_num_threads(threads)
        expected = ops.ssd_chunk_scan(**inputs, initial_state=states[rows], return_final_state=wanted)
        with library.use_level(level):
            actual = ops.ssd_chunk_scan(
                **inputs, initial_state=states, initial_rows=rows, return_final_state=wanted
            )
        torch.testing.assert_close(actual, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("given", ["nothing", "zeros", "a constant"])
@pytest.mark.parametrize("used", ["y", "state"])
@pytest.mark.parametrize("length", [1, 128, 129, 200])
@pytest.mark.parametrize("case", [*PLAIN, Case("causal_conv1d", conv)], ids=str)
def test_gradients_of_one_result_alone(case: Case, length: int, used: str, given: str) -> None:
    """The products with a state that is zero, or whose gradient is, are left out."""
    inputs = case.make(length)
    state = run(getattr(ops, case.op), case, inputs)["state"]
    inputs = with_gradients(inputs) | packed(length)
    constant = {"initial_state": normal(*state.shape, seed=3)} if given == "a constant" else {}
    if given == "zeros":
        inputs["initial_state"] = torch.zeros_like(state).requires_grad_()

    def only(op: Any, constant: Inputs, **inputs: Any) -> Tensor:
        return op(**inputs, **constant)[("y", "state").index(used)]

    doubles = with_gradients(each(inputs, Tensor.double))
    spec = functools.partial(only, case.spec, each(constant, Tensor.double))
    expected = run(spec, case, doubles)
    for level in LEVELS:
        with library.use_level(level):
            actual = run(functools.partial(only, getattr(ops, case.op), constant), case, inputs)
        assert_near(actual, expected, 2e-5)


@pytest.mark.parametrize("case", [*PLAIN, *FULL], ids=str)
def test_a_scan_of_no_heads_has_gradients(case: Case) -> None:
    inputs = case.make(70)
    for name in ("x", "u", "dt", "delta", "z"):
        if name in inputs:
            inputs[name] = inputs[name][:, :, :0]
    for name in ("A", "D", "dt_bias", "delta_bias"):
        if name in inputs:
            inputs[name] = inputs[name][:0]
    if "initial_state" in inputs:
        inputs["initial_state"] = inputs["initial_state"][:, :0]
    results = run(getattr(ops, case.op), case, with_gradients(inputs))
    assert results["y"].numel() == 0
    assert all(not results[f"gradient of {name}"].any() for name in ("B", "C"))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("case", PLAIN, ids=str)
def test_a_fading_state_never_holds_denormals(case: Case, level: str) -> None:
    """They are an order of magnitude slower on many machines."""
    # of the first token exp(-96) is left
    inputs = case.make(241)
    inputs |= {
        "A": -torch.ones_like(inputs["A"]),
        STEPS[case.op]: torch.full_like(inputs[STEPS[case.op]], 0.4),
    }
    inputs[next(iter(inputs))][:, 1:] = 0.0
    with library.use_level(level):
        results = run(getattr(ops, case.op), case, inputs)
    for name, result in results.items():
        smallest = torch.finfo(torch.float32).smallest_normal
        assert not ((result != 0) & (result.abs() < smallest)).any(), name


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("case", [*PLAIN, *FULL], ids=str)
def test_what_is_not_finite_is_not_hidden(case: Case, value: float, level: str) -> None:
    for name in floating(case.make(70)):
        inputs = case.make(70)
        inputs |= {"seq_idx": None, "mask": None}
        # a token of the second row for what has tokens, else the last head or channel
        place = (1, 30) if inputs[name].dim() > 1 and inputs[name].shape[1] == 70 else (-1,)
        inputs[name][place] = value
        with library.use_level(level):
            actual = run(getattr(ops, case.op), case, with_gradients(inputs))
        expected = run(case.spec, case, with_gradients(each(inputs, Tensor.double)))
        for result, exact in expected.items():
            hidden = exact.isnan() & actual[result].isfinite()
            assert not hidden.any(), f"{name} = {value}: {result}"
        if place != (-1,):
            assert actual["y"][0].isfinite().all(), f"{name} = {value} reached another sequence"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("case", FULL, ids=str)
def test_gradients_of_views_are_those_of_copies(case: Case, dtype: torch.dtype) -> None:
    def widen(x: Tensor) -> Tensor:
        """Rows with a gap of NaN between them."""
        return torch.cat([x, torch.full_like(x, torch.nan)], dim=-1)[..., : x.shape[-1]]

    inputs = each(case.make(70), lambda x: x.to(dtype))
    expected = run(getattr(ops, case.op), case, with_gradients(inputs))
    actual = run(getattr(ops, case.op), case, with_gradients(each(inputs, widen)))
    for name in expected:
        assert torch.equal(actual[name], expected[name]), name


@pytest.mark.parametrize("case", PLAIN, ids=str)
@pytest.mark.parametrize("first", [0, 1, 64, 100])
def test_a_scan_in_two_parts_equals_one(case: Case, first: int) -> None:
    inputs, op = case.make(130), getattr(ops, case.op)
    expected, expected_state = op(**inputs)
    state, parts = None, []
    for tokens in (slice(0, first), slice(first, 130)):
        y, state = op(**tokens_of(inputs, tokens), initial_state=state)
        parts.append(y)
    torch.testing.assert_close(torch.cat(parts, dim=1), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(state, expected_state, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", PLAIN, ids=str)
def test_steps_of_one_token_equal_a_scan(case: Case) -> None:
    inputs = case.make(70)
    expected, expected_state = run(getattr(ops, case.op), case, inputs).values()
    state = torch.zeros_like(expected_state)
    x, dt = next(iter(inputs)), STEPS[case.op]
    for t in range(70):
        one = {name: value[:, 0] for name, value in tokens_of(inputs, slice(t, t + 1)).items() if name != "A"}
        y = ops.selective_state_update(state, one[x], one[dt], inputs["A"], one["B"], one["C"])
        torch.testing.assert_close(y, expected[:, t], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(state, expected_state, rtol=1e-5, atol=1e-5)


def tokens_of(inputs: Inputs, tokens: slice) -> dict[str, Any]:
    return {name: value if name == "A" else value[:, tokens] for name, value in inputs.items()}
