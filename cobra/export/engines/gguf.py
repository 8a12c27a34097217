"""Engine: llama.cpp on GGUF files, on the CPU; no PyTorch."""

import os
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cobra.export.engine import Engine, Floats, Ids
from cobra.export.gguf.context import Context, open_weights
from cobra.export.gguf.embedding import embedding_rows
from cobra.export.gguf.llama import VERSION, bindings
from cobra.export.gguf.picture import PictureProgram
from cobra.export.gguf.quantize import dequantize
from cobra.export.manifest import read_manifest
from cobra.export.oracle import ORACLE, Oracle
from cobra.export.pixels import planes_in, read_pixels

# in an export folder: the language model, encoder and projector
LANGUAGE_MODEL, PICTURES = "lm.gguf", "pictures.gguf"
# relative RMS of logits by the precision of weights; quantised products round activations to 8 bits
UNQUANTISED = {"f32": 1e-5, "f16": 2e-3}
_QUANTISED = 5e-2
# sequences that are read beside each other
_ROWS = 8


class GGUFEngine(Engine):
    """A language model that llama.cpp runs, and the encoder and projector before it, which ggml does.

    Args:
        folder: what `cobra export --target gguf` wrote.
        context: tokens that a transformer has room for; a state-space model needs none.
        threads: of a product; None takes OMP_NUM_THREADS, or as many as there are CPUs.
        more: see `Context`.
    """

    version = f"llama-cpp-python {VERSION}"

    def __init__(self, folder: Path, context: int = 4096, threads: int | None = None, **more: Any) -> None:
        self.folder, self._length, self._more = folder, context, more
        manifest = read_manifest(folder)
        # a language model alone may have no tokenizer, and then ends nowhere
        self.eos_id = int(manifest.contents.settings.get("eos_id", -1))
        self.rounding = UNQUANTISED.get(manifest.quant, _QUANTISED)
        self.lacks = {"mask": "llama.cpp has no padding"}
        if manifest.quant in UNQUANTISED:
            self.lacks["dequantised"] = "its weights are not quantised"
        self._threads = threads or int(os.environ.get("OMP_NUM_THREADS", 0)) or os.cpu_count() or 1
        self._pictures: PictureProgram | None = None
        if (folder / PICTURES).is_file():
            self._pictures = PictureProgram(folder / PICTURES, self._threads)
            self._planes = planes_in(manifest)
        else:
            self.lacks["pictures"] = "encoder or projector are not in this export"
        self._open(folder / LANGUAGE_MODEL, manifest.quant == "f32")

    def _open(self, path: Path, exact: bool) -> None:
        self._path, self._exact = path, exact
        self._weights = open_weights(path)
        self._one = Context(self._weights, self._length, 1, self._threads, exact, **self._more)
        self._many: Context | None = None
        self.vocab_size, self.d_model = self._one.vocab_size, self._one.d_model

    def reset(self) -> None:
        """See `Engine.reset`."""
        self._one.reset()

    def prefill(self, tokens: Ids | Floats) -> Floats:
        """See `Engine.prefill`."""
        return self._one.read(tokens)

    def step(self, token: int) -> Floats:
        """See `Engine.step`."""
        return self._one.read(np.array([token]))

    def snapshot(self) -> NDArray[np.uint8]:
        """See `Engine.snapshot`; empty where nothing was read."""
        return self._one.snapshot()

    def restore(self, snapshot: NDArray[np.uint8]) -> None:
        """See `Engine.restore`."""
        self._one.restore(snapshot)

    def oracle(self) -> Oracle | None:
        """See `Engine.oracle`; of weights that were not quantised."""
        found = self.folder / ORACLE
        return Oracle.read(found) if found.is_file() else None

    def close(self) -> None:
        """See `Engine.close`."""
        if self._pictures is not None:
            self._pictures.close()
            self._pictures = None
        for context in filter(None, (self._one, self._many)):
            context.close()
        if self._weights:
            bindings().llama_model_free(self._weights)
            self._weights = None

    def read_pictures(self, paths: Sequence[Path]) -> list[Floats]:
        """See `Engine.read_pictures`."""
        assert self._pictures is not None
        return [self._pictures(*read_pixels(self._planes, path)) for path in paths]

    def embed(self, ids: Ids) -> Floats:
        """See `Engine.embed`."""
        return embedding_rows(self._path, ids, self.d_model)

    def prefill_rows(self, ids: Ids, mask: NDArray[np.bool_] | None = None) -> Floats:
        """See `Engine.prefill_rows`; there is no mask."""
        return self._rows(len(ids)).read_rows(list(ids))

    def step_rows(self, tokens: Ids) -> Floats:
        """See `Engine.step_rows`."""
        assert self._many is not None
        return self._many.read_rows([np.array([token]) for token in tokens])

    def prefill_packed(self, texts: Sequence[Ids]) -> list[Floats]:
        """See `Engine.prefill_packed`: one batch, in which each text is a sequence of its own."""
        return list(self._rows(len(texts)).read_rows(texts))

    def _rows(self, count: int) -> Context:
        """Room for so many sequences that have read nothing."""
        if count > _ROWS:
            raise ValueError(f"{count} rows are more than the {_ROWS} that this engine has room for")
        if self._many is None:
            length = _ROWS * self._length
            self._many = Context(self._weights, length, _ROWS, self._threads, self._exact, **self._more)
        self._many.reset()
        return self._many

    def dequantised(self) -> Engine:
        """See `Engine.dequantised`; without pictures."""
        return _Dequantised(self)


class _Dequantised(GGUFEngine):
    def __init__(self, packed: GGUFEngine) -> None:
        self._folder = TemporaryDirectory()
        path = Path(self._folder.name) / LANGUAGE_MODEL
        dequantize(packed._path, path)
        self.folder, self.eos_id, self.rounding = path.parent, packed.eos_id, UNQUANTISED["f32"]
        self._length, self._threads, self._pictures = packed._length, packed._threads, None
        self._more = packed._more
        self.lacks = {**packed.lacks, "pictures": "not read", "dequantised": "its weights are not quantised"}
        self._open(path, exact=True)

    def close(self) -> None:
        super().close()
        self._folder.cleanup()
