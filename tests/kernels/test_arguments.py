"""A wrong argument is refused at the door, by name, with what it must be."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from cobra.kernels import ops

B, L, H, P, G, N, K = 2, 6, 4, 3, 2, 5, 4
INNER, CHANNELS = H * P, H * P + 2 * G * N

SSD = {
    "x": torch.zeros(B, L, H, P),
    "dt": torch.zeros(B, L, H),
    "A": torch.zeros(H),
    "B": torch.zeros(B, L, G, N),
    "C": torch.zeros(B, L, G, N),
}
SELECTIVE = {
    "u": torch.zeros(B, L, H),
    "delta": torch.zeros(B, L, H),
    "A": torch.zeros(H, N),
    "B": torch.zeros(B, L, G, N),
    "C": torch.zeros(B, L, G, N),
}
CONV = {"x": torch.zeros(B, L, H), "weight": torch.zeros(H, K)}
UPDATE = {"x": torch.zeros(B, H), "state": torch.zeros(B, H, K - 1), "weight": torch.zeros(H, K)}
STATE = {
    "state": torch.zeros(B, H, P, N),
    "x": torch.zeros(B, H, P),
    "dt": torch.zeros(B, H),
    "A": torch.zeros(H),
    "B": torch.zeros(B, G, N),
    "C": torch.zeros(B, G, N),
}
STEP = {
    "xz": torch.zeros(B, 2 * H),
    "conv_state": torch.zeros(B, H, K - 1),
    "ssm_state": torch.zeros(B, H, N),
    "conv_weight": torch.zeros(H, K),
    "conv_bias": torch.zeros(H),
    "x_proj_weight": torch.zeros(1 + 2 * N, H),
    "dt_proj_weight": torch.zeros(H, 1),
    "dt_proj_bias": torch.zeros(H),
    "A_log": torch.zeros(H, N),
    "D": torch.zeros(H),
}
STEP2 = {
    "zxbcdt": torch.zeros(B, INNER + CHANNELS + H),
    "conv_state": torch.zeros(B, CHANNELS, K - 1),
    "ssm_state": torch.zeros(B, H, P, N),
    "conv_weight": torch.zeros(CHANNELS, K),
    "conv_bias": torch.zeros(CHANNELS),
    "dt_bias": torch.zeros(H),
    "A_log": torch.zeros(H),
    "D": torch.zeros(H),
    "norm_weight": torch.zeros(INNER),
    "n_groups": G,
}
ATTENTION = {"q": torch.zeros(B, H, P), "keys": torch.zeros(B, G, L, P), "values": torch.zeros(B, G, L, P)}
ATTENTION_STEP = ATTENTION | {
    "k": torch.zeros(B, G, P),
    "v": torch.zeros(B, G, P),
    "rotation": torch.zeros(L, P - P % 2),
    "lengths": torch.zeros(B, dtype=torch.int64),
}
NORM = {"x": torch.zeros(B, 8), "weight": torch.zeros(8)}
ADD = NORM | {"residual": torch.zeros(B, 8)}
LAYER = ADD | {"bias": torch.zeros(8), "parallel": torch.zeros(B, 8)}
GATED = NORM | {"z": torch.zeros(B, 8)}
CALLS: list[tuple[Callable[..., Any], dict[str, Any]]] = [
    (ops.ssd_chunk_scan, SSD),
    (ops.selective_scan, SELECTIVE),
    (ops.causal_conv1d, CONV),
    (ops.causal_conv1d_update, UPDATE),
    (ops.selective_state_update, STATE),
    (ops.mamba_step, STEP),
    (ops.mamba2_step, STEP2),
    (ops.decode_attention, ATTENTION),
    (ops.attention_step, ATTENTION_STEP),
    (ops.rms_norm, NORM),
    (ops.add_rms_norm, ADD),
    (ops.rms_norm_gated, GATED),
    (ops.add_layer_norm, LAYER),
]
NORMS = (ops.rms_norm, ops.add_rms_norm, ops.rms_norm_gated, ops.add_layer_norm)
ARGUMENTS = [
    pytest.param(op, arguments, name, id=f"{op.__name__}-{name}")
    for op, arguments in CALLS
    for name, value in arguments.items()
    if isinstance(value, torch.Tensor) and value.is_floating_point()
]


@pytest.mark.parametrize(("op", "arguments"), CALLS)
def test_right_arguments_pass(op: Callable[..., Any], arguments: dict[str, Any]) -> None:
    op(**arguments)


@pytest.mark.parametrize(("op", "arguments", "name"), ARGUMENTS)
def test_a_wrong_rank_is_refused_by_name(
    op: Callable[..., Any], arguments: dict[str, Any], name: str
) -> None:
    # a norm takes x of any rank, so there the others no longer fit
    culprit = "z|residual|x|weight|bias|parallel" if op in NORMS else name
    with pytest.raises(ValueError, match=rf"^({culprit}) has shape .* must be \(.*: reshape it"):
        op(**arguments | {name: arguments[name].unsqueeze(-1)})


@pytest.mark.parametrize(("op", "arguments", "name"), ARGUMENTS)
def test_an_integer_is_refused_by_name(op: Callable[..., Any], arguments: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name} is torch.int64 but must be .*: cast it"):
        op(**arguments | {name: arguments[name].long()})


@pytest.mark.parametrize(("op", "arguments", "name"), ARGUMENTS)
def test_another_device_is_refused_by_name(
    op: Callable[..., Any], arguments: dict[str, Any], name: str
) -> None:
    # where the first input itself is elsewhere, it is the next that does not fit
    first = next(iter(arguments))
    culprit = r"\w+" if name in (first, "x", "weight") else name
    with pytest.raises(ValueError, match=rf"^{culprit} is on \w+ but the first input on \w+: move it"):
        op(**arguments | {name: arguments[name].to("meta")})


@pytest.mark.parametrize(
    ("op", "arguments", "name"), [case for case in ARGUMENTS if str(case.values[2]).endswith("state")]
)
def test_an_expanded_state_is_refused_by_name(
    op: Callable[..., Any], arguments: dict[str, Any], name: str
) -> None:
    state = arguments[name]
    with pytest.raises(ValueError, match=f"^{name} is expanded, .* cannot change in place: clone it first"):
        op(**arguments | {name: state[:1].expand_as(state)})


@pytest.mark.parametrize(
    ("op", "arguments", "wrong", "message"),
    [
        (
            ops.ssd_chunk_scan,
            SSD,
            {"dt": torch.zeros(B, L + 1, H)},
            r"dt has shape \(2, 7, 4\) .* = \(2, 6, 4\)",
        ),
        (ops.ssd_chunk_scan, SSD, {"C": torch.zeros(B, L, G, N + 1)}, "C has shape"),
        (
            ops.ssd_chunk_scan,
            SSD,
            {"B": torch.zeros(B, L, 3, N), "C": torch.zeros(B, L, 3, N)},
            "multiple of the num",
        ),
        (ops.ssd_chunk_scan, SSD, {"D": torch.zeros(H, P)}, "D has shape"),
        (ops.ssd_chunk_scan, SSD, {"dt_bias": torch.zeros(P)}, "dt_bias has shape"),
        (ops.ssd_chunk_scan, SSD, {"initial_state": torch.zeros(B, H, N, P)}, "initial_state has shape"),
        (ops.ssd_chunk_scan, SSD, {"seq_idx": torch.zeros(B, L)}, "seq_idx is torch.float32"),
        (ops.ssd_chunk_scan, SSD, {"mask": torch.zeros(B, L)}, "mask is torch.float32"),
        (ops.ssd_chunk_scan, SSD, {"chunk_size": 0}, "chunk_size is 0"),
        (ops.selective_scan, SELECTIVE, {"initial_state": torch.zeros(B, N, H)}, "initial_state has shape"),
        (ops.selective_scan, SELECTIVE, {"seq_idx": torch.zeros(L).int()}, "seq_idx has shape"),
        (ops.causal_conv1d, CONV, {"activation": "relu"}, "activation is 'relu'"),
        (ops.causal_conv1d, CONV, {"initial_state": torch.zeros(B, K - 1, H)}, "initial_state has shape"),
        (ops.causal_conv1d, CONV, {"mask": torch.ones(L).bool()}, "mask has shape"),
        (ops.decode_attention, ATTENTION, {"lengths": torch.zeros(B)}, "lengths is torch.float32"),
        (ops.decode_attention, ATTENTION, {"q": torch.zeros(B, 3, P)}, "H of q 3 must be a multiple of"),
        (
            ops.decode_attention,
            ATTENTION,
            {"keys": torch.zeros(B, G, 0, P), "values": torch.zeros(B, G, 0, P)},
            "keys hold no token",
        ),
        (
            ops.attention_step,
            ATTENTION_STEP,
            {"rotation": torch.zeros(L, 3)},
            "R of rotation is 3 but must be even",
        ),
        (ops.attention_step, ATTENTION_STEP, {"rotation": torch.zeros(L - 1, 2)}, "rotation has shape"),
        (ops.attention_step, ATTENTION_STEP, {"lengths": torch.zeros(B)}, "lengths is torch.float32"),
        (ops.rms_norm_gated, GATED, {"group_size": 3}, "width of x 8 must be a multiple of group_size 3"),
        (ops.mamba2_step, STEP2, {"n_groups": 3}, "must be a multiple of n_groups 3"),
        (ops.mamba2_step, STEP2, {"n_groups": 1}, "zxbcdt has shape"),
    ],
)
def test_the_message_names_argument_and_value(
    op: Callable[..., Any], arguments: dict[str, Any], wrong: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        op(**arguments | wrong)
