"""The native kernels as torch operators: schemas, compiled graphs, exported graphs."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cobra.kernels import cpu, ops
from cobra.kernels.call import NO_GRADIENT, limits_of
from cobra.kernels.dispatch import BACKENDS
from cobra.kernels.registration import Operators
from tests.kernels import sequence_inputs
from tests.kernels.cases import SEQUENCES, STEPS, Case
from tests.kernels.sequence_inputs import norm, normal

pytestmark = pytest.mark.skipif(cpu.unavailable() is not None, reason=str(cpu.unavailable()))

L = 9
# results of those that have a gradient; the scans also keep states for it
RESULTS = {
    "rms_norm": ["y"],
    "add_rms_norm": ["y", "total"],
    "rms_norm_gated": ["y"],
    "causal_conv1d": ["y", "final_state"],
    "ssd_chunk_scan": ["y", "final_state", "states"],
    "selective_scan": ["y", "final_state", "states"],
}


def operator(name: str) -> Any:
    # registered when it is first looked for
    assert BACKENDS[0].find(name.removesuffix("_backward")) is not None
    return getattr(torch.ops.cobra_cpu, name).default


def lengths(_: int) -> dict[str, Any]:
    return {"lengths": torch.tensor([7, 3])}


def arguments_of(case: Case) -> dict[str, Any]:
    """All arguments of the operator by name."""
    bound = inspect.signature(getattr(ops, case.op)).bind(**case.make(L))
    bound.apply_defaults()
    return bound.arguments | ({"keep": True} if "states" in RESULTS.get(case.op, ()) else {})


# but for a scan without a first state, whose kept states are not all written
CASES = [case for case in SEQUENCES if case.make is not sequence_inputs.ssd]


@pytest.mark.parametrize("case", [*CASES, *STEPS, Case("advance", lengths)], ids=str)
def test_operator_is_what_it_declares(case: Case) -> None:
    arguments = [
        value.detach().requires_grad_(case.op in RESULTS)
        if isinstance(value, Tensor) and value.is_floating_point()
        else value
        for value in arguments_of(case).values()
    ]
    torch.library.opcheck(operator(case.op), tuple(arguments))


@pytest.mark.parametrize("unused", [0, 1])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_gradient_is_what_it_declares(case: Case, unused: int) -> None:
    """Also where nothing asks for the gradient of the first or the second result."""
    given, names = arguments_of(case), RESULTS[case.op]
    results = operator(case.op)(*given.values())
    given |= dict(zip(names, results if isinstance(results, tuple) else (results,), strict=True))
    if len(names) > 1:
        given |= {f"d{name}": None if i == unused else given[name] for i, name in enumerate(names)}
    else:
        given["dy"] = given["y"]
    backward = operator(f"{case.op}_backward")
    arguments = tuple(given[argument.name] for argument in backward._schema.arguments)
    torch.library.opcheck(backward, arguments, test_utils=("test_schema", "test_faketensor"))


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
        str(node.target).split(".")[1] for node in graph.graph.nodes if str(node.target).startswith("cobra_")
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


def test_two_backends_may_have_an_operator_of_the_same_name() -> None:
    others = Operators("cobra_other", "CPU")

    @others.register(lambda x, weight, eps: torch.empty_like(x))
    def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
        return 2.0 * x

    x, weight = norm(L).values()
    assert torch.equal(rms_norm(x, weight, 1e-5), 2.0 * x)
    assert not torch.equal(ops.rms_norm(x, weight), 2.0 * x)


def test_an_operator_without_a_gradient_says_so_and_one_with_says_not() -> None:
    others = Operators("cobra_scaling", "CPU")

    @others.register(lambda x, factor: torch.empty_like(x))
    def scale(x: Tensor, factor: float) -> Tensor:
        return factor * x

    assert limits_of(scale) == (NO_GRADIENT,)

    @others.gradient(scale, "y", of={"x": "dy"})
    def scale_backward(dy: Tensor, factor: float) -> list[Tensor]:
        return [factor * dy]

    assert limits_of(scale) == ()
