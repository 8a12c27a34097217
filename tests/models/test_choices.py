"""Likelihoods of choices: as if prompt and choice were read from scratch, and in a batch as alone."""

import pytest
import torch
from torch import Tensor

from cobra.models.projectors.linear import LinearProjector
from cobra.models.vision.pictures import ONE_TILE
from cobra.models.vlm import IMAGE_ID, CobraVLM
from tests.models.builders import LMS, VOCAB, small_vit

TOLERANCE = 1e-5
# ragged: of one token and of several, one the beginning of another, another number in each row
CHOICES = [[[3], [50]], [[3, 7, 9], [3, 7], [400], [3, 7, 9, 2, 2]], [[8, 1]]]


def from_scratch(model: CobraVLM, prompt: Tensor, pixels: Tensor, choice: list[int]) -> float:
    whole = torch.cat([prompt, torch.tensor(choice)])[None]
    logits = model.lm.head(model(whole, pixels))[0].float().log_softmax(-1)
    first = len(prompt) - 1
    return sum(float(logits[first + place, token]) for place, token in enumerate(choice))


@pytest.mark.parametrize("name", LMS)
@torch.inference_mode()
def test_they_are_those_of_reading_from_scratch_and_in_a_batch_as_alone(name: str) -> None:
    torch.manual_seed(0)
    model = CobraVLM(small_vit, LinearProjector, LMS[name]).eval()
    count = model.num_image_tokens(ONE_TILE)
    pixels = torch.randn(3, 3, 32, 32)
    prompts = [torch.cat([torch.full((count,), IMAGE_ID), torch.randint(VOCAB, (n,))]) for n in (2, 9, 5)]
    width = max(map(len, prompts))
    ids, mask = torch.zeros(3, width, dtype=torch.long), torch.zeros(3, width, dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :], mask[row, width - len(prompt) :] = prompt, True
    together = model.score_choices(ids, pixels, mask, choices=CHOICES)
    for row, given in enumerate(CHOICES):
        alone = model.score_choices(prompts[row][None], pixels[row : row + 1], choices=[given])[0]
        read = [from_scratch(model, prompts[row], pixels[row : row + 1], choice) for choice in given]
        torch.testing.assert_close(alone, torch.tensor(read), atol=TOLERANCE, rtol=0)
        torch.testing.assert_close(together[row], alone, atol=TOLERANCE, rtol=0)


@torch.inference_mode()
def test_it_goes_on_from_a_state_and_leaves_it_behind_the_prompt() -> None:
    torch.manual_seed(0)
    model = CobraVLM(small_vit, LinearProjector, LMS["hybrid"]).eval()
    ids = torch.randint(VOCAB, (2, 7))
    state = model.lm.allocate_state(2, 20)
    model.lm.prefill(model.lm.embed(ids[:, :3]), state)
    rest = model.score_choices(ids[:, 3:], choices=[[[1, 2]], [[1], [2, 5]]], state=state)
    whole = model.score_choices(ids, choices=[[[1, 2]], [[1], [2, 5]]])
    for mine, theirs in zip(rest, whole, strict=True):
        torch.testing.assert_close(mine, theirs, atol=TOLERANCE, rtol=0)
    assert state.lengths.tolist() == [7, 7]


@pytest.mark.parametrize("name", LMS)
@pytest.mark.parametrize("choices", [CHOICES, [[[3], [50]], [[7]], [[1], [4], [5]]]])
@torch.inference_mode()
def test_prompts_that_begin_alike_may_share_a_state(name: str, choices: list[list[list[int]]]) -> None:
    torch.manual_seed(0)
    model = CobraVLM(small_vit, LinearProjector, LMS[name]).eval()
    ids, rows = torch.randint(VOCAB, (3, 4)), [1, 0, 1]
    state = model.lm.allocate_state(2, 20)
    model.lm.prefill(model.lm.embed(torch.randint(VOCAB, (2, 7))), state)
    before = state.clone()
    shared = model.score_choices(ids, choices=choices, state=state, rows=rows)
    apart = model.score_choices(ids, choices=choices, state=state.take(rows))
    torch.testing.assert_close(shared, apart, atol=TOLERANCE, rtol=0)
    assert state.lengths.equal(before.lengths)
    for layer, other in zip(state.layers, before.layers, strict=True):
        assert all(buffer.equal(other[name]) for name, buffer in layer.items())


@pytest.mark.parametrize("choices", [[[[1]]], [[[1]], []], [[[1]], [[]]], [[[1]], [[VOCAB]]]])
def test_what_cannot_be_scored_is_refused(choices: list[list[list[int]]]) -> None:
    model = CobraVLM(small_vit, LinearProjector, LMS["mamba2"]).eval()
    with pytest.raises(ValueError, match="choice"):
        model.score_choices(torch.zeros(2, 4, dtype=torch.long), choices=choices)
