"""What a GGUF file says of a language model, by its class: one that is missing cannot be exported."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import singledispatch

import torch
from torch import Tensor

from cobra.export.gguf.file import Value
from cobra.models.lm.base import LanguageModel


@dataclass(frozen=True)
class Part:
    """A tensor of the file.

    Attributes:
        source: name in the model of what it is made of.
        change: makes it of that.
        is_matrix: whether products are taken with it: only those are stored in fewer than 32 bits.
    """

    source: str
    change: Callable[[Tensor], Tensor] = torch.Tensor.detach
    is_matrix: bool = False


@dataclass(frozen=True)
class Description:
    """A language model as llama.cpp knows it.

    Attributes:
        architecture: llama.cpp's name.
        settings: its metadata, without the architecture before each key.
        parts: tensors by their names in the file.
        kept: patterns of names of matrices that are never quantised.
        lacks: what llama.cpp has not of it, in a sentence each.
    """

    architecture: str
    settings: Mapping[str, Value]
    parts: Mapping[str, Part]
    kept: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()

    def metadata(self) -> dict[str, Value]:
        """The settings with their full keys."""
        return {
            "general.architecture": self.architecture,
            **{f"{self.architecture}.{key}": value for key, value in self.settings.items()},
        }


@singledispatch
def described(lm: LanguageModel) -> Description:
    """A language model, which may be on the meta device.

    Raises:
        ValueError: where llama.cpp has none like it, saying which part is unlike.
    """
    raise ValueError(
        f"llama.cpp has no architecture for a {type(lm).__name__}: a GGUF file holds Mamba, Mamba-2, "
        "MobileLLM, or LLaMA, Qwen2, Phi, Phi-3 and StableLM of transformers"
    )


def check_covers(lm: LanguageModel, description: Description) -> None:
    """Refuse a description that leaves a weight of the model out.

    Raises:
        ValueError: naming what is left out.
    """
    names = {name for name, _ in lm.named_parameters()}
    left = sorted(names - {part.source for part in description.parts.values()})
    if left:
        raise ValueError(
            f"llama.cpp's architecture {description.architecture} has no place for {', '.join(left[:3])}"
            f"{' and more' if left[3:] else ''}"
        )
