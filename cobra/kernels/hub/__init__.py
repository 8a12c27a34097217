"""The prebuilt kernels that the package kernels loads from the Hugging Face hub, where they are asked for."""

from importlib.metadata import PackageNotFoundError, version


def unavailable() -> str | None:
    """Why these kernels cannot run on this machine, or None if they can."""
    try:
        # not find_spec: this project's root has a folder of that name
        version("kernels")
    except PackageNotFoundError:
        return "kernels is not installed: pip install 'cobra-vlm[hub]'"
    return None
