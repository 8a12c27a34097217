"""A check of the numbers in plain data against the bounds of their names."""

from typing import Any

from cobra.config.class_paths import ALLOWED, is_under
from cobra.config.limits import BOUNDS


def check_bounds(tree: Any, name: str = "") -> None:
    """Refuse a number that is too small or too large wherever it is in the tree.

    What a class of the user's own packages calls its arguments is left to it.

    Args:
        tree: plain data, e.g. a yaml's.
        name: what it is the value of.

    Raises:
        ValueError: naming the argument, its value and its bounds.
    """
    if isinstance(tree, dict):
        if "class_path" in tree and not is_under(tree["class_path"], ALLOWED):
            return
        # a rate for each part is a rate
        for key, value in tree.items():
            check_bounds(value, key if key in BOUNDS or name not in BOUNDS else name)
    elif isinstance(tree, list | tuple):
        for value in tree:
            check_bounds(value, name)
    elif name in BOUNDS and isinstance(tree, int | float) and not isinstance(tree, bool):
        least, most = BOUNDS[name]
        # a comparison with nan is false
        if not least <= tree <= most:
            raise ValueError(f"{name} {tree} must be {least} to {most}")
