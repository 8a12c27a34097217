"""Import before transformers, in a process of its own: what it would silently use instead is refused.

transformers takes an importable `mamba_ssm` or `causal_conv1d` in place of its own torch code; beside it a
comparison would measure those packages.
"""

import sys

import cobra.torchvision_shim  # noqa: F401  (before transformers)

for _package in ("mamba_ssm", "causal_conv1d", "mambapy", "kernels"):
    # an import of it now fails as if it were not installed
    sys.modules[_package] = None  # type: ignore[assignment]
