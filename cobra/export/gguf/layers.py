"""Hidden states behind each layer of a language model, as llama.cpp computes them."""

from pathlib import Path

import numpy as np

from cobra.export.engine import Floats, Ids
from cobra.export.gguf.context import Context, open_weights
from cobra.export.gguf.ggml import ggml
from cobra.export.gguf.llama import bindings

# what llama.cpp calls the sum behind a layer
_LAYER = b"l_out-"


def layer_outputs(path: Path, ids: Ids, threads: int = 1) -> tuple[list[Floats], Floats]:
    """Hidden states (T, D) behind each layer, the last one's (1, D) behind the last token; its logits (V,).

    Args:
        path: a language model's file.
        ids: token ids (T,).
        threads: of a product.
    """
    found: list[Floats] = []

    def seen(tensor: int, asks: bool, _: int) -> bool:
        is_layer = ggml().get_name(tensor).startswith(_LAYER)
        if is_layer and not asks:
            values = np.empty(ggml().nelements(tensor), np.float32)
            ggml().backend_tensor_get(tensor, values.ctypes.data, 0, values.nbytes)
            found.append(values)
        return is_layer or not asks

    weights = open_weights(path)
    context = Context(weights, len(ids), 1, threads, exact=True, seen=seen)
    logits = context.read(ids)
    layers = [values.reshape(-1, context.d_model) for values in found]
    context.close()
    bindings().llama_model_free(weights)
    return layers, logits
