"""The native CPU kernels against the reference in fp64: values, gradients and changed states."""

import functools
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from cobra.kernels import cpu, ops
from cobra.kernels.cpu import library
from cobra.kernels.dispatch import use_backend
from tests.kernels.cases import SEQUENCES, STEPS, Case, assert_near, each, floating, run
from tests.kernels.sequence_inputs import conv, norm, ssd

pytestmark = pytest.mark.skipif(cpu.unavailable() is not None, reason=str(cpu.unavailable()))

# up to 128 the SSD is one chunk
LENGTHS = (0, 1, 63, 64, 65, 128, 129, 257)
LEVELS = [] if cpu.unavailable() else library.levels()
ALL = SEQUENCES + STEPS


@pytest.fixture(autouse=True)
def native() -> Iterator[None]:
    """The native kernels or an error, on one thread, and results that start as NaN."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    with use_backend("cpu"):
        yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


def test_results_start_as_nan() -> None:
    assert torch.ones(2).new_empty(3).isnan().all()


@functools.cache
def truth(case: Case, length: int) -> dict[str, Tensor]:
    inputs = each(case.make(length), Tensor.double)
    return run(case.spec, case, inputs if case in STEPS else with_gradients(inputs))


def with_gradients(inputs: dict) -> dict:
    return inputs | {name: inputs[name].requires_grad_() for name in floating(inputs)}


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    ("case", "length"),
    [(case, length) for case in SEQUENCES for length in LENGTHS]
    # test_cpu_scans.py has long scans
    + [(case, 1000) for case in SEQUENCES if "scan" not in case.op],
    ids=str,
)
def test_values_and_gradients_are_the_references(case: Case, length: int, level: str) -> None:
    with library.use_level(level):
        actual = run(getattr(ops, case.op), case, with_gradients(case.make(length)))
    # more tokens, more rounding in sums over them that cancel
    assert_near(actual, truth(case, length), 2e-5 if length < 1000 else 1e-4)


@pytest.mark.parametrize("backend", ["cpu", "torch", "reference"])
@pytest.mark.parametrize("case", SEQUENCES, ids=str)
def test_an_empty_batch_gives_empty_results_and_no_gradients(case: Case, backend: str) -> None:
    inputs = case.make(130)
    for name, value in inputs.items():
        if isinstance(value, Tensor) and value.dim() > 1 and name not in ("A", "D", "weight"):
            inputs[name] = value[:0]
    with use_backend(backend):
        results = run(getattr(ops, case.op), case, with_gradients(inputs))
    assert results["y"].shape[0] == 0
    assert not any(result.any() for result in results.values())


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("case", STEPS, ids=str)
def test_steps_are_the_references(case: Case, level: str) -> None:
    with library.use_level(level):
        actual = run(getattr(ops, case.op), case, case.make(1))
    assert_near(actual, truth(case, 1), 5e-6)


# one chunk of the SSD, and several
@pytest.mark.parametrize("length", [70, 130])
@pytest.mark.parametrize("case", ALL, ids=str)
def test_bf16_inputs_are_computed_in_fp32(case: Case, length: int) -> None:
    rough = each(case.make(length), Tensor.bfloat16)
    exact = each(rough, Tensor.double)
    if case in SEQUENCES:
        rough, exact = with_gradients(rough), with_gradients(exact)
    actual, expected = run(getattr(ops, case.op), case, rough), run(case.spec, case, exact)
    assert actual["y"].dtype == torch.bfloat16
    assert_near(actual, expected, 1.5e-2)


@pytest.mark.parametrize("case", ALL, ids=str)
def test_parameters_and_states_may_be_wider_than_the_input(case: Case) -> None:
    inputs = case.make(130)
    first = next(iter(inputs)) if "state" not in case.states else "x"
    mixed = inputs | {first: inputs[first].bfloat16()}
    expected = run(case.spec, case, each(mixed, Tensor.double))
    assert_near(run(getattr(ops, case.op), case, mixed), expected, 1.5e-2)


@pytest.mark.parametrize("length", [70, 130])
@pytest.mark.parametrize("case", ALL, ids=str)
def test_views_give_the_same_as_copies(case: Case, length: int) -> None:
    def widen(x: Tensor) -> Tensor:
        """Rows with a gap of NaN between them."""
        return torch.cat([x, torch.full_like(x, torch.nan)], dim=-1)[..., : x.shape[-1]]

    def turn(x: Tensor) -> Tensor:
        """The first dimension contiguous, the last not."""
        return x.mT.contiguous().mT if x.dim() > 1 else torch.stack([x, x], dim=1)[:, 0]

    expected = run(getattr(ops, case.op), case, case.make(length))
    for view in (widen, turn):
        assert_near(run(getattr(ops, case.op), case, each(case.make(length), view)), expected, 1e-6)


@pytest.mark.parametrize("case", ALL, ids=str)
def test_two_threads_give_what_one_gives(case: Case) -> None:
    results = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        inputs = case.make(600)
        results.append(run(getattr(ops, case.op), case, inputs if case in STEPS else with_gradients(inputs)))
    for name in results[0]:
        assert torch.equal(results[0][name], results[1][name]), name


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
@pytest.mark.parametrize("case", STEPS, ids=str)
def test_a_state_of_another_dtype_is_brought_up_to_date(case: Case, dtype: torch.dtype) -> None:
    inputs = case.make(1)
    inputs |= {name: inputs[name].to(dtype) for name in case.states}
    expected = run(case.spec, case, each(inputs, Tensor.double))
    assert_near(run(getattr(ops, case.op), case, inputs), expected, 1e-3)
    assert all(inputs[name].dtype == dtype for name in case.states)


@pytest.mark.parametrize("case", STEPS, ids=str)
def test_a_step_that_needs_a_gradient_is_refused_and_left_to_the_reference(case: Case) -> None:
    inputs = case.make(1)
    first = next(name for name in inputs if name not in case.states)
    with pytest.raises(RuntimeError, match="cpu: has no gradient"):
        run(getattr(ops, case.op), case, inputs | {first: inputs[first].requires_grad_()})
    with use_backend(None):
        actual = run(getattr(ops, case.op), case, inputs)
    inputs = case.make(1)
    expected = run(case.spec, case, inputs | {first: inputs[first].requires_grad_()})
    assert f"gradient of {first}" in expected
    assert_near(actual, expected, 0.0)


def test_a_filter_of_five_taps_is_refused_and_left_to_the_reference() -> None:
    x, weight = conv(9)["x"], torch.ones(37, 5)
    with pytest.raises(RuntimeError, match="cpu: takes filters of 2, 3 or 4 taps only"):
        ops.causal_conv1d(x, weight)
    with use_backend("reference"):
        expected, _ = ops.causal_conv1d(x, weight)
    with use_backend(None):
        assert torch.equal(ops.causal_conv1d(x, weight)[0], expected)


@pytest.mark.parametrize("case", STEPS, ids=str)
def test_autograd_notices_that_a_state_it_saved_has_changed(case: Case) -> None:
    for name in case.states:
        inputs = case.make(1)
        loss = (inputs[name] * torch.ones_like(inputs[name], requires_grad=True)).sum()
        run(getattr(ops, case.op), case, inputs)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("case", STEPS, ids=str)
def test_a_state_that_shares_memory_is_refused(case: Case, backend: str) -> None:
    for name in case.states:
        inputs = case.make(1)
        first = next(other for other in inputs if other not in case.states)
        size, other = inputs[name].numel(), inputs[first]
        memory = torch.zeros(other.numel() + 2 * max(size, other.numel()))
        state = memory[other.numel() :][:size].view_as(inputs[name])
        # the input lies at the beginning of the state, inside it, before and in it, between its elements
        inside = [memory[other.numel() + start :][: other.numel()].view_as(other) for start in (0, 1, -1)]
        between = memory[other.numel() + 1 :][::2][: other.numel()].view_as(other)
        for shared in (*inside, between):
            with (
                use_backend(backend),
                pytest.raises(ValueError, match=f"^{name} shares memory with {first} .*: clone one of them"),
            ):
                getattr(ops, case.op)(**inputs | {name: state, first: shared})


def test_states_may_lie_side_by_side_in_one_tensor() -> None:
    case = next(case for case in STEPS if case.op == "mamba2_step")
    inputs, expected = case.make(1), case.make(1)
    states = [inputs[name].flatten(1) for name in case.states]
    halves = torch.cat(states, dim=1).split([state.shape[1] for state in states], dim=1)
    for name, half in zip(case.states, halves, strict=True):
        inputs[name] = half.unflatten(1, expected[name].shape[1:])
    run(getattr(ops, case.op), case, inputs)
    run(getattr(ops, case.op), case, expected)
    assert all(torch.equal(inputs[name], expected[name]) for name in case.states)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("case", [case for case in SEQUENCES if "all" not in str(case)], ids=str)
def test_what_is_not_finite_shows(case: Case, value: float) -> None:
    inputs = case.make(130)
    first = next(iter(inputs))
    inputs[first][0, 30] = value
    y = run(getattr(ops, case.op), case, inputs)["y"]
    assert not y[0, 30].isfinite().all()
    assert y[1].isfinite().all()
    before = {None: y[0, :30], "reversed": y[0, 31:]}.get(inputs.get("scan_order"))
    # the chunks of plain PyTorch, too, multiply what is hidden by 0
    assert case.op == "ssd_chunk_scan" or before is None or before.isfinite().all()


def test_denormals_are_back_after_a_call() -> None:
    ops.rms_norm(**norm(70))
    assert (torch.full((1,), 1e-30) * 1e-10).item() > 0


def test_autocast_does_not_lower_the_precision() -> None:
    expected = ops.ssd_chunk_scan(**ssd(130))[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(ops.ssd_chunk_scan(**ssd(130))[0], expected)
