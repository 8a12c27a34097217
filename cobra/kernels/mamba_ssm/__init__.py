"""The kernels of the packages mamba-ssm and causal-conv1d, where they are installed and asked for."""

from importlib.util import find_spec


def unavailable() -> str | None:
    """Why these kernels cannot run on this machine, or None if they can."""
    missing = [name for name in ("mamba_ssm", "causal_conv1d") if find_spec(name) is None]
    return f"{' and '.join(missing)} not installed: pip install 'cobra-vlm[cuda]'" if missing else None
