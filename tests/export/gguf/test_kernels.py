"""Kernels of a picture's program: of the parameters of their ops, and what they cannot be asked for."""

import inspect
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from cobra.export.gguf.kernels import KERNELS, CannotExpress
from cobra.kernels.dispatch import OPS, exporting_with
from cobra.kernels.ops import causal_conv1d, ssd_chunk_scan

TOKENS, B = torch.ones(1, 5, 4), torch.ones(1, 5, 1, 3)
scan = partial(ssd_chunk_scan, dt=torch.ones(1, 5, 2), A=-torch.ones(2), B=B, C=B)
conv = partial(causal_conv1d, weight=torch.ones(4, 3))
ONE_EACH = torch.ones(1, 5, dtype=torch.int32)


@pytest.mark.parametrize("op", KERNELS)
def test_they_have_the_parameters_of_their_ops(op: str) -> None:
    assert list(inspect.signature(KERNELS[op]).parameters) == list(inspect.signature(OPS[op]).parameters)


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (partial(scan, dt_softplus=True, return_final_state=False, mask=ONE_EACH.bool()), "given mask"),
        (partial(scan, dt_softplus=True, return_final_state=False, seq_idx=ONE_EACH), "given seq_idx"),
        (partial(scan, dt_softplus=True), "returns no state"),
        (partial(scan, return_final_state=False), "through a softplus"),
        (partial(conv, initial_state=torch.ones(1, 4, 2)), "given initial_state"),
    ],
)
def test_what_ggml_does_not_take_is_refused_by_name(call: Callable[..., Tensor], reason: str) -> None:
    class Call(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return call(x if "weight" in call.keywords else x.unflatten(-1, (2, 2)))[0]  # type: ignore[attr-defined]

    with exporting_with(KERNELS), pytest.raises(CannotExpress, match=reason):
        torch.export.export(Call(), (TOKENS,), strict=False)
