import json
import logging
import os
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cobra.data.image import load_rgb
from cobra.data.llava import LlavaJson
from cobra.data.shapes.dataset import ShapesCaptions, ShapesPlaces, ShapesQuestions
from cobra.data.shapes.export import export_llava


def chat(*values: str) -> list[dict[str, str]]:
    """Turns that alternate, the human's first."""
    return [{"from": ("human", "gpt")[n % 2], "value": value} for n, value in enumerate(values)]


def records(dataset: Any) -> list[Any]:
    return [dataset[index] for index in range(len(dataset))]


def load(folder: Path, rows: list[Any] | str) -> LlavaJson:
    text = rows if isinstance(rows, str) else json.dumps(rows)
    (folder / "data.json").write_text(text, encoding="utf-8")
    return LlavaJson(folder / "data.json", folder, folder / "cache")


def test_export_and_import_give_the_same_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COBRA_CACHE", str(tmp_path / "cobra"))
    path = export_llava(tmp_path / "out", "test", 20, 1)
    kinds = {"": ShapesQuestions, "_captions": ShapesCaptions, "_places": ShapesPlaces}
    said = {}
    for name, kind in kinds.items():
        source = kind("test", 20, 1)
        loaded = LlavaJson(path.with_stem(f"test{name}"), path.parent, tmp_path / "cache")
        assert len(loaded) == len(source)
        assert loaded.dropped == {}
        for ours, theirs in zip(records(source), records(loaded), strict=True):
            assert (ours.id, ours.messages) == (theirs.id, theirs.messages)
            assert np.array_equal(ours.images[0], np.asarray(load_rgb(theirs.images[0])))
        said[name] = [record.messages for record in records(loaded)]
    mix = records(LlavaJson(path.with_stem("test_mix"), path.parent, tmp_path / "cache"))
    assert len({record.id for record in mix}) == 20
    drawn = Counter(
        name for number, record in enumerate(mix) for name in kinds if record.messages == said[name][number]
    )
    assert drawn == {"": 13, "_captions": 2, "_places": 5}


def test_an_export_is_written_once_and_anew_for_other_scenes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COBRA_CACHE", str(tmp_path / "cobra"))
    path = export_llava(tmp_path, "test", 3, 1)
    written = path.stat().st_mtime_ns
    export_llava(tmp_path, "test", 3, 1)
    assert path.stat().st_mtime_ns == written
    export_llava(tmp_path, "test", 4, 1)
    assert len(json.loads(path.read_text())) == 4


def test_placeholder_keeps_its_place(tmp_path: Path) -> None:
    data = load(
        tmp_path,
        [
            {"id": "front", "image": "a/b.jpg", "conversations": chat("<image>\nwhat?", "this")},
            {"id": "back", "image": "a/b.jpg", "conversations": chat("what?\n<image>", "this")},
            {
                "id": "between",
                "image": ["a.jpg", "b.jpg"],
                "conversations": chat("is <image> like <image>?", "no"),
            },
            {"id": "later", "image": "a.jpg", "conversations": chat("hi", "hello", "<image>", "nice")},
            {"id": "unplaced", "image": "a.jpg", "conversations": chat("what?", "this")},
        ],
    )
    picture, what = {"type": "image"}, {"type": "text", "text": "what?"}
    contents = [[message.content for message in data[n].messages] for n in range(5)]
    assert contents[0][0] == contents[4][0] == [picture, what]
    assert contents[1][0] == [what, picture]
    assert [part.get("text") for part in contents[2][0]] == ["is", None, "like", None, "?"]
    # a question, not the start of a caption
    assert contents[3][2] == [picture, {"type": "text", "text": ""}]
    assert data[0].images == [tmp_path / "a/b.jpg"]
    assert len(data[2].images) == 2
    assert data[0].source == "data"


def test_ids_may_mix_types_and_repeat_and_pictures_may_be_missing(tmp_path: Path) -> None:
    rows: list[Any] = [
        {"id": 7, "conversations": chat("hi", "hello"), "model": "x"},
        {"id": "7", "image": "a.jpg", "conversations": chat("<image>hi", "hello", "and?", "so")},
        {"conversations": chat("hi", "hello"), "image": None},
    ]
    data = load(tmp_path, rows)
    assert [record.id for record in records(data)] == ["7", "7", "2"]
    assert [len(record.images) for record in records(data)] == [0, 1, 0]
    assert [len(record.messages) for record in records(data)] == [2, 4, 2]


