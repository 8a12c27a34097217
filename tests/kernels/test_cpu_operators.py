"""The native kernels as torch operators: schemas, compiled graphs, exported graphs."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cobra.kernels import cpu, ops
from tests.kernels.sequence_inputs import conv_with_all, gated_norm, norm, normal, scan_with_all, ssd_with_all
from tests.kernels.step_inputs import (
    activation,
    attend_step,
    attention,
    conv_update,
    gate,
    grouped_attend_step,
    grouped_attention,
    head_update,
    layer_norm,
    step,
    step2,
)

pytestmark = pytest.mark.skipif(cpu.unavailable() is not None, reason=str(cpu.unavailable()))

L = 9
CONV = ("x", "weight", "bias", "initial_state", "seq_idx", "mask")
SSD = ("A", "B", "C", "D")
SCAN = (*SSD, "z")
LAST = ("initial_state", "seq_idx", "mask")
UPDATE = ("state", "x", "dt", *SCAN, "dt_bias")


def values(inputs: dict[str, Any], names: tuple[str, ...]) -> list[Any]:
    return [inputs[name] for name in names]


def operators() -> list[tuple[str, list[Any], bool]]:
    """Name, arguments and whether it has a gradient."""
    ssd, scan = ssd_with_all(L), scan_with_all(L)
    ssd_inputs = values(ssd, ("x", "dt", *SSD, "dt_bias"))
    scan_inputs = values(scan, ("u", "delta", *SCAN, "delta_bias"))
    x, weight = norm(L).values()
    gated = list(gated_norm(L).values())
    convolved = values(conv_with_all(L), CONV)
    return [
        ("rms_norm", [x, weight, 1e-5], True),
        ("add_rms_norm", [x, x + 1, weight, 1e-5, torch.float32], True),
        ("rms_norm_gated", [*gated, 1e-5, 33], True),
        ("causal_conv1d", [*convolved, True, True, 1], True),
        ("ssd_chunk_scan", [*ssd_inputs, *values(ssd, LAST), True, True, 3, True, True], True),
        ("selective_scan", [*scan_inputs, *values(scan, LAST), True, True, 3, True], True),
        ("rms_norm_backward", [x, x + 1, x, weight, 1e-5], False),
        ("rms_norm_gated_backward", [gated[0], *gated, 1e-5, 33], False),
        ("causal_conv1d_backward", [convolved[0], convolved[3], *convolved, True, True, 1], False),
        ("causal_conv1d_update", [*values(conv_update(), ("x", "state", "weight", "bias")), True], False),
        ("selective_state_update", [*values(head_update(), UPDATE), True], False),
        ("mamba_step", list(step().values()), False),
        ("decode_attention", [*attention().values(), None, 0.5], False),
        ("decode_attention", list(grouped_attention().values()), False),
        ("attention_step", [*attend_step().values(), 0.5], False),
        ("attention_step", list(grouped_attend_step().values()), False),
        ("advance", [torch.tensor([7, 3])], False),
        ("silu_mul", list(gate().values()), False),
        ("gelu_tanh", list(activation().values()), False),
        ("add_layer_norm", [*layer_norm().values(), 1e-5, torch.bfloat16], False),
        ("mamba2_step", [*list(step2().values())[:9], 2, 1e-5], False),
    ]


@pytest.mark.parametrize(
    ("name", "arguments", "differentiable"), operators(), ids=lambda v: v if isinstance(v, str) else ""
)
def test_operator_is_what_it_declares(name: str, arguments: list[Any], differentiable: bool) -> None:
    arguments = [
        value.detach().requires_grad_(differentiable)
        if isinstance(value, Tensor) and value.is_floating_point()
        else value
        for value in arguments
    ]
    torch.library.opcheck(getattr(torch.ops.cobra, name).default, tuple(arguments))


@pytest.mark.parametrize("op", ["ssd_chunk_scan", "selective_scan"])
@pytest.mark.parametrize("dfinal", [False, True])
def test_the_backward_of_a_scan_is_what_it_declares(op: str, dfinal: bool) -> None:
    arguments = next(arguments for name, arguments, _ in operators() if name == op)
    y, final, states = getattr(torch.ops.cobra, op)(*arguments)
    # x to the bias, the initial state, seq_idx and mask
    last = 8 if op == "ssd_chunk_scan" else 9
    inputs, masks = arguments[: last - 1], arguments[last : last + 2]
    # the SSD's ends with whether there was an initial state
    options = [*arguments[10:-2], True] if op == "ssd_chunk_scan" else arguments[11:-1]
    given = [y, final if dfinal else None, *inputs, *masks, states, *options]
    torch.library.opcheck(getattr(torch.ops.cobra, f"{op}_backward").default, tuple(given))


CONV_WEIGHT = normal(16, 4)


def mix(tokens: Tensor) -> Tensor:
    """A Mamba-2 mixer without its linears: (B, L, 20) to (B, L, 8)."""
    xbc, dt = tokens.split([16, 4], dim=-1)
    xbc, _ = ops.causal_conv1d(xbc, CONV_WEIGHT, activation="silu")
    x, B, C = xbc.split([8, 4, 4], dim=-1)
    x, B, C = x.unflatten(2, (4, 2)), B.unsqueeze(2), C.unsqueeze(2)
    y, _ = ops.ssd_chunk_scan(x, dt, -torch.ones(4), B, C, D=torch.ones(4), dt_softplus=True)
    return ops.rms_norm_gated(y.flatten(2), tokens[..., :8], torch.ones(8))


def operators_of(graph: torch.fx.GraphModule) -> set[str]:
    return {
        str(node.target).split(".")[1] for node in graph.graph.nodes if str(node.target).startswith("cobra.")
    }


def test_a_compiled_graph_is_whole_and_keeps_the_operators() -> None:
    torch.compiler.reset()
    graphs: list[torch.fx.GraphModule] = []

    def keep(graph: torch.fx.GraphModule, _: Any) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    tokens = normal(2, 20, 20)
    compiled = torch.compile(mix, fullgraph=True, backend=keep)
    torch.testing.assert_close(compiled(tokens), mix(tokens))
    assert operators_of(graphs[0]) == {"causal_conv1d", "ssd_chunk_scan", "rms_norm_gated"}


def test_a_compiled_graph_has_the_same_gradient() -> None:
    torch.compiler.reset()
    gradients: list[Tensor] = []
    for function in (torch.compile(mix, fullgraph=True, backend="aot_eager"), mix):
        tokens = normal(2, 20, 20).requires_grad_()
        gradients.append(*torch.autograd.grad(function(tokens).square().sum(), tokens))
    torch.testing.assert_close(*gradients)


def test_an_exported_graph_has_none_of_them() -> None:
    class Mixer(nn.Module):
        def forward(self, tokens: Tensor) -> Tensor:
            return mix(tokens)

    tokens = normal(2, 20, 20)
    exported = torch.export.export(Mixer(), (tokens,)).module()
    assert operators_of(exported) == set()
    torch.testing.assert_close(exported(tokens), mix(tokens))


def test_a_second_derivative_is_an_error() -> None:
    x, weight = (value.requires_grad_() for value in norm(L).values())
    (gradient,) = torch.autograd.grad(ops.rms_norm(x, weight).square().sum(), x, create_graph=True)
    with pytest.raises(
        RuntimeError, match=r"no second derivative: compute it under use_backend\('reference'\)"
    ):
        gradient.sum().backward()
