"""Engine: llama.cpp on GGUF files; no PyTorch."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cobra.export.engine import Engine, Floats, Ids
from cobra.export.gguf.context import Context, open_weights
from cobra.export.gguf.device import Device, Placement, check_scan
from cobra.export.gguf.embedding import embedding_rows
from cobra.export.gguf.llama import VERSION, bindings
from cobra.export.gguf.picture import PictureProgram
from cobra.export.gguf.quantize import dequantize
from cobra.export.manifest import check_at_start
from cobra.export.oracle import ORACLE, Oracle
from cobra.export.pixels import planes_in, read_pixels

_TARGET = "gguf"
# in an export folder: the language model, encoder and projector
LANGUAGE_MODEL, PICTURES = "lm.gguf", "pictures.gguf"
# relative RMS of logits by the precision of weights; quantised products round activations to 8 bits
UNQUANTISED = {"f32": 1e-5, "f16": 2e-3}
_QUANTISED = 5e-2
# by Vulkan, which sums up several rows in fp16: measured up to 2.2e-2, and 4.9e-2 in q4_k_m
_HALF_PRODUCTS, _QUANTISED_HALF_PRODUCTS = 5e-2, 1e-1
# measured up to 4e-4 from the second token on, also with products in fp32
_ATTENTION_BY_VULKAN = 1e-3
# sequences that are read beside each other
_ROWS = 8
# GGML_MAX_N_THREADS, above which ggml ends the process or never ends
_MOST_THREADS = 512


class GGUFEngine(Engine):
    """A language model that llama.cpp runs, and the encoder and projector before it, which ggml does.

    Args:
        folder: what `cobra export --target gguf` wrote.
        context: tokens that a transformer has room for; a state-space model needs none.
        threads: of a product; None takes OMP_NUM_THREADS, or as many as there are CPUs.
        device: that the language model runs on; None is the CPU, which reads pictures in any case.
        more: see `Context`.

    Raises:
        OSError: where one of its files is missing.
        ValueError: where one is damaged, or the export is for another runtime.
    """

    version = f"llama-cpp-python {VERSION}"

    def __init__(
        self,
        folder: Path,
        context: int = 4096,
        threads: int | None = None,
        device: Device | None = None,
        **more: Any,
    ) -> None:
        self.folder, self._length, self._device, self._more = folder, context, device, more
        manifest = check_at_start(folder)
        if manifest.target != _TARGET:
            raise ValueError(f"{folder} is an export for {manifest.target}, and this engine runs {_TARGET}")
        self.vocab_size, self.d_model = (manifest.setting(name, int) for name in ("vocab_size", "d_model"))
        # a language model alone may have no tokenizer, and then ends nowhere
        ends = "eos_id" in manifest.contents.settings
        self.eos_id = manifest.setting("eos_id", int) if ends else -1
        self.rounding = UNQUANTISED.get(manifest.quant, _QUANTISED)
        if device is not None:
            self.version += f" on {device.description}"
            self.rounding = _vulkan_rounding(manifest.quant)
        self.lacks = {"mask": "llama.cpp has no padding"}
        if not ends:
            self.lacks["end"] = "without a tokenizer no token ends a text"
        if manifest.quant in UNQUANTISED:
            self.lacks["dequantised"] = "its weights are not quantised"
        self._threads = threads or _threads_said() or min(os.cpu_count() or 1, _MOST_THREADS)
        if (folder / PICTURES).is_file():
            self._planes = planes_in(manifest)
        else:
            self.lacks["pictures"] = "encoder or projector are not in this export"
        self._set(folder / LANGUAGE_MODEL, manifest.quant == "f32")
        # what a GPU cannot run is refused at once
        if device is not None and not self._opened().recurrent:
            self.rounding = max(self.rounding, _ATTENTION_BY_VULKAN)

    def _set(self, path: Path, exact: bool) -> None:
        """The language model's file; it and the pictures' are opened when they are needed."""
        self._path, self._exact = path, exact
        self._pictures: PictureProgram | None = None
        self._weights: Any = None
        self._one: Context | None = None
        self._many: Context | None = None
        # what was read before the language model was closed
        self._read: NDArray[np.uint8] | None = None

    def _opened(self) -> Context:
        """The sequence that is read."""
        if self._one is None:
            self._weights = open_weights(self._path, self._device)
            if self._device is not None:
                check_scan(self._device, self._weights)
            settings = (self._length, 1, self._threads, self._exact)
            self._one = Context(self._weights, *settings, **self._more)
            if self._read is not None:
                self._one.restore(self._read)
                self._read = None
        return self._one

    def turn_to(self, pictures: bool) -> None:
        """See `Engine.turn_to`: one of the two files is in memory, and of the other what was read."""
        if pictures:
            if self._one is not None:
                self._read = self._one.snapshot()
            self._close_text()
            self._program()
        else:
            self._close_pictures()
            self._opened()

    def _program(self) -> PictureProgram:
        if self._pictures is None:
            self._pictures = PictureProgram(self.folder / PICTURES, self._threads)
        return self._pictures

    def reset(self) -> None:
        """See `Engine.reset`."""
        self._read = None
        if self._one is not None:
            self._one.reset()

    def prefill(self, tokens: Ids | Floats) -> Floats:
        """See `Engine.prefill`."""
        return self._opened().read(tokens)

    def step(self, token: int) -> Floats:
        """See `Engine.step`."""
        return self._opened().read(np.array([token]))

    def snapshot(self) -> NDArray[np.uint8]:
        """See `Engine.snapshot`; empty where nothing was read."""
        return self._opened().snapshot()

    def restore(self, snapshot: NDArray[np.uint8]) -> None:
        """See `Engine.restore`."""
        self._opened().restore(snapshot)

    def placement(self, ids: Ids) -> Mapping[str, Mapping[str, int]]:
        """How many operations of each kind ran where, in reading a text from nothing; see `Placement`."""
        placement, settings = Placement(), (self._length, 1, self._threads, self._exact)
        self._opened()
        context = Context(self._weights, *settings, seen=placement.count, **self._more)
        context.read(ids)
        context.close()
        return {place: dict(kinds) for place, kinds in placement.counts.items()}

    def oracle(self) -> Oracle | None:
        """See `Engine.oracle`; of weights that were not quantised."""
        return oracle_in(self.folder)

    def close(self) -> None:
        """See `Engine.close`."""
        self._close_pictures()
        self._close_text()

    def _close_pictures(self) -> None:
        if self._pictures is not None:
            self._pictures.close()
            self._pictures = None

    def _close_text(self) -> None:
        for context in filter(None, (self._one, self._many)):
            context.close()
        self._one = self._many = None
        if self._weights:
            bindings().llama_model_free(self._weights)
            self._weights = None

    def read_pictures(self, paths: Sequence[Path]) -> list[Floats]:
        """See `Engine.read_pictures`."""
        program = self._program()
        return [program(*read_pixels(self._planes, path)) for path in paths]

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
        self._opened()
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
        self.vocab_size, self.d_model = packed.vocab_size, packed.d_model
        self._length, self._threads = packed._length, packed._threads
        self._device, self._more = packed._device, packed._more
        self.lacks = {**packed.lacks, "pictures": "not read", "dequantised": "its weights are not quantised"}
        self._set(path, exact=True)

    def close(self) -> None:
        super().close()
        self._folder.cleanup()


def _threads_said() -> int:
    """Of OMP_NUM_THREADS, which may be a list by depth of nesting; 0 where it is not set."""
    said = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip() or "0"
    if not (said.isdecimal() and int(said) <= _MOST_THREADS):
        raise ValueError(f"OMP_NUM_THREADS is {said}: set it to a number of threads up to {_MOST_THREADS}")
    return int(said)


def _vulkan_rounding(quant: str) -> float:
    """Shaders multiply in fp16, and what is quantised in 8-bit integers, where a GPU can and may."""
    if "GGML_VK_DISABLE_F16" in os.environ and (
        quant in UNQUANTISED or "GGML_VK_DISABLE_INTEGER_DOT_PRODUCT" in os.environ
    ):
        return UNQUANTISED["f32"]
    return _HALF_PRODUCTS if quant in UNQUANTISED else _QUANTISED_HALF_PRODUCTS


def oracle_in(folder: Path) -> Oracle | None:
    """What an export's folder says that exact arithmetic makes of its weights; None where it does not."""
    return Oracle.read(folder / ORACLE) if (folder / ORACLE).is_file() else None
