"""Transformer backbones against transformers' own attention and growing cache, from the same weights."""

import copy
from collections.abc import Callable
from typing import Any

import cobra.torchvision_shim  # noqa: F401  (before transformers)

import pytest  # isort: skip
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, DynamicCache, LlamaConfig, PreTrainedModel

from cobra.models.lm.base import LanguageModel
from cobra.models.lm.mobile_llm import MobileLLM
from cobra.models.lm.transformer import TransformerLM, cache_argument
from tests.models.builders import LMS, TRANSFORMERS, VOCAB

PROMPT, STEPS = 9, 64
# the eager one takes its softmax in fp32 even in a model of fp64
ATTENTION = {torch.float64: "sdpa", torch.float32: "eager"}


def shaken(model: nn.Module) -> nn.Module:
    """The same with no weight that hides behind a one or a zero."""
    generator = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def keep_fp64_in_norms(model: nn.Module) -> None:
    """transformers' RMSNorm computes in fp32 even in a model of fp64; torch's does not."""
    for module in list(model.modules()):
        child: str
        norm: Any
        for child, norm in module.named_children():
            if "RMSNorm" in type(norm).__name__:
                exact = nn.RMSNorm(norm.weight.shape[0], eps=norm.variance_epsilon)
                exact.weight = norm.weight
                setattr(module, child, exact)


def transformers_pair(name: str, dtype: torch.dtype) -> tuple[LanguageModel, PreTrainedModel]:
    ours = TransformerLM(VOCAB, 32, 2, *TRANSFORMERS[name])
    shaken(ours).to(dtype)
    # a copy, because building a model writes its attention into the configuration
    config = copy.deepcopy(ours.causal_lm.config)
    theirs = AutoModelForCausalLM.from_config(config, attn_implementation=ATTENTION[dtype])
    assert ours.causal_lm.config._attn_implementation == "cobra"
    theirs.load_state_dict(ours.causal_lm.state_dict())
    if dtype == torch.float64:
        keep_fp64_in_norms(ours)
        keep_fp64_in_norms(theirs)
    return ours, theirs.to(dtype).eval()


def mobile_llm_pair(share_blocks: bool, dtype: torch.dtype) -> tuple[LanguageModel, PreTrainedModel]:
    """MobileLLM beside a LLaMA with a tied head, which for LS has every block twice."""
    ours = MobileLLM(VOCAB, 32, 2, 4, 2, 48, share_blocks)
    shaken(ours).to(dtype)
    theirs = AutoModelForCausalLM.from_config(
        LlamaConfig(
            vocab_size=VOCAB, hidden_size=32, intermediate_size=48, num_hidden_layers=len(ours.blocks),
            num_attention_heads=4, num_key_value_heads=2, rms_norm_eps=1e-5, tie_word_embeddings=True,
        ),
        attn_implementation=ATTENTION[dtype],
    )  # fmt: skip
    weights = {}
    for key, value in ours.state_dict().items():
        first, block, *rest = key.split(".")
        if first != "layers":
            weights[f"model.{key}"] = value
            continue
        for slot in range(ours.passes * int(block), ours.passes * (int(block) + 1)):
            weights[".".join(["model.layers", str(slot), *rest])] = value
    missing, unexpected = theirs.load_state_dict(weights, strict=False)
    assert (missing, unexpected) == (["lm_head.weight"], [])
    keep_fp64_in_norms(theirs)
    return ours, theirs.to(dtype).eval()


PAIRS: dict[str, tuple[Callable[..., tuple[LanguageModel, PreTrainedModel]], Any]] = {
    **{name: (transformers_pair, name) for name in TRANSFORMERS},
    "mobile_llm": (mobile_llm_pair, False),
    "mobile_llm_shared": (mobile_llm_pair, True),
}


