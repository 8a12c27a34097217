from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from cobra.data.cache_folder import cache_folder
from cobra.data.shapes.cache import load_scenes
from cobra.data.shapes.dataset import (
    DESCRIBE,
    ShapesCaptions,
    ShapesCells,
    ShapesEval,
    ShapesPlaces,
    ShapesQuestions,
)
from cobra.data.shapes.questions import ANSWERS
from cobra.data.shapes.scene import Split, caption


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COBRA_CACHE", str(tmp_path_factory.getbasetemp() / "cobra"))


def test_datasets_share_their_scenes() -> None:
    questions, captions = ShapesQuestions(size=20, seed=4), ShapesCaptions(size=20, seed=4)
    cells = ShapesCells(size=20, seed=4)
    assert len(questions) == len(captions) == len(cells) == 20
    for first, second, third in ((questions[n], captions[n], cells[n]) for n in range(20)):
        assert np.array_equal(first.images[0], second.images[0])  # type: ignore[arg-type]
        assert third.messages == second.messages[:1]
        assert second.messages[0].content == [{"type": "image"}, {"type": "text", "text": DESCRIBE}]
        assert third.labels is not None
        assert second.messages[1].text == caption(third.labels)
        assert (third.labels.max(0) <= [8, 7, 10]).all()
    with pytest.raises(IndexError):
        questions[20]


def test_places_are_those_of_the_caption_and_names_single_out_a_thing() -> None:
    places, captions = ShapesPlaces(size=60, seed=4), ShapesCaptions(size=60, seed=4)
    names: Counter[int] = Counter()
    for number in range(60):
        record, described = places[number], captions[number]
        cells = dict(phrase.split(maxsplit=1) for phrase in described.messages[1].text.split(", "))
        told = [(q.text, a.text) for q, a in zip(record.messages[::2], record.messages[1::2], strict=True)]
        for question, cell in told:
            words = question.removeprefix("find the ").removesuffix(".").replace(" object", "").split()
            assert [c for c, what in cells.items() if set(words) <= set(what.split())] == [cell]
            names[len(words)] += 1
        assert len({cell for _, cell in told}) == len(told)
        pairs = Counter(what for what in cells.values() if not what.endswith("digit"))
        assert len(told) == 1 + sum(often == 1 for often in pairs.values())
    assert names[1] > 60
    assert names[2] > 60


def test_questions_put_the_picture_first_and_keep_to_the_turns() -> None:
    dataset = ShapesQuestions(size=20, turns=2)
    for record in (dataset[n] for n in range(20)):
        assert [message.role for message in record.messages] == ["user", "assistant"] * 2
        assert [part["type"] for part in record.messages[0].content] == ["image", "text"]
        assert [part["type"] for part in record.messages[2].content] == ["text"]
    with pytest.raises(ValueError, match="turns 7"):
        ShapesQuestions(size=20, turns=7)


@pytest.mark.parametrize(("split", "types"), [("test", 8), ("composition", 7)])
def test_evaluation_asks_every_type_and_answer_equally_often(split: Split, types: int) -> None:
    dataset = ShapesEval(split, size=40 * types)
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for index in range(len(dataset)):
        record = dataset[index]
        assert len(record.messages) == 2
        counts[record.meta["type"]][record.messages[-1].text] += 1
    assert [counts[kind].total() for kind in ANSWERS[split]] == [40] * types
    for answers in counts.values():
        assert max(answers.values()) - min(answers.values()) <= 1
    assert len({dataset[index].id for index in range(len(dataset))}) == len(dataset)


@pytest.mark.parametrize("broken", ["npz", "npy"])
def test_broken_cache_is_drawn_again(broken: str) -> None:
    first = load_scenes(10, 6, "train")
    (path,) = cache_folder("shapes").glob(f"*-train-10-6.{broken}")
    whole = path.read_bytes()
    middle = len(whole) // 2
    for damaged in (whole[:middle], b"", whole[:middle] + bytes(64) + whole[middle + 64 :]):
        path.write_bytes(damaged)
        load_scenes.cache_clear()
        again = load_scenes(10, 6, "train")
        assert np.array_equal(again.images, first.images)
        assert again.questions == first.questions
        assert path.read_bytes() == whole
    assert not list(cache_folder("shapes").glob("*.tmp"))


def test_cached_scenes_are_not_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    load_scenes(10, 7, "test")
    load_scenes.cache_clear()
    monkeypatch.setattr("cobra.data.shapes.cache.build_scenes", lambda *_: pytest.fail("drawn again"))
    assert len(load_scenes(10, 7, "test")) == 10


def test_unwritable_cache_only_warns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("COBRA_CACHE", str(tmp_path / "file"))
    assert len(load_scenes(3, 8, "train")) == 3
    assert "COBRA_CACHE" in caplog.text


@pytest.mark.parametrize(
    ("size", "seed", "split", "message"),
    [(0, 0, "train", "size 0"), (1, -1, "train", "seed -1"), (1, 0, "dev", "split 'dev'")],
)
def test_bad_arguments_are_refused(size: int, seed: int, split: Split, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ShapesQuestions(split, size, seed)
    with pytest.raises(ValueError, match=message):
        ShapesEval(split, size, seed)
