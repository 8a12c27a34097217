"""Weights that stay as they are although a stage trains what holds them: LoRA's base, a copy of the model."""

from collections.abc import Iterator
from typing import Any

from torch import nn

# A parameter by what holds it and its name there: sharding replaces parameters, and may rename them.
Place = tuple[nn.Module, str]


def frozen_places(module: nn.Module) -> list[Place]:
    """The parameters that a module, as it was built, wants untrained."""
    return [
        (owner, name)
        for owner in module.modules()
        for name, parameter in owner.named_parameters(recurse=False)
        if not parameter.requires_grad
    ]


def keep_frozen(places: list[Place]) -> None:
    """Freeze parameters again, after what holds them was thawed as a whole."""
    for owner, name in places:
        getattr(owner, name).requires_grad_(False)


def frozen_modules(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The largest modules inside one that hold parameters, none of which it wants trained, by name."""
    for name, child in module.named_children():
        wanted = [parameter.requires_grad for parameter in child.parameters()]
        if wanted and not any(wanted):
            yield prefix + name, child
        else:
            yield from frozen_modules(child, f"{prefix}{name}.")


def leave_out(module: nn.Module, names: list[str]) -> None:
    """Keep what is named out of a module's state, and out of what a state that it loads must hold."""
    prefixes = tuple(f"{name}." for name in names)

    def drop(_: nn.Module, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        for name in [name for name in state if name.startswith(tuple(prefix + p for p in prefixes))]:
            del state[name]

    def excuse(_: nn.Module, keys: Any) -> None:
        keys.missing_keys[:] = [name for name in keys.missing_keys if not name.startswith(prefixes)]

    module.register_state_dict_post_hook(drop)
    module.register_load_state_dict_post_hook(excuse)