def token_ids(batch: int, length: int) -> Tensor:
    return torch.randint(VOCAB, (batch, length), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
@pytest.mark.parametrize("name", PAIRS)
def test_logits_of_a_prefill_and_64_steps_are_transformers(
    name: str, dtype: torch.dtype, tolerance: float
) -> None:
    build, argument = PAIRS[name]
    ours, theirs = build(argument, dtype)
    ids, cache = token_ids(2, PROMPT + STEPS), DynamicCache()
    named = {cache_argument(theirs): cache}
    state = ours.allocate_state(2, PROMPT + STEPS)
    embeds = ours.embed(ids)
    hidden = [*ours.prefill(embeds[:, :PROMPT], state).unbind(1)]
    hidden += [ours.step(embeds[:, i], state) for i in range(PROMPT, PROMPT + STEPS)]
    expected = [theirs(ids[:, :PROMPT], **named).logits]
    expected += [theirs(ids[:, i : i + 1], **named).logits for i in range(PROMPT, PROMPT + STEPS)]
    torch.testing.assert_close(
        ours.head(torch.stack(hidden, 1)), torch.cat(expected, 1), rtol=tolerance, atol=tolerance
    )
    # and what it keeps is what a cache that grows keeps
    for slot, layer in enumerate(cache.layers):
        kept = state.layers[slot]
        torch.testing.assert_close(kept["keys"], layer.keys, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(kept["values"], layer.values, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", PAIRS)
def test_gradients_are_transformers(name: str) -> None:
    build, argument = PAIRS[name]
    ours, theirs = build(argument, torch.float64)
    ids = token_ids(2, 17)
    weights = torch.linspace(-1, 1, 2 * 17 * VOCAB, dtype=torch.float64).view(2, 17, VOCAB)
    hidden = ours.prefill(ours.embed(ids))
    (ours.head(hidden) * weights).sum().backward()
    (theirs(ids, use_cache=False).logits * weights).sum().backward()
    ours_embedding = next(p for key, p in ours.named_parameters() if "embed_tokens" in key)
    # the first embedding is behind every layer
    torch.testing.assert_close(ours_embedding.grad, theirs.get_input_embeddings().weight.grad)


@torch.no_grad()
@pytest.mark.parametrize("name", PAIRS)
def test_a_step_reads_nothing_that_is_not_written(name: str) -> None:
    torch.manual_seed(0)
    lm = LMS[name]().eval()
    embeds = lm.embed(token_ids(2, 8))
    mask = torch.ones(2, 7, dtype=torch.bool)
    mask[0, :3] = False
    results = []
    for filling in (0.0, torch.nan):
        state = lm.allocate_state(2, 12)
        for layer in state.layers:
            layer["keys"].fill_(filling)
            layer["values"].fill_(filling)
        lm.prefill(embeds[:, :7], state, mask)
        results.append(lm.step(embeds[:, 7], state))
    assert torch.equal(*results)


def test_known_blocks_step_by_kernels_alone() -> None:
    states = {name: LMS[name]().allocate_state(1, 4) for name in PAIRS}
    alike = {name for name, state in states.items() if state.tables}
    assert alike == {"llama", "qwen2", "stablelm", "phi", "phi3", "mobile_llm", "mobile_llm_shared"}


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("llama", {"hidden_act": "gelu"}),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}),
        ("phi", {"hidden_act": "gelu"}),
        ("phi", {"qk_layernorm": True}),
        ("phi3", {"hidden_act": "gelu"}),
        ("phi3", {"sliding_window": 2047}),
        ("stablelm", {"qk_layernorm": True}),
        ("stablelm", {"use_parallel_residual": True}),
    ],
)
def test_blocks_with_other_options_step_through_their_modules(name: str, options: dict[str, Any]) -> None:
    model_type, usual = TRANSFORMERS[name]
    lm = TransformerLM(VOCAB, 32, 2, model_type, usual | options)
    shaken(lm)
    embeds, state = lm.embed(token_ids(2, 5)), lm.allocate_state(2, 5)
    assert not state.tables
    steps = [lm.step(embed, state) for embed in embeds.unbind(1)]
    torch.testing.assert_close(torch.stack(steps, 1), lm.prefill(embeds), rtol=1e-5, atol=1e-5)


def test_a_state_says_what_does_not_fit() -> None:
    lm = LMS["llama"]()
    embeds, mask = lm.embed(token_ids(1, 6)), torch.ones(1, 4, dtype=torch.bool)
    state = lm.allocate_state(1, 5)
    with pytest.raises(ValueError, match="6 tokens exceed the state's max_length 5: allocate more"):
        lm.prefill(embeds, state)
    lm.prefill(embeds[:, :1], state)
    lm.prefill(embeds[:, :4], state, mask)
    with pytest.raises(ValueError, match="seq_idx packs sequences in training"):
        lm.prefill(embeds, state, seq_idx=torch.zeros(1, 6, dtype=torch.int32))


def test_a_window_that_would_hide_tokens_is_refused() -> None:
    options = TRANSFORMERS["phi3"][1] | {"sliding_window": 8}
    lm = TransformerLM(VOCAB, 32, 1, "phi3", options)
    embeds = lm.embed(token_ids(1, 9))
    lm.prefill(embeds[:, :8])
    lm.prefill(embeds[:, :8], lm.allocate_state(1, 8))
    for state in (None, lm.allocate_state(1, 9)):
        with pytest.raises(
            ValueError, match=r"9 tokens exceed sliding_window 8 .* set sliding_window to null"
        ):
            lm.prefill(embeds, state)


def test_rotary_embeddings_turn_the_published_part_of_a_head() -> None:
    """Phi-2 turns 32 of 80 channels, StableLM-2 16 of 64; factors for long texts come only if asked for."""
    for model_type, heads, width, factor, turned in (
        ("phi", 2, 160, 0.4, 32),
        ("stablelm", 2, 128, 0.25, 16),
        ("phi3", 2, 192, None, 96),
        ("qwen2", 2, 256, None, 128),
    ):  # fmt: skip
        options: dict[str, Any] = {
            "num_attention_heads": heads,
            "num_key_value_heads": heads,
            "pad_token_id": 0,
        }
        if factor is not None:
            options["partial_rotary_factor"] = factor
        rotary = TransformerLM(VOCAB, width, 1, model_type, options).causal_lm.base_model.rotary_emb
        assert (2 * len(rotary.inv_freq), rotary.rope_type) == (turned, "default")
