"""What a token costs must not depend on how many came before it."""

import time
from collections.abc import Iterator
from itertools import pairwise
from statistics import median

import pytest
import torch

from cobra.models.vlm import CobraVLM
from tests.models.builders import ENCODERS, LMS, PROJECTORS


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.parametrize("lm", ["mamba2", "mamba"])
@pytest.mark.usefixtures("one_thread")
def test_a_token_at_position_20000_costs_what_one_at_100_costs(lm: str) -> None:
    torch.manual_seed(0)
    model = CobraVLM(ENCODERS["small_vit"], PROJECTORS["pixel_unshuffle"], LMS[lm]).eval()
    stamps = []
    for _ in model.stream(torch.tensor([[1, 2, 3]]), max_new_tokens=20_500):
        stamps.append(time.process_time())
    seconds = [later - earlier for earlier, later in pairwise(stamps)]
    early, late = median(seconds[100:600]), median(seconds[20_000:])
    assert late == pytest.approx(early, rel=0.1)
