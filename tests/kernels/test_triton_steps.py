"""Mixer steps in Triton: in a row, in states that lie anywhere, and of many rows."""

from collections.abc import Callable
from copy import copy
from typing import TypeVar

import pytest
import torch
from torch import Tensor

from cobra.kernels import triton
from cobra.kernels.dispatch import use_backend
from cobra.kernels.ops import mamba2_step, mamba_step, selective_state_update
from tests.kernels import step_inputs
from tests.kernels.cases import STEPS, Case, assert_near, floating
from tests.kernels.sequence_inputs import Inputs, normal
from tests.kernels.test_steps import Mixer1, Mixer2
from tests.kernels.test_triton_ops import DEVICE, WRITTEN, both, placed, poisoned  # noqa: F401  (a fixture)

Mixer = TypeVar("Mixer", bound=Mixer1 | Mixer2)
pytestmark = [
    pytest.mark.triton,
    pytest.mark.skipif(triton.unavailable() is not None, reason=str(triton.unavailable())),
]


def on_device(mixer: Mixer) -> Mixer:
    there = copy(mixer)
    for name, value in placed(vars(mixer)).items():
        setattr(there, name, value)
    return there


@pytest.mark.parametrize("mixer", [Mixer1(torch.float32), Mixer2(2, torch.float32)], ids=["mamba", "mamba2"])
def test_steps_in_a_row_are_the_references_prefill(mixer: Mixer1 | Mixer2) -> None:
    tokens = mixer.projected(6)
    with use_backend("reference"):
        whole, last_conv, last_state = mixer.prefill(tokens)
        _, conv, state = mixer.prefill(tokens[:, :1])
    mixer, conv, state = on_device(mixer), conv.to(DEVICE), state.to(DEVICE)
    for t in range(1, 6):
        y = mixer.step(tokens[:, t].to(DEVICE), conv, state).cpu()
        torch.testing.assert_close(y, whole[:, t], rtol=2e-5, atol=2e-5)
    torch.testing.assert_close(conv.cpu(), last_conv)
    torch.testing.assert_close(state.cpu(), last_state, rtol=2e-5, atol=2e-5)


def wide_step2(head_dim: int) -> Inputs:
    """Heads wider than a tile of the state, in one group, behind a convolution of two taps without a bias."""
    inner, channels = 2 * head_dim, 2 * head_dim + 2 * 64
    return {
        "zxbcdt": normal(2, inner + channels + 2),
        "conv_state": normal(2, channels, 1),
        "ssm_state": normal(2, 2, head_dim, 64),
        "conv_weight": normal(channels, 2),
        "conv_bias": None,
        "dt_bias": normal(2),
        "A_log": normal(2, seed=1),
        "D": normal(2),
        "norm_weight": normal(inner),
        "n_groups": 1,
    }


STEP2 = Case("mamba2_step", step_inputs.step2, ("conv_state", "ssm_state"))


@pytest.mark.parametrize("head_dim", [80, 96])
def test_heads_of_any_width_step(head_dim: int) -> None:
    assert_near(*both(STEP2, wide_step2(head_dim)), 2e-5)


def turned(x: Tensor) -> Tensor:
    """x in memory that is turned round, with gaps: no two neighbours lie side by side."""
    room = x.new_full((*x.shape[::-1], 2), torch.nan)
    view = room[..., 0].permute(*reversed(range(x.dim())))
    return view.copy_(x)


@pytest.mark.parametrize("make", [step_inputs.step, step_inputs.step2], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_step_changes_states_and_reads_arguments_wherever_they_lie(
    make: Callable[[int], Inputs], dtype: torch.dtype
) -> None:
    op = mamba_step if make is step_inputs.step else mamba2_step
    inputs = placed(make(1))
    inputs |= {name: inputs[name].to(dtype) for name in ("conv_state", "ssm_state")}
    dense = inputs | {name: inputs[name].clone() for name in ("conv_state", "ssm_state")}
    scattered = inputs | {name: turned(inputs[name]) for name in floating(inputs)}
    torch.testing.assert_close(op(**dense), op(**scattered))
    for name in ("conv_state", "ssm_state"):
        assert scattered[name].dtype == dtype
        torch.testing.assert_close(dense[name], scattered[name])
        # what lies between is left alone
        assert scattered[name]._base is not None
        assert scattered[name]._base[..., 1].isnan().all()


@pytest.mark.parametrize("make", [step_inputs.head_update, step_inputs.channel_update], ids=str)
def test_an_update_reads_arguments_wherever_they_lie(make: Callable[[int], Inputs]) -> None:
    inputs = placed(make(1))
    dense = inputs | {"state": inputs["state"].clone()}
    scattered = inputs | {name: turned(inputs[name]) for name in floating(inputs)}
    torch.testing.assert_close(selective_state_update(**dense), selective_state_update(**scattered))
    torch.testing.assert_close(dense["state"], scattered["state"])


def test_a_program_of_several_rows_steps_each_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """More rows than a tile of the projection has, which no number of rows a program divides."""
    from cobra.kernels.triton import steps

    mixer, rows = on_device(Mixer1(torch.float32)), 17
    token, conv, state = (x.to(DEVICE) for x in (normal(rows, 12), normal(rows, 6, 3), normal(rows, 6, 5)))
    alone = [(token[i : i + 1], conv[i : i + 1].clone(), state[i : i + 1].clone()) for i in range(rows)]
    monkeypatch.setattr(steps, "_PROGRAMS", 3)
    y = mixer.step(token, conv, state)
    for i in (0, 9, 16):
        torch.testing.assert_close(y[i : i + 1], mixer.step(*alone[i]))
        torch.testing.assert_close(state[i : i + 1], alone[i][2])


@pytest.mark.skipif(not triton.INTERPRETED, reason="a GPU runs programs in an order of its own")
@pytest.mark.parametrize("case", [case for case in STEPS if case.states and case in WRITTEN], ids=str)
def test_programs_run_in_any_order(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last first: then a program that reads what another of its launch writes is seen."""
    from triton.runtime.interpreter import interpreter_builder

    set_place = interpreter_builder.set_grid_idx

    def set_opposite(*place: int) -> None:
        set_place(*(n - 1 - i for n, i in zip(interpreter_builder.grid_dim, place, strict=True)))

    monkeypatch.setattr(interpreter_builder, "set_grid_idx", set_opposite)
    assert_near(*both(case, case.make(1)), 2e-5)
