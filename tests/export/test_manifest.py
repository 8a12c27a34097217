"""Folders of exports: whole or not there, and checked byte by byte."""

import json
from pathlib import Path

import pytest

from cobra.export import targets
from cobra.export.manifest import MANIFEST, Contents, check_files
from cobra.export.targets import Target
from cobra.export.write import export_model


def write_two_files(model: Path, quant: str, folder: Path) -> Contents:
    """The writer of a target."""
    if model.name == "unknown":
        (folder / "half.bin").write_bytes(b"1")
        raise ValueError("this target cannot express the model's attention")
    (folder / "sub").mkdir()
    (folder / "sub/lm.bin").write_bytes(b"weights in " + quant.encode())
    (folder / "vision.bin").write_bytes(bytes(100))
    return Contents({"logits": 1e-6}, {"runtime": "1.2"}, ["pictures of other sizes"], {"side": 64})


@pytest.fixture(autouse=True)
def target(monkeypatch: pytest.MonkeyPatch) -> None:
    two = Target(("f16", "q8_0"), f"{__name__}:{write_two_files.__name__}", {"cpu": "none"})
    monkeypatch.setitem(targets.TARGETS, "two", two)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    export_model(tmp_path / "tiny", "two", None, tmp_path / "out")
    return tmp_path / "out"


def test_an_export_says_what_it_is(folder: Path) -> None:
    manifest = check_files(folder)
    assert (manifest.target, manifest.quant, manifest.model) == ("two", "f16", "tiny")
    assert {name: file["bytes"] for name, file in manifest.files.items()} == {
        "sub/lm.bin": 14,
        "vision.bin": 100,
    }
    assert manifest.contents.parity == {"logits": 1e-6}
    assert {"python", "torch", "runtime"} <= manifest.contents.versions.keys()


def change(folder: Path, key: str, value: object) -> None:
    said = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**said, key: value}))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "vision.bin").write_bytes(bytes(99) + b"1"), r"vision\.bin was changed since"),
        (lambda f: (f / "vision.bin").write_bytes(bytes(99)), r"vision\.bin has 99 bytes, not the 100"),
        (lambda f: (f / "sub/lm.bin").unlink(), r"lm\.bin is missing, which the manifest names"),
        (lambda f: (f / MANIFEST).unlink(), r"manifest\.json is missing: expected a folder that"),
        (lambda f: change(f, "format", 1), r"has format 1, this version of cobra reads 2: export .* again"),
        (lambda f: change(f, "files", {"../tiny": {}}), r"names '\.\./tiny' outside the folder"),
        (lambda f: change(f, "contents", {"speed": 1}), r"is no manifest of an export"),
        (lambda f: change(f, "contents", 3), r"is no manifest of an export"),
        (lambda f: (f / MANIFEST).write_text("{"), r"is no manifest of an export"),
    ],
)
def test_a_folder_that_is_not_as_it_was_written_is_named(folder: Path, spoil, message: str) -> None:  # type: ignore[no-untyped-def]
    spoil(folder)
    with pytest.raises((ValueError, OSError), match=message) as raised:
        check_files(folder)
    assert "\n" not in str(raised.value)


def test_an_export_that_fails_leaves_nothing_and_one_that_succeeds_replaces(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="cannot express"):
        export_model(tmp_path / "unknown", "two", None, out)
    assert not list(tmp_path.iterdir())
    export_model(tmp_path / "tiny", "two", "q8_0", out)
    with pytest.raises(ValueError, match="cannot express"):
        export_model(tmp_path / "unknown", "two", None, out)
    assert check_files(out).quant == "q8_0"
    export_model(tmp_path / "tiny", "two", "f16", out)
    assert check_files(out).quant == "f16"
    assert list(tmp_path.iterdir()) == [out]


def test_what_is_no_export_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(b"1")
    with pytest.raises(ValueError, match="is there and no export: name another folder"):
        export_model(tmp_path / "tiny", "two", None, tmp_path)
    with pytest.raises(ValueError, match="has no --quant q9: take one of f16, q8_0"):
        export_model(tmp_path / "tiny", "two", "q9", tmp_path / "out")
