"""Encoders of mmproj files: timm's plain ViTs."""

from dataclasses import dataclass
from functools import partial, singledispatch
from itertools import chain

import cobra.torchvision_shim  # noqa: F401  (before timm)

import torch  # isort: skip
from timm.layers import GELUTanh, QuickGELU  # isort: skip
from timm.models.vision_transformer import Block  # isort: skip
from torch import Tensor, nn  # isort: skip

from cobra.export.gguf.described import Part
from cobra.export.gguf.file import Value
from cobra.export.gguf.seen import GELU, CannotExpress, Parts, Seen, layer
from cobra.models.vision.base import VisionEncoder
from cobra.models.vision.timm_encoder import TimmEncoder

_CLASS = (
    "the class token before the patches: since May 2025 llama.cpp puts it behind them, so that each patch "
    "has its neighbour's place and the first is lost (ggml-org/llama.cpp#25814)"
)


@singledispatch
def encoder_of(vision: VisionEncoder) -> Seen:
    """The encoder's part."""
    raise CannotExpress(
        f"llama.cpp has no encoder like {type(vision).__name__}: plain ViTs of timm (CLIP, SigLIP)"
    )


@encoder_of.register
def _(vision: TimmEncoder) -> Seen:
    tower, layers = vision.tower, vision.layer + 1
    _check(vision)
    first, gelu = tower.blocks[0], _gelu(tower.blocks[0].mlp.act)
    settings: dict[str, Value] = {
        "clip.vision.patch_size": tower.patch_embed.patch_size[0],
        "clip.vision.embedding_length": vision.embed_dim,
        "clip.vision.feed_forward_length": first.mlp.fc1.out_features,
        "clip.vision.block_count": layers,
        # else it leaves the last of them out
        "clip.vision.feature_layer": [layers],
        "clip.vision.attention.head_count": first.attn.num_heads,
        "clip.vision.attention.layer_norm_epsilon": first.norm1.eps,
        "clip.use_gelu": gelu.is_gelu,
    }
    there = {name for name, _ in vision.named_parameters() if name not in vision.unused_parameters()}
    parts = {
        theirs: part
        for theirs, part in chain(_stem(), *map(_block, range(layers)))
        if part.source.removeprefix("vision.") in there
    }
    if left := sorted(there - {part.source.removeprefix("vision.") for part in parts.values()}):
        raise CannotExpress(f"llama.cpp's ViT has no place for {left[0]}")
    differs = () if gelu.is_exact else (GELU,)
    return Seen(settings, parts, frozenset(), (_CLASS, *differs) if tower.num_prefix_tokens else differs)


def _check(vision: TimmEncoder) -> None:
    """Refuse a ViT that differs in what is no weight."""
    tower, grid = vision.tower, vision.tower.patch_embed.grid_size
    if vision.dropped:
        raise CannotExpress("llama.cpp leaves no patch out (drop_first)")
    if grid[0] != grid[1] or tower.num_prefix_tokens > 1 or tower.pos_embed is None:
        raise CannotExpress(
            "llama.cpp's ViT sees a square, of at most one class token, and places by a table"
        )
    if tower.pos_embed.shape[1] != vision.num_patches + tower.num_prefix_tokens:
        raise CannotExpress("llama.cpp's class token has a place, too")
    if not all(type(block) is Block for block in tower.blocks):
        raise CannotExpress(f"llama.cpp's ViT has no {type(tower.blocks[0]).__name__}")
    norms = {module.eps for module in tower.modules() if isinstance(module, nn.LayerNorm)}
    if len(norms) > 1:
        raise CannotExpress(f"all of llama.cpp's norms have one epsilon, and these {sorted(norms)}")


@dataclass(frozen=True)
class _Gelu:
    is_gelu: bool
    is_exact: bool = True


def _gelu(activation: nn.Module) -> _Gelu:
    """Which of llama.cpp's two an activation is."""
    if isinstance(activation, QuickGELU):
        return _Gelu(is_gelu=False)
    if isinstance(activation, GELUTanh):
        return _Gelu(is_gelu=True)
    if isinstance(activation, nn.GELU):
        return _Gelu(is_gelu=True, is_exact=activation.approximate == "tanh")
    raise CannotExpress(f"llama.cpp's ViT has no {type(activation).__name__}")


def _stem() -> Parts:
    yield "v.patch_embd.weight", Part("vision.tower.patch_embed.proj.weight", is_matrix=True)
    yield "v.patch_embd.bias", Part("vision.tower.patch_embed.proj.bias")
    yield "v.class_embd", Part("vision.tower.cls_token", torch.flatten)
    yield "v.position_embd.weight", Part("vision.tower.pos_embed", partial(torch.flatten, end_dim=1))
    yield from layer("v.pre_ln", "vision.tower.norm_pre", is_matrix=False)


def _block(number: int) -> Parts:
    ours, theirs = f"vision.tower.blocks.{number}", f"v.blk.{number}"
    yield from layer(f"{theirs}.ln1", f"{ours}.norm1", is_matrix=False)
    for place, name in enumerate("qkv"):
        yield from layer(f"{theirs}.attn_{name}", f"{ours}.attn.qkv", change=partial(_third, place=place))
    yield from layer(f"{theirs}.attn_out", f"{ours}.attn.proj")
    yield from layer(f"{theirs}.ln2", f"{ours}.norm2", is_matrix=False)
    yield from layer(f"{theirs}.ffn_up", f"{ours}.mlp.fc1")
    yield from layer(f"{theirs}.ffn_down", f"{ours}.mlp.fc2")


def _third(rows: Tensor, place: int) -> Tensor:
    return rows.chunk(3)[place]
