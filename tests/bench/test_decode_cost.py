"""What a token costs must not depend on how many came before it."""

from typing import Any

import pytest
import torch

from cobra.bench.decode_cost import decode_cost
from cobra.models.vlm import CobraVLM
from tests.models.builders import ENCODERS, LMS, PROJECTORS


@pytest.mark.slow
@pytest.mark.parametrize("lm", ["mamba2", "mamba"])
def test_a_token_at_position_20000_costs_what_one_at_100_costs(lm: str) -> None:
    torch.manual_seed(0)
    model = CobraVLM(ENCODERS["small_vit"], PROJECTORS["pixel_unshuffle"], LMS[lm]).eval()
    cost = decode_cost(model, positions=(100, 20_000), turns=50)
    assert cost[20_000] == pytest.approx(cost[100], rel=0.1)


def test_every_token_before_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = CobraVLM(ENCODERS["small_vit"], PROJECTORS["pixel_unshuffle"], LMS["llama"]).eval()
    states: list[Any] = []
    allocate = model.lm.allocate_state

    def kept(batch: int, max_length: int) -> Any:
        states.append(allocate(batch, max_length))
        return states[-1]

    monkeypatch.setattr(model.lm, "allocate_state", kept)
    decode_cost(model, positions=(3, 1100), turns=1)
    # each of the ten timed tokens comes from reading the one before
    assert [state.lengths.tolist() for state in states] == [[3 + 10], [1100 + 10]]
