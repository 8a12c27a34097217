"""Folders of exports: whole or not there, and checked byte by byte."""

import json
from pathlib import Path

import pytest

from cobra.export import manifest, targets
from cobra.export.executorch.runner import Settings
from cobra.export.manifest import MANIFEST, Contents, Manifest, check_at_start, check_files
from cobra.export.pixels import planes_in
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
    return Contents(
        {"logits": 1e-6}, {"runtime": "1.2"}, ["pictures of other sizes"], {"ends": {9: 1, 10: 2}}
    )


@pytest.fixture(autouse=True)
def target(monkeypatch: pytest.MonkeyPatch) -> None:
    two = Target(("f16", "q8_0"), f"{__name__}:{write_two_files.__name__}", {"cpu": "none"})
    monkeypatch.setitem(targets.TARGETS, "two", two)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    export_model(tmp_path / "tiny", "two", None, tmp_path / "out")
    return tmp_path / "out"


def test_an_export_says_what_it_is(folder: Path) -> None:
    found = check_files(folder)
    assert (found.target, found.quant, found.model) == ("two", "f16", "tiny")
    assert {name: file["bytes"] for name, file in found.files.items()} == {
        "sub/lm.bin": 14,
        "vision.bin": 100,
    }
    assert found.contents.parity == {"logits": 1e-6}
    assert {"python", "torch", "runtime"} <= found.contents.versions.keys()


def test_small_files_are_looked_at_whole_when_an_export_is_opened(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest, "_SMALL", 14)
    for name in ("vision.bin", "sub/lm.bin"):
        file = folder / name
        file.write_bytes(bytes([file.read_bytes()[0] ^ 1]) + file.read_bytes()[1:])
        with pytest.raises(ValueError, match=f"{name} was changed since it was written"):
            check_files(folder)
        if name == "vision.bin":
            assert check_at_start(folder).files[name]["bytes"] == 100
    with pytest.raises(ValueError, match=r"lm\.bin was changed since it was written"):
        check_at_start(folder)


def change(folder: Path, key: str, value: object) -> None:
    said = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**said, key: value}))


def write(folder: Path, key: str, value: object) -> None:
    """A manifest as a writer might write it, hash and all."""
    change(folder, key, value)
    said = json.loads((folder / MANIFEST).read_text())
    change(folder, "sha256", manifest._hash({key: said[key] for key in said.keys() - {"format", "sha256"}}))


NUMBERS = {"vocab_size": 4, "d_model": 4, "tokens": 4, "room": 4}
# the contents of a manifest that says nothing
SAID: dict[str, object] = {"parity": {}, "versions": {}, "missing": [], "settings": {}}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "vision.bin").write_bytes(bytes(99) + b"1"), r"vision\.bin was changed since"),
        (lambda f: (f / "vision.bin").write_bytes(bytes(99)), r"vision\.bin has 99 bytes, not the 100"),
        (lambda f: (f / "sub/lm.bin").unlink(), r"lm\.bin is missing, which the manifest names"),
        (lambda f: (f / MANIFEST).unlink(), r"manifest\.json is missing: expected a folder that"),
        (lambda f: change(f, "format", 1), r"has format 1, this version of cobra reads 2: export .* again"),
        (
            lambda f: write(f, "files", {"../tiny": {"bytes": 1, "sha256": ""}}),
            r"names '\.\./tiny' outside the folder",
        ),
        (lambda f: change(f, "contents", {"speed": 1}), r"no manifest .*contents\.missing is missing"),
        (lambda f: change(f, "contents", 3), r"is no manifest .*contents is 3, no dict"),
        (lambda f: change(f, "contents", {**SAID, "settings": None}), r"settings is None, no dict"),
        (lambda f: change(f, "contents", {**SAID, "settings": []}), r"settings is \[\], no dict"),
        (lambda f: change(f, "contents", {**SAID, "missing": [1]}), r"missing are not of texts"),
        (lambda f: change(f, "contents", {**SAID, "parity": {"a": "b"}}), r"parity is not of numbers"),
        (lambda f: write(f, "files", {}), r"names no files: export the model again"),
        (lambda f: (f / "sub/mmproj.gguf").write_bytes(b"1"), r"mmproj\.gguf is not in the manifest: move"),
        (lambda f: change(f, "files", None), r"files is None, no dict\): export the model again"),
        (lambda f: change(f, "files", ["vision.bin"]), r"files is \['vision\.bin'\], no dict"),
        (lambda f: change(f, "files", {"a\0": 1}), r"files has the name 'a\\x00', which no file has"),
        (lambda f: change(f, "files", {"a": 1}), r"files\.a is 1, no object"),
        (lambda f: change(f, "files", {"a": {"sha256": ""}}), r"files\.a\.bytes is missing"),
        (lambda f: change(f, "target", ["gguf"]), r"target is \['gguf'\], no str"),
        (lambda f: change(f, "quant", ["f32"]), r"quant is \['f32'\], no str"),
        (lambda f: change(f, "quant", "q8_0"), r"manifest\.json was changed since it was written"),
        (lambda f: change(f, "contents", {**SAID, "parity": {"logits": 0}}), r"manifest\.json was changed"),
        (
            lambda f: change(f, "sha256", None),
            r"an earlier version wrote it without its SHA-256: export .* again",
        ),
        (lambda f: (f / MANIFEST).write_text("{"), r"is no manifest of an export"),
        (lambda f: (f / MANIFEST).write_text("[]"), r"is no manifest of an export"),
        (lambda f: (f / MANIFEST).write_text("[" * 200_000), r"is no manifest of an export"),
        (lambda f: (f / MANIFEST).write_bytes(b'{"format": "\xff"}'), r"is no manifest of an export"),
    ],
)
def test_a_folder_that_is_not_as_it_was_written_is_named(folder: Path, spoil, message: str) -> None:  # type: ignore[no-untyped-def]
    spoil(folder)
    with pytest.raises((ValueError, OSError), match=message) as raised:
        check_files(folder)
    assert "\n" not in str(raised.value)


