"""The sizes and costs of one system, from its class_path tree, without its weights."""

import inspect
import json
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from PIL import Image
from torch import nn

from cobra.bench.systems.contexts import state_bytes_of_step
from cobra.bench.systems.flops import count, count_and_read, mixing_flops, step_flops
from cobra.config.build import build, build_on_meta
from cobra.models.component import Component
from cobra.models.lm.base import LanguageModel
from cobra.models.lm.stacked import StackedLM
from cobra.models.vision.base import VisionEncoder
from cobra.models.vision.fused import FusedEncoder
from cobra.models.vision.pictures import Layout, Pictures

# contexts that a state is measured at, in tokens
CONTEXTS = (1024, 8192, 32768)
_META = torch.device("meta")


@dataclass(frozen=True)
class LMCost:
    """A language model for one sequence, weights in bf16 and recurrent states in fp32 as `generate` has them.

    Attributes:
        title: its class and sizes.
        parameters: a tied head counted once.
        prefill_flops: for each token of a prompt, without the head.
        decode_flops: for each new token, the head included; a cache of keys at the first of CONTEXTS.
        decode_bytes: weights, and the state read and written (of a cache that grows, read), likewise.
        state_bytes: at each of CONTEXTS.
    """

    title: str
    parameters: int
    prefill_flops: int
    decode_flops: int
    decode_bytes: int
    state_bytes: tuple[int, ...]


@dataclass(frozen=True)
class System:
    """One configured system.

    Attributes:
        name: of its yaml.
        encoder: its towers.
        projector: its class, and what differs from its defaults.
        image_tokens: a picture's.
        parameters: with whole towers, as they are published.
        in_use: without what the features do not depend on.
        vision_flops: of the encoder, a picture.
        projector_flops: a picture.
        lm: the language model.
    """

    name: str
    encoder: str
    projector: str
    image_tokens: int
    parameters: int
    in_use: int
    vision_flops: int
    projector_flops: int
    lm: LMCost


def measure(name: str, tree: dict[str, Any]) -> System:
    """The system that a tree of `CobraVLM` describes.

    Raises:
        ValueError: where the tree names a foreign class or its parts do not fit each other.
    """
    vision, projector, lm = (_plain(tree["init_args"][part]) for part in ("vision", "projector", "lm"))
    encoder, layout, (whole, used), vision_flops = _measure_encoder(vision)
    cost, width = _measure_lm(lm)
    with _META:
        connector = build(json.loads(projector))(encoder.embed_dim, width)
    tokens = connector.counter(encoder.num_patches)(layout)
    rest = _size(connector) + cost.parameters
    patches = torch.empty(layout.tiles, encoder.num_patches, encoder.embed_dim, device=_META)
    return System(
        name, _encoder_title(encoder), _title(connector), tokens, whole + rest, used + rest, vision_flops,
        count(lambda: connector(patches)), cost,
    )  # fmt: skip


@cache
def _measure_encoder(tree: str) -> tuple[VisionEncoder, Layout, tuple[int, int], int]:
    encoder = build_on_meta(json.loads(tree))
    assert isinstance(encoder, VisionEncoder)
    picture = encoder.transform(Image.new("RGB", (64, 64)))
    pixels = Pictures.stack([picture]).map(lambda pixels: pixels.to(_META)).pixels
    return encoder, picture.layout, encoder.count_parameters(), count(lambda: encoder(pixels))


@cache
def _measure_lm(tree: str) -> tuple[LMCost, int]:
    lm = build_on_meta(json.loads(tree))
    assert isinstance(lm, LanguageModel)
    state_bytes = tuple(lm.allocate_state(1, length, torch.bfloat16).nbytes for length in CONTEXTS)
    moved = state_bytes_of_step(lm, CONTEXTS[0] - 1, torch.bfloat16)
    prefill, decode, weights = _stacked(lm) if isinstance(lm, StackedLM) else _by_layer(json.loads(tree))
    return LMCost(_lm_title(lm), _size(lm), prefill, decode, 2 * weights + moved, state_bytes), lm.d_model


def _stacked(lm: StackedLM) -> tuple[int, int, int]:
    """Operations for a token of a prompt and of an answer, and parameters that a step reads; by formula."""
    mixers = [mixer for block in lm.blocks for _, mixer in block.branches()]
    linears = 2 * sum(
        m.weight.numel() for mixer in mixers for m in mixer.modules() if isinstance(m, nn.Linear)
    )
    head = 2 * lm.vocab_size * lm.d_model
    prefill, decode = (sum(f(mixer, CONTEXTS[0]) for mixer in mixers) for f in (mixing_flops, step_flops))
    return linears + prefill, linears + head + decode, _size(lm)


def _by_layer(tree: dict[str, Any]) -> tuple[int, ...]:
    """The same of a language model whose layers are alike, by running it with one and with two of them."""
    layers = tree["init_args"]["n_layers"]
    one, two = (
        _traced(build_on_meta({**tree, "init_args": {**tree["init_args"], "n_layers": count}}))
        for count in (1, 2)
    )
    return tuple(first + (layers - 1) * (both - first) for first, both in zip(one, two, strict=True))


def _traced(lm: Any) -> tuple[int, int, int]:
    """The same of any language model, by running it."""
    state, length = lm.allocate_state(1, CONTEXTS[0]), CONTEXTS[0]
    embeds = torch.empty(1, length, lm.d_model, device=_META)
    prefill = count(lambda: lm.prefill(embeds)) // length
    # a step's cost depends on what is behind it
    state.lengths.fill_(length - 1)
    decode, read = count_and_read(lm, lambda: lm.head(lm.step(embeds[:, 0], state)))
    return prefill, decode, read


def _size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _encoder_title(encoder: VisionEncoder) -> str:
    if isinstance(encoder, FusedEncoder):
        return " + ".join(_encoder_title(tower) for tower in encoder.encoders)  # type: ignore[arg-type]
    arguments = encoder.arguments()
    return f"{arguments.get('name', type(encoder).__name__)} at {arguments.get('image_size', '?')} px"


def _lm_title(lm: LanguageModel) -> str:
    arguments = lm.arguments()
    kind, layers = arguments.get("model_type", type(lm).__name__), len(lm.layouts())
    return f"{kind} {lm.d_model} × {arguments.get('n_layers', layers)}"


def _title(component: Component) -> str:
    """The class, and the arguments that differ from its defaults."""
    defaults = inspect.signature(type(component)).parameters
    changed = [f"{n}={v}" for n, v in component.arguments().items() if v != defaults[n].default]
    return type(component).__name__ + (f"({', '.join(changed)})" if changed else "")


def _plain(tree: dict[str, Any]) -> str:
    return json.dumps(tree, sort_keys=True)
