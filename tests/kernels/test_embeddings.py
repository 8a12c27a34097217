"""Embeddings of few bits: exactly rows of what the packed weight unpacks to."""

from collections.abc import Callable, Iterator
from functools import cache, partial

import pytest
import torch
from torch import Tensor

from cobra.kernels import cpu, ops
from cobra.kernels.cpu import library
from cobra.kernels.dispatch import use_backend
from cobra.kernels.ops import embedding_bf16, embedding_w4, embedding_w8

LEVELS = [] if cpu.unavailable() else library.levels()
ROWS, WIDTH = 37, 130


def weight(width: int = WIDTH) -> Tensor:
    return torch.randn(ROWS, width, generator=torch.Generator().manual_seed(0))


@cache
def embeddings() -> dict[str, tuple[Callable[..., Tensor], Tensor]]:
    """Each embedding and the weight that it stands for; in 4 bits the last columns fill a group up."""
    # rows that do not follow each other at once
    rounded = weight(WIDTH + 3).bfloat16()[:, :WIDTH]
    formats: dict[str, tuple[Callable[..., Tensor], Tensor]] = {
        "bf16": (partial(embedding_bf16, weight=rounded), rounded.float())
    }
    packed, scales = ops.pack_w8(weight())
    formats["w8"] = (
        partial(embedding_w8, packed=packed, scales=scales, columns=WIDTH),
        ops.unpack_w8(packed, scales)[:, :WIDTH],
    )
    for group in (32, 128):
        packed, scales = ops.pack_w4(weight(256), group)
        formats[f"w4 {group}"] = (
            partial(embedding_w4, packed=packed, scales=scales, group=group, columns=WIDTH),
            ops.unpack_w4(packed, scales, group)[:, :WIDTH],
        )
    return formats


NAMES = ("bf16", "w8", "w4 32", "w4 128")


@pytest.fixture(params=["reference", *LEVELS])
def level(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every way to run the ops here."""
    if request.param == "reference":
        with use_backend("reference"):
            yield request.param
    else:
        with use_backend("cpu"), library.use_level(request.param):
            yield request.param


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", NAMES)
def test_rows_are_those_of_the_weight(level: str, name: str, dtype: torch.dtype) -> None:
    embedding, expected = embeddings()[name]
    # whole blocks of 16 rows and the rest, twice the same, in two dimensions
    ids = torch.tensor([[0, 15, 16], [36, 33, 15]])
    for given in (ids, ids.int(), ids.t(), ids[:, :0], ids[0, 1]):
        assert torch.equal(embedding(given, dtype=dtype), expected[given.long()].to(dtype))


@pytest.mark.parametrize("wrong", [-1, ROWS])
@pytest.mark.parametrize("name", NAMES)
def test_an_id_that_is_no_row_is_refused(level: str, name: str, wrong: int) -> None:
    # torch's words in the reference
    with pytest.raises(IndexError, match=r"an id is no row of the weight|out of range"):
        embeddings()[name][0](torch.tensor([0, wrong]))


def test_bad_arguments_are_named() -> None:
    ids, (packed, scales) = torch.tensor([0]), ops.pack_w4(weight(64), 32)
    with pytest.raises(ValueError, match=r"ids is torch\.float32"):
        embedding_bf16(ids.float(), weight().bfloat16())
    with pytest.raises(ValueError, match=r"weight is torch\.float32"):
        embedding_bf16(ids, weight())
    with pytest.raises(ValueError, match="no_grad"):
        embedding_bf16(ids, weight().bfloat16().requires_grad_())
    with pytest.raises(ValueError, match="columns 65 must be 0 to 64"):
        embedding_w4(ids, packed, scales, 32, 65)
    with pytest.raises(ValueError, match="scales has"):
        embedding_w4(ids, packed, scales, 64, 64)
    with pytest.raises(ValueError, match="packed has"):
        embedding_w8(ids, *ops.pack_w8(weight()), columns=64)
    with pytest.raises(ValueError, match=r"dtype is torch\.int32"):
        embedding_w4(ids, packed, scales, 32, 64, torch.int32)
    with pytest.raises(ValueError, match=r"^packed is on meta"):
        embedding_w4(ids, packed.to("meta"), scales, 32, 64)


@pytest.mark.skipif(not LEVELS, reason=str(cpu.unavailable()))
def test_operators_are_what_they_declare() -> None:
    ids, dtype = torch.tensor([[3, 5]]), torch.bfloat16
    tests = ("test_schema", "test_faketensor")
    cobra = torch.ops.cobra_cpu
    torch.library.opcheck(cobra.embedding_bf16.default, (ids, weight().bfloat16(), dtype), test_utils=tests)
    torch.library.opcheck(
        cobra.embedding_w8.default, (ids, *ops.pack_w8(weight()), 130, dtype), test_utils=tests
    )
    packed = ops.pack_w4(weight(160), 32)
    torch.library.opcheck(cobra.embedding_w4.default, (ids, *packed, 32, 130, dtype), test_utils=tests)