def test_a_manifest_may_be_laid_out_anew(folder: Path) -> None:
    said = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(dict(reversed(said.items()))))
    assert check_files(folder).quant == "f16"


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


@pytest.mark.parametrize("is_there", [True, False])
def test_a_link_is_followed(is_there: bool, tmp_path: Path) -> None:
    (link := tmp_path / "link").symlink_to(place := tmp_path / "place")
    for _ in range(1 + is_there):
        export_model(tmp_path / "tiny", "two", None, link)
    assert link.is_symlink()
    assert check_files(place).model == "tiny"


def test_the_working_directory_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for said in (Path("."), Path("below/..")):
        (place := tmp_path / "here").mkdir(exist_ok=True)
        monkeypatch.chdir(place)
        export_model(tmp_path / "tiny", "two", None, said)
        assert check_files(place).model == "tiny"
    assert list(tmp_path.iterdir()) == [place]


def test_a_folder_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("a")
    with pytest.raises(ValueError, match="notes is a file; name another folder"):
        export_model(tmp_path / "tiny", "two", None, tmp_path / "notes/a/out")


def test_what_is_no_export_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(b"1")
    with pytest.raises(ValueError, match="is there and no export: name another folder"):
        export_model(tmp_path / "tiny", "two", None, tmp_path)
    with pytest.raises(ValueError, match="has no --quant q9: take one of f16, q8_0"):
        export_model(tmp_path / "tiny", "two", "q9", tmp_path / "out")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "of tiny has vocab_size None, which is no int: export the model again"),
        ({"vocab_size": [4]}, r"has vocab_size \[4\]"),
        ({"vocab_size": True}, "has vocab_size True"),
        ({"vocab_size": -4}, "has vocab_size -4"),
        ({**NUMBERS, "positions": 1}, "has positions 1, which is no bool"),
        ({**NUMBERS, "positions": False, "memory": {}}, "has memory {}, which is no list"),
        ({**NUMBERS, "positions": False, "memory": [{"shape": ["a"]}]}, "has memory .*, no list of shapes"),
    ],
)
def test_a_setting_that_an_engine_cannot_use_is_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Settings.said_by(Manifest("two", "f16", "tiny", {}, Contents(settings=settings)))


@pytest.mark.parametrize("said", [None, [], [3], {"way": "squash"}])
def test_pixels_that_a_manifest_does_not_describe_are_named(said: object) -> None:
    with pytest.raises(ValueError, match=r"has pixels .*: export the model again"):
        planes_in(Manifest("two", "f16", "tiny", {}, Contents(settings={"pixels": said})))
