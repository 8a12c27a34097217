"""The choice of a token: against transformers, and at the ends of what a user may ask."""

import pytest

import cobra.torchvision_shim  # noqa: F401  (before transformers)

import torch  # isort: skip
from transformers import RepetitionPenaltyLogitsProcessor  # isort: skip

from cobra.models.sampling import Sampler


def logits(seed: int = 0, rows: int = 3, vocabulary: int = 11) -> torch.Tensor:
    return torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(seed)) * 3


@pytest.mark.parametrize("penalty", [1.3, 0.7])
def test_what_the_answer_has_said_is_penalised_as_by_transformers(penalty: float) -> None:
    sampler, theirs = Sampler(repetition_penalty=penalty), RepetitionPenaltyLogitsProcessor(penalty)
    for _ in range(2):  # an answer begins with nothing said
        answer, said = sampler.begin(), torch.zeros(3, 0, dtype=torch.long)
        for step in range(8):
            expected = theirs(said, logits(step)).argmax(-1)
            assert torch.equal(answer(logits(step)), expected)
            said = torch.cat([said, expected[:, None]], 1)


@pytest.mark.parametrize("temperature", [1e-40, 5e-324, 1e-20])
def test_a_temperature_next_to_zero_is_greedy(temperature: float) -> None:
    assert torch.equal(Sampler(temperature)(logits()), logits().argmax(-1))


@pytest.mark.parametrize("options", [{"temperature": 1e38}, {"temperature": 1.0, "top_k": 10**30}])
def test_a_filter_that_filters_nothing_leaves_a_distribution(options: dict) -> None:
    probabilities = Sampler(**options).filtered(logits())
    assert (probabilities > 0).all()
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(3))


@pytest.mark.parametrize("penalty", [0.0, -1.0, float("nan"), float("inf")])
def test_a_penalty_that_is_none_is_refused(penalty: float) -> None:
    with pytest.raises(ValueError, match="repetition_penalty"):
        Sampler(repetition_penalty=penalty)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("penalty", [1e-45, 3e38])
def test_an_extreme_penalty_leaves_what_is_never_chosen(penalty: float, temperature: float) -> None:
    sampler, scores = Sampler(temperature, repetition_penalty=penalty), logits()
    scores[:, 1:9] = -torch.inf
    for _ in range(20):
        assert set(sampler(scores).tolist()) <= {0, 9, 10}


def test_a_clone_draws_on_its_own() -> None:
    sampler = Sampler(1.0, generator=torch.Generator().manual_seed(0))
    copy = sampler.clone()
    assert torch.equal(sampler(logits(rows=50)), copy(logits(rows=50)))


def test_tokens_are_drawn_as_multinomial_draws_them() -> None:
    draws, theirs = (torch.Generator().manual_seed(0) for _ in range(2))
    for seed in range(9):
        probabilities = Sampler(1.0).filtered(logits(seed))
        expected = torch.multinomial(probabilities, 1, generator=theirs).squeeze(-1)
        assert torch.equal(Sampler(1.0, generator=draws)(logits(seed)), expected)
