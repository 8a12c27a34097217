"""Weights that learn: those of the parts that a stage names, less what was built frozen."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from torch import nn

from cobra.models.vlm import CobraVLM
from cobra.train.selection import named_modules


class Learning:
    """Thaws and freezes the parts of a model and its objectives, in which some weights always stay frozen.

    Made before anything is thawed, sharded or wrapped: the base that LoRA adapts, or a copy of the model to
    compare with, is known by having been built without gradients.

    Attributes:
        references: modules of the objectives that are frozen as a whole, by their names in `objectives`. They
            stay in evaluation mode.
    """

    def __init__(self, model: CobraVLM, objectives: Sequence[nn.Module]) -> None:
        self.model, self.objectives = model, objectives
        # by what holds them: sharding replaces parameters, and may rename them
        self.frozen = [
            (owner, name)
            for module in (model, *objectives)
            for owner in module.modules()
            for name, parameter in owner.named_parameters(recurse=False)
            if not parameter.requires_grad
        ]
        self.references = {
            f"{number}.{name}": reference
            for number, objective in enumerate(objectives)
            for name, reference in frozen_modules(objective)
        }

    def thaw(self, names: Collection[str], objectives: Collection[int]) -> None:
        """Let what is named of the model (see `named_modules`) and some objectives learn, and no others."""
        for part in self.model.parts().values():
            part.requires_grad_(False).eval()
        for name in names:
            for module in named_modules(self.model, name).values():
                module.requires_grad_(True).train()
        for number, objective in enumerate(self.objectives):
            objective.requires_grad_(number in objectives).train(number in objectives)
        for owner, name in self.frozen:
            getattr(owner, name).requires_grad_(False)
        for reference in self.references.values():
            reference.eval()


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
