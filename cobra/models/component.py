"""Modules that remember the arguments they were built with."""

import inspect
from typing import Any

from torch import nn


class Component(nn.Module):
    """An nn.Module that can write down how it was built: the class path and its arguments.

    The pair is what a yaml holds and what config.json keeps, so a model saved from Python and one trained
    from a yaml are loaded by the same code.
    """

    init_args: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> "Component":
        """Bind the constructor's arguments before it runs (copy and pickle call this without any)."""
        self = super().__new__(cls)
        bound = inspect.signature(cls.__init__).bind_partial(self, *args, **kwargs)
        # defaults too: they are part of what the weights were trained with
        bound.apply_defaults()
        # straight into __dict__: nn.Module.__setattr__ needs __init__ first and would register nested modules
        self.__dict__["init_args"] = dict(list(bound.arguments.items())[1:])
        return self

    def config(self) -> dict[str, Any]:
        """`{"class_path": ..., "init_args": {...}}`, JSON-serialisable, nested components included."""
        path = f"{type(self).__module__}.{type(self).__qualname__}"
        return {"class_path": path, "init_args": {name: _plain(v) for name, v in self.arguments().items()}}

    def arguments(self) -> dict[str, Any]:
        """The constructor's arguments; a component that takes factories gives what they made instead."""
        return self.init_args


def _plain(value: Any) -> Any:
    if isinstance(value, Component):
        return value.config()
    if isinstance(value, list | tuple | nn.ModuleList):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a component's argument must be plain data or a component, got {value!r}")