def test_bad_records_are_dropped_counted_and_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = {"id": "good", "conversations": chat("hi", "hello")}
    bad: dict[str, list[Any]] = {
        "roles do not alternate": [[*chat("a", "b"), {"from": "gpt", "value": "c"}]],
        "no turns": [[], chat("a"), list(reversed(chat("a", "b"))), [{"from": "system", "value": "a"}]],
        "no answer": [chat("a", " ")],
        "empty turn": [chat("", "b"), [{"from": "human"}, {"from": "gpt", "value": "b"}]],
        "turn 1 is no text, but int": [[*chat("a"), {"from": "gpt", "value": 1}]],
        "a system turn contains <image>": [[{"from": "system", "value": "<image>"}, *chat("a", "b")]],
        "turn 0 has a part that is no text and no picture": [
            [{"from": "human", "value": [{"type": "video", "video": "a.mp4"}]}, *chat("a", "b")[1:]]
        ],
        "a picture is an address on the web: fetch it, and name its file": [
            [{"from": "human", "value": [{"type": "image", "url": "https://a.b/c.jpg"}]}, *chat("a", "b")[1:]]
        ],
        "unknown role": [[{"from": "narrator", "value": "a"}], ["a", "b"]],
        "an answer contains <image>": [chat("a", "<image>")],
        "<image> and pictures differ in number": [chat("<image>", "b")],
        "no conversations": [None, "a"],
    }
    rows: list[Any] = [
        good,
        *({"id": 1, "conversations": turns} for cases in bad.values() for turns in cases),
        3,
    ]
    rows.append({"id": 1, "image": 5, "conversations": chat("a", "b")})
    expected = {reason: len(cases) for reason, cases in bad.items()}
    expected["no conversations"] += 1
    expected["image is no path"] = 1
    with caplog.at_level(logging.WARNING, "cobra.data.chat_table"):
        data = load(tmp_path, rows)
    assert [record.id for record in records(data)] == ["good"]
    assert data.dropped == expected
    assert len(caplog.records) == 1
    assert f"dropped {len(rows) - 1} of {len(rows)}" in caplog.text
    assert "'no turns': '1'" in caplog.text


def test_what_llava_leaves_out_is_left_out_and_counted(tmp_path: Path) -> None:
    picture = {"image": "a.jpg"}
    rows = [
        {"id": 0, "conversations": [{"from": "gpt", "value": "Hello"}, *chat("<image>a", "b")], **picture},
        {"id": 1, "conversations": chat("<image>a", "b", "thank you"), **picture},
        {"id": 2, "conversations": chat("<image>a", "", "c", "d"), **picture},
    ]
    data = load(tmp_path, rows)
    said = [[message.text for message in record.messages] for record in records(data)]
    assert said == [["a", "b"], ["a", "b"], ["a", "", "c", "d"]]
    assert data.dropped == {}
    assert data.mended == {"starts with an answer": 1, "ends on a question": 1}


def test_messages_with_parts_are_read_like_conversations(tmp_path: Path) -> None:
    parts = [{"type": "image", "image": "a.jpg"}, {"type": "text", "text": "what?"}]
    rows = [
        {"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": "this"}]},
        {"image": "a.jpg", "conversations": chat("<image>what?", "this")},
        {"messages": [{"role": "user", "content": [3]}, 4]},
    ]
    first, second = records(load(tmp_path, rows))
    assert (first.messages, first.images) == (second.messages, second.images)


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_another_encoding_is_named_with_the_remedy(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes('[{"id": "é"}]'.encode(encoding))
    with pytest.raises(ValueError, match=r"a\.json is no UTF-8 at byte \d+: save it as UTF-8$"):
        LlavaJson(tmp_path / "a.json", tmp_path, tmp_path)


def test_lines_are_read_like_an_array(tmp_path: Path) -> None:
    rows = [{"id": n, "conversations": chat("[hi, ü]", "{hello}")} for n in range(3)]
    assert [record.id for record in records(load(tmp_path, "\n".join(map(json.dumps, rows))))] == [
        "0",
        "1",
        "2",
    ]


def test_half_a_surrogate_pair_does_not_stop_the_import(tmp_path: Path) -> None:
    data = load(tmp_path, '[{"id": 1, "conversations": [{"from": "human", "value": "a\\ud83d"}, '
                          '{"from": "gpt", "value": "\\ud83d\\ude00"}]}]')  # fmt: skip
    assert [message.text for message in data[0].messages] == ["a?", "\N{GRINNING FACE}"]


def test_table_is_reused_until_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"id": n, "conversations": chat("hi", "hello")} for n in range(3)]
    load(tmp_path, rows)
    with monkeypatch.context() as patch:
        patch.setattr("cobra.data.llava.read_json_records", lambda path: pytest.fail("it is read again"))
        assert len(LlavaJson(tmp_path / "data.json", tmp_path, tmp_path / "cache")) == 3
    (tmp_path / "data.json").write_text(json.dumps(rows[:2]))
    os.utime(tmp_path / "data.json", ns=(1, 1))
    assert len(LlavaJson(tmp_path / "data.json", tmp_path, tmp_path / "cache")) == 2


def test_workers_are_sent_no_data(tmp_path: Path) -> None:
    data = load(tmp_path, [{"id": n, "conversations": chat("hi" * 500, "hello")} for n in range(100)])
    pickled = pickle.dumps(data)
    assert len(pickled) < 10_000
    assert pickle.loads(pickled)[99].id == "99"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[{"id": 1}, {"id": x}]', "no JSON at character 19"),
        ('[{"id": 1},', "without an end"),
        ('[{"id": 1}]', "none of the 1 records"),
        ("[]", "holds no records"),
    ],
)
def test_broken_file_is_refused(text: str, problem: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=problem):
        load(tmp_path, text)


def test_missing_file_or_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text("[]")
    with pytest.raises(FileNotFoundError, match=r"none\.json"):
        LlavaJson(tmp_path / "none.json", tmp_path)
    with pytest.raises(FileNotFoundError, match="image_root"):
        LlavaJson(tmp_path / "data.json", tmp_path / "none")
