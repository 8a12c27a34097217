"""This project's own engine, `--runtime torch`."""

import json
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from cobra.bench.build import random_lm, random_vlm, weight_bytes
from cobra.bench.question import Question
from cobra.bench.subjects import Tree
from cobra.bench.systems.contexts import state_at, state_bytes_of_step
from cobra.bench.systems.flops import tensors_read
from cobra.bench.timing.case import Case, Stopwatch, dtype_of
from cobra.bench.timing.sample import Sample
from cobra.bench.training import train
from cobra.models.generate import decode as decoding
from cobra.models.lm.base import LanguageModel
from cobra.models.lm.state import State
from cobra.models.sampling import Sampler

# Tokens of a prompt that are read at a time where it is very long.
_PIECE = 8192
# Tokens before the clock starts: one of a head alone, two that a StepGraph captures.
_SETTLING = 3


def e2e(
    vlm: Tree, quantization: Any, dtype: str, device: str, new_tokens: int, state_dtype: str = "fp32"
) -> Case:
    """The papers' protocol: from a picture's bytes to the last of `new_tokens` tokens, batch 1, greedily.

    Stages: image (bytes to pixels), vision (encoder and projector), prefill (to the first token), decode (the
    others), and, beside the total, second (the first token of a second question about the same picture).
    """
    model = random_vlm(vlm, quantization, dtype_of(dtype), device)
    model.lm.set_state_dtype(state_dtype)
    question = Question(model.vision.transform, model.num_image_tokens, device)
    context = question.ids.shape[1]
    room = context + new_tokens + question.more.shape[1] + 1
    watch = Stopwatch(device)
    # read where they end, so that what runs is the model's own generate
    model.projector.register_forward_hook(lambda *_: watch.mark("vision"))

    def run(count: int = new_tokens) -> Sample:
        state = model.lm.allocate_state(1, room)
        watch.restart()
        pictures = question.pictures()
        watch.mark("image")
        stream = model.stream(question.ids, pictures, max_new_tokens=count, state=state)
        tokens = [next(stream)]
        watch.mark("prefill")
        tokens += stream
        watch.mark("decode")
        more = torch.cat([tokens[-1][:, None], question.more], dim=1)
        next(model.stream(more, max_new_tokens=1, state=state))
        watch.mark("second")
        return watch.sample("image", "vision", "prefill", "decode")

    about = {
        "image_tokens": question.image_tokens,
        "prompt_tokens": context,
        "model_bytes": weight_bytes(model),
        "new_tokens": new_tokens,
        **_settings(model.lm, context + new_tokens // 2, dtype),
    }
    return Case(run, rehearsal=lambda: run(2), about=about)


def decode(
    lm: Tree,
    quantization: Any,
    dtype: str,
    device: str,
    context: int,
    tokens: int,
    real: bool = False,
    state_dtype: str = "fp32",
) -> Case:
    """New tokens after a context: one stage of `tokens` steps, each with its embedding, head and choice.

    Args:
        lm: the language model.
        quantization: of its weights.
        dtype: of its activations.
        device: where it runs.
        context: tokens that the state has read, or seems to have.
        tokens: steps.
        real: read the context; otherwise the state is random numbers.
        state_dtype: fp32 or bf16, of a recurrent state.
    """
    model = _lm(json.dumps(lm), quantization, dtype, device, state_dtype)
    hidden = torch.zeros(1, model.d_model, dtype=dtype_of(dtype), device=device)
    with torch.inference_mode():
        room = tokens + _SETTLING
        state = _read(model, context, room) if real else state_at(model, context, room, dtype_of(dtype))

    @torch.inference_mode()
    def run(count: int = tokens) -> Sample:
        # a step costs what it costs at this length, whatever was read since
        state.lengths.fill_(context)
        watch = Stopwatch(device)
        steps = decoding(model, hidden, state, _SETTLING + count, None, Sampler())
        for _ in range(_SETTLING):
            next(steps)
        watch.restart()
        for _ in steps:
            pass
        watch.mark("decode")
        return watch.sample()

    about = {"tokens": tokens, "model_bytes": weight_bytes(model), **_settings(model, context, dtype)}
    return Case(run, rehearsal=lambda: run(2), about=about)


def prefill(
    lm: Tree, quantization: Any, dtype: str, device: str, length: int, state_dtype: str = "fp32"
) -> Case:
    """A prompt of token ids to the logits of its last token, the state kept for decoding."""
    model = _lm(json.dumps(lm), quantization, dtype, device, state_dtype)
    ids = torch.randint(model.vocab_size, (1, length), device=device)

    @torch.inference_mode()
    def run() -> Sample:
        watch = Stopwatch(device)
        state = model.allocate_state(1, length)
        model.head(model.prefill(model.embed(ids), state)[:, -1])
        watch.mark("prefill")
        return watch.sample()

    about = {"tokens": length, "model_bytes": weight_bytes(model)}
    constant = _settings(model, 0, dtype)["constant_state"]
    return Case(run, about={**about, "constant_state": constant})


@cache
def _lm(tree: str, quantization: Any, dtype: str, device: str, state_dtype: str) -> LanguageModel:
    # a process measures one model, at many lengths
    lm = random_lm(json.loads(tree), quantization, dtype_of(dtype), device)
    lm.set_state_dtype(state_dtype)
    return lm


def _read(lm: LanguageModel, context: int, room: int) -> State:
    state = lm.allocate_state(1, context + room)
    ids = torch.randint(lm.vocab_size, (1, context))
    for piece in ids.split(_PIECE, dim=1):
        lm.prefill(lm.embed(piece.to(_device(lm))), state)
    return state


@torch.inference_mode()
def _settings(lm: LanguageModel, context: int, dtype: str) -> dict[str, Any]:
    """What a step must move, and the language model's share of it."""
    state = lm.allocate_state(1, 2)
    x = torch.zeros(1, lm.d_model, dtype=dtype_of(dtype), device=_device(lm))

    def step() -> Tensor:
        return lm.head(lm.step(x, state))

    weights = sum(tensor.nbytes for tensor in tensors_read(lm, step))
    moved = state_bytes_of_step(lm, context, dtype_of(dtype))
    grows = state_bytes_of_step(lm, 2 * context + 1, dtype_of(dtype)) != moved
    return {"step_bytes": weights + moved, "state_bytes": moved, "constant_state": not grows}


def _device(module: nn.Module) -> torch.device:
    return next(module.parameters()).device


CASES: dict[str, Callable[..., Case]] = {case.__name__: case for case in (e2e, decode, prefill, train)}
