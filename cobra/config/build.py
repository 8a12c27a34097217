"""Components from class_path trees, which need not be trusted."""

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from cobra.config.check_arguments import check_arguments
from cobra.config.class_paths import MODELS, check_class_paths
from cobra.models.component import Component


def build(tree: dict) -> Callable[..., Any]:
    """The factory of a component that a class_path tree describes; all of it is checked before any import.

    Raises:
        ValueError: where a class is foreign, unknown or no component, or cannot have its arguments.
    """
    check_class_paths(tree, (MODELS,))
    return _factory(tree)


def _factory(tree: dict) -> Callable[..., Any]:
    """A component's constructor with its arguments; nested components are factories in turn."""
    module, _, name = str(tree.get("class_path")).rpartition(".")
    try:
        made = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{tree.get('class_path')!r} cannot be found ({error}): a newer version's?"
        ) from error
    if not (isinstance(made, type) and issubclass(made, Component)):
        raise ValueError(f"{module}.{name} is not allowed: it is no component of a model")
    arguments = tree.get("init_args", {})
    check_arguments(made, arguments)
    return partial(made, **{key: _argument(value) for key, value in arguments.items()})


def _argument(value: Any) -> Any:
    if isinstance(value, dict) and "class_path" in value:
        return _factory(value)
    return [_argument(item) for item in value] if isinstance(value, list) else value


def build_on_meta(tree: dict, max_tensors: int | None = None, is_ours: bool = False) -> Component:
    """The component that a class_path tree describes, without weights.

    Args:
        tree: plain data, which need not be trusted.
        max_tensors: stop where it makes more parameters; None trusts its numbers of layers.
        is_ours: it describes a component that this process has made, of whatever classes.

    Raises:
        ValueError: where a class is foreign, unknown or no component, or its arguments do not fit.
    """
    factory = _factory(tree) if is_ours else build(tree)
    try:
        with torch.device("meta"), _at_most(max_tensors):
            return factory()
    except (ValueError, OSError):
        raise
    # a size may be a word, zero, negative or astronomical, and each module fails in its own way on it
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{tree['class_path']} has arguments that do not fit: {reason}") from error


@contextmanager
def _at_most(max_tensors: int | None) -> Iterator[None]:
    """Within it no more parameters can be made, in all modules together."""
    made = 0

    def count(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
        nonlocal made
        made += 1
        if max_tensors is not None and made > max_tensors:
            raise ValueError(f"it makes more than {max_tensors} parameters, far more than the weights are")

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()
