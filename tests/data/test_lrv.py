"""LRV-Instruct as published, and captions of any source."""

import json
from pathlib import Path

import numpy as np

from cobra.data.captions import Captions
from cobra.data.llava import LlavaCaptions, LlavaJson
from cobra.data.lrv import LrvInstruct

ROWS = [
    {"image_id": "2416218", "question": "Is there a dog ?\n", "answer": " No, there is none."},
    {"image_id": 2330570, "question": "Which colour?", "answer": "Red."},
    {"image_id": "00001_chart.png", "question": "Which year?", "answer": "2015", "task": "QA"},
    {"image_id": "", "question": "Which year?", "answer": "2015"},
    {"image_id": "1", "question": "Which year?"},
]


def test_pictures_get_their_ending_and_questions_their_picture(tmp_path: Path) -> None:
    (tmp_path / "filter_cap1.json").write_text(json.dumps(ROWS))
    data = LrvInstruct(tmp_path / "filter_cap1.json", tmp_path, tmp_path / "cache")
    records = [data[number] for number in range(len(data))]
    assert [record.id for record in records] == ["2416218", "2330570", "00001_chart"]
    names = ["2416218.jpg", "2330570.jpg", "00001_chart.png"]
    assert [record.images for record in records] == [[tmp_path / name] for name in names]
    assert [message.text for message in records[0].messages] == ["Is there a dog ?", "No, there is none."]
    assert data.dropped == {"no conversations": 1, "empty turn": 1}


def test_captions_of_a_source_are_those_of_its_own_class(tmp_path: Path) -> None:
    turns = [{"from": f, "value": v} for f, v in (("system", "Hi."), ("human", "Say."), ("gpt", "A cat."))]
    rows = [{"id": n, "image": ["a.jpg", "b.jpg"], "conversations": turns} for n in range(4)]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    ours = LlavaCaptions(tmp_path / "a.json", tmp_path, tmp_path / "cache")
    chats = LlavaJson(tmp_path / "a.json", tmp_path, tmp_path / "cache")
    captions = Captions(lambda: chats)
    assert len(captions) == len(ours) == 4
    assert captions[1].messages == ours[1].messages
    assert [message.role for message in ours[1].messages] == ["user", "assistant"]
    assert ours[1].messages[0].content == [{"type": "image"}] * 2
    assert ours.path == chats.path, "a table is made once for both"
    assert ours.identity() != chats.identity() != captions.identity()
    rng = np.random.default_rng
    assert np.array_equal(captions.order(rng(0)), chats.order(rng(0)))
