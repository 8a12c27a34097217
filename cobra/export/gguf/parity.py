"""How far files of an export are from the model that they were made of."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cobra.export.engine import Floats
from cobra.export.engines.exact import oracle_of
from cobra.export.gguf.context import Context, open_weights
from cobra.export.gguf.language_model import Opened
from cobra.export.gguf.llama import bindings
from cobra.export.gguf.picture import PictureProgram
from cobra.export.oracle import Exact, Oracle
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


def parity(
    exact: Oracle, language_model: Path, pictures: Path, planes: Sequence[Plane], full: bool
) -> dict[str, float]:
    """Relative RMS of logits behind each token of a text, and of a picture's tokens where it is read.

    Args:
        exact: of the model.
        language_model: file.
        pictures: file, which need not be there.
        planes: how its pixels are made.
        full: whether a transformer's keys and values are in fp32.
    """
    weights = open_weights(language_model)
    context = Context(weights, 512, 1, 1, full)
    logits = np.stack([context.read(np.array([token])) for token in exact.ids])
    context.close()
    bindings().llama_model_free(weights)
    found = {"logits": _rms(logits, exact.logits)}
    if exact.picture is not None and pictures.is_file():
        found["image_tokens"] = _seen(exact, pictures, planes)
    return found


def _seen(exact: Oracle, pictures: Path, planes: Sequence[Plane]) -> float:
    assert exact.picture is not None
    with exact.picture.file() as path:
        pixels = read_pixels(planes, path)
    program = PictureProgram(pictures)
    found = _rms(program(*pixels), exact.picture.tokens)
    program.close()
    return found


def _rms(found: Floats, expected: Exact) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
