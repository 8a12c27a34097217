"""Attention of one query against its formula, and against torch's own."""

import cobra.torchvision_shim  # noqa: F401  (before transformers)

import pytest  # isort: skip
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from cobra.kernels import cpu
from cobra.kernels.cpu import library
from cobra.kernels.dispatch import use_backend
from cobra.kernels.ops import advance, attention_step, decode_attention

LEVELS = [] if cpu.unavailable() else library.levels()
BACKENDS = [*(["cpu"] if LEVELS else []), "reference"]
WIDTHS = (1, 15, 16, 64, 80, 131)  # also more vectors than a loop of the kernel takes at once
LENGTHS = (1, 15, 16, 17, 127, 128, 129, 300, 5000)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def test_it_is_its_formula() -> None:
    """Head by head, row by row."""
    q, keys, values = normal(2, 6, 5), normal(2, 3, 9, 5, seed=1), normal(2, 3, 9, 5, seed=2)
    lengths = torch.tensor([4, 9])
    y = decode_attention(q, keys, values, lengths, scale=0.3)
    for row in range(2):
        for head in range(6):
            seen = slice(int(lengths[row]))
            weights = (0.3 * keys[row, head // 2, seen] @ q[row, head]).softmax(0)
            torch.testing.assert_close(y[row, head], weights @ values[row, head // 2, seen])


def test_the_default_scale_and_length_are_torchs() -> None:
    q, keys, values = normal(1, 4, 8), normal(1, 4, 30, 8, seed=1), normal(1, 4, 30, 8, seed=2)
    expected = F.scaled_dot_product_attention(q[:, :, None], keys, values)[:, :, 0]
    torch.testing.assert_close(decode_attention(q, keys, values), expected)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("heads", [2, 6, 16])
def test_every_width_and_length_is_exact(heads: int, dtype: torch.dtype, level: str) -> None:
    for width in WIDTHS:
        for length in LENGTHS:
            q = 3.0 * normal(1, heads, width, dtype=torch.float32)
            # rows of a longer buffer, and behind them what must not be read
            keys, values = (normal(1, 2, length, width, seed=seed, dtype=dtype) for seed in (1, 2))
            buffers = [
                torch.cat([m, torch.full_like(m, torch.nan)], dim=2)[:, :, :length] for m in (keys, values)
            ]
            expected = F.scaled_dot_product_attention(
                q[:, :, None].double(), keys.double(), values.double(), enable_gqa=True
            )[:, :, 0]
            with library.use_level(level), use_backend("cpu"):
                y = decode_attention(q, *buffers)
            torch.testing.assert_close(y.double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_row_is_read_as_far_as_it_goes_whatever_lies_behind_and_beside_it(backend: str) -> None:
    q, keys, values = (
        normal(4, 2, *t, 16, seed=i, dtype=torch.float32) for i, t in enumerate([(), (5000,), (5000,)])
    )
    # fewer than one is one, more than all are all; the others are cut into other numbers of parts
    asked, read = torch.tensor([0, 21, 700, 9999]), (1, 21, 700, 5000)
    for row, length in enumerate(read):
        keys[row, :, length:] = values[row, :, length:] = torch.nan
    with use_backend(backend):
        together = decode_attention(q, keys, values, asked)
        for row, length in enumerate(read):
            here = slice(row, row + 1)
            alone = decode_attention(q[here], keys[here, :, :length], values[here, :, :length])
            torch.testing.assert_close(together[here], alone)
            # the kernel does not even add in another order
            assert backend != "cpu" or torch.equal(together[here], alone)


@pytest.mark.skipif(not LEVELS, reason=str(cpu.unavailable()))
@pytest.mark.parametrize("size", [300.0, torch.inf, torch.nan])
def test_large_scores_do_not_overflow_and_what_is_not_finite_shows(size: float) -> None:
    q, keys, values = (
        torch.ones(1, 1, 16),
        normal(1, 1, 300, 16, dtype=torch.float32),
        torch.ones(1, 1, 300, 16),
    )
    keys[0, 0, 200] = size
    with use_backend("cpu"):
        y = decode_attention(q, keys, values)
    assert y.isfinite().all() == (size == 300.0)
    if size == 300.0:
        torch.testing.assert_close(y, torch.ones_like(y))


def test_a_key_of_minus_infinity_is_not_seen() -> None:
    q, keys = torch.ones(1, 1, 16), normal(1, 1, 300, 16, dtype=torch.float32)
    values = normal(1, 1, 300, 16, seed=1, dtype=torch.float32)
    keys[:, :, :200] = -torch.inf
    torch.testing.assert_close(
        decode_attention(q, keys, values), decode_attention(q, keys[:, :, 200:], values[:, :, 200:])
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_step_turns_writes_and_attends_as_transformers_do(backend: str) -> None:
    """Token after token, one row ahead of the other, beside attention over all tokens at once."""
    batch, heads, groups, tokens, width = 2, 4, 2, 20, 16
    q, k, v = (normal(batch, n, tokens, width, seed=n, dtype=torch.float32) for n in (heads, groups, 3))
    v = v[:, :groups]
    angles = torch.arange(30.0)[:, None] * 0.7 ** torch.arange(width / 2)
    rotation = torch.cat([angles.cos(), angles.sin()], dim=-1)

    cos, sin = (torch.cat([m, m], dim=-1)[None, :tokens] for m in (angles.cos(), angles.sin()))
    q_turned, k_turned = apply_rotary_pos_emb(q, k, cos, sin)
    expected = F.scaled_dot_product_attention(q_turned, k_turned, v, is_causal=True, enable_gqa=True)

    keys, values = (torch.full((batch, groups, 25, width), torch.nan) for _ in range(2))
    ahead, rows = 3, torch.arange(batch)
    lengths = torch.tensor([0, ahead])
    for past, whole in ((keys, k_turned), (values, v)):
        past[1, :, :ahead] = whole[1, :, :ahead]
    with use_backend(backend):
        for _ in range(tokens - ahead):
            token = [x[rows, :, lengths] for x in (q, k, v)]
            y = attention_step(token[0], token[1], token[2], keys, values, lengths, rotation)
            torch.testing.assert_close(y, expected[rows, :, lengths])
            advance(lengths)
    assert lengths.tolist() == [tokens - ahead, tokens]
    for row, length in enumerate(lengths):
        torch.testing.assert_close(keys[row, :, :length], k_turned[row, :, :length])
        assert torch.equal(values[row, :, :length], v[row, :, :length])
        assert keys[row, :, length:].isnan().all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_step_writes_nothing_outside_its_room(backend: str) -> None:
    q, rotation = torch.ones(2, 1, 4), torch.ones(9, 4)
    past = torch.zeros(2, 3, 9, 4)
    for length in (-1, 9):
        with use_backend(backend), pytest.raises(ValueError, match="allocate"):
            attention_step(q, q, q, past[:, 1:2], past[:, 2:], torch.tensor([3, length]), rotation)
    assert not past.any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_lengths_between_other_numbers_grow_alone(backend: str) -> None:
    numbers = torch.zeros(3, 2, dtype=torch.int64)
    with use_backend(backend):
        advance(numbers[:, 1])
    assert numbers.tolist() == [[0, 1]] * 3
