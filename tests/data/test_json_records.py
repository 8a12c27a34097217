"""JSON read in pieces: whatever the size of a piece, as `json` reads the whole."""

import json
from pathlib import Path
from typing import Any

import pytest

from cobra.data import json_records
from cobra.data.json_records import read_json_records

ROWS: list[Any] = [
    {"id": 1, "text": 'a "quoted" \\ [line]\n', "list": [1, {"a": [True, None, -1.5e-7]}]},
    {"id": "ü\N{CAT FACE}", "text": "\N{CAT FACE}" * 7, "empty": {}},
    1234567,
    "words, {and} [more]",
]
FORMS = {
    "array": json.dumps(ROWS),
    "indented": json.dumps(ROWS, indent=2, ensure_ascii=False),
    "lines": "\n".join(map(json.dumps, ROWS)) + "\n",
    "windows lines": "\r\n".join(map(json.dumps, ROWS)),
    "with a mark": "\ufeff" + json.dumps(ROWS),
    "with space behind it": json.dumps(ROWS) + "\n" * 5000,
}


def write(folder: Path, content: str | bytes) -> Path:
    data = content.encode() if isinstance(content, str) else content
    (folder / "a.json").write_bytes(data)
    return folder / "a.json"


@pytest.mark.parametrize("form", FORMS)
def test_pieces_of_every_size_give_the_same_records(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, FORMS[form])
    for size in [*range(1, 40), 1 << 20]:
        monkeypatch.setattr(json_records, "_PIECE", size)
        assert list(read_json_records(path)) == ROWS


@pytest.mark.parametrize("size", [3, 1 << 20])
@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('[{"a": 1}, {"a": x}]', r"a\.json is no JSON at character 17 \(Expecting value\)"),
        ('{"a": 1}\n{"a": 2', r"no JSON at character 16"),
        ('[{"a": 1}, {"a"', "an array without an end at byte 15"),
        ('{"a": "' + "b" * 50, r"no JSON at character 6 \(Unterminated"),
        ("[" * 100_000 + "]" * 100_000, None),
        ('{"a":' * 100_000, "cannot be read at character 0"),
        ("1" * 5000, "cannot be read at character 0"),
        ('[{"id": "é"}]'.encode("latin-1"), "no UTF-8 at byte 9: save it as UTF-8"),
        ('[{"id": "é"}]'.encode("utf-16"), "no UTF-8 at byte 0: save it as UTF-8"),
        (b'["' + b"\xe2\x82\xac" * 5 + b'\xe2\x82"]', "no UTF-8 at byte 17"),
    ],
)
def test_what_is_no_json_is_refused_with_its_position(
    content: str | bytes, problem: str | None, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_records, "_PIECE", size)
    path = write(tmp_path, content)
    if problem is None:
        assert list(read_json_records(path)) == []
        return
    with pytest.raises(ValueError, match=problem):
        list(read_json_records(path))


def test_a_record_without_an_end_is_not_read_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_records, "_PIECE", 16)
    monkeypatch.setattr(json_records, "MAX_RECORD_TEXT", 100)
    path = write(tmp_path, '{"id": 1}\n{"id": "' + "a" * 10_000)
    with pytest.raises(ValueError, match="a record of more than 100 characters at character 10"):
        list(read_json_records(path))
