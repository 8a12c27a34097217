"""Attention of one query in Triton: contexts in parts, rows of other lengths, tokens in a row, no room."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cobra.kernels import triton
from cobra.kernels.dispatch import use_backend
from cobra.kernels.ops import advance, attention_step, decode_attention
from tests.kernels.sequence_inputs import normal
from tests.kernels.test_triton_ops import DEVICE, poisoned  # noqa: F401  (a fixture)

pytestmark = [
    pytest.mark.triton,
    pytest.mark.skipif(triton.unavailable() is not None, reason=str(triton.unavailable())),
]

ROOM = 300  # three parts


def exact(q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """torch's own attention in fp64 (B, H, P)."""
    q, keys, values = q[:, :, None].double(), keys.double(), values.double()
    return F.scaled_dot_product_attention(q, keys, values, enable_gqa=True)[:, :, 0]


@pytest.mark.parametrize(("heads", "groups"), [(2, 2), (34, 1)], ids=["alone", "more than a program takes"])
def test_a_row_is_read_as_far_as_it_goes_whatever_lies_behind_it(heads: int, groups: int) -> None:
    q, keys, values = normal(4, heads, 16), normal(4, groups, ROOM, 16), normal(4, groups, ROOM, 16, seed=1)
    # fewer than one is one, more than all are all; in between a part's last token and the next one's first
    asked, read = torch.tensor([0, 128, 129, 999]), (1, 128, 129, ROOM)
    for row, length in enumerate(read):
        keys[row, :, length:] = values[row, :, length:] = torch.nan
    y = decode_attention(q.to(DEVICE), keys.to(DEVICE), values.to(DEVICE), asked.to(DEVICE)).cpu().double()
    for row, length in enumerate(read):
        here = slice(row, row + 1)
        expected = exact(q[here], keys[here, :, :length], values[here, :, :length])
        torch.testing.assert_close(y[here], expected, rtol=0, atol=1e-5)


def test_scores_may_be_large_and_a_whole_part_unseen() -> None:
    q, keys, values = normal(1, 1, 16), normal(1, 1, ROOM, 16), normal(1, 1, ROOM, 16, seed=1)
    q, keys[..., 0] = q.abs(), -torch.inf
    keys[:, :, 140:, 0] = 1000
    y = decode_attention(q.to(DEVICE), keys.to(DEVICE), values.to(DEVICE)).cpu()
    torch.testing.assert_close(y.double(), exact(q, keys[:, :, 140:], values[:, :, 140:]), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("heads", "groups"), [(2, 2), (4, 1)], ids=["alone", "grouped"])
def test_steps_in_a_row_are_attention_over_all_tokens(heads: int, groups: int) -> None:
    """Past a part's end, in the views and buffers that a model has, beside what the reference does."""
    tokens, width, rotation = 4, 24, normal(ROOM, 16)
    qkv = normal(2, tokens, (heads + 2 * groups) * width)
    keys, values = (normal(2, ROOM, groups, width, seed=seed).transpose(1, 2) for seed in (1, 2))
    lengths = torch.tensor([0, 126])
    past = [x.to(DEVICE, copy=True) for x in (keys, values, lengths)]
    for t in range(tokens):
        token = qkv[:, t].split([width * n for n in (heads, groups, groups)], -1)
        q, k, v = (x.unflatten(-1, (-1, width)) for x in token)
        with use_backend("reference"):
            expected = attention_step(q, k, v, keys, values, lengths, rotation)
            advance(lengths)
        q, k, v = (x.to(DEVICE) for x in (q, k, v))
        y = attention_step(q, k, v, past[0], past[1], past[2], rotation.to(DEVICE))
        advance(past[2])
        torch.testing.assert_close(y.cpu(), expected, rtol=0, atol=1e-5)
    assert lengths.tolist() == [4, 130]
    for there, here in zip(past, (keys, values, lengths), strict=True):
        torch.testing.assert_close(there.cpu(), here)


def test_a_row_without_room_writes_nothing_and_shows() -> None:
    """The others are as they were without it."""
    q, rotation = torch.ones(4, 1, 4, device=DEVICE), torch.ones(ROOM, 4, device=DEVICE)
    past = torch.zeros(4, 3, ROOM, 4, device=DEVICE)
    lengths = torch.tensor([-1, 3, ROOM, 2**40], device=DEVICE)
    y = attention_step(q, q, q, past[:, 1:2], past[:, 2:], lengths, rotation)
    assert y[[0, 2, 3]].isnan().all()
    assert y[1].isfinite().all()
    assert past.abs().sum((1, 3)).nonzero().tolist() == [[1, 3]]
    none = past[:, :1, :0]
    assert attention_step(q, q, q, none, none.clone(), lengths, rotation[:0]).isnan().all()


def test_lengths_between_other_numbers_grow_alone() -> None:
    numbers = torch.zeros(3, 2, dtype=torch.int64, device=DEVICE)
    advance(numbers[:, 1])
    assert numbers.tolist() == [[0, 1]] * 3
