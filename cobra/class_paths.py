"""Which classes a yaml or a config.json may name.

jsonargparse imports whatever a class path says and calls it. Everything is denied here but this project, the
parts of torch and Lightning that belong in a training yaml, and packages that the user allows by name in
COBRA_ALLOW (comma-separated). jsonargparse checks a path before it imports it, and after that whether the
class fits its contract.
"""

import os
from typing import Any

from jsonargparse import set_parsing_settings

ALLOWED = ("cobra", "torch.optim", "lightning.pytorch", "lightning.fabric")


def restrict_imports() -> None:
    """Let jsonargparse import only what is allowed; idempotent."""
    set_parsing_settings(import_path_denylist=["*"], import_path_allowlist=[*ALLOWED, *_user_packages()])


def check_class_paths(tree: Any) -> None:
    """Refuse a tree of plain data that names a foreign class anywhere, before any of it is imported.

    Raises:
        ValueError: naming the class path and the remedy.
    """
    if isinstance(tree, dict):
        path = tree.get("class_path")
        if path is not None and not _is_allowed(path):
            raise ValueError(
                f"class path {path!r} is not allowed: expected one under {', '.join(ALLOWED)}; if you trust "
                f"its package, name it in the environment variable COBRA_ALLOW"
            )
    children = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list | tuple) else ()
    for child in children:
        check_class_paths(child)


def _is_allowed(path: Any) -> bool:
    prefixes = (*ALLOWED, *_user_packages())
    return isinstance(path, str) and any(path.startswith(f"{prefix}.") for prefix in prefixes)


def _user_packages() -> list[str]:
    return [name.strip() for name in os.environ.get("COBRA_ALLOW", "").split(",") if name.strip()]
