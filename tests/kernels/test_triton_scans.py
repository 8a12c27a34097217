"""Triton's selective scan and convolution where chunks, sequences, orders and dtypes meet."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from cobra.kernels import ops, triton
from cobra.kernels.dispatch import use_backend
from tests.kernels.cases import Case, assert_near, each, run
from tests.kernels.fast_interpreter import patch_once
from tests.kernels.sequence_inputs import Inputs, normal
from tests.kernels.test_triton_ops import placed, with_gradients

pytestmark = [
    pytest.mark.triton,
    pytest.mark.skipif(triton.unavailable() is not None, reason=str(triton.unavailable())),
]


@pytest.fixture(autouse=True)
def on_triton(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Triton or an error."""
    patch_once(monkeypatch)
    with use_backend("triton"):
        yield


def scan(length: int) -> Inputs:
    return {
        "u": normal(1, length, 3),
        "delta": normal(1, length, 3, seed=1),
        "A": -normal(3, 2).exp(),
        "B": normal(1, length, 1, 2),
        "C": normal(1, length, 1, 2, seed=1),
        "D": normal(3),
        "delta_softplus": True,
    }


def conv(length: int) -> Inputs:
    return {"x": normal(1, length, 3), "weight": normal(3, 4), "initial_state": normal(1, 3, 3)}


SCAN, CONV = Case("selective_scan", scan), Case("causal_conv1d", conv)
# visits of a chunk in rows as short as these
CHUNK = 32


def sequences(length: int, *starts: int) -> Tensor:
    """Numbers of sequences that start at tokens (1, L)."""
    return torch.stack([torch.arange(length) >= start for start in starts]).sum(0)[None].int()


