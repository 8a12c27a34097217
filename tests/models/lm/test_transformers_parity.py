"""Language models against transformers' classes, from the same random weights."""

import importlib.util

import cobra.torchvision_shim  # noqa: F401  (before transformers)

import pytest  # isort: skip
import torch
from torch import Tensor
from transformers import Mamba2Config, Mamba2ForCausalLM, MambaConfig, MambaForCausalLM, PreTrainedModel

from cobra.models.lm.mamba import MambaLM
from cobra.models.lm.mamba2 import Mamba2LM
from cobra.models.lm.stacked import StackedLM
from cobra.models.lm.transformer import cache_argument
from cobra.models.projectors.linear import LinearProjector
from cobra.models.vlm import IGNORE_ID, CobraVLM
from tests.models.builders import VOCAB, small_vit

# with these, transformers would run upstream's kernels, and the comparison might be of a thing with itself
pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) for name in ("mamba_ssm", "causal_conv1d")),
    reason="transformers would use mamba_ssm or causal_conv1d: run this where they are not installed",
)


def make_pair(name: str) -> tuple[StackedLM, PreTrainedModel]:
    """Ours and transformers' with the same weights, none of which hides behind a one or a zero."""
    torch.manual_seed(0)
    shared = {"vocab_size": VOCAB, "num_hidden_layers": 3, "tie_word_embeddings": True}
    ours: StackedLM
    theirs: PreTrainedModel
    if name == "mamba":
        ours = MambaLM(VOCAB, 32, 3)
        theirs = MambaForCausalLM(MambaConfig(hidden_size=32, **shared))
    elif name == "mamba2":  # heads, state and chunks as published
        ours = Mamba2LM(VOCAB, 64, 3)
        theirs = Mamba2ForCausalLM(Mamba2Config(hidden_size=64, num_heads=2, n_groups=1, **shared))
    else:
        ours = Mamba2LM(VOCAB, 32, 3, d_state=16, head_dim=16, n_groups=2, chunk_size=8)
        sizes = {"hidden_size": 32, "state_size": 16, "head_dim": 16, "num_heads": 4, "n_groups": 2}
        theirs = Mamba2ForCausalLM(Mamba2Config(**sizes, chunk_size=8, **shared))
    for parameter in theirs.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape)
    weights = {our_name(key): value for key, value in theirs.state_dict().items()}
    weights.pop("lm_head.weight")  # tied
    ours.load_state_dict(weights)
    return ours, theirs


def our_name(key: str) -> str:
    return key.removeprefix("backbone.").replace("embeddings.", "embedding.")


def token_ids() -> Tensor:
    return torch.randint(VOCAB, (2, 21), generator=torch.Generator().manual_seed(1))


def assert_relatively_close(actual: Tensor, expected: Tensor, name: str = "") -> None:
    assert ((actual - expected).abs().max() / expected.abs().max()).item() <= 1e-4, name


@pytest.mark.parametrize("name", ["mamba", "mamba2", "mamba2_groups"])
def test_loss_logits_and_gradients_equal_transformers(name: str) -> None:
    ours, theirs = make_pair(name)
    model = CobraVLM(small_vit, LinearProjector, lambda: ours).eval()
    ids, labels = token_ids(), token_ids()
    labels[0, :9] = IGNORE_ID
    hidden = model(ids)
    loss, expected = model.loss(hidden, labels), theirs(ids, labels=labels)
    assert_relatively_close(ours.head(hidden), expected.logits)
    assert_relatively_close(loss, expected.loss)
    loss.backward()
    expected.loss.backward()
    gradients = {our_name(key): parameter.grad for key, parameter in theirs.named_parameters()}
    for key, parameter in ours.named_parameters():
        assert parameter.grad is not None
        assert_relatively_close(parameter.grad, gradients[key], key)


@torch.no_grad()
@pytest.mark.parametrize("name", ["mamba", "mamba2", "mamba2_groups"])
def test_cached_decoding_equals_transformers(name: str) -> None:
    ours, theirs = make_pair(name)
    ids, read, cache = token_ids(), 13, cache_argument(theirs)
    state = ours.allocate_state(*ids.shape)
    logits = ours.head(ours.prefill(ours.embed(ids[:, :read]), state))
    expected = theirs(ids[:, :read], use_cache=True)
    assert_relatively_close(logits, expected.logits)
    for position in range(read, ids.shape[1]):
        token = ids[:, position : position + 1]
        logits = ours.head(ours.step(ours.embed(token)[:, 0], state))
        expected = theirs(token, use_cache=True, **{cache: expected[cache]})
        assert_relatively_close(logits, expected.logits[:, -1])
