"""Groups of parameters that an optimizer treats alike."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from cobra.models.lm.init import is_time_scale
from cobra.models.vlm import CobraVLM

# what sharding, checkpointing and compiling put into parameter names
_WRAPPERS = re.compile(r"_(fsdp_wrapped_module|checkpoint_wrapped_module|orig_mod)\.")


def decayed_names(module: nn.Module) -> set[str]:
    """Names of the parameters with weight decay; ask before any sharding, which takes shapes and marks."""
    return {name for name, p in module.named_parameters() if p.requires_grad and _decays(p)}


def hidden_matrices(model: CobraVLM, parts: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """The linear weights in some of a model's parts, with the rows of the matrices that each stacks.

    By their names from the module that holds `model`. Not those that make logits: as an embedding's they
    stand for words.
    """
    return {
        f"model.{part}.{name}.weight": getattr(layer.weight, "_stacked_rows", (layer.out_features,))
        for part in parts
        for name, layer in model.parts()[part].named_modules()
        if isinstance(layer, nn.Linear) and layer.out_features != model.lm.vocab_size
    }


def group_parameters(
    module: nn.Module, decayed: set[str], muon: Mapping[str, tuple[int, ...]]
) -> list[dict[str, Any]]:
    """An optimizer's groups of what is trained, each with its `part` of the model, `decays` and `muon`.

    Args:
        module: whose parameters.
        decayed: names of those with weight decay.
        muon: of those that Muon steps, the rows of the matrices that they stack (`hidden_matrices`).
    """
    trained = {_WRAPPERS.sub("", name): p for name, p in module.named_parameters()}
    unknown = sorted((decayed | set(muon)) - set(trained))
    assert not unknown, f"parameters were renamed: {unknown[:3]}"
    kinds: dict[tuple[str, bool, tuple[int, ...] | None], list[nn.Parameter]] = {}
    for name, parameter in trained.items():
        if parameter.requires_grad:
            kinds.setdefault((_part(name), name in decayed, muon.get(name)), []).append(parameter)
    return [
        {"params": parameters, "part": part, "decays": decays, "muon": rows}
        for (part, decays, rows), parameters in kinds.items()
    ]


def _part(name: str) -> str:
    """The part of the model that a parameter is in: `lm` of `model.lm.norm_f.weight`; "" for objectives."""
    module, part, *_ = name.split(".")
    return part if module == "model" else ""


def _decays(parameter: nn.Parameter) -> bool:
    return parameter.ndim > 1 and not is_time_scale(parameter)
