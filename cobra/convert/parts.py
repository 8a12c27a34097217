"""Start parts of a model from published weights."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cobra.convert.checkpoint import Checkpoint, open_checkpoint
from cobra.models.fill import Filling
from cobra.models.quantize import Quantization
from cobra.models.vlm import CobraVLM
from cobra.pretrained import expected_shapes
from cobra.weights.check_fit import check_fit


@dataclass(frozen=True)
class Loaded:
    """What a part of a model has of a checkpoint.

    Attributes:
        part: its name.
        source: the checkpoint; "" where the part keeps what it was built with.
        layout: of the checkpoint.
        tensors: that were copied.
        parameters: numbers in them.
        dtype: of the checkpoint's, and of the model's where it is another.
        left: other parts that the checkpoint holds, and what this one has of none.
    """

    part: str
    source: str = ""
    layout: str = ""
    tensors: int = 0
    parameters: int = 0
    dtype: str = ""
    left: str = ""


def load_parts(
    model: CobraVLM, weights: Mapping[str, str], quantization: Quantization = "none", group_size: int = 32
) -> list[Loaded]:
    """Copy published weights into parts of a model, in the model's dtype, and say of each part what it has.

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
    loaded = []
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
        loaded.append(_loaded(part, source, checkpoint, state))
    return [*loaded, *(_kept(part, module) for part, module in parts.items() if part not in weights)]


def _loaded(part: str, source: str, checkpoint: Checkpoint, state: Mapping[str, Tensor]) -> Loaded:
    tensors = checkpoint.part(part)
    theirs, ours = (
        "/".join(sorted({str(t.dtype).removeprefix("torch.") for t in held}))
        for held in (tensors.values(), (state[name] for name in tensors if name in state))
    )
    # matrices that were packed while they were read
    ours += ", packed" if set(tensors) - set(state) else ""
    others = sorted({name.partition(".")[0] for name in checkpoint.tensors} - {part})
    return Loaded(
        part,
        source,
        checkpoint.layout.title,
        len(tensors),
        sum(math.prod(tensor.shape) for tensor in tensors.values()),
        theirs if theirs == ours else f"{theirs} as {ours}",
        f"its {', '.join(others)}" if others else "",
    )


def _kept(part: str, module: nn.Module) -> Loaded:
    """A part that nothing is loaded into: an encoder may bring published weights of its own."""
    return Loaded(part, parameters=sum(p.numel() for p in module.parameters()), left="all: as it was built")
