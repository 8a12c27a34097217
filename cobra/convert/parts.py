"""Start parts of a model from published weights."""

from collections.abc import Mapping

import torch

from cobra.convert.checkpoint import open_checkpoint
from cobra.models.fill import Filling
from cobra.models.quantize import Quantization
from cobra.models.vlm import CobraVLM
from cobra.pretrained import expected_shapes
from cobra.weights.check_fit import check_fit


def load_parts(
    model: CobraVLM, weights: Mapping[str, str], quantization: Quantization = "none", group_size: int = 32
) -> None:
    """Copy published weights into parts of a model, in the model's dtype.

    Args:
        model: on a real device and not sharded.
        weights: part (vision, projector, lm) to a folder, a file of weights or a hub repository, in any
            layout that `cobra convert` reads.
        quantization: of the language model, if it is among them: its matrices, which may be on the meta
            device, are packed while they are read; see `quantize_`.
        group_size: see `quantize_`.

    Raises:
        OSError: where a checkpoint is not there.
        ValueError: where it does not fit the part, naming what is missing, unexpected and mis-shaped.
    """
    parts = model.parts()
    unknown = sorted(set(weights) - set(parts))
    if unknown:
        raise ValueError(f"weights are given for unknown parts {unknown}: {list(parts)}")
    for part, source in weights.items():
        checkpoint = open_checkpoint(source)
        tensors = checkpoint.part(part)
        if not tensors:
            raise ValueError(f"{source} ({checkpoint.layout.title}) holds no weights of {part}")
        found = {name: tensor.shape for name, tensor in tensors.items()}
        check_fit(expected_shapes(parts[part]), found, f"{source} does not fit the {part} of this model")
        if part == "lm" and quantization != "none":
            filling = Filling(model.lm, tensors, checkpoint.source.path, torch.device("cpu"))
            filling.quantize(model.lm, quantization, group_size)
            tensors = filling.weights
        state = parts[part].state_dict()
        if any(tensor.is_meta for tensor in state.values()):
            raise ValueError(
                f"{part} is on the meta device, where {source} cannot be loaded: choose a strategy "
                "that builds the model on a real one"
            )
        with torch.no_grad():
            for name, tensor in tensors.items():
                state[name].copy_(tensor.read())
