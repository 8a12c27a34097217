"""manifest.json of an export folder: what is in it, by which versions it was made, how exact it is."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cobra.config.package_versions import package_versions
from cobra.weights.file_hash import file_hash

MANIFEST = "manifest.json"
# raised when a folder of before could not be read any more
_FORMAT = 2
# begins what an export that reads no pictures says is missing
BLIND = "the way of pictures"
_PACKAGES = ("torch", "transformers", "numpy", "pillow")


@dataclass(frozen=True)
class Contents:
    """What the writer of a target says of the files that it has written.

    Attributes:
        parity: measured differences from the model, by name, e.g. relative RMS of logits.
        versions: of the packages and programs that made it, besides those of every export.
        missing: what a user might look for and not find in it, in a sentence each.
        settings: what the target's engine has to know to open it.
    """

    parity: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    missing: Sequence[str] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """What manifest.json holds besides the format.

    Attributes:
        target: of the export.
        quant: of the language model's weights.
        model: the folder that was exported, by its name.
        files: bytes and SHA-256 of each file, by its path in the folder.
        contents: what the target's writer said; see `Contents`.
    """

    target: str
    quant: str
    model: str
    files: Mapping[str, Mapping[str, Any]]
    contents: Contents


def write_manifest(folder: Path, target: str, quant: str, model: str, contents: Contents) -> None:
    """Describe all files that are in the folder."""
    files = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": file_hash(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    said = asdict(Manifest(target, quant, model, files, contents))
    said["contents"]["versions"] = {**package_versions(_PACKAGES), **contents.versions}
    text = json.dumps({"format": _FORMAT, **said}, indent=2, ensure_ascii=False)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> Manifest:
    """What a folder says of itself; its files are not looked at.

    Raises:
        FileNotFoundError: where there is no manifest.
        ValueError: where it is none, or of another version.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: expected a folder that `cobra export` wrote")
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        if (found := said.pop("format")) != _FORMAT:
            raise ValueError(
                f"{path} has format {found!r}, this version of cobra reads {_FORMAT}: export the model again"
            )
        return Manifest(**{**said, "contents": Contents(**said["contents"])})
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is no manifest of an export ({error}): export the model again") from error


def check_files(folder: Path) -> Manifest:
    """The manifest of a folder whose files are all there and as they were written.

    Raises:
        FileNotFoundError: where a file, or the manifest, is missing.
        ValueError: where a file was changed.
    """
    manifest = check_sizes(folder)
    for name, said in manifest.files.items():
        if file_hash(path := folder / name) != said["sha256"]:
            raise ValueError(f"{path} was changed since it was written: its SHA-256 is not the manifest's")
    return manifest


def check_sizes(folder: Path) -> Manifest:
    """The manifest of a folder whose files are all there, in their sizes; errors as of `check_files`.

    It reads nothing but the manifest.
    """
    manifest = read_manifest(folder)
    for name, said in manifest.files.items():
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"{folder / MANIFEST} names {name!r} outside the folder: export the model again")
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing, which the manifest names: export the model again")
        if (size := path.stat().st_size) != said["bytes"]:
            raise ValueError(
                f"{path} has {size} bytes, not the {said['bytes']} that were written: copy or export it again"
            )
    return manifest
