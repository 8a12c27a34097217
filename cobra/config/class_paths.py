"""Classes that a yaml or a config.json may name.

jsonargparse imports whatever a class path says and calls it. Everything is denied here but this project, the
parts of torch and Lightning that belong in a training yaml, and packages that the user allows by name in
COBRA_ALLOW (comma-separated). A path is checked before it is imported; what it names must be a class.
"""

import importlib
import inspect
import os
from collections.abc import Iterable
from functools import partial
from typing import Any

# What a saved model may be made of.
MODELS = "cobra.models"
# What a yaml may name.
ALLOWED = ("cobra", "torch.optim", "lightning.pytorch", "lightning.fabric")


def restrict_imports() -> None:
    """Let jsonargparse, in all of this process, import only what a yaml may name."""
    from jsonargparse import set_parsing_settings

    set_parsing_settings(import_path_denylist=["*"], import_path_allowlist=[*ALLOWED, *_user_packages()])


def check_class_paths(tree: Any, allowed: tuple[str, ...] = ALLOWED) -> None:
    """Refuse plain data that names a foreign class anywhere; nothing is imported.

    Raises:
        ValueError: naming the class path and the remedy.
    """
    if isinstance(tree, dict):
        path = tree.get("class_path")
        if path is not None and not is_under(path, (*allowed, *_user_packages())):
            raise ValueError(
                f"class path {path!r} is not allowed: expected one under {', '.join(allowed)}; if you trust "
                f"its package, name it in the environment variable COBRA_ALLOW"
            )
    for child in _children(tree):
        check_class_paths(child, allowed)


def refuse_functions(tree: Any) -> None:
    """Refuse parsed data that would call anything but a class, e.g. a command of this very project.

    Raises:
        ValueError: naming the function.
    """
    named = tree.get("class_path") if isinstance(tree, dict) else None
    if isinstance(named, str):
        module, _, name = named.rpartition(".")
        named = getattr(importlib.import_module(module), name)
    for value in (named, tree):
        if inspect.isroutine(value) or isinstance(value, partial):
            raise ValueError(f"{value!r} is not allowed: name a class, not a function")
    for child in _children(tree):
        refuse_functions(child)


def _children(tree: Any) -> Iterable[Any]:
    return tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list | tuple) else ()


def is_under(path: Any, prefixes: tuple[str, ...]) -> bool:
    """Whether a class path is in one of these packages."""
    return isinstance(path, str) and any(path.startswith(f"{prefix}.") for prefix in prefixes)


def _user_packages() -> list[str]:
    return [name.strip() for name in os.environ.get("COBRA_ALLOW", "").split(",") if name.strip()]
