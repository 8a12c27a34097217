"""Versions of what computed a result, for the files that tell of it."""

import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

import cobra


def package_versions(packages: Iterable[str]) -> dict[str, str]:
    """Versions of Python, of this package and of those of these that are installed."""
    found = {"python": platform.python_version(), "cobra": cobra.__version__}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
