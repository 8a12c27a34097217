"""A checkpoint's folder, wherever it is: on disk or on the Hugging Face hub."""

import re
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

_WEIGHTS = (
    ("*.safetensors", "*.safetensors.index.json"),
    ("*.bin", "*.bin.index.json", "latest-checkpoint.pt", "checkpoints/latest-checkpoint.pt"),
)
_DESCRIPTION = (
    "config.json",
    "adapter_config.json",
    # beside an adapter that may be safetensors
    "non_lora_trainables.*",
    "tokenizer*",
    "*token*.json",
    "vocab.json",
    "merges.txt",
)


def fetch(name: str) -> Path:
    """The file or folder of that name, or else the hub repository `owner/name[/folder]`, downloaded once.

    Raises:
        FileNotFoundError: where it is neither, or the hub cannot be reached, naming what to place where.
    """
    path = Path(name)
    if path.exists():
        return path
    if not re.fullmatch(r"[\w.-]+/[\w.-]+(/[\w.+-]+)*", name):
        raise FileNotFoundError(f"{name} is no file, no folder and no hub name such as owner/repository")
    owner, repository, *inside = name.split("/")
    folder = "/".join(inside)
    for weights in _WEIGHTS:
        patterns = [f"{folder}/{p}" if folder else p for p in (*_DESCRIPTION, *weights)]
        found = _snapshot(f"{owner}/{repository}", patterns) / folder
        if any(True for pattern in weights for _ in found.glob(pattern)):
            return found
    raise FileNotFoundError(
        f"hub repository {name} holds no weights: expected safetensors, .bin or .pt files"
    )


def _snapshot(repository: str, patterns: list[str]) -> Path:
    try:
        return Path(snapshot_download(repository, allow_patterns=patterns))
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        reason = str(error).split("\n")[0]
        raise FileNotFoundError(
            f"{repository} is no folder here, not in the hub cache, and cannot be fetched ({reason}): put "
            f"its config.json and model.safetensors or pytorch_model.bin into a folder and name that folder"
        ) from error
