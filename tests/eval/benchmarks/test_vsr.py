import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from cobra.eval.benchmarks.vsr import Vsr, VsrRandom
from cobra.eval.predictions import Prediction
from tests.eval.benchmarks.fixtures import fixture
from tests.eval.benchmarks.predictions import answered, predict


@pytest.fixture
def vsr(tmp_path: Path) -> Vsr:
    (tmp_path / "vsr/zeroshot").mkdir(parents=True)
    (tmp_path / "vsr/zeroshot/test.jsonl").symlink_to(fixture("vsr/zeroshot_test.jsonl").resolve())
    return Vsr(tmp_path)


@pytest.mark.parametrize(
    ("answer", "true", "false"),
    [
        ("True", 1, 0),
        ("False", 0, 1),
        ("true.", 1, 0),
        (" FALSE\n", 0, 1),
        ("The statement is true.", 1, 0),
        ('"False"', 0, 1),
        ("It is false, the cat is above it.", 0, 1),
        # neither, or both
        ("", 0, 0),
        ("Yes", 0, 0),
        ("True or False", 0, 0),
        ("untrue", 0, 0),
        ("falsely so", 0, 0),
        ("Truetrue", 0, 0),
        ("**True**", 1, 0),
        ("答案是True。", 1, 0),
    ],
)
def test_words_are_read_and_neither_of_both_is_wrong(answer: str, true: float, false: float) -> None:
    credits = [Vsr(Path()).credit(Prediction("", "1", "on", "?", answer, [t])) for t in ("True", "False")]
    assert credits == [true, false]


def test_the_published_split_is_read_with_pictures_of_both_sets(vsr: Vsr) -> None:
    questions = list(vsr.questions())
    pictures = {q.images[0] for q in questions}
    assert (len(questions), len({q.id for q in questions}), len(pictures)) == (1222, 1222, 715)
    folders = [Path(str(picture)).parent.name for q in questions for picture in q.images]
    assert (folders.count("train2017"), folders.count("val2017")) == (1180, 42)


def test_a_tenth_of_noise_costs_ten_points_and_always_true_earns_its_share(vsr: Vsr) -> None:
    true = np.array([q.answers == ["True"] for q in vsr.questions()])
    noisy = true.copy()
    noisy[::10] ^= True
    scores = vsr.score(answered(vsr, noisy.astype(str)))
    assert scores["accuracy"] == pytest.approx(100 * np.mean(true == noisy))
    assert scores["true_ratio"] == pytest.approx(100 * noisy.mean())
    constant = vsr.score(answered(vsr, ["True"] * 1222))
    # 629 of 1,222 captions are true
    assert constant["accuracy"] == constant["always_true"] == pytest.approx(51.473, abs=1e-3)
    assert "auroc" not in constant


def test_areas_are_those_of_the_probability_of_true(vsr: Vsr) -> None:
    true = np.array([q.answers == ["True"] for q in vsr.questions()])
    scores = np.random.default_rng(0).normal(size=(1222, 2)) + np.stack([true, ~true], 1)
    choices = [dict(zip(("True", "False"), row, strict=True)) for row in scores.tolist()]
    predictions = [
        predict(vsr, q, max(c, key=c.__getitem__), scores=c)
        for q, c in zip(vsr.questions(), choices, strict=True)
    ]
    found = vsr.score(predictions)
    probability = 1 / (1 + np.exp(scores[:, 1] - scores[:, 0]))
    assert found["auroc"] == pytest.approx(100 * roc_auc_score(true, probability))
    assert found["aupr"] == pytest.approx(100 * average_precision_score(true, probability))
    assert found["accuracy"] == pytest.approx(100 * np.mean((probability > 0.5) == true))


ROW = {
    "image": "1.jpg",
    "image_link": "http://images.cocodataset.org/val2017/1.jpg",
    "caption": "The cat is on the mat.",
    "label": 1,
    "relation": "on",
}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([ROW], "has 1 captions, not 1222"),
        ([ROW, ROW], "twice"),
        ([{**ROW, "label": "1"}], "line 1: no 'label' of type int"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, rows: list[dict[str, object]], message: str) -> None:
    path = tmp_path / "vsr/zeroshot/test.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(ValueError, match=message):
        list(Vsr(tmp_path).questions())


def test_the_random_split_is_a_benchmark_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "vsr/random").mkdir(parents=True)
    (tmp_path / "vsr/random/test.jsonl").write_text(json.dumps(ROW))
    (question,) = VsrRandom(tmp_path).questions()
    assert (question.images, question.answers) == ([tmp_path / "coco/val2017/1.jpg"], ["True"])
    (tmp_path / "vsr/random/test.jsonl").write_text(json.dumps({**ROW, "label": 2}))
    with pytest.raises(ValueError, match="line 1: the label 2"):
        list(VsrRandom(tmp_path).questions())
