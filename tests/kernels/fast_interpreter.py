"""Triton's interpreter without its slowest part."""

from typing import Any

import pytest


def patch_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the interpreter put its own functions in the place of `triton.language`'s once a function of a kernel.

    It does so at each call of one, 0.1 ms: half the time of the tests. What it puts there it never takes away.
    """
    from triton.runtime import interpreter

    patched: set[Any] = set()

    def call(function: Any, *arguments: Any, **options: Any) -> Any:
        if function.fn not in patched:
            interpreter._patch_lang(function.fn)
            patched.add(function.fn)
        return function.rewrite()(*arguments, **options)

    monkeypatch.setattr(interpreter.InterpretedFunction, "__call__", call)
