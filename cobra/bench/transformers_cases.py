"""transformers' own generation and scans, in plain torch: the external baseline.

`mode` is eager, as a user gets it, or compiled: a static cache and torch.compile, the best it offers. In a
process of its own, because plain_transformers.py refuses packages.
"""

import json
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import cobra.export.engines.plain_transformers  # noqa: F401  (before transformers)

import torch  # isort: skip
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, Cache, DynamicCache, StaticCache
from transformers.generation.streamers import BaseStreamer
from transformers.models.mamba.modeling_mamba import mamba_selective_scan
from transformers.models.mamba2.modeling_mamba2 import mamba2_chunk_scan

from cobra.bench.build import random_vlm, weight_bytes
from cobra.bench.op_cases import op_case, selective_inputs, ssd_inputs
from cobra.bench.question import Question
from cobra.bench.subjects import Tree
from cobra.bench.timing.case import Case, Stopwatch, dtype_of
from cobra.bench.timing.sample import Sample
from cobra.config.build import build_on_meta
from cobra.convert.layouts.hugging_face import to_hugging_face
from cobra.models.lm.transformer import TransformerLM, cache_argument
from cobra.models.vlm import IMAGE_ID


def e2e(vlm: Tree, dtype: str, device: str, new_tokens: int, mode: str) -> Case:
    """As ours, with encoder and projector of ours and `generate` of transformers; no second question."""
    model = _lm(json.dumps(vlm["init_args"]["lm"]), dtype, device)
    ours = random_vlm(vlm, None, dtype_of(dtype), device)
    question = Question(ours.vision.transform, ours.num_image_tokens, device)
    is_image = question.ids == IMAGE_ID
    options = {"cache_implementation": "static"} if mode == "compiled" and _grows(model) else {}
    # on a GPU `generate` compiles by itself, where the cache is static
    if mode == "compiled" and not (options and device == "cuda"):
        model.forward = torch.compile(model.forward)

    @torch.inference_mode()
    def run(count: int = new_tokens) -> Sample:
        watch = Stopwatch(device)
        pictures = question.pictures()
        watch.mark("image")
        tokens = ours.image_tokens(pictures)
        embeds = model.get_input_embeddings()(question.ids.masked_fill(is_image, 0))
        embeds = embeds.masked_scatter(is_image[..., None], tokens.to(embeds.dtype))
        watch.mark("vision")
        model.generate(
            inputs_embeds=embeds,
            max_new_tokens=count,
            min_new_tokens=count,
            do_sample=False,
            streamer=_FirstToken(watch),
            **options,
        )
        watch.mark("decode")
        return watch.sample()

    about = {
        "image_tokens": question.image_tokens,
        "prompt_tokens": question.ids.shape[1],
        "new_tokens": new_tokens,
        "model_bytes": weight_bytes(ours.vision) + weight_bytes(ours.projector) + weight_bytes(model),
    }
    return Case(run, rehearsal=lambda: run(2), about=about)


class _FirstToken(BaseStreamer):
    """Ends the prefill when the first token comes; before it generation sends the empty prompt."""

    def __init__(self, watch: Stopwatch) -> None:
        self.watch = watch

    def put(self, value: Tensor) -> None:
        if value.numel() and "prefill" not in self.watch.stages:
            self.watch.mark("prefill")

    def end(self) -> None:
        return


def decode(lm: Tree, dtype: str, device: str, context: int, tokens: int, mode: str) -> Case:
    """As ours: greedy steps after a context of random keys and values."""
    model = _lm(json.dumps(lm), dtype, device)
    prompt = torch.zeros(1, 1, dtype=torch.long, device=device)
    # a recurrent state is as large after one token as after many
    make = partial(_cache, model, context, tokens, dtype_of(dtype), device, mode) if _grows(model) else None
    forward = _forward(model, mode)

    @torch.inference_mode()
    def run(count: int = tokens) -> Sample:
        cache = make() if make else model(prompt, use_cache=True)[cache_argument(model)]
        token = prompt
        watch = Stopwatch(device)
        for _ in range(count):
            token = forward(token, cache)
        watch.mark("decode")
        return watch.sample()

    about = {"tokens": tokens, "model_bytes": weight_bytes(model)}
    return Case(run, rehearsal=lambda: run(2), about=about)


