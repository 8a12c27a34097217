"""The adapters to mamba_ssm's functions: a call is computed as by the reference, or refused with the reason.

They call a stand-in that holds them to upstream's signatures, dtypes and strides (`upstream.py`).
"""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import combinations

import pytest
import torch
from torch import Tensor

from cobra.kernels import dispatch, ops
from cobra.kernels.dispatch import OPS, use_backend
from tests.kernels import sequence_inputs, step_inputs, upstream
from tests.kernels.cases import SEQUENCES, STEPS, Case, assert_near, each, floating, run
from tests.kernels.sequence_inputs import BATCH, Inputs, normal

BACKEND = dispatch.adapters("mamba_ssm", lambda: None, lambda: upstream.UPSTREAM)


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The adapters on the CPU, calling the stand-in, or an error."""
    here = replace(BACKEND, devices=("cpu",), by_name=())
    others = tuple(backend for backend in dispatch.BACKENDS if backend.name != "mamba_ssm")
    monkeypatch.setattr(dispatch, "BACKENDS", (here, *others))
    monkeypatch.setattr(dispatch, "_candidates_of", {})
    with use_backend("mamba_ssm"):
        yield


def without(inputs: Inputs, *names: str) -> Inputs:
    return {name: value for name, value in inputs.items() if name not in names}


def ids(length: int) -> Tensor:
    """Sequences as a user may number them: negative, long, and not from 0."""
    position = torch.arange(length)
    return torch.stack([torch.where(position < 5, -7, 2**40), (position // 3) * 10 + 3])


def conv(length: int) -> Inputs:
    return {
        "x": normal(BATCH, length, 16),
        "weight": normal(16, 4),
        "bias": normal(16),
        "initial_state": normal(BATCH, 16, 3),
        "activation": "silu",
        "seq_idx": ids(length),
        "scan_order": "reversed",
    }


def ssd(length: int) -> Inputs:
    more = {"scan_order": "reversed", "seq_idx": ids(length)}
    return without(sequence_inputs.ssd_with_all(length), "mask") | more


def scan(length: int) -> Inputs:
    grid = (2, length // 2) if length % 2 == 0 else (1, length)
    more = {"scan_order": "columns_reversed", "grid": grid, "seq_idx": ids(length)}
    return without(sequence_inputs.scan_with_all(length), "mask") | more


FULL = {
    "causal_conv1d": Case("causal_conv1d", conv),
    "ssd_chunk_scan": Case("ssd_chunk_scan", ssd),
    "selective_scan": Case("selective_scan", scan),
    "selective_state_update": Case("selective_state_update", step_inputs.head_update, ("state",)),
}
MASK = {"mask": torch.arange(12).remainder(5).ne(1).repeat(BATCH, 1)}
# options that go together
TOGETHER = {"grid": "scan_order"}
NEEDED = {
    "causal_conv1d": ("x", "weight"),
    "ssd_chunk_scan": ("x", "dt", "A", "B", "C", "dt_softplus"),
    "selective_scan": ("u", "delta", "A", "B", "C"),
    "selective_state_update": ("state", "x", "dt", "A", "B", "C"),
}


def refused(op: str, options: tuple[str, ...]) -> bool:
    """Whether upstream has no function for a call with these options."""
    return (
        "mask" in options
        or (op == "selective_scan" and bool({"initial_state", "seq_idx"} & {*options}))
        or (op == "causal_conv1d" and {"initial_state", "seq_idx"} <= {*options})
        or (op == "selective_state_update" and not {"D", "dt_bias"} <= {*options})
    )


def accepted(op: str, length: int) -> Inputs:
    """A call with as many options as upstream takes together."""
    left_out = {"selective_scan": ("initial_state", "seq_idx"), "causal_conv1d": ("seq_idx",)}.get(op, ())
    return without(FULL[op].make(length), *left_out)


def both(case: Case, inputs: Inputs) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Results through the adapter, and those that the specification gives in fp64."""
    exact, given = each(inputs, Tensor.double), each(inputs, Tensor.clone)
    if case.op not in dict.fromkeys(step.op for step in STEPS):
        exact, given = ({**m, **{n: m[n].requires_grad_() for n in floating(m)}} for m in (exact, given))
    op, spec = getattr(ops, case.op), case.spec
    if case.op == "selective_scan":
        # of whose final state upstream has no gradient
        op, spec = upstream.without_state_gradient(op), upstream.without_state_gradient(spec)
    return run(op, case, given), run(spec, case, exact)


