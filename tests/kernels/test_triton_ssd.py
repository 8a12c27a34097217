"""What only Mamba-2's scan in Triton does: segments, blocks of heads, one gradient without the other."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from cobra.kernels import ops, triton
from cobra.kernels.dispatch import use_backend
from tests.kernels.cases import each
from tests.kernels.sequence_inputs import HEAD_DIM, normal, ssd, ssd_with_all
from tests.kernels.test_triton_ops import DEVICE, placed, with_gradients

pytestmark = [
    pytest.mark.triton,
    pytest.mark.skipif(triton.unavailable() is not None, reason=str(triton.unavailable())),
]

if triton.unavailable() is None:
    import cobra.kernels.triton.ssd as scan
    import cobra.kernels.triton.ssd_chunk as chunk


@pytest.fixture(autouse=True)
def on_triton() -> Iterator[None]:
    with use_backend("triton"):
        yield


def differences(inputs: dict[str, Any], seeds: tuple[bool, bool], **options: Any) -> dict[str, float]:
    """Largest errors of the results used and of gradients, as shares of the largest values."""
    both = []
    for op, given in (
        (ops.ssd_chunk_scan, with_gradients(placed(each(inputs, Tensor.clone)))),
        (use_backend("reference")(ops.ssd_chunk_scan), with_gradients(each(inputs, Tensor.double))),
    ):
        results = op(**given, **options)
        used = [result for result, is_used in zip(results, seeds, strict=True) if is_used]
        leaves = {n: x for n, x in given.items() if isinstance(x, Tensor) and x.requires_grad}
        loss = torch.stack([(x * x).sum() for x in used]).sum()
        gradients = torch.autograd.grad(
            loss, list(leaves.values()), allow_unused=True, materialize_grads=True
        )
        both.append([*used, *gradients])
    names = [f"result {i}" for i in range(sum(seeds))] + list(leaves)
    return {
        name: ((a.cpu().double() - b).abs().max() / (b.abs().max() + 1e-3)).item()
        for name, a, b in zip(names, *both, strict=True)
    }


def test_segments_make_the_whole_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "_SEGMENT", 1)
    inputs = each(ssd_with_all(70), lambda x: x[:, :, :2] if x.dim() > 2 and x.shape[2] == 4 else x)
    inputs = {n: x[:2] if n in ("A", "D", "dt_bias") else x for n, x in inputs.items()}
    inputs |= {"B": inputs["B"][:, :, :1], "C": inputs["C"][:, :, :1]}
    inputs["initial_state"] = inputs["initial_state"][:, :2]
    assert scan.segments_of(4, 5) == (5, 1)
    assert max(differences(inputs, (True, True)).values()) < 2e-5


def test_blocks_of_heads_sum_up(monkeypatch: pytest.MonkeyPatch) -> None:
    # few programs are enough: all heads of a group are one block
    monkeypatch.setattr(chunk, "_PROGRAMS", 1)
    assert max(differences(ssd(20), (True, True)).values()) < 2e-5


@pytest.mark.parametrize("seeds", [(True, False), (False, True)])
def test_one_result_alone_has_its_gradient(seeds: tuple[bool, bool]) -> None:
    inputs = ssd_with_all(20)
    options = {"return_final_state": seeds[1]}
    assert max(differences(inputs, seeds, **options).values()) < 2e-5


def test_strong_decays_keep_their_digits() -> None:
    # a decay beyond the longest in front of weak ones
    inputs = ssd(34)
    inputs["dt"] = torch.full_like(inputs["dt"], 1e-2)
    inputs["dt"][:, ::5] = 300.0
    inputs["A"] = torch.tensor([-1.0, -0.3, -40.0, -1e-3])
    errors = differences(inputs, (True, True))
    assert max(errors.values()) < 2e-5, errors


def test_a_strided_projection_is_read_where_it_lies() -> None:
    row = normal(2, 20, 4 * HEAD_DIM + 2 * 16 + 4).to(DEVICE)
    x, B, C, dt = row.split([4 * HEAD_DIM, 16, 16, 4], dim=-1)
    parts = {
        "x": x.unflatten(2, (4, HEAD_DIM)),
        "dt": dt.abs(),
        "A": -normal(4).exp().to(DEVICE),
        "B": B.unflatten(2, (1, 16)),
        "C": C.unflatten(2, (1, 16)),
    }
    y, _ = ops.ssd_chunk_scan(**parts, dt_softplus=True)
    exact, _ = use_backend("reference")(ops.ssd_chunk_scan)(
        **{n: m.double().cpu() for n, m in parts.items()}, dt_softplus=True
    )
    torch.testing.assert_close(y.cpu().double(), exact, rtol=0, atol=2e-5 * exact.abs().max().item())


def test_not_a_number_reaches_no_earlier_chunk_no_other_row_and_no_later_sequence() -> None:
    inputs = ssd(64)
    inputs["seq_idx"] = (torch.arange(64) >= 40).int().expand(2, 64)
    clean, _ = ops.ssd_chunk_scan(**placed(inputs))
    inputs["x"] = inputs["x"].clone()
    inputs["x"][0, 20] = torch.nan
    y, final = ops.ssd_chunk_scan(**placed(inputs))
    reached = torch.zeros(2, 64, dtype=torch.bool)
    # up to the end of the chunk in which the next sequence begins
    reached[0, 16:48] = True
    assert torch.equal(y.cpu()[~reached], clean.cpu()[~reached])
    assert not y[0, 20:40].isfinite().any()
    assert final.isfinite().all()
