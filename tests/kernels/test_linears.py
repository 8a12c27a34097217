"""Linears with packed weights: their error against the weight that was packed, and that weight's own."""

from collections.abc import Callable, Iterator
from functools import cache, partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cobra.kernels import cpu, ops
from cobra.kernels.cpu import library
from cobra.kernels.dispatch import use_backend
from cobra.kernels.ops import linear_bf16, linear_w4, linear_w8, pack_w4, pack_w8, unpack_w4, unpack_w8

LEVELS = [] if cpu.unavailable() else library.levels()
# x as integers up to 32639: half a step of its largest value
ROUNDING = 1 / 65278
# rows N that fill blocks of 16, leave some over, and are fewer than one
ROWS = (1, 16, 37)
# whole tiles of the kernels, and every number of rows that is left over
BATCHES = range(1, 10)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(params=["reference", *LEVELS])
def level(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every way to run the ops here."""
    if request.param == "reference":
        with use_backend("reference"):
            yield request.param
    else:
        with use_backend("cpu"), library.use_level(request.param):
            yield request.param


def assert_product(y: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, group: int | None) -> None:
    """y is x weight^T + bias but for the rounding of x in each group, of fp32 sums and of y's dtype."""
    x, weight = x.double(), weight.double()
    right = x @ weight.T + (0.0 if bias is None else bias.double())
    products = x.abs() @ weight.abs().T
    bound = 1e-6 * (products + right.abs()) + 1e-6
    if group is not None:
        x, weight = (F.pad(m.abs(), (0, -m.shape[1] % group)).unflatten(1, (-1, group)) for m in (x, weight))
        bound = bound + 1.001 * ROUNDING * (x.amax(-1) @ weight.sum(-1).T)
    if y.dtype == torch.bfloat16:
        bound = bound + 2**-8 * (right.abs() + bound)
    assert y.shape == right.shape
    assert ((y.double() - right).abs() <= bound).all()


@cache
def w4(rows: int, group: int) -> tuple[Tensor, Tensor]:
    return pack_w4(normal(rows, 384, seed=1), group)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("group", [32, 64, 128])
@pytest.mark.parametrize("rows", ROWS)
def test_linear_w4_is_the_product_with_the_unpacked_weight(
    level: str, rows: int, group: int, dtype: torch.dtype
) -> None:
    weight, bias = unpack_w4(*w4(rows, group), group), normal(rows)
    for batch in BATCHES:
        x = normal(batch, 384).to(dtype)
        y = linear_w4(x, *w4(rows, group), group, bias)
        assert y.dtype == dtype
        assert_product(y, x, weight, bias, group)


@cache
def w8(rows: int, width: int) -> tuple[Tensor, Tensor]:
    return pack_w8(normal(rows, width, seed=1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("width", [1, 127, 258, 384])
@pytest.mark.parametrize("rows", ROWS)
def test_linear_w8_is_the_product_with_the_unpacked_weight(
    level: str, rows: int, width: int, dtype: torch.dtype
) -> None:
    weight = unpack_w8(*w8(rows, width))[:, :width]
    for batch in BATCHES:
        x, bias = normal(batch, width).to(dtype), normal(rows) if batch % 2 else None
        y = linear_w8(x, *w8(rows, width), bias)
        assert y.dtype == dtype
        assert_product(y, x, weight, bias, 128)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("width", [1, 31, 64, 257])
@pytest.mark.parametrize("rows", ROWS)
def test_linear_bf16_is_the_product(level: str, rows: int, width: int, dtype: torch.dtype) -> None:
    weight = normal(rows, width + 3, seed=1).bfloat16()[:, :width]
    for batch in BATCHES:
        x, bias = normal(batch, width).to(dtype), normal(rows) if batch % 2 else None
        y = linear_bf16(x, weight, bias)
        assert y.dtype == dtype
        assert_product(y, x, weight, bias, None)


def test_leading_dimensions_and_strides_are_kept(level: str) -> None:
    x, weight = normal(2, 3, 128)[..., :64], normal(20, 64, seed=1)
    packed, scales = pack_w4(weight, 32)
    torch.testing.assert_close(
        linear_w4(x, packed, scales, 32), linear_w4(x.contiguous(), packed, scales, 32)
    )
    assert linear_w4(x, packed, scales, 32).shape == (2, 3, 20)
    assert linear_w4(x[0, 0], packed, scales, 32).shape == (20,)
    assert linear_w8(x[:, :0], *pack_w8(weight)).shape == (2, 0, 20)
    one = linear_bf16(x[:1, :1], weight.bfloat16())
    torch.testing.assert_close(one, linear_bf16(x, weight.bfloat16())[:1, :1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("spoilt", [float("nan"), float("inf")])
def test_an_invalid_input_spoils_its_row_and_no_other(level: str, spoilt: float) -> None:
    x, weight = normal(2, 128), normal(20, 128, seed=1)
    x[0, 3] = spoilt
    for y in (
        linear_w4(x, *pack_w4(weight, 32), 32),
        linear_w8(x, *pack_w8(weight)),
        linear_bf16(x, weight.bfloat16()),
    ):
        assert y[1].isfinite().all()
        assert not y[0].isfinite().any()


def test_zeros_and_tiny_inputs_are_no_division_by_zero(level: str) -> None:
    weight = normal(20, 128, seed=1)
    weight[:, 32:64] = 0
    packed, scales = pack_w4(weight, 32)
    for value in (0.0, 1e-40):
        assert (linear_w4(torch.full((1, 128), value), packed, scales, 32).abs() < 1e-30).all()


@pytest.mark.parametrize("at_level", LEVELS)
def test_a_row_is_the_same_alone_and_in_any_batch(at_level: str) -> None:
    # sums of integers are exact, however a number of rows has them made
    x = normal(9, 384)
    x[1], x[2], x[3], x[4], x[5, ::7] = 0.0, 3e38, -3e38, 1e-37, torch.nan
    x[6], x[7] = x[6].sign(), x[7].exp()
    linears: list[tuple[Callable[..., Tensor], tuple[Tensor, Tensor]]] = [(linear_w8, w8(37, 384))]
    linears += [(partial(linear_w4, group=group), w4(37, group)) for group in (32, 64, 128)]
    with use_backend("cpu"), library.use_level(at_level):
        for linear, packed in linears:
            alone = torch.cat([linear(row[None], *packed) for row in x])
            for batch in BATCHES:
                assert torch.equal(
                    linear(x[-batch:], *packed).nan_to_num(1.5), alone[-batch:].nan_to_num(1.5)
                ), (batch, linear)
            assert alone[[0, 1, 4, 6, 7, 8]].isfinite().all()


@pytest.mark.skipif(not LEVELS, reason=str(cpu.unavailable()))
def test_threads_change_nothing() -> None:
    x, weight = normal(3, 256), normal(133, 256, seed=1)
    packed4, packed8 = pack_w4(weight, 64), pack_w8(weight)
    before, results = torch.get_num_threads(), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        results.append(
            (linear_w4(x, *packed4, 64), linear_w8(x, *packed8), linear_bf16(x, weight.bfloat16()))
        )
    torch.set_num_threads(before)
    assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))


@pytest.mark.parametrize("rows", [1, 16, 37])
@pytest.mark.parametrize("group", [32, 64, 128])
def test_the_error_of_4_bits_is_bounded_in_every_group(group: int, rows: int) -> None:
    for weight in (
        normal(rows, 256),
        normal(rows, 256).exp(),
        normal(rows, 256).sign(),
        normal(rows, 256) ** 3,
    ):
        unpacked = unpack_w4(*pack_w4(weight, group), group)
        error = (unpacked - weight).unflatten(-1, (-1, group)).square().mean(-1).sqrt()
        largest = weight.unflatten(-1, (-1, group)).abs().amax(-1)
        assert (error <= largest / 14 * (1 + 2**-8) + 1e-7).all()


def test_the_error_of_normal_weights_in_4_bits() -> None:
    weight = normal(64, 1024)
    for group, most in ((32, 0.085), (64, 0.1), (128, 0.115)):
        error = unpack_w4(*pack_w4(weight, group), group) - weight
        assert error.square().mean().sqrt() <= most * weight.square().mean().sqrt()


def test_the_error_of_8_bits_is_half_a_step() -> None:
    weight = normal(37, 130)
    unpacked = unpack_w8(*pack_w8(weight))
    assert (unpacked[:, 130:] == 0).all()
    assert ((unpacked[:, :130] - weight).abs() <= weight.abs().amax(-1, keepdim=True) / 254 * 1.0001).all()


def test_integers_are_packed_exactly() -> None:
    integers = torch.randint(-8, 8, (37, 128), generator=torch.Generator().manual_seed(0)).float()
    integers[:, ::32] = -8
    assert torch.equal(unpack_w4(*pack_w4(integers, 32), 32), integers)


def test_wrong_weights_are_refused() -> None:
    with pytest.raises(ValueError, match="K 100 must be a multiple of group 32: pad"):
        pack_w4(normal(4, 100), 32)
    with pytest.raises(ValueError, match="group is 48 but must be 32, 64 or 128"):
        pack_w4(normal(4, 96), 48)
    with pytest.raises(ValueError, match="weight holds NaN or infinity"):
        pack_w8(torch.full((2, 4), torch.inf))
    with pytest.raises(ValueError, match=r"weight is torch.int64 \(4,\)"):
        pack_w8(torch.arange(4))


def test_wrong_arguments_are_named() -> None:
    x, weight = normal(2, 128), normal(20, 128)
    packed, scales = pack_w4(weight, 32)
    with pytest.raises(ValueError, match="K 100 must be a multiple of group 32"):
        linear_w4(x[:, :100], packed, scales, 32)
    with pytest.raises(ValueError, match=r"packed has shape \(20, 16\) but must be \(N, K / 8\) = \(20, 8\)"):
        linear_w4(x[:, :64], packed, scales, 32)
    with pytest.raises(ValueError, match="scales has shape"):
        linear_w4(x, packed, scales, 64)
    with pytest.raises(ValueError, match=r"packed is torch\.int64"):
        linear_w4(x, packed.long(), scales, 32)
    with pytest.raises(ValueError, match="bias has shape"):
        linear_w4(x, packed, scales, 32, normal(19))
    with pytest.raises(ValueError, match="packed has shape"):
        linear_w8(x[:, :120], *pack_w8(weight))
    with pytest.raises(ValueError, match=r"weight is torch\.float32 but must be one of torch\.bfloat16"):
        linear_bf16(x, weight)
    with pytest.raises(ValueError, match=r"x is torch\.int64"):
        linear_bf16(x.long(), weight.bfloat16())
    with pytest.raises(ValueError, match=r"^weight is on meta but the first input on cpu: move it"):
        linear_bf16(x, weight.bfloat16().to("meta"))
    with pytest.raises(ValueError, match=r"^packed is on meta"):
        linear_w4(x, packed.to("meta"), scales, 32)
    with pytest.raises(ValueError, match=r"^scales is on meta"):
        linear_w8(x, pack_w8(weight)[0], torch.ones(20, device="meta"))
    with torch.enable_grad(), pytest.raises(ValueError, match="no_grad"):
        linear_bf16(x.requires_grad_(), weight.bfloat16())


@pytest.mark.skipif(not LEVELS, reason=str(cpu.unavailable()))
def test_operators_are_what_they_declare() -> None:
    x, weight, bias = normal(2, 128), normal(20, 128), normal(20)
    # the real operators, which have no gradient
    tests = ("test_schema", "test_faketensor")
    cobra = torch.ops.cobra_cpu
    torch.library.opcheck(cobra.linear_bf16.default, (x, weight.bfloat16(), bias), test_utils=tests)
    torch.library.opcheck(cobra.linear_w8.default, (x, *pack_w8(weight), bias), test_utils=tests)
    torch.library.opcheck(cobra.linear_w4.default, (x, *pack_w4(weight), 32, bias), test_utils=tests)
    compiled = torch.compile(ops.linear_w4, fullgraph=True, backend="eager")
    assert torch.equal(compiled(x, *pack_w4(weight), 32), linear_w4(x, *pack_w4(weight), 32))