@pytest.mark.parametrize("op", FULL)
def test_every_pair_of_options_is_computed_or_refused(op: str) -> None:
    case = FULL[op]
    everything = case.make(12) | (MASK if op != "selective_state_update" else {})
    options = [name for name in everything if name not in (*NEEDED[op], "grid")]
    some = [c for size in (0, 1, 2) for c in combinations(options, size)]
    most = tuple(o for o in options if not refused(op, (o, "D", "dt_bias")))
    for chosen in {*some, most, *(tuple(o for o in most if o != one) for one in most)}:
        names = [n for n in everything if n in NEEDED[op] or n in chosen or TOGETHER.get(n) in chosen]
        inputs = {name: everything[name] for name in names}
        if refused(op, chosen):
            with pytest.raises(RuntimeError, match="mamba_ssm: takes "):
                getattr(ops, op)(**inputs)
        else:
            assert_near(*both(case, inputs), 2e-5)


@pytest.mark.parametrize("length", [1, 2, 3, 65])
@pytest.mark.parametrize("op", [op for op in FULL if op != "selective_state_update"])
def test_any_length_is_computed(op: str, length: int) -> None:
    assert_near(*both(FULL[op], accepted(op, length)), 2e-5)


@pytest.mark.parametrize(
    "case", [c for c in SEQUENCES + STEPS if c.op not in FULL and BACKEND.find(c.op)], ids=str
)
def test_norms_and_steps_are_computed(case: Case) -> None:
    assert_near(*both(case, case.make(3)), 2e-5)


