"""llama.cpp behind the engine contract: GGUF files on the CPU; PyTorch makes pixels, no model is in it."""

import ctypes
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image
from torch.utils._pytree import tree_leaves

from cobra.config.build import build_on_meta
from cobra.config.config_json import CONFIG, VLM, read_tree
from cobra.data.image import load_rgb
from cobra.export.engine import Engine, Floats, Ids
from cobra.export.gguf.llama import bindings
from cobra.export.gguf.picture import PictureProgram
from cobra.export.manifest import read_manifest
from cobra.models.vision.pictures import Picture
from cobra.models.vlm import CobraVLM

# in an export folder: the language model, encoder and projector
LANGUAGE_MODEL, PICTURES = "lm.gguf", "pictures.gguf"
# tokens that are read at a time
_PIECE = 512
# relative RMS of logits; quantised products round activations to 8 bits
_ROUNDING = {"f32": 1e-5, "f16": 2e-3}
_QUANTISED = 5e-2


class GGUFEngine(Engine):
    """A language model that llama.cpp runs, and the encoder and projector before it, which ggml does.

    Args:
        folder: what `cobra export --target gguf` wrote.
        context: tokens that a transformer has room for; a state-space model needs none.
        threads: of a product; None takes OMP_NUM_THREADS, or as many as there are CPUs.
    """

    lacks: ClassVar[Mapping[str, str]] = {
        "batch": "this engine reads one sequence",
        "mask": "llama.cpp has no padding",
        "packed": "this engine reads one sequence",
    }

    def __init__(self, folder: Path, context: int = 4096, threads: int | None = None) -> None:
        manifest = read_manifest(folder)
        # a language model alone may have no tokenizer, and then ends nowhere
        self.eos_id = int(manifest.contents.settings.get("eos_id", -1))
        self.rounding = _ROUNDING.get(manifest.quant, _QUANTISED)
        self._llama = bindings()
        threads = threads or int(os.environ.get("OMP_NUM_THREADS", 0)) or os.cpu_count() or 1
        self._open(folder / LANGUAGE_MODEL, context, threads, manifest.quant == "f32")
        self._pictures: PictureProgram | None = None
        if (folder / PICTURES).is_file():
            self._pictures = PictureProgram(folder / PICTURES, threads)
            self._transform = transform_of(folder)
        else:
            self.lacks = {**self.lacks, "pictures": "the encoder or projector is not in this export"}  # type: ignore[misc]

    def _open(self, path: Path, context: int, threads: int, exact: bool) -> None:
        llama = self._llama
        options = llama.llama_model_default_params()
        self._model = llama.llama_model_load_from_file(str(path).encode(), options)
        if not self._model:
            raise OSError(f"{path} cannot be opened by llama.cpp {llama.__name__}: export the model again")
        settings = llama.llama_context_default_params()
        settings.n_ctx, settings.n_batch, settings.n_ubatch = context, _PIECE, _PIECE
        settings.n_threads = settings.n_threads_batch = threads
        # the slower way for long contexts, on CPUs; and keys and values in fp32 where weights are
        settings.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_DISABLED
        if exact:
            settings.type_k = settings.type_v = llama.GGML_TYPE_F32
        self._context = llama.llama_init_from_model(self._model, settings)
        if not self._context:
            raise OSError(f"llama.cpp has no memory for {context} tokens of {path}: take fewer")
        self._memory = llama.llama_get_memory(self._context)
        self.vocab_size = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(self._model))
        self.d_model = llama.llama_model_n_embd(self._model)

    def reset(self) -> None:
        """See `Engine.reset`."""
        self._llama.llama_memory_clear(self._memory, True)

    def prefill(self, tokens: Ids | Floats) -> Floats:
        """See `Engine.prefill`."""
        if not len(tokens):
            raise ValueError("there are no tokens to read")
        for piece in self._pieces(tokens):
            if failed := self._llama.llama_decode(self._context, piece):
                raise ValueError(
                    f"llama.cpp could not read {len(tokens)} tokens (status {failed}): a transformer's "
                    "context is full, open it with a longer one"
                )
        logits = self._llama.llama_get_logits_ith(self._context, -1)
        return np.ctypeslib.as_array(logits, (self.vocab_size,)).copy()

    def step(self, token: int) -> Floats:
        """See `Engine.step`."""
        return self.prefill(np.array([token]))

    def snapshot(self) -> NDArray[np.uint8]:
        """See `Engine.snapshot`; empty where nothing was read."""
        if self._llama.llama_memory_seq_pos_max(self._memory, 0) < 0:
            return np.empty(0, np.uint8)
        saved = np.empty(self._llama.llama_state_seq_get_size(self._context, 0), np.uint8)
        size = self._llama.llama_state_seq_get_data(self._context, _bytes(saved), len(saved), 0)
        return saved[:size]

    def restore(self, snapshot: NDArray[np.uint8]) -> None:
        """See `Engine.restore`."""
        self.reset()
        if len(snapshot) and not self._llama.llama_state_seq_set_data(
            self._context, _bytes(snapshot), len(snapshot), 0
        ):
            raise ValueError(
                "llama.cpp does not take this state: it is another model's, or a longer context's"
            )

    def read_pictures(self, paths: Sequence[Path]) -> list[Floats]:
        """See `Engine.read_pictures`."""
        assert self._pictures is not None
        read = []
        for path in paths:
            (tile,) = self._transform(load_rgb(path)).tiles
            planes = [plane.numpy()[None] for plane in tree_leaves(tile)]
            read.append(self._pictures(*planes))
        return read

    def close(self) -> None:
        """See `Engine.close`."""
        if self._pictures is not None:
            self._pictures.close()
            self._pictures = None
        if self._context:
            self._llama.llama_free(self._context)
            self._llama.llama_model_free(self._model)
            self._context = self._model = None

    def _pieces(self, tokens: Ids | Floats) -> Iterator[Any]:
        """Batches whose positions and outputs llama.cpp counts by itself: of the last token alone."""
        is_ids = tokens.ndim == 1
        values = np.ascontiguousarray(tokens, np.int32 if is_ids else np.float32)
        if is_ids and (values.min() < 0 or values.max() >= self.vocab_size):
            raise ValueError(f"a token id is not below vocab_size {self.vocab_size}")
        if not is_ids and values.shape[1] != self.d_model:
            raise ValueError(f"embeddings of width {values.shape[1]} are not of d_model {self.d_model}")
        for start in range(0, len(values), _PIECE):
            piece = values[start : start + _PIECE]
            batch = self._llama.llama_batch(n_tokens=len(piece))
            if is_ids:
                batch.token = piece.ctypes.data_as(type(batch.token))
            else:
                batch.embd = piece.ctypes.data_as(type(batch.embd))
            yield batch


def transform_of(folder: Path) -> Callable[[Image], Picture]:
    """What makes pixels of a picture for the model that config.json in a folder describes; no weights."""
    model = build_on_meta(read_tree(folder / CONFIG, VLM))
    assert isinstance(model, CobraVLM)
    return model.vision.transform


def _bytes(array: NDArray[np.uint8]) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