def both(case: Case, inputs: Inputs) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Results and gradients on Triton, and those that the specification gives in fp64."""
    exact = run(case.spec, case, with_gradients(each(inputs, Tensor.double)))
    given = with_gradients(placed(each(inputs, Tensor.clone)))
    actual = run(getattr(ops, case.op), case, given)
    return {name: value.cpu() for name, value in actual.items()}, exact


ORDERS: dict[str, Inputs] = {
    "reversed": {"scan_order": "reversed"},
    "columns": {"scan_order": "columns", "grid": (3, 13)},
    "columns_reversed": {
        "scan_order": "columns_reversed",
        "grid": (13, 3),
        "mask": normal(1, 39, seed=3) > -1,
    },
}


@pytest.mark.parametrize("case", [SCAN, CONV], ids=str)
@pytest.mark.parametrize("order", ORDERS)
def test_every_order_is_visited_over_several_chunks(case: Case, order: str) -> None:
    assert_near(*both(case, case.make(39) | ORDERS[order]), 2e-5)


@pytest.mark.parametrize(
    "seq_idx",
    [
        sequences(4 * CHUNK + 1, CHUNK, CHUNK + 1, 2 * CHUNK + 5, 4 * CHUNK),  # at edges, and a chunk without
        sequences(4 * CHUNK + 1, CHUNK - 1, 3 * CHUNK - 1),
    ],
)
def test_packed_sequences_start_anywhere_in_chunks(seq_idx: Tensor) -> None:
    assert_near(*both(SCAN, scan(4 * CHUNK + 1) | {"seq_idx": seq_idx}), 2e-5)


def test_the_gradient_of_the_final_state_alone_goes_through_all_chunks() -> None:
    inputs = scan(2 * CHUNK + 3) | {"initial_state": normal(1, 3, 2)}
    inputs["A"] = inputs["A"] / 100  # a memory as long as the row
    gradients = {}
    for backend, dtype in (("triton", torch.float32), ("reference", torch.float64)):
        given = with_gradients(placed(each(inputs, lambda x, dtype=dtype: x.to(dtype))))  # type: ignore[misc]
        with use_backend(backend):
            final = ops.selective_scan(**given)[1]
        names = [name for name in given if name not in ("C", "D", "delta_softplus")]
        found = torch.autograd.grad(final.square().sum(), [given[name] for name in names])
        gradients[backend] = {name: g.cpu() for name, g in zip(names, found, strict=True)}
    assert gradients["reference"]["u"][0, 0].abs().max() > 1e-3
    assert_near(gradients["triton"], gradients["reference"], 2e-5)


@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_decays_may_be_weak_and_strong(scale: float) -> None:
    inputs = scan(CHUNK + 3) | {"A": scale * -normal(3, 2).exp()}
    assert_near(*both(SCAN, inputs), 2e-5)


def test_dtypes_and_strides_are_the_inputs_own() -> None:
    inputs, length = scan(CHUNK + 1), CHUNK + 1
    xz, BC = normal(length, 1, 6).transpose(0, 1), normal(1, length, 1, 4)
    inputs |= {"z": xz[..., 3:], "u": inputs["u"].bfloat16(), "B": BC[..., :2], "C": BC[..., 2:].half()}
    actual, expected = both(SCAN, inputs)
    assert actual["gradient of C"].dtype == torch.float16
    assert_near(actual, expected, 1e-2)


@pytest.mark.parametrize("case", [SCAN, CONV], ids=str)
def test_not_a_number_stays_in_its_sequence(case: Case) -> None:
    length, first = 2 * CHUNK + 3, next(iter(case.make(1)))
    # it fills no chunk, so it would reach the next chunk but one through what the one between adds
    inputs = case.make(length) | {"seq_idx": sequences(length, 10, CHUNK + 3)}
    if case is CONV:
        inputs["activation"] = "silu"
    clean = run(getattr(ops, case.op), case, with_gradients(placed(each(inputs, Tensor.clone))))
    inputs[first][0, [10, CHUNK + 2]] = float("nan")
    results = run(getattr(ops, case.op), case, with_gradients(placed(inputs)))
    assert results["y"][0, 10].isnan().all()
    others = [*range(10), *range(CHUNK + 3, length)]
    for name in ("y", f"gradient of {first}"):
        assert torch.equal(results[name][0, others], clean[name][0, others])


@pytest.mark.parametrize("case", [SCAN, CONV], ids=str)
def test_nothing_under_the_mask_leaves_a_trace(case: Case) -> None:
    mask = normal(1, CHUNK + 4, seed=5) > 0
    inputs = case.make(CHUNK + 4) | {"mask": mask}
    clean = run(getattr(ops, case.op), case, with_gradients(placed(each(inputs, Tensor.clone))))
    for name in ("u", "delta", "B", "C", "x"):
        if name in inputs:
            inputs[name][~mask] = float("nan")
    results = run(getattr(ops, case.op), case, with_gradients(placed(inputs)))
    for name, value in clean.items():
        assert torch.equal(results[name], value), name


@pytest.mark.parametrize("taps", [1, 2, 5])
def test_filters_of_other_widths_convolve(taps: int) -> None:
    inputs = conv(9) | {
        "weight": normal(3, taps),
        "initial_state": normal(1, 3, taps - 1),
        "activation": "silu",
    }
    assert_near(*both(CONV, inputs), 2e-5)


def test_wide_filters_are_refused() -> None:
    with pytest.raises(RuntimeError, match="at most 8 taps"):
        ops.causal_conv1d(normal(1, 9, 3), normal(3, 9))


def test_rows_and_channels_enough_for_a_gpu_are_not_cut() -> None:
    from cobra.kernels.triton.selective_scan import _plan

    def chunks(batch: int, width: int) -> int:
        u, B = torch.empty(batch, 2777, width, device="meta"), torch.empty(batch, 2777, 1, 16, device="meta")
        return _plan(u, B, None, True, "forward", None).chunks

    assert [chunks(batch, 5120) for batch in (1, 2, 4, 16)] == [6, 3, 1, 1]
    assert chunks(1, 1536) == 18
