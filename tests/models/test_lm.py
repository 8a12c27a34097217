"""Properties that every language backbone has."""

import pytest
import torch

from cobra.models.lm.base import LanguageModel
from tests.models.builders import LMS, VOCAB


def assert_close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.fixture(params=sorted(LMS))
def lm(request: pytest.FixtureRequest) -> LanguageModel:
    torch.manual_seed(0)
    return LMS[request.param]().eval()


@pytest.fixture
def embeds(lm: LanguageModel) -> torch.Tensor:
    ids = torch.randint(VOCAB, (2, 19), generator=torch.Generator().manual_seed(1))
    return lm.embed(ids).detach()


@torch.no_grad()
def test_prefill_in_parts_and_steps_equal_one_prefill(lm: LanguageModel, embeds: torch.Tensor) -> None:
    state = lm.allocate_state(2, 19)
    parts = [lm.prefill(embeds[:, :9], state), lm.prefill(embeds[:, 9:13], state)]
    steps = [lm.step(embeds[:, i], state)[:, None] for i in range(13, 19)]
    assert_close(torch.cat([*parts, *steps], 1), lm.prefill(embeds))


@torch.no_grad()
def test_left_padding_changes_nothing(lm: LanguageModel, embeds: torch.Tensor) -> None:
    mask = torch.ones(2, 19, dtype=torch.bool)
    mask[0, :6] = False
    state = lm.allocate_state(2, 20)
    padded = lm.prefill(embeds, state, mask)
    assert_close(padded[:1, 6:], lm.prefill(embeds[:1, 6:]))
    assert_close(lm.prefill(embeds, mask=mask)[:1, 6:], padded[:1, 6:])
    after = lm.step(embeds[:, 0], state)[:1]
    longer = torch.cat([embeds[:1, 6:], embeds[:1, :1]], 1)
    assert_close(after, lm.prefill(longer)[:, -1])


def test_packed_sequences_equal_separate_ones_in_values_and_gradients(
    lm: LanguageModel, embeds: torch.Tensor
) -> None:
    seq_idx = torch.tensor([[0] * 7 + [1] * 12, [0] * 1 + [3] * 18], dtype=torch.int32)
    packed = lm.prefill(embeds, seq_idx=seq_idx)
    apart = [
        torch.cat([lm.prefill(embeds[row : row + 1, :cut]), lm.prefill(embeds[row : row + 1, cut:])], 1)
        for row, cut in enumerate((7, 1))
    ]
    assert_close(packed, torch.cat(apart))
    weights = torch.randn(packed.shape, generator=torch.Generator().manual_seed(2))
    parameters = [p for p in lm.parameters() if p.requires_grad]
    together = torch.autograd.grad((packed * weights).sum(), parameters, allow_unused=True)
    separate = torch.autograd.grad((torch.cat(apart) * weights).sum(), parameters, allow_unused=True)
    for one, other in zip(together, separate, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_cloned_state_lives_its_own_life(lm: LanguageModel, embeds: torch.Tensor) -> None:
    state = lm.allocate_state(2, 25)
    lm.prefill(embeds, state)
    copy = state.clone()
    first = lm.step(embeds[:, 0], state)
    lm.step(embeds[:, 1], state)
    torch.testing.assert_close(lm.step(embeds[:, 0], copy), first, rtol=0, atol=0)
    state.reset()
    assert_close(lm.prefill(embeds, state), lm.prefill(embeds))


@torch.no_grad()
@pytest.mark.parametrize("name", ["mamba", "mamba2"])
def test_a_state_space_model_reads_past_the_length_it_was_given(name: str) -> None:
    torch.manual_seed(0)
    lm = LMS[name]()
    embeds = lm.embed(torch.randint(VOCAB, (1, 100)))
    state = lm.allocate_state(1, max_length=10)
    assert_close(lm.prefill(embeds, state), lm.prefill(embeds))
