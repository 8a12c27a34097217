"""Engine: a language model in transformers' own classes, for a process of its own."""

from collections.abc import Sequence
from copy import deepcopy
from inspect import signature
from pathlib import Path
from typing import Any

import cobra.export.engines.plain_transformers  # noqa: F401  (before transformers)

import numpy as np  # isort: skip
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoModelForCausalLM, DynamicCache, __version__
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from cobra.export.engine import Engine, Floats, Ids


class TransformersEngine(Engine):
    """A causal language model of transformers, called as its `generate` calls it.

    Args:
        folder: config.json and weights as transformers writes them.
    """

    version = __version__

    def __init__(self, folder: Path) -> None:
        disable_progress_bar()
        # it would say that faster kernels are missing, which is what is wanted
        set_verbosity_error()
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        config = self.model.config
        self.vocab_size = config.vocab_size
        self.eos_id = config.eos_token_id if isinstance(config.eos_token_id, int) else 0
        known = signature(self.model.forward).parameters
        # what computes with positions packs by them, too: texts begin where they restart
        self.has_positions = "position_ids" in known
        self.cache_name = next(name for name in ("cache", "past_key_values", "cache_params") if name in known)
        self.lacks = {
            "pictures": "a language model alone",
            "dequantised": "its weights are not quantised",
        }
        if not self.has_positions:
            self.lacks["packed"] = "takes nothing that tells packed texts apart"
        self.reset()

    def reset(self) -> None:
        """A new cache."""
        self.cache: Any = DynamicCache(config=self.model.config)
        self.read = 0

    def prefill(self, tokens: Ids | Floats) -> Floats:
        """A forward pass that goes on from the cache."""
        given = torch.from_numpy(np.ascontiguousarray(tokens))[None]
        name = "inputs_embeds" if given.is_floating_point() else "input_ids"
        positions = torch.arange(self.read, self.read + given.shape[1])[None]
        self.read += given.shape[1]
        return self._call(self.cache, positions, **{name: given})[0, -1]

    def step(self, token: int) -> Floats:
        """A forward pass of one token."""
        return self.prefill(np.array([token]))

    def snapshot(self) -> Any:
        """A copy of the cache, which has no method for it."""
        return deepcopy(self.cache), self.read

    def restore(self, snapshot: Any) -> None:
        """A copy of that."""
        self.cache, self.read = deepcopy(snapshot)

    @torch.no_grad()
    def embed(self, ids: Ids) -> Floats:
        """Rows of its embedding."""
        return self.model.get_input_embeddings()(torch.from_numpy(ids)).numpy()

    def prefill_rows(self, ids: Ids, mask: NDArray[np.bool_] | None = None) -> Floats:
        """A forward pass with an attention mask."""
        kept = torch.ones(ids.shape, dtype=torch.int64) if mask is None else torch.from_numpy(mask).long()
        self.rows, self.kept = DynamicCache(config=self.model.config), kept
        positions = (kept.cumsum(1) - 1).clamp(min=0)
        more = {} if mask is None else {"attention_mask": kept}
        logits = self._call(self.rows, positions, input_ids=torch.from_numpy(ids), **more)
        last = (kept * torch.arange(kept.shape[1])).argmax(1).numpy()
        return logits[np.arange(len(logits)), last]

    def step_rows(self, tokens: Ids) -> Floats:
        """A forward pass with the mask of all tokens so far, where attention reads them."""
        self.kept = torch.cat([self.kept, self.kept.new_ones(len(tokens), 1)], 1)
        more = {"attention_mask": self.kept} if self.has_positions and not self.kept.all() else {}
        positions = self.kept.sum(1, keepdim=True) - 1
        return self._call(self.rows, positions, input_ids=torch.from_numpy(tokens)[:, None], **more)[:, -1]

    def prefill_packed(self, texts: Sequence[Ids]) -> list[Floats]:
        """A forward pass with positions that restart, and without a cache."""
        lengths = [len(text) for text in texts]
        positions = torch.cat([torch.arange(length) for length in lengths])[None]
        ids = torch.from_numpy(np.concatenate(texts))[None]
        logits = self._call(None, positions, input_ids=ids)[0]
        return [logits[end - 1] for end in np.cumsum(lengths)]

    @torch.no_grad()
    def _call(self, cache: Any, positions: Tensor, **inputs: Tensor) -> NDArray[np.float32]:
        more: dict[str, Any] = {"position_ids": positions} if self.has_positions else {}
        if cache is not None:
            more[self.cache_name] = cache
        return self.model(**inputs, **more, use_cache=cache is not None).logits.numpy()
