"""Models that are built without memory and filled from stored weights, one tensor at a time."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cobra.kernels import huge_pages
from cobra.models.lm.base import LanguageModel
from cobra.models.quantize import Quantization, quantize_
from cobra.weights.is_finite import is_finite
from cobra.weights.tensors import Stored


class Filling:
    """Stored weights on their way into a model: at no time is there more than the model and one of them.

    Args:
        model: its parameters, or what stands for packed ones, on the meta device; see `parameters_on_meta`.
            Their dtypes are those that they get.
        weights: by their names in the model; a tied one under one of its names.
        path: where they come from, for messages.
        device: where they go.

    Raises:
        ValueError: where values are not finite, or of another kind than they should be, naming them.
    """

    def __init__(
        self, model: nn.Module, weights: Mapping[str, Stored], path: Path, device: torch.device
    ) -> None:
        self.model, self.weights, self.path, self.device = model, dict(weights), path, device

    def quantize(self, lm: LanguageModel, quantization: Quantization, group_size: int) -> None:
        """Pack the weights of a part of the model while they are read, from what is stored."""
        if quantization == "none":
            return
        state = self.model.state_dict(keep_vars=True)
        names = {id(weight): name for name, weight in state.items() if name in self.weights}

        def read(weight: Tensor) -> Tensor:
            name = names[id(weight)]
            return self._checked(name, self._stored(name, weight.dtype).read().to(self.device))

        quantize_(lm, quantization, group_size, read)

    def finish(self) -> None:
        """Read what is left."""
        places: dict[int, list[tuple[dict[str, Any], str]]] = {}
        for holder, name, tensor in _holders(self.model):
            places.setdefault(id(tensor), []).append((holder, name))
        for name, empty in self.model.state_dict(keep_vars=True).items():
            if name not in self.weights:
                continue
            stored = self._stored(name, empty.dtype)
            is_parameter = isinstance(empty, nn.Parameter)
            # packed weights are buffers, and lie where packing would have put them
            make = torch.empty if is_parameter else huge_pages.zeros
            values = make(tuple(empty.shape), dtype=empty.dtype, device=self.device)
            self._checked(name, values.copy_(stored.read()))
            made = nn.Parameter(values, empty.requires_grad) if is_parameter else values
            # marks, e.g. of what is not decayed
            made.__dict__.update(empty.__dict__)
            for holder, key in places[id(empty)]:
                holder[key] = made

    def _stored(self, name: str, dtype: torch.dtype) -> Stored:
        stored = self.weights.pop(name)
        if stored.dtype.is_floating_point != dtype.is_floating_point:
            raise ValueError(
                f"{self.path} holds {name} in {stored.dtype}, which cannot stand for {dtype}: get the file "
                "again"
            )
        return stored

    def _checked(self, name: str, values: Tensor) -> Tensor:
        if not is_finite(values):
            raise ValueError(
                f"{self.path} holds values in {name} that are not finite: training diverged, the file is "
                f"damaged, or {values.dtype} is too narrow; take an earlier checkpoint"
            )
        return values


def _holders(model: nn.Module) -> Iterator[tuple[dict[str, Any], str, Tensor]]:
    """Where a module keeps each parameter and buffer, those that are shared more than once."""
    for module in model.modules():
        for holder in (module._parameters, module._buffers):
            for name, tensor in holder.items():
                if tensor is not None:
                    yield holder, name, tensor
