"""How far files of an export are from the model that they were made of."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cobra.data.image import load_rgb
from cobra.export.engine import Floats
from cobra.export.engines.exact import oracle_of
from cobra.export.engines.gguf import PICTURES
from cobra.export.gguf import mtmd
from cobra.export.gguf.context import Context, open_weights
from cobra.export.gguf.language_model import Opened
from cobra.export.gguf.llama import bindings
from cobra.export.gguf.mmproj import MMPROJ
from cobra.export.gguf.picture import PictureProgram
from cobra.export.oracle import Exact, Oracle, SeenPicture
from cobra.export.pixels import read_pixels
from cobra.models.vision.square import Plane
from cobra.models.vlm import CobraVLM
from cobra.pretrained import from_pretrained, lm_from_pretrained

# weights that are read as a whole, in fp64, to be measured by
_MOST_WEIGHTS = 5e8


def oracle(opened: Opened, path: Path) -> Oracle | None:
    """What fp64 makes of a model; None where its weights are too many to read them as a whole."""
    if sum(stored.shape.numel() for stored in opened.files.weights.values()) > _MOST_WEIGHTS:
        return None
    if not isinstance(opened.model, CobraVLM):
        return oracle_of(lm_from_pretrained(path), None, None)
    model, processor = from_pretrained(path)
    is_one_tile = getattr(processor.transform, "layout", None) is not None
    return oracle_of(model.lm, model if is_one_tile else None, processor if is_one_tile else None)


def parity(exact: Oracle, language_model: Path, planes: Sequence[Plane], full: bool) -> dict[str, float]:
    """Relative RMS of logits behind each token of a text, and of a picture's tokens where it is read.

    Those of llama.cpp's own programs are measured where libmtmd is here, of the picture as it is, and of the
    square that the model's transform makes of it.

    Args:
        exact: of the model.
        language_model: file, beside which are those for pictures, if any.
        planes: how their pixels are made.
        full: whether a transformer's keys and values are in fp32.
    """
    weights = open_weights(language_model)
    context = Context(weights, 512, 1, 1, full)
    logits = np.stack([context.read(np.array([token])) for token in exact.ids])
    context.close()
    found = {"logits": _rms(logits, exact.logits)}
    if exact.picture is not None and (pictures := language_model.with_name(PICTURES)).is_file():
        found["image_tokens"] = _seen(exact, pictures, planes)
    if (
        exact.picture is not None
        and (stock := language_model.with_name(MMPROJ)).is_file()
        and mtmd.is_there()
    ):
        found |= _seen_by_stock(exact.picture, stock, planes, weights)
    bindings().llama_model_free(weights)
    return found


def _seen(exact: Oracle, pictures: Path, planes: Sequence[Plane]) -> float:
    assert exact.picture is not None
    with exact.picture.file() as path:
        pixels = read_pixels(planes, path)
    program = PictureProgram(pictures)
    found = _rms(program(*pixels), exact.picture.tokens)
    program.close()
    return found


def _seen_by_stock(
    picture: SeenPicture, stock: Path, planes: Sequence[Plane], weights: Any
) -> dict[str, float]:
    program, (plane,) = mtmd.StockPictures(stock, weights), planes
    with picture.file() as path:
        found = {"mmproj_image_tokens": _rms(program(path), picture.tokens)}
        plane.square(load_rgb(path)).save(path)
        found["mmproj_image_tokens_of_the_square"] = _rms(program(path), picture.tokens)
    program.close()
    return found


def _rms(found: Floats, expected: Exact) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
