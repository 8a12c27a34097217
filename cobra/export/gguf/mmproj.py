"""mmproj.gguf: a picture's encoder and projector as llama.cpp's own programs know them."""

from collections.abc import Mapping
from pathlib import Path

import torch

from cobra.export.gguf.described import Part
from cobra.export.gguf.file import Value, Weight, write_gguf
from cobra.export.gguf.seen import Seen
from cobra.export.gguf.seen_encoder import encoder_of
from cobra.export.gguf.seen_projector import projector_of
from cobra.models.vision.fused import planes_of
from cobra.models.vision.square import Letterbox, Plane, Squash
from cobra.models.vlm import CobraVLM
from cobra.weights.tensors import Stored

MMPROJ = "mmproj.gguf"
# llama.cpp's bars around a picture
_BARS = (122, 116, 104)


def write_mmproj(model: CobraVLM, weights: Mapping[str, Stored], quant: str, path: Path) -> tuple[str, ...]:
    """Write the file; what llama.cpp does otherwise than the model, in a sentence each.

    Args:
        model: may be on the meta device.
        weights: of the model, by its own names.
        quant: matrices are in fp32 in f32, else in fp16.
        path: written over.

    Raises:
        CannotExpress: where llama.cpp's programs have no such encoder or projector, saying which part.
    """
    seen = seen_by(model)

    def dtype(name: str, part: Part) -> torch.dtype:
        is_half = name in seen.halves or (part.is_matrix and quant != "f32")
        return torch.float16 if is_half else torch.float32

    tensors = {n: Weight(weights[p.source], dtype(n, p), p.change) for n, p in seen.parts.items()}
    write_gguf(path, {**seen.settings, "general.file_type": int(quant != "f32")}, tensors)
    return seen.differs


def seen_by(model: CobraVLM) -> Seen:
    """How a model sees; see `write_mmproj`."""
    encoder, projector = encoder_of(model.vision), projector_of(model.projector, model.vision)
    (plane,) = planes_of(model.vision.transform)
    squared, bars = _squared(plane)
    settings: dict[str, Value] = {
        "general.architecture": "clip",
        "general.type": "mmproj",
        "clip.has_vision_encoder": True,
        "clip.vision.projection_dim": model.lm.d_model,
        **encoder.settings,
        **projector.settings,
        **squared,
    }
    # the GELU of one and of the other is the same sentence
    differs = tuple(dict.fromkeys((*bars, *encoder.differs, *projector.differs)))
    return Seen(settings, {**encoder.parts, **projector.parts}, projector.halves, differs)


def _squared(plane: Plane) -> tuple[dict[str, Value], tuple[str, ...]]:
    """Metadata by which a picture becomes a square, and what is otherwise."""
    square = plane.square
    said: dict[str, Value] = {
        "clip.vision.image_size": square.side,
        "clip.vision.image_mean": list(plane.mean),
        "clip.vision.image_std": list(plane.std),
    }
    if isinstance(square, Squash):
        # of LLaVA-1.6's overview, which is squashed, and its tiles: none, in a grid of no size
        return {**said, "clip.vision.image_grid_pinpoints": [0, 0]}, ()
    if isinstance(square, Letterbox) and square.shorter == square.side:
        otherwise = ["bars that are resized with the picture: llama.cpp adds them afterwards"]
        if square.colour != _BARS:
            otherwise.append(f"bars of the colour {square.colour}: llama.cpp's are {_BARS}")
        return said, tuple(otherwise)
    return said, (
        "the centre of a picture alone: llama.cpp shows all of it between bars, so cut it before "
        f"(to {square.side} × {square.side} pixels)",
    )