def prefill(lm: Tree, dtype: str, device: str, length: int, mode: str) -> Case:
    """As ours: token ids to the logits of the last one, the cache kept for decoding."""
    model = _lm(json.dumps(lm), dtype, device)
    ids = torch.randint(model.config.vocab_size, (1, length), device=device)
    call = torch.compile(model) if mode == "compiled" else model

    @torch.inference_mode()
    def run() -> Sample:
        watch = Stopwatch(device)
        call(ids, use_cache=True, logits_to_keep=1)
        watch.mark("prefill")
        return watch.sample()

    return Case(run, about={"tokens": length, "model_bytes": weight_bytes(model)})


def ssd_chunk_scan(
    length: int,
    heads: int,
    head_dim: int,
    d_state: int,
    dtype: str,
    chunk_size: int = 256,
    backward: bool = False,
) -> Case:
    """As ours; 256 is the chunk that published configurations ask for."""
    inputs = ssd_inputs(length, heads, head_dim, d_state, dtype)
    inputs["hidden_states"] = inputs.pop("x")
    settings: dict[str, Any] = {"chunk_size": chunk_size, "dt_softplus": True, "return_final_states": True}
    return op_case(mamba2_chunk_scan, inputs, backward, **settings)


def selective_scan(length: int, channels: int, d_state: int, dtype: str, backward: bool = False) -> Case:
    """As ours, in the layout that transformers wants: channels before tokens."""
    inputs = selective_inputs(length, channels, d_state, dtype)
    inputs |= {name: inputs[name].transpose(1, 2).contiguous() for name in ("u", "delta", "B", "C", "z")}
    inputs |= {"hidden_states": inputs.pop("u"), "dt": inputs.pop("delta")}
    return op_case(mamba_selective_scan, inputs, backward, delta_softplus=True, return_last_state=True)


@cache
def _lm(tree: str, dtype: str, device: str) -> Any:
    """transformers' class of a language model, with random weights."""
    described: Any = build_on_meta(json.loads(tree))
    options: dict[str, Any] = {"dtype": dtype_of(dtype), "trust_remote_code": False}
    if isinstance(described, TransformerLM):
        config = described.causal_lm.config
        options["attn_implementation"] = "sdpa"
    else:
        config = AutoConfig.for_model(**to_hugging_face(described.config(), {}))
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, **options).to(device).eval()


def _grows(model: Any) -> bool:
    return model.config.model_type not in ("mamba", "mamba2")


def _cache(model: Any, context: int, tokens: int, dtype: torch.dtype, device: str, mode: str) -> Cache:
    """Random keys and values of `context` tokens, in a cache that grows (eager) or has room (compiled)."""
    config = model.config
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    static = mode == "compiled"
    cache = StaticCache(config, max_cache_len=context + tokens) if static else DynamicCache(config=config)
    if static:
        cache.early_initialization(1, config.num_key_value_heads, head_dim, dtype, torch.device(device))
    for index in range(config.num_hidden_layers if context else 0):
        keys = torch.randn(1, config.num_key_value_heads, context, head_dim, dtype=dtype, device=device)
        cache.update(keys, keys.clone(), index)
    return cache


def _forward(model: Any, mode: str) -> Callable[[Tensor, Any], Tensor]:
    """A token (1, 1) and the cache to the next token."""
    name = cache_argument(model)
    call = torch.compile(model) if mode == "compiled" else model

    def forward(token: Tensor, cache: Any) -> Tensor:
        return call(token, use_cache=True, **{name: cache}).logits[:, -1:].argmax(-1)

    return forward


CASES: dict[str, Callable[..., Case]] = {
    case.__name__: case for case in (e2e, decode, prefill, ssd_chunk_scan, selective_scan)
}
