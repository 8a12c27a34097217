"""Oracles: what fp64 and the reference kernels make of a model of ours."""

from copy import deepcopy

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from cobra.config.build import build
from cobra.data.processor import Processor
from cobra.export.oracle import Oracle, SeenPicture
from cobra.kernels.dispatch import use_backend
from cobra.models.lm.base import LanguageModel
from cobra.models.packed import PackedEmbedding, PackedLinear
from cobra.models.vision.pictures import Pictures
from cobra.models.vlm import CobraVLM

_TOKENS = 17
_SIZE = (72, 96, 3)
# of the model, in fp64: larger ones are compared with nothing
_MOST_BYTES = 4e9


@torch.no_grad()
def oracle_of(lm: LanguageModel, model: CobraVLM | None, processor: Processor | None) -> Oracle | None:
    """The oracle of weights as they are stored; None where they are too many for fp64.

    What it is asked, ids and a picture, is drawn by lot and always the same.

    Args:
        lm: may be quantised.
        model: of which it is a part; None for a language model alone.
        processor: of the model.
    """
    if sum(weight.numel() for weight in lm.state_dict().values()) * 8 > _MOST_BYTES:
        return None
    exact = (deepcopy(lm) if lm.quantized is None else dequantised(lm)).double()
    ids = np.random.default_rng(0).integers(lm.vocab_size, size=_TOKENS)
    with use_backend("reference"):
        logits = exact.head(exact.prefill(exact.embed(torch.from_numpy(ids)[None])))[0]
        seen = None if model is None or processor is None else _seen(model, processor, exact, ids)
    return Oracle(ids, logits.numpy(), seen)


def _seen(model: CobraVLM, processor: Processor, exact: LanguageModel, ids: NDArray[np.int64]) -> SeenPicture:
    pixels = np.random.default_rng(0).integers(256, size=_SIZE).astype(np.uint8)
    picture = processor.transform(Image.fromarray(pixels))
    # the language model is there once already
    sees = deepcopy(model, {id(model.lm): exact}).double()
    tokens = sees.image_tokens(Pictures.stack([picture]))
    embeds = torch.cat([tokens, exact.embed(torch.from_numpy(ids)[None])[0]])
    logits = exact.head(exact.prefill(embeds[None])[:, -1])[0]
    return SeenPicture(pixels, tokens.numpy(), ids, logits.numpy())


def dequantised(lm: LanguageModel) -> LanguageModel:
    """A language model of the weights that packed matrices stand for, in fp32."""
    values = dict(lm.state_dict())
    for name, module in lm.named_modules():
        if isinstance(module, PackedLinear | PackedEmbedding):
            values[f"{name}.weight"] = module.matrix.unpacked(slice(None))
    plain: LanguageModel = build(lm.config())()
    plain.load_state_dict({name: values[name] for name in plain.state_dict()})
    return plain.eval()
