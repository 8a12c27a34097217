"""Engine: this project's own models on its own kernels, a model folder as it is."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

import cobra
from cobra.config.config_json import CONFIG, LM, read_config
from cobra.data.processor import Processor
from cobra.export.engine import Engine, Floats, Ids
from cobra.export.engines.exact import dequantised, oracle_of
from cobra.export.oracle import Oracle
from cobra.kernels.step_graph import StepGraph
from cobra.models.lm.base import LanguageModel
from cobra.models.lm.state import State
from cobra.models.quantize import Quantization
from cobra.models.vision.pictures import Pictures
from cobra.models.vlm import CobraVLM
from cobra.pretrained import from_pretrained, lm_from_pretrained

# tokens that a transformer's state has room for
_ROOM = 1024
# what they are multiplied with is rounded to 16 bits (`linear_w8`, `linear_w4`)
_ROUNDING = {"int8": 1e-3, "int4": 1e-3}


class OwnEngine(Engine):
    """A language model, and what it sees with, if anything.

    Args:
        lm: in evaluation mode, on the CPU.
        model: of which `lm` is a part; None for a language model alone.
        processor: of that model.
        eos_id: ends a text.
    """

    version = cobra.__version__

    def __init__(
        self,
        lm: LanguageModel,
        model: CobraVLM | None = None,
        processor: Processor | None = None,
        eos_id: int = 0,
    ) -> None:
        self.lm, self.model, self.processor = lm, model, processor
        self.vocab_size, self.eos_id = lm.vocab_size, eos_id
        self.lacks = {}
        if model is None:
            self.lacks["pictures"] = "a language model alone"
        if lm.quantized is None:
            self.lacks["dequantised"] = "its weights are not quantised"
        else:
            self.rounding = _ROUNDING.get(lm.quantized["quantization"], self.rounding)
        self.state = lm.allocate_state(1, _ROOM)
        self.rows: State | None = None
        # kernels are recorded once and replayed on the state's memory, as decoding does
        self._step = StepGraph(lambda token: lm.head(lm.step(lm.embed(token[:, None])[:, 0], self.state)))

    def reset(self) -> None:
        """See `Engine`, as for the others."""
        self.state.reset()

    @torch.no_grad()
    def prefill(self, tokens: Ids | Floats) -> Floats:
        """Through `LanguageModel.prefill`."""
        return self._logits(self.lm.prefill(self._embeds(tokens)[None], self.state)[:, -1])[0]

    @torch.no_grad()
    def step(self, token: int) -> Floats:
        """Through `LanguageModel.step`, its kernels replayed from the third on."""
        self.state.check_room(int(self.state.lengths.max()) + 1)
        return self._step(torch.tensor([token])).float().numpy()[0].copy()

    def snapshot(self) -> State:
        """A copy of the state."""
        return self.state.clone()

    def restore(self, snapshot: State) -> None:
        """Into the same memory, which the recorded kernels read."""
        self.state.copy_from(snapshot)

    @torch.no_grad()
    def read_pictures(self, paths: Sequence[Path]) -> list[Floats]:
        """All in one batch."""
        assert self.model is not None
        assert self.processor is not None
        pictures = []
        for path in paths:
            with Image.open(path) as image:
                pictures.append(self.processor.transform(image.convert("RGB")))
        tokens = self.model.image_tokens(Pictures.stack(pictures))
        counts = [self.model.num_image_tokens(picture.layout) for picture in pictures]
        return [part.float().numpy() for part in tokens.split(counts)]

    @torch.no_grad()
    def embed(self, ids: Ids) -> Floats:
        """Through `LanguageModel.embed`."""
        return self._embeds(ids).float().numpy()

    @torch.no_grad()
    def prefill_rows(self, ids: Ids, mask: NDArray[np.bool_] | None = None) -> Floats:
        """Through `LanguageModel.prefill`."""
        self.rows = self.lm.allocate_state(len(ids), _ROOM)
        kept = torch.ones(ids.shape, dtype=torch.bool) if mask is None else torch.from_numpy(mask)
        hidden = self.lm.prefill(self._embeds(ids), self.rows, None if mask is None else kept)
        last = (kept * torch.arange(kept.shape[1])).argmax(1)
        return self._logits(hidden[torch.arange(len(hidden)), last])

    @torch.no_grad()
    def step_rows(self, tokens: Ids) -> Floats:
        """Through `LanguageModel.step`."""
        assert self.rows is not None
        return self._logits(self.lm.step(self._embeds(tokens[:, None])[:, 0], self.rows))

    @torch.no_grad()
    def prefill_packed(self, texts: Sequence[Ids]) -> list[Floats]:
        """Through `seq_idx` of `LanguageModel.prefill`."""
        lengths = [len(text) for text in texts]
        seq_idx = torch.from_numpy(np.repeat(np.arange(len(texts), dtype=np.int32), lengths))[None]
        hidden = self.lm.prefill(self._embeds(np.concatenate(texts))[None], seq_idx=seq_idx)
        return list(self._logits(hidden[0, np.cumsum(lengths) - 1]))

    def dequantised(self) -> "OwnEngine":
        """The same with plain linears and embeddings of what the packed ones hold."""
        return OwnEngine(dequantised(self.lm), eos_id=self.eos_id)

    def oracle(self) -> Oracle | None:
        """In fp64 by the reference kernels."""
        return oracle_of(self.lm, self.model, self.processor)

    def _embeds(self, tokens: Ids | Floats) -> Tensor:
        given = torch.from_numpy(np.ascontiguousarray(tokens))
        if given.is_floating_point():
            return given.to(next(self.lm.parameters()).dtype)
        ids = given.long()
        return self.lm.embed(ids) if ids.dim() == 2 else self.lm.embed(ids[None])[0]

    def _logits(self, hidden: Tensor) -> Floats:
        return self.lm.head(hidden).float().numpy()


def open_own(folder: Path, quantization: Quantization = "none") -> OwnEngine:
    """The engine of a model folder, or of a language model's."""
    if is_language_model(folder):
        return OwnEngine(lm_from_pretrained(folder, quantization=quantization))
    model, processor = from_pretrained(folder, quantization=quantization)
    return OwnEngine(model.lm, model, processor, processor.chat.eos_id)


def open_int8(folder: Path) -> OwnEngine:
    """The same with the language model in 8 bits."""
    return open_own(folder, "int8")


def open_int4(folder: Path) -> OwnEngine:
    """The same with the language model in 4 bits."""
    return open_own(folder, "int4")


def is_language_model(folder: Path) -> bool:
    """Whether a folder holds a language model alone."""
    config = folder / CONFIG
    return config.is_file() and read_config(config).get("model_type") == LM
