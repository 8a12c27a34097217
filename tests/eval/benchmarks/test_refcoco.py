import json
from pathlib import Path

import numpy as np
import pytest

from cobra.eval.benchmarks.refcoco import RefCOCO, RefCOCOg, RefCOCOPlus
from tests.eval.benchmarks.fixtures import fixture
from tests.eval.benchmarks.predictions import answered

ROW = {
    "img_id": "COCO_train2014_000000533220_1954731",
    "sents": "a bush",
    "bbox": [100, 50, 200, 100],
    "width": 400,
    "height": 200,
}


@pytest.fixture
def real(tmp_path: Path) -> RefCOCOg:
    path = tmp_path / RefCOCOg.downloads[0].path
    path.parent.mkdir()
    path.symlink_to(fixture("refcoco/refcocog_val_head1500.json").resolve())
    return RefCOCOg(tmp_path)


def one(root: Path, row: object, kind: type[RefCOCO] = RefCOCO) -> RefCOCO:
    path = root / kind.downloads[0].path
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps([row]))
    return kind(root)


def test_real_expressions_are_found_by_their_true_boxes(real: RefCOCOg) -> None:
    questions = list(real.questions())
    assert len(questions) == 1500 == len({q.id for q in questions})
    assert questions[0].images == [real.root / "coco/train2014/COCO_train2014_000000533220.jpg"]
    scores = real.score(answered(real, [q.answers[0] for q in questions]))
    assert (scores["acc@0.5"], scores["iou"], scores["unread"]) == (100, pytest.approx(100), 0)
    assert scores["lmms-eval/acc@0.5"] == 100
    # what the wrong convention costs an oracle
    assert scores["padded/acc@0.5"] == pytest.approx(88.4)


def test_noise_is_scored_as_numpy_does(real: RefCOCOg) -> None:
    questions = list(real.questions())
    draw = np.random.default_rng(0)
    boxes = np.array([json.loads(q.answers[0]) for q in questions])
    shifted = np.clip(boxes + draw.normal(0, 0.08, boxes.shape), 0, 1).round(2)
    said = [str(row) for row in shifted.tolist()]
    said[::50] = ["I see it."] * 30
    scores = real.score(answered(real, said))
    valid = (shifted[:, 0] < shifted[:, 2]) & (shifted[:, 1] < shifted[:, 3])
    valid[::50] = False
    corners = np.maximum(boxes[:, :2], shifted[:, :2]), np.minimum(boxes[:, 2:], shifted[:, 2:])
    shared = np.prod(np.clip(corners[1] - corners[0], 0, None), 1)
    union = sum(np.prod(b[:, 2:] - b[:, :2], 1) for b in (boxes, shifted)) - shared
    expected = np.where(valid, shared / union, 0)
    assert scores["iou"] == pytest.approx(100 * expected.mean())
    assert scores["acc@0.5"] == pytest.approx(100 * np.mean(expected >= 0.5))
    assert scores["unread"] == pytest.approx(100 * np.mean(~valid))


def test_a_model_trained_on_padded_pictures_is_right_in_the_padded_square(tmp_path: Path) -> None:
    # 400 × 200 is padded by 100 above and below
    benchmark = one(tmp_path, ROW)
    picture, padded = "[0.25, 0.25, 0.75, 0.75]", "[0.25, 0.38, 0.75, 0.62]"
    assert next(benchmark.questions()).answers == [picture]
    scores = benchmark.score(answered(benchmark, [picture]))
    assert (scores["acc@0.5"], scores["padded/iou"]) == (100, pytest.approx(48))
    scores = benchmark.score(answered(benchmark, [padded]))
    assert (scores["iou"], scores["padded/iou"], scores["padded/acc@0.5"]) == (pytest.approx(48), 100, 100)
    assert scores["acc@0.5"] == 0


def test_people_see_both_boxes_in_the_picture(tmp_path: Path) -> None:
    benchmark = one(tmp_path, ROW)
    read, words = answered(benchmark, ["[0.1, 0.2, 0.3, 0.4]"]) + answered(benchmark, ["here"])
    assert benchmark.boxes(read) == ((0.25, 0.25, 0.75, 0.75), (0.1, 0.2, 0.3, 0.4))
    assert benchmark.boxes(words) == ((0.25, 0.25, 0.75, 0.75), None)


def test_words_around_a_box_are_wrong_but_for_lmms_eval(tmp_path: Path) -> None:
    benchmark = one(tmp_path, ROW, RefCOCOPlus)
    scores = benchmark.score(answered(benchmark, ["It is at [0.25, 0.25, 0.75, 0.75]."]))
    assert (scores["acc@0.5"], scores["unread"], scores["lmms-eval/acc@0.5"]) == (0, 100, 100)


@pytest.mark.parametrize(
    "row",
    [
        {**ROW, "bbox": [1, 2, 3]},
        {**ROW, "bbox": [1, 2, 0, 3]},
        {**ROW, "width": None},
        {**ROW, "sents": ["a", "b"]},
        {**ROW, "img_id": "533220"},
        "a bush",
    ],
)
def test_other_rows_are_refused(tmp_path: Path, row: object) -> None:
    with pytest.raises(ValueError, match="expression 0 is no"):
        list(one(tmp_path, row).questions())


def test_a_pickle_and_half_a_file_are_refused(tmp_path: Path) -> None:
    path = one(tmp_path, ROW).root / RefCOCO.downloads[0].path
    for content in (b"\x80\x04]\x94.", json.dumps([ROW]).encode()[:-9]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="no JSON"):
            list(RefCOCO(tmp_path).questions())
    path.write_text("{}")
    with pytest.raises(ValueError, match="no list of expressions"):
        list(RefCOCO(tmp_path).questions())
