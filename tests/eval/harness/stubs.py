"""Of the harnesses what the plug-ins touch, as lmms-eval 0.7.3, lm_eval 0.4.13 and VLMEvalKit have it."""

import sys
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest


class _Model:
    def __init__(self) -> None:
        self.rank = 0
        self.task_dict: dict[str, Any] = {}
        self.cached: list[tuple] = []
        self.cache_hook = SimpleNamespace(add_partial=lambda *said: self.cached.append(said))


@dataclass
class _GenerationResult:
    text: Any


class _BaseModel:
    def generate(self, message: list[dict[str, str]], dataset: str | None = None) -> str:
        return self.generate_inner(message, dataset)  # type: ignore[attr-defined]


def plug_in(monkeypatch: pytest.MonkeyPatch, name: str) -> ModuleType:
    """The module `cobra.eval.harness.<name>`, behind which no harness is installed."""
    stubs: dict[str, dict[str, Any]] = {
        "lmms_eval.api.model": {"lmms": _Model},
        "lmms_eval.api.instance": {"GenerationResult": _GenerationResult},
        "lm_eval.api.model": {"TemplateLM": _Model},
        "lm_eval.api.registry": {"register_model": lambda name: lambda model: model},
        "lm_eval.utils": {"get_rolling_token_windows": None, "make_disjoint_window": None},
        "vlmeval.config": {"supported_VLM": {}},
        "vlmeval.vlm.base": {"BaseModel": _BaseModel},
    }
    for path, held in stubs.items():
        module = ModuleType(path)
        vars(module).update(held)
        pieces = path.split(".")
        for depth in range(1, len(pieces)):
            parent = ".".join(pieces[:depth])
            monkeypatch.setitem(sys.modules, parent, ModuleType(parent))
        monkeypatch.setitem(sys.modules, path, module)
    monkeypatch.delitem(sys.modules, f"cobra.eval.harness.{name}", raising=False)
    found = import_module(f"cobra.eval.harness.{name}")
    # the next one is to find its own stubs
    monkeypatch.delitem(sys.modules, f"cobra.eval.harness.{name}")
    return found
