"""manifest.json of an export folder: what is in it, by which versions it was made, how exact it is."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import inf
from pathlib import Path
from reprlib import repr as shortened
from typing import Any

from cobra.config.package_versions import package_versions
from cobra.weights.file_hash import file_hash

MANIFEST = "manifest.json"
# raised when a folder of before could not be read any more
_FORMAT = 2
# begins what an export that reads no pictures says is missing
BLIND = "the way of pictures"
_TOKENIZER = "tokenizer.json"
# bytes of a file that is read whole whenever an export is opened: a tenth of a second
_SMALL = 2**24
_PACKAGES = ("torch", "transformers", "numpy", "pillow")
# what JSON makes of the fields, and of what is in those that have names of their own
_FIELDS = {"target": str, "quant": str, "model": str, "files": dict, "contents": dict}
_CONTENTS = {"parity": dict, "versions": dict, "missing": list, "settings": dict}
_FILE = {"bytes": int, "sha256": str}


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
    """What manifest.json holds besides the format and its own SHA-256.

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

    def check_tokenizer(self) -> None:
        """Refuse, with a ValueError, to ask an export that has no tokenizer."""
        if _TOKENIZER not in self.files:
            raise ValueError(
                f"the export of {self.model} has no {_TOKENIZER}, as the model had none, and cannot be "
                "asked: give the model's folder a tokenizer, and export it again"
            )

    def setting(self, name: str, kind: type) -> Any:
        """What the target's engine has to know, of that type.

        Raises:
            ValueError: where the manifest does not say it, or a whole number is negative.
        """
        value: Any = self.contents.settings.get(name)
        # True is an int, too
        if type(value) is not kind or (isinstance(value, int) and value < 0):
            raise ValueError(
                f"the manifest of {self.model} has {name} {shortened(value)}, which is no {kind.__name__}: "
                "export the model again"
            )
        return value


def write_manifest(folder: Path, target: str, quant: str, model: str, contents: Contents) -> None:
    """Describe all files that are in the folder."""
    files = {
        name: {"bytes": path.stat().st_size, "sha256": file_hash(path)}
        for name, path in _files(folder).items()
    }
    said = asdict(Manifest(target, quant, model, files, contents))
    said["contents"]["versions"] = {**package_versions(_PACKAGES), **contents.versions}
    # as it will be read: keys that were numbers are texts then
    said["sha256"] = _hash(json.loads(json.dumps(said)))
    text = json.dumps({"format": _FORMAT, **said}, indent=2, ensure_ascii=False)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def _hash(said: Mapping[str, Any]) -> str:
    """Of what a manifest says besides its format, however it is laid out."""
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _files(folder: Path) -> dict[str, Path]:
    """All files that are in a folder, by the names that a manifest gives them."""
    return {p.relative_to(folder).as_posix(): p for p in sorted(folder.rglob("*")) if p.is_file()}


def read_manifest(folder: Path) -> Manifest:
    """What a folder says of itself; its files are not looked at.

    Raises:
        FileNotFoundError: where there is no manifest.
        ValueError: where it is none, of another version, or was changed since it was written.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: expected a folder that `cobra export` wrote")
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(said, dict):
            raise ValueError("it is no object")
        found, hashed = said.pop("format", None), said.pop("sha256", None)
        manifest = _manifest(said) if found == _FORMAT else None
    # what is no UTF-8 or no JSON is a ValueError as well
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no manifest of an export ({error}): export the model again") from error
    if manifest is None:
        raise ValueError(
            f"{path} has format {shortened(found)}, this version of cobra reads {_FORMAT}: export the model "
            "again"
        )
    if hashed != _hash(said):
        raise ValueError(
            f"{path} was changed since it was written, or an earlier version wrote it without its SHA-256: "
            "export the model again"
        )
    return manifest


def _manifest(said: dict[str, Any]) -> Manifest:
    """What was read of a file, its fields checked."""
    _check_fields(said, _FIELDS, "")
    _check_fields(said["contents"], _CONTENTS, "contents.")
    for name, file in said["files"].items():
        # a NUL, or half of a surrogate pair
        if not name.isprintable():
            raise ValueError(f"files has the name {shortened(name)}, which no file has")
        _check_fields(file, _FILE, f"files.{name}.")
    contents = Contents(**said["contents"])
    if not all(isinstance(value, int | float) for value in contents.parity.values()):
        raise ValueError("contents.parity is not of numbers")
    if not all(isinstance(text, str) for text in (*contents.versions.values(), *contents.missing)):
        raise ValueError("contents.versions or contents.missing are not of texts")
    return Manifest(**{**said, "contents": contents})


def _check_fields(said: Any, kinds: Mapping[str, type], where: str) -> None:
    """A ValueError names the first field that is missing, unknown or of another type."""
    if not isinstance(said, dict):
        raise ValueError(f"{where.rstrip('.')} is {shortened(said)}, no object")
    if others := said.keys() ^ kinds.keys():
        raise ValueError(f"{where}{min(others)} is {'unknown' if min(others) in said else 'missing'}")
    for name, kind in kinds.items():
        if type(said[name]) is not kind:
            raise ValueError(f"{where}{name} is {shortened(said[name])}, no {kind.__name__}")


def check_files(folder: Path) -> Manifest:
    """The manifest of a folder whose files are all there and as they were written, and no others.

    Raises:
        FileNotFoundError: where a file, or the manifest, is missing.
        ValueError: where a file was changed, the manifest does not name it, or it names none.
    """
    manifest = _checked(folder, inf)
    if not manifest.files:
        raise ValueError(f"{folder / MANIFEST} names no files: export the model again")
    if others := sorted(_files(folder).keys() - manifest.files.keys() - {MANIFEST}):
        raise ValueError(
            f"{folder / others[0]} is not in the manifest: move it away, or export the model again"
        )
    return manifest


def check_at_start(folder: Path) -> Manifest:
    """The manifest of a folder whose files are all there, in their sizes; errors as of `check_files`.

    Only small files, such as a tokenizer or template, are read whole.
    """
    return _checked(folder, _SMALL)


def _checked(folder: Path, largest: float) -> Manifest:
    """The manifest; files up to so many bytes are as they were written, all of them have their sizes."""
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
        if size <= largest and file_hash(path) != said["sha256"]:
            raise ValueError(f"{path} was changed since it was written: its SHA-256 is not the manifest's")
    return manifest
