"""Projectors of mmproj files: linear, MLP, LDP, LDPv2."""

from functools import partial, singledispatch
from itertools import chain

import torch
from torch import Tensor, nn

from cobra.export.gguf.described import Part
from cobra.export.gguf.seen import GELU, CannotExpress, Parts, Seen, layer
from cobra.models.projectors.base import Projector
from cobra.models.projectors.ldp import LDPProjector
from cobra.models.projectors.ldpv2 import LDPv2Projector
from cobra.models.projectors.linear import LinearProjector
from cobra.models.projectors.mlp import MLPProjector
from cobra.models.vision.base import VisionEncoder

# patches a side, which llama.cpp's LDP and LDPv2 were written for
_LDP_GRID = 24


@singledispatch
def projector_of(projector: Projector, vision: VisionEncoder) -> Seen:
    """The projector's part."""
    raise CannotExpress(
        f"llama.cpp has no projector like {type(projector).__name__}: linear, MLP, LDP, LDPv2"
    )


@projector_of.register
def _(projector: MLPProjector, vision: VisionEncoder) -> Seen:
    return _projector(
        "mlp", chain(layer("mm.0", "projector.projector.0"), layer("mm.2", "projector.projector.2"))
    )


@projector_of.register
def _(projector: LinearProjector, vision: VisionEncoder) -> Seen:
    # its MLP has a GELU in the middle, of which GELU(x) - GELU(-x) = x
    ours = "projector.projector"
    twice = chain(layer("mm.0", ours, change=_both_signs))
    back = (
        ("mm.2.weight", Part(f"{ours}.weight", _difference, is_matrix=True)),
        ("mm.2.bias", Part(f"{ours}.bias", torch.zeros_like)),
    )
    rounded = "a projector in fp32: llama.cpp rounds what goes through its GELU to fp16"
    seen = _projector("mlp", chain(twice, back))
    return Seen(seen.settings, seen.parts, seen.halves, (rounded,))


def _both_signs(rows: Tensor) -> Tensor:
    return torch.cat([rows, -rows])


def _difference(rows: Tensor) -> Tensor:
    one = torch.eye(len(rows), device=rows.device)
    return torch.cat([one, -one], 1)


@projector_of.register
def _(projector: LDPProjector, vision: VisionEncoder) -> Seen:
    _check_grid(vision)
    parts = chain(
        layer("mm.model.mlp.1", "projector.mlp.0"),
        layer("mm.model.mlp.3", "projector.mlp.2"),
        *(_inverted(number) for number in (1, 2)),
    )
    seen = _projector("ldp", parts, *(f"mm.model.mb_block.{number}.block.0.0.weight" for number in (1, 2)))
    eps = {module.eps for module in vision.modules() if isinstance(module, nn.LayerNorm)}
    own = {module.eps for module in projector.modules() if isinstance(module, nn.LayerNorm)}
    norms = f"norms of the projector with epsilon {max(own)}: llama.cpp takes the encoder's, {max(eps)}"
    return seen if own == eps else Seen(seen.settings, seen.parts, seen.halves, (*seen.differs, norms))


def _inverted(number: int) -> Parts:
    """A depthwise-separable block; its 1 × 1 convolutions are products."""
    ours, theirs = f"projector.blocks.{number - 1}.block", f"mm.model.mb_block.{number}.block"
    rows = partial(torch.flatten, start_dim=1)
    yield f"{theirs}.0.0.weight", Part(f"{ours}.0.0.weight")
    yield from layer(f"{theirs}.0.1", f"{ours}.0.1", is_matrix=False)
    for name in ("fc1", "fc2"):
        yield f"{theirs}.1.{name}.weight", Part(f"{ours}.1.{name}.weight", rows, is_matrix=True)
        yield f"{theirs}.1.{name}.bias", Part(f"{ours}.1.{name}.bias")
    yield f"{theirs}.2.0.weight", Part(f"{ours}.2.0.weight", rows, is_matrix=True)
    yield from layer(f"{theirs}.2.1", f"{ours}.2.1", is_matrix=False)


@projector_of.register
def _(projector: LDPv2Projector, vision: VisionEncoder) -> Seen:
    _check_grid(vision)
    if projector.side != _LDP_GRID // 2:
        raise CannotExpress(
            f"llama.cpp's LDPv2 makes 12 × 12 tokens, not {projector.side} × {projector.side}"
        )
    parts = chain(
        layer("mm.model.mlp.0", "projector.projector.0"),
        layer("mm.model.mlp.2", "projector.projector.2"),
        layer("mm.model.peg.0", "projector.projector.4.peg.0", is_matrix=False),
    )
    return _projector("ldpv2", parts, "mm.model.peg.0.weight")


def _check_grid(vision: VisionEncoder) -> None:
    if vision.num_patches != _LDP_GRID**2:
        raise CannotExpress(
            f"llama.cpp's LDP and LDPv2 are of {_LDP_GRID} × {_LDP_GRID} patches, and these are "
            f"{vision.num_patches} (an image_size of {_LDP_GRID} patches would do)"
        )


def _projector(kind: str, parts: Parts, *halves: str) -> Seen:
    return Seen({"clip.projector_type": kind}, dict(parts), frozenset(halves), (GELU,))
