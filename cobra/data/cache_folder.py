"""The folder of what is made once and can be made again."""

import os
from pathlib import Path


def cache_folder(kind: str) -> Path:
    """A folder for one kind of files, in $COBRA_CACHE or ~/.cache/cobra."""
    root = os.environ.get("COBRA_CACHE")
    return (Path(root) if root else Path.home() / ".cache" / "cobra") / kind
