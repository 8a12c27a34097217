"""Adapters to the functions of mamba-ssm and causal-conv1d, where these are installed and asked for.

An adapter is in the file of its op. Its first parameter is the upstream function that it calls, by that one's
name; the others are the op's. Written after the sources of mamba-ssm 2.3.2 and causal-conv1d 1.7.0; the
kernels of the hub (`cobra.kernels.hub`) are called through the same.
"""

import functools
import importlib
import inspect
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import NamedTuple

import torch

from cobra.kernels.call import Function, limited, limits_of

_SCANS = "mamba_ssm.ops.selective_scan_interface"
_TRITON = "mamba_ssm.ops.triton"
# the modules of the functions that the adapters call
MODULES: Mapping[str, str] = {
    "mamba_chunk_scan_combined": f"{_TRITON}.ssd_combined",
    "selective_scan_fn": _SCANS,
    "selective_state_update": f"{_TRITON}.selective_state_update",
    "rms_norm_fn": f"{_TRITON}.layer_norm",
    "rmsnorm_fn": f"{_TRITON}.layernorm_gated",
    "causal_conv1d_fn": "causal_conv1d.causal_conv1d_interface",
    "causal_conv1d_update": "causal_conv1d.causal_conv1d_interface",
}
_REMEDY = "pip install --no-build-isolation causal-conv1d mamba-ssm builds them for this torch"


class Upstream(NamedTuple):
    """Functions of upstream by name; none, and why, if they cannot be loaded."""

    functions: Mapping[str, Function]
    failure: str | None = None


def unavailable() -> str | None:
    """Why these kernels cannot run on this machine, or None if they can."""
    missing = [name for name in ("mamba_ssm", "causal_conv1d") if find_spec(name) is None]
    return f"{' and '.join(missing)} not installed: {_REMEDY}" if missing else None


@functools.cache
def load() -> Upstream:
    """The functions of the installed packages, imported."""
    try:
        return Upstream(functions_in(lambda module: module))
    # a library that was built for another torch fails in its own ways
    except Exception as error:
        return Upstream({}, f"cannot be imported ({one_line(error)}): {_REMEDY}")


def functions_in(place: Callable[[str], str]) -> dict[str, Function]:
    """Upstream's functions by name, from the modules where `place` says that those of `MODULES` are."""
    modules = {name: importlib.import_module(place(module)) for name, module in MODULES.items()}
    return {name: getattr(module, name) for name, module in modules.items()}


def adapted(adapter: Function, upstream: Upstream) -> Function:
    """An adapter as a function of the op's parameters. torch.compile breaks its graph at it."""
    name = next(iter(inspect.signature(adapter).parameters))
    run = torch.compiler.disable(adapter, reason=f"{name} of mamba_ssm is not traced")
    return limited(*limits_of(adapter))(functools.partial(run, upstream.functions[name]))


def one_line(error: Exception) -> str:
    """An error's type and the first line of its message."""
    return f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}"
