"""Upstream's kernels as the package kernels loads them, prebuilt, from the Hugging Face hub, if asked for.

They are those of mamba-ssm and causal-conv1d, and are called through the adapters to these.
"""

import functools
import importlib
from importlib.metadata import PackageNotFoundError, version

from cobra.kernels.mamba_ssm import Upstream, functions_in, one_line

# one repository has both: causal_conv1d is a part of its mamba_ssm. A version's functions do not change.
REPOSITORY, VERSION = "kernels-community/mamba-ssm", 5
_CONV = "causal_conv1d"


def unavailable() -> str | None:
    """Why these kernels cannot run on this machine, or None if they can."""
    try:
        # not find_spec: this project's root has a folder of that name
        version("kernels")
    except PackageNotFoundError:
        return "kernels is not installed: pip install kernels einops"
    return None


@functools.cache
def load() -> Upstream:
    """The functions of the hub's kernels, from its cache on this machine or else the network."""
    try:
        package = importlib.import_module("kernels").get_kernel(REPOSITORY, version=VERSION).__name__
        return Upstream(functions_in(lambda module: f"{package}.{_inside(module)}"))
    # of the network, of the cache, of a build that there is not for this torch
    except Exception as error:
        return Upstream(
            {},
            f"has no {REPOSITORY} for this machine ({one_line(error)}): let it reach the hub once, or put "
            "the repository into its cache; COBRA_BACKEND=triton needs neither",
        )


def _inside(module: str) -> str:
    """Where a module of mamba_ssm or causal_conv1d is in the hub's package."""
    root, _, rest = module.partition(".")
    return f"_causal_conv1d.{rest}" if root == _CONV else rest
