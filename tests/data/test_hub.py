"""Data sets of the `datasets` library, made here."""

import io
import pickle
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cobra.data.hub import HubDataset
from cobra.data.image import load_rgb

datasets: Any = pytest.importorskip("datasets")


def dataset(rows: int = 4) -> Any:
    pictures = [[Image.new("RGB", (4, 3), (n, 0, 0))] * (n % 3) for n in range(rows)]
    texts = [[{"user": f"what is {n}?", "assistant": "this"}] for n in range(rows)]
    text = datasets.Value("string")
    features = {
        "images": datasets.List(datasets.Image()),
        "texts": datasets.List({"user": text, "assistant": text}),
    }
    return datasets.Dataset.from_dict({"images": pictures, "texts": texts}, datasets.Features(features))


def test_a_saved_data_set_is_read_without_a_network(tmp_path: Path) -> None:
    datasets.DatasetDict({"train": dataset(), "test": dataset(2)}).save_to_disk(tmp_path / "set")
    data = HubDataset(str(tmp_path / "set"), cache_dir=tmp_path / "cache")
    data = pickle.loads(pickle.dumps(data))
    assert [len(data[n].images) for n in range(4)] == [0, 1, 2, 0]
    assert isinstance(data[2].images[0], bytes)
    assert load_rgb(data[2].images[1]).getpixel((0, 0)) == (2, 0, 0)
    assert data[3].messages[0].text == "what is 3?"
    assert (data[1].id, data[1].source) == ("1", "set")
    assert len(HubDataset(str(tmp_path / "set"), "test", cache_dir=tmp_path / "cache")) == 2
    with pytest.raises(ValueError, match=r"has no split 'dev', but \['test', 'train'\]"):
        HubDataset(str(tmp_path / "set"), "dev")


def test_a_folder_of_parquet_is_read_by_named_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    (tmp_path / "set").mkdir()
    renamed = dataset().rename_columns({"texts": "said", "images": "seen"})
    renamed.to_parquet(tmp_path / "set/train.parquet")
    with pytest.raises(
        ValueError, match=r"has no column of chats, but \['seen', 'said'\]: name it with `chats`"
    ):
        HubDataset(str(tmp_path / "set"))
    data = HubDataset(str(tmp_path / "set"), chats="said", images="seen")
    assert [len(data[n].images) for n in range(4)] == [0, 1, 2, 0]
    with pytest.raises(ValueError, match=r"data set '.*none' cannot be loaded \("):
        HubDataset(str(tmp_path / "none"))


def test_pictures_may_be_files_beside_a_metadata_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    (tmp_path / "set").mkdir()
    buffer = io.BytesIO()
    Image.new("RGB", (4, 3), (9, 0, 0)).save(buffer, "PNG")
    (tmp_path / "set/a.png").write_bytes(buffer.getvalue())
    (tmp_path / "set/metadata.jsonl").write_text('{"file_name": "a.png", "question": "why?", "answer": "so"}')
    record = HubDataset(str(tmp_path / "set"))[0]
    assert load_rgb(record.images[0]).getpixel((0, 0)) == (9, 0, 0)
    assert [message.text for message in record.messages] == ["why?", "so"]
