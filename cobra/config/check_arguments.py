"""A check of plain data from a file against the annotations of the class that it is meant for."""

import math
from collections.abc import Callable
from inspect import Parameter, signature
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from cobra.config.check_bounds import check_bounds
from cobra.config.class_paths import ALLOWED, is_under


def check_arguments(made: type, arguments: Any) -> None:
    """Compare `init_args` with the constructor of a class; what is missing, the call itself will tell.

    Raises:
        ValueError: naming the class, the argument, its value and what is expected.
    """
    if not isinstance(arguments, dict):
        raise ValueError(f"init_args of {made.__name__} must be an object, got {_short(arguments)}")
    known = signature(made, eval_str=True).parameters
    open_ended = any(p.kind is Parameter.VAR_KEYWORD for p in known.values())
    for name, value in arguments.items():
        if name not in known and not open_ended:
            raise ValueError(f"{made.__name__} has no argument {name!r}: it takes {', '.join(known)}")
        annotation = known[name].annotation if name in known else Parameter.empty
        if not _fits(value, annotation):
            expected = getattr(annotation, "__name__", annotation) if not get_args(annotation) else annotation
            raise ValueError(f"{made.__name__} cannot have {name} {_short(value)}: it must be {expected}")
        # a nested component's are checked with it; a user's own classes have names of their own
        if not isinstance(value, dict) and is_under(made.__module__, ALLOWED):
            check_bounds(value, name)


def _fits(value: Any, annotation: Any) -> bool:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return any(_fits(value, one) for one in inner)
    if origin is Literal:
        return value in inner
    if origin is Callable:
        # a component is written as its class path and called by the one that holds it
        return isinstance(value, dict) and "class_path" in value
    if origin is tuple:
        return isinstance(value, list | tuple) and len(value) == len(inner) and all(map(_fits, value, inner))
    if origin is list:
        return isinstance(value, list) and all(_fits(item, inner[0]) for item in value)
    if annotation is float:
        return math.isfinite(value) if type(value) is float else type(value) is int and abs(value) < 2**53
    if annotation is int:
        return type(value) is int
    kind = origin or annotation
    return kind in (Any, Parameter.empty) or not isinstance(kind, type) or isinstance(value, kind)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
