"""Every backend against what mamba_ssm and causal_conv1d themselves computed (`freeze_upstream.py`)."""

import ast
from typing import Any

import pytest
import torch
from safetensors import safe_open

from cobra.kernels.dispatch import BACKENDS, accepting, use_backend
from tests.kernels import upstream
from tests.kernels.cases import assert_near


def frozen() -> dict[str, dict[str, dict[str, Any]]]:
    """Inputs ("in") and outputs ("out") of each call."""
    calls: dict[str, dict[str, dict[str, Any]]] = {}
    with safe_open(upstream.OUTPUTS, framework="pt") as file:
        # a mapping without items()
        values = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        values |= {
            key: value if value == "silu" else ast.literal_eval(value)
            for key, value in file.metadata().items()
        }
    for key, value in values.items():
        name, kind, argument = key.split("/")
        calls.setdefault(name, {}).setdefault(kind, {})[argument] = value
    return calls


CALLS = frozen()
OURS = [backend.name for backend in BACKENDS if backend.name not in ("mamba_ssm", "hub")]


@pytest.mark.parametrize("backend", OURS)
@pytest.mark.parametrize("name", CALLS)
def test_a_backend_computes_what_upstream_does(name: str, backend: str) -> None:
    with use_backend(backend):
        if not accepting(name.split()[0], torch.device("cpu"), torch.float32):
            pytest.skip(f"{backend} does not run {name.split()[0]} here")
        assert_near(upstream.outputs(name, CALLS[name]["in"]), CALLS[name]["out"], 2e-5)