def test_groups_of_channels_step_as_heads() -> None:
    case = Case("selective_state_update", step_inputs.channel_update, ("state",))
    assert_near(*both(case, case.make(1)), 2e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("op", FULL)
def test_half_precision_goes_through(op: str, dtype: torch.dtype) -> None:
    inputs = accepted(op, 9)
    half = each(inputs, lambda x: x.to(dtype))
    # as a model holds them
    half |= {name: inputs[name] for name in ("A", "D", "dt_bias", "delta_bias") if name in inputs}
    assert_near(*both(FULL[op], half), 1.5e-2)


def column(x: Tensor, offset: int, width: int) -> Tensor:
    """x as channels of a projection's output, which begin at `offset` of `width`."""
    wide = x.new_zeros(*x.shape[:-1], width)
    wide[..., offset : offset + x.shape[-1]] = x
    return wide[..., offset : offset + x.shape[-1]]


@pytest.mark.parametrize("channels", [16, 13])
@pytest.mark.parametrize("rows", [(2, 9), (1, 9), (2, 1), (1, 1)])
def test_a_convolution_reads_any_strides(rows: tuple[int, int], channels: int) -> None:
    x, weight = normal(*rows, channels), normal(channels, 4)
    state = normal(rows[0], channels, 3) if channels == 16 else None
    views = [
        *(column(x, offset, width) for offset, width in ((0, 32), (8, 32), (3, 32), (8, 37))),
        x.transpose(0, 1).contiguous().transpose(0, 1),
        x[:1].expand(2, -1, -1),
        x[:, :1].expand(-1, 9, -1),
        x.transpose(1, 2).contiguous().transpose(1, 2),
    ]
    for view in views:
        leaf = view.detach().requires_grad_()
        start = None if state is None else state[:1].expand(len(view), -1, -1).requires_grad_()
        leaves = [leaf] if start is None else [leaf, start]
        y, last = ops.causal_conv1d(leaf, weight, initial_state=start)
        with use_backend("reference"):
            expected, expected_last = ops.causal_conv1d(leaf, weight, initial_state=start)
        # gradients as autograd makes them: expanded, and a part of something wider
        for of_y in (torch.sum, lambda y: torch.cat([y, y.new_zeros(*y.shape[:2], 5)], dim=2).square().sum()):
            losses = of_y(y) + last.square().sum(), of_y(expected) + expected_last.square().sum()
            for actual, truth in zip(
                *(torch.autograd.grad(m, leaves, retain_graph=True) for m in losses), strict=True
            ):
                torch.testing.assert_close(actual, truth, rtol=1e-5, atol=1e-5)


def test_the_convolution_reads_rows_of_a_projection_where_they_lie() -> None:
    upstream.CALLS.clear()
    wide = normal(2, 9, 40)
    ops.causal_conv1d(wide[..., 8:24], normal(16, 4))
    ((_, arguments),) = upstream.CALLS
    assert arguments["x"].untyped_storage().data_ptr() == wide.untyped_storage().data_ptr()


NORM, SCAN = sequence_inputs.norm(3), sequence_inputs.scan(3)
UPDATE, CONV, SSD = step_inputs.head_update(), without(conv(3), "seq_idx"), sequence_inputs.ssd(3)
SSD["dt_softplus"] = True
ODD = {"x": normal(2, 3, 13), "weight": normal(13, 4)}


@pytest.mark.parametrize(
    ("op", "inputs", "reason"),
    [
        ("rms_norm", {"x": torch.ones(1, 16385), "weight": torch.ones(16385)}, "rows of at most 64 KiB"),
        ("causal_conv1d", ODD | {"seq_idx": torch.zeros(2, 3).int()}, "a multiple of 8 channels"),
        ("causal_conv1d", ODD | {"initial_state": normal(2, 13, 3)}, "a multiple of 8 channels"),
        ("causal_conv1d", ODD | {"weight": normal(13, 5)}, "2 to 4 taps"),
        ("causal_conv1d", ODD | {"bias": normal(13).bfloat16()}, "weight, bias of one dtype only"),
        ("causal_conv1d", {"x": normal(2, 0, 8), "weight": normal(8, 4)}, "no empty batch or sequence"),
        ("causal_conv1d_update", step_inputs.conv_update() | {"weight": normal(133, 5)}, "2 to 4 taps"),
        (
            "causal_conv1d_update",
            step_inputs.conv_update() | {"state": torch.zeros(2, 133, 3).bfloat16()},
            "x, state of one dtype only",
        ),
        ("ssd_chunk_scan", SSD | {"B": SSD["B"].bfloat16()}, "x, B, C of one dtype only"),
        ("ssd_chunk_scan", ssd(0), "no empty batch or sequence"),
        ("ssd_chunk_scan", without(SSD, "dt_softplus"), "steps through softplus only"),
        ("selective_scan", SCAN | {"delta": SCAN["delta"].bfloat16()}, "u, delta, B, C, z of one dtype"),
        ("selective_scan", sequence_inputs.scan(0), "no empty batch or sequence"),
        (
            "selective_scan",
            SCAN | {"A": normal(22, 257), "B": normal(2, 3, 1, 257), "C": normal(2, 3, 1, 257)},
            "at most 256 states a channel",
        ),
        ("selective_state_update", UPDATE | {"x": UPDATE["x"].clone().requires_grad_()}, "has no gradient"),
        ("rms_norm", each(NORM, Tensor.double), "not torch.float64"),
        ("gelu_tanh", {"x": torch.ones(3)}, "has no gelu_tanh"),
    ],
    ids=str,
)
def test_what_upstream_cannot_do_is_refused(op: str, inputs: Inputs, reason: str) -> None:
    if op == "causal_conv1d_update" and inputs["weight"].shape[1] == 5:
        inputs = inputs | {"state": torch.zeros(2, 133, 4)}
    with pytest.raises(RuntimeError, match=f"mamba_ssm: .*{reason}"):
        getattr(ops, op)(**inputs)


def test_a_gradient_through_the_final_state_of_mamba_1_is_an_error() -> None:
    inputs = sequence_inputs.scan(5) | {"D": torch.ones(22, requires_grad=True)}
    inputs["u"].requires_grad_()
    y, state = ops.selective_scan(**inputs)
    torch.autograd.grad(y.sum(), inputs["u"], retain_graph=True)
    with pytest.raises(RuntimeError, match="no gradient through the final state"):
        torch.autograd.grad(y.sum() + state.sum(), inputs["u"])


def test_no_final_state_of_mamba_2_is_asked_for_without_need() -> None:
    upstream.CALLS.clear()
    assert ops.ssd_chunk_scan(**SSD, return_final_state=False)[1].shape == (0,)
    assert not upstream.CALLS[0][1]["return_final_states"]


def test_a_residual_in_half_precision_is_kept_in_fp32_where_that_is_asked_for() -> None:
    half = each(sequence_inputs.add_norm(3), Tensor.bfloat16)
    total = ops.add_rms_norm(**half, residual_in_fp32=True)[1]
    assert torch.equal(total, half["x"].float() + half["residual"].float())


@pytest.mark.parametrize(
    "make", [step_inputs.head_update, step_inputs.channel_update, step_inputs.conv_update]
)
def test_a_state_that_was_saved_and_stepped_is_noticed(make: Callable[[], Inputs]) -> None:
    inputs = make()
    scale = torch.ones((), requires_grad=True)
    saved = scale * inputs["state"]
    (ops.causal_conv1d_update if "weight" in inputs else ops.selective_state_update)(**inputs)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        saved.sum().backward()


def test_a_compiled_model_breaks_its_graph_at_an_adapter() -> None:
    torch.compiler.reset()
    compiled = torch.compile(lambda **inputs: ops.ssd_chunk_scan(**inputs)[0] + 1, backend="eager")
    assert torch.equal(compiled(**SSD), ops.ssd_chunk_scan(**SSD)[0] + 1)
    with pytest.raises(RuntimeError, match="x, B, C of one dtype only"):
        compiled(**SSD | {"B": SSD["B"].bfloat16()})


def test_adapters_have_the_parameters_of_their_ops() -> None:
    for op in OPS:
        if (function := BACKEND.find(op)) is not None:
            assert list(inspect.signature(function).parameters) == list(inspect.signature(OPS[op]).parameters)
