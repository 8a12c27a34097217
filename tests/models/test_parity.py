"""Whole models against the classes of libraries that nobody here wrote."""

import importlib.util

import pytest
import torch
from transformers import Mamba2Config, Mamba2ForCausalLM, MambaConfig, MambaForCausalLM, PreTrainedModel

from cobra.models.lm.mamba import MambaLM
from cobra.models.lm.mamba2 import Mamba2LM
from cobra.models.lm.state_space import StateSpaceLM
from tests.models.builders import VOCAB

# with these, transformers would run upstream's kernels, and the comparison might be of a thing with itself
pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) for name in ("mamba_ssm", "causal_conv1d")),
    reason="transformers would use mamba_ssm or causal_conv1d: run this where they are not installed",
)

SHARED = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "expand": 2,
    "tie_word_embeddings": True,
}


def pairs() -> dict[str, tuple[StateSpaceLM, PreTrainedModel]]:
    torch.manual_seed(0)
    mamba = MambaForCausalLM(MambaConfig(**SHARED, state_size=16, time_step_rank=2))
    mamba2 = Mamba2ForCausalLM(
        Mamba2Config(**SHARED, state_size=16, head_dim=16, num_heads=4, n_groups=2, chunk_size=8)
    )
    return {
        "mamba": (MambaLM(VOCAB, 32, 3), mamba),
        "mamba2": (Mamba2LM(VOCAB, 32, 3, d_state=16, head_dim=16, n_groups=2, chunk_size=8), mamba2),
    }


@pytest.mark.parametrize("name", ["mamba", "mamba2"])
def test_logits_and_gradients_equal_transformers_from_the_same_weights(name: str) -> None:
    ours, theirs = pairs()[name]
    weights = {
        k.removeprefix("backbone.").replace("embeddings.", "embedding."): v
        for k, v in theirs.state_dict().items()
    }
    weights.pop("lm_head.weight")  # tied
    ours.load_state_dict(weights)
    ids = torch.randint(VOCAB, (2, 21), generator=torch.Generator().manual_seed(1))
    logits, expected = ours.head(ours.prefill(ours.embed(ids))), theirs(ids).logits
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    logits.square().mean().backward()
    expected.square().mean().backward()
    gradients = dict(theirs.named_parameters())
    for key, parameter in ours.named_parameters():
        other = gradients["backbone." + key.replace("embedding.", "embeddings.")]
        torch.testing.assert_close(parameter.grad, other.grad, rtol=1e-3, atol=1e-6, msg=key)
