"""Values inside of lists, on the command line: `--stages.0.steps 3`, which jsonargparse cannot name."""

import json
import re
from collections.abc import Callable
from typing import Any

# the list; the way from there, which begins with a number; where it is in the same word, the value
_ELEMENT = re.compile(r"--([^=]+?)\.(\d+(?:\.[^=]+)?)(?:=(.*))?", re.DOTALL)


def merge_elements(words: list[str], parse: Callable[[list[str]], dict[str, Any]]) -> list[str]:
    """Words of a command line in which options that name an element of a list have become the whole list.

    Args:
        words: as typed.
        parse: the configuration that words make, as plain data.

    Raises:
        ValueError: where there is no such element.
    """
    rest, elements, following = [], [], iter(words)
    for word in following:
        if found := _ELEMENT.fullmatch(word):
            name, path, value = found.groups()
            elements.append((name, path.split("."), next(following, "") if value is None else value))
        else:
            rest.append(word)
    if not elements:
        return words
    # those ask for the configuration, which is not whole yet
    config = parse([word for word in rest if not word.startswith("--print_config")])
    lists: dict[str, Any] = {}
    for name, path, value in elements:
        lists[name] = _replaced(lists.get(name) or _find(config, name), path, value, name)
    return rest + [f"--{name}={json.dumps(elements)}" for name, elements in lists.items()]


def _find(config: Any, name: str) -> Any:
    for key in name.split("."):
        config = config.get(key) if isinstance(config, dict) else None
    if not isinstance(config, list):
        raise ValueError(f"--{name}: there is no list of this name, of which an element could be set")
    return config


def _replaced(tree: Any, path: list[str], value: str, name: str) -> Any:
    """Lists and dicts with the value at a path; it stays text, which the parser reads by its type."""
    if not path:
        return value
    key, *rest = path
    if tree is None or isinstance(tree, dict):
        return {**(tree or {}), key: _replaced((tree or {}).get(key), rest, value, f"{name}.{key}")}
    if not isinstance(tree, list) or not key.isdigit() or int(key) >= len(tree):
        holds = f"has {len(tree)} elements, counted from 0" if isinstance(tree, list) else f"is {tree!r}"
        raise ValueError(f"--{name}.{key}: {name} {holds}")
    number = int(key)
    return [
        *tree[:number],
        _replaced(tree[number], rest, value, f"{name}.{key}"),
        *tree[number + 1 :],
    ]
