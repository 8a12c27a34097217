"""Linears and embeddings in Triton: products with the weight that was packed, in fp64, and exactly its rows.

On a GPU where there is one, else in Triton's interpreter.
"""

from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
from torch import Tensor

from cobra.kernels import ops, triton
from cobra.kernels.dispatch import use_backend

pytestmark = [
    pytest.mark.triton,
    pytest.mark.skipif(triton.unavailable() is not None, reason=str(triton.unavailable())),
]

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
FORMATS = ("bf16", "w8", "w4 32", "w4 64", "w4 128")
# of x: one, products, products of all 16, and those for which the weight is unpacked
BATCHES = (0, 1, 2, 7, 16, 17)
# of the weight, and columns: blocks of 16 rows and none, rows left over, columns that fill no word
SHAPES = [(1, 128), (37, 256), (20, 1280)]
ODD_SHAPES = [(5, 1), (37, 131)]


@pytest.fixture(autouse=True)
def poisoned() -> Iterator[None]:
    """Triton or an error, and results that start as NaN."""
    torch.use_deterministic_algorithms(True)
    with use_backend("triton"), torch.no_grad():
        yield
    torch.use_deterministic_algorithms(False)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def formed(name: str, weight: Tensor) -> tuple[Callable[..., Tensor], Callable[..., Tensor], Tensor]:
    """A linear and an embedding of a weight in a format, and what it then stands for."""
    if name == "bf16":
        # rows that do not follow each other at once
        narrow = torch.cat([weight, weight[:, :3]], 1).bfloat16().to(DEVICE)[:, : weight.shape[1]]
        return (
            partial(ops.linear_bf16, weight=narrow),
            partial(ops.embedding_bf16, weight=narrow),
            narrow.cpu().float(),
        )
    group = 0 if name == "w8" else int(name.split()[1])
    packed, scales = ops.pack_w4(weight, group) if group else ops.pack_w8(weight)
    there = packed.to(DEVICE), scales.to(DEVICE)
    if group:
        return (
            lambda x, bias=None: ops.linear_w4(x, *there, group, bias),
            lambda ids, dtype=torch.float32: ops.embedding_w4(ids, *there, group, weight.shape[1], dtype),
            ops.unpack_w4(packed, scales, group),
        )
    return (
        lambda x, bias=None: ops.linear_w8(x, *there, bias),
        lambda ids, dtype=torch.float32: ops.embedding_w8(ids, *there, weight.shape[1], dtype),
        ops.unpack_w8(packed, scales)[:, : weight.shape[1]],
    )


def assert_product(y: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """y is x weight^T + bias but for fp32 sums, y's dtype and, in half precision, the unpacked weight's."""
    right = x.double() @ weight.double().T + (0.0 if bias is None else bias.double())
    products = x.double().abs() @ weight.double().abs().T + (0.0 if bias is None else bias.double().abs())
    # the interpreter cuts off what bf16 has no room for
    rounding = {torch.float32: 0.0, torch.bfloat16: 2**-7, torch.float16: 2**-11}[x.dtype]
    bound = (1e-6 + rounding * (len(x) > 1)) * products + (1e-6 + rounding) * right.abs() + 1e-6
    assert y.dtype == x.dtype
    assert y.shape == right.shape
    assert ((y.cpu().double() - right).abs() <= bound).all()


@pytest.mark.parametrize(
    ("name", "batch", "dtype"),
    [(name, batch, torch.float32) for name in ("bf16", "w8", "w4 32") for batch in BATCHES]
    + [(name, batch, torch.bfloat16) for name in FORMATS for batch in (1, 7)]
    + [(name, batch, torch.float16) for name in ("bf16", "w4 128") for batch in (1, 16, 17)],
)
def test_linears_are_products_with_the_weight(name: str, batch: int, dtype: torch.dtype) -> None:
    for count, width in SHAPES if name.startswith("w4") else SHAPES + ODD_SHAPES:
        linear, _, weight = formed(name, normal(count, width, seed=1))
        x, bias = normal(batch, width).to(dtype), normal(count) if count % 2 else None
        y = linear(x.to(DEVICE), bias=None if bias is None else bias.to(DEVICE))
        assert_product(y, x, weight, bias)


@pytest.mark.parametrize("batch", [1, 3, 17])
@pytest.mark.parametrize("name", FORMATS[:3])
def test_leading_dimensions_and_strides_are_kept(name: str, batch: int) -> None:
    linear, _, _ = formed(name, normal(20, 128, seed=1))
    x = normal(batch, 1, 256).to(DEVICE)[..., :128]
    y = linear(x)
    assert y.shape == (batch, 1, 20)
    assert torch.equal(y, linear(x.contiguous()))
    assert torch.equal(y[:, 0], linear(x[:, 0]))


@pytest.mark.parametrize("spoilt", [float("nan"), float("inf")])
@pytest.mark.parametrize("batch", [1, 2, 17])
@pytest.mark.parametrize("name", FORMATS[:3])
def test_an_invalid_input_spoils_its_row_and_no_other(name: str, batch: int, spoilt: float) -> None:
    linear, _, _ = formed(name, normal(20, 128, seed=1))
    x = normal(batch, 128).to(DEVICE)
    x[0, 3] = spoilt
    y = linear(x)
    assert not y[0].isfinite().any()
    assert y[1:].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", FORMATS)
def test_embeddings_are_rows_of_the_weight(name: str, dtype: torch.dtype) -> None:
    _, embedding, weight = formed(name, normal(37, 1152, seed=1))
    # whole blocks of 16 rows and the rest, twice the same, in two dimensions
    ids = torch.tensor([[0, 15, 16], [36, 33, 15]])
    for given in (ids.t().int(), ids[:, :0], ids[0, 1]):
        rows, expected = embedding(given.to(DEVICE), dtype=dtype).cpu(), weight[given.long()].to(dtype)
        assert rows.dtype == dtype
        cut_off = triton.INTERPRETED and dtype == torch.bfloat16
        torch.testing.assert_close(rows, expected, rtol=2**-7 if cut_off else 0, atol=0)


@pytest.mark.parametrize("name", FORMATS)
def test_an_id_that_is_no_row_gives_no_number(name: str) -> None:
    _, embedding, _ = formed(name, normal(37, 128, seed=1))
    rows = embedding(torch.tensor([-1, 0, 37], device=DEVICE))
    assert rows[[0, 2]].isnan().all()
    assert rows[1].isfinite().all()


def test_an_embedding_may_have_fewer_columns_than_its_groups() -> None:
    packed, scales = ops.pack_w4(normal(20, 128), 64)
    rows = ops.embedding_w4(torch.arange(20, device=DEVICE), packed.to(DEVICE), scales.to(DEVICE), 64, 101)
    assert torch.equal(rows.cpu(), ops.unpack_w4(packed, scales, 64)[:, :101])
