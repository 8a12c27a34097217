"""A GGUF export of a model of true size with random weights, in seconds and without its memory."""

from collections.abc import Iterable
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zlib import crc32

import numpy as np
import torch
from torch import Tensor

from cobra.config.build import build_on_meta
from cobra.config.config_json import LM, VLM, write_config
from cobra.export.engines.gguf import LANGUAGE_MODEL
from cobra.export.gguf.described import described
from cobra.export.gguf.ggml import ggml
from cobra.export.gguf.language_model import Opened
from cobra.export.gguf.target import write_opened
from cobra.export.gguf.tensors_in import tensors_in
from cobra.export.manifest import Contents
from cobra.models.vlm import CobraVLM
from cobra.pretrained import WEIGHTS, expected_shapes
from cobra.weights.run_checkpoint import ModelFiles
from cobra.weights.tensors import Stored

_STD = 0.02
# numbers that are drawn and quantised for a type of tensor, and bytes that are written at a time
_DRAWN, _WRITTEN = 1 << 18, 1 << 24


def write_random_gguf(tree: dict[str, Any], quant: str, folder: Path) -> Contents:
    """Fill a folder as `cobra export --target gguf` does, for speed alone.

    Types and sizes are those of a real export. Its matrices are written as zeros, which the quantiser is
    quick with, and then overwritten by rows of random numbers, quantised by ggml, that repeat: to search the
    best scales of all blocks of a large model would take minutes.

    Args:
        tree: of a `CobraVLM` or a language model.
        quant: of the language model's matrices.
        folder: to fill.

    Raises:
        LackingError: where llama.cpp is not here.
        ValueError: where the language model cannot be expressed, saying which part.
    """
    model: Any = build_on_meta(tree)
    whole = isinstance(model, CobraVLM)
    lm = model.lm if whole else model
    matrices = {name: part.source for name, part in described(lm).parts.items() if part.is_matrix}
    prefix = "lm." if whole else ""
    zeros = {prefix + source for source in matrices.values()}
    weights = {
        name: Stored(shape, torch.bfloat16, partial(_zeros if name in zeros else _drawn, shape, name))
        for name, shape in expected_shapes(model).items()
    }
    own = {name.removeprefix(prefix): stored for name, stored in weights.items() if name.startswith(prefix)}
    with TemporaryDirectory() as place:
        write_config(Path(place), VLM if whole else LM, model.config())
        files = ModelFiles(Path(place), Path(place) / WEIGHTS, weights)
        contents = write_opened(Opened(model, lm, files, own), quant, folder, None)
    _fill(folder / LANGUAGE_MODEL, matrices)
    return contents


def _zeros(shape: torch.Size, name: str) -> Tensor:
    return torch.zeros(shape, dtype=torch.bfloat16)


def _drawn(shape: torch.Size, name: str) -> Tensor:
    generator = torch.Generator().manual_seed(crc32(name.encode()))
    return torch.empty(shape, dtype=torch.bfloat16).normal_(std=_STD, generator=generator)


def _fill(path: Path, names: Iterable[str]) -> None:
    """Overwrite tensors of a file with random rows in their types."""
    places = tensors_in(path)
    with path.open("r+b") as file:
        for name in names:
            place = places[name]
            rows = _rows(place.kind, place.width)
            file.seek(place.start)
            left = place.nbytes
            while left:
                left -= file.write(rows[: min(left, len(rows))])


@cache
def _rows(kind: int, width: int) -> memoryview:
    """Whole rows of random numbers in a type, repeated."""
    lib, count = ggml(), max(1, _DRAWN // width)
    values = np.random.default_rng(0).normal(0, _STD, (count, width)).astype(np.float32)
    packed = np.empty(count * lib.row_size(kind, width), np.uint8)
    lib.quantize_chunk(kind, values.ctypes.data, packed.ctypes.data, 0, count, width, None)
    return memoryview(np.tile(packed, max(1, _WRITTEN // len(packed))).tobytes())
