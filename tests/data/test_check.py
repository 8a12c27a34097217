"""`cobra data check`: bad records, named before a run."""

import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from cobra.cli import main


def write(folder: Path, images: dict[str, bytes | None]) -> Path:
    """A file of one question for each picture, and the pictures that there are."""
    rows = []
    for name, content in images.items():
        if content is not None:
            (folder / name).write_bytes(content)
        turns = [{"from": "human", "value": "<image>what?"}, {"from": "gpt", "value": "this"}]
        rows.append({"id": f"id-{name}", "image": name, "conversations": turns})
    (folder / "data.json").write_text(json.dumps(rows))
    return folder / "data.json"


def picture(folder: Path) -> bytes:
    Image.linear_gradient("L").save(folder / "good.png")
    return (folder / "good.png").read_bytes()


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def test_every_bad_record_is_named_with_its_id_and_the_status_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    good = picture(tmp_path)
    images = {
        "a.png": good,
        "b.png": None,
        "c.png": good[:200],
        "d.png": b"",
        "e.png": b"<html>",
        "f.png": good,
    }
    file = write(tmp_path, images)
    monkeypatch.setattr(sys, "argv", ["cobra", "data", "check", str(file), "--image-root", str(tmp_path)])
    with pytest.raises(SystemExit, match="cobra data: 4 of 6 records cannot be used"):
        main()
    *named, last = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in named] == [f"record 'id-{n}.png' of data" for n in "bcde"]
    assert last == f"{file}: 6 records, 4 of them bad"


def test_good_files_pass(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = str(write(tmp_path, {"a.png": picture(tmp_path)}))
    monkeypatch.setattr(sys, "argv", ["cobra", "data", "check", file, file, "--image-root", str(tmp_path)])
    main()
    assert capsys.readouterr().out == f"{file}: 1 records, 0 of them bad\n" * 2
