import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from cobra.eval.benchmarks.base import Question
from cobra.eval.benchmarks.pope import SPLITS, Pope
from cobra.eval.predictions import Prediction
from tests.eval.benchmarks.fixtures import fixture
from tests.eval.benchmarks.predictions import answered, predict


def said(answer: str, true: str, split: str = "random") -> Prediction:
    return Prediction(split, "1", "all", "?", answer, [true], "pope")


@pytest.fixture
def pope(tmp_path: Path) -> Pope:
    (tmp_path / "pope").symlink_to(fixture("pope").resolve())
    return Pope(tmp_path)


@pytest.mark.parametrize(
    ("answer", "read"),
    [
        ("Yes", "yes"),
        ("yes, there is.", "yes"),
        ("No", "no"),
        ("no", "no"),
        ("No, there is not.", "no"),
        ("There is not", "no"),
        ("There is no snowboard in the image.", "no"),
        # neither word, nothing at all: a yes
        ("", "yes"),
        (" ", "yes"),
        ("maybe", "yes"),
        # only these spellings are words to it
        ("NO", "yes"),
        ("Not", "yes"),
        ("Nothing", "yes"),
        ("There isn't", "yes"),
        ("none", "yes"),
        # the first sentence alone
        ("Yes. No", "yes"),
        (". No", "yes"),
        ("No. Yes", "no"),
        ("no,", "no"),
        ("No,there is", "yes"),
        # split at spaces alone
        ("Answer:\nNo", "yes"),
        ("\tno", "yes"),
        ("Yes and no", "no"),
        ("Answer: No", "no"),
        ("No!", "yes"),
    ],
)
def test_answers_are_read_as_the_reference_reads_them(answer: str, read: str) -> None:
    benchmark = Pope(Path())
    assert benchmark.credit(said(answer, read)) == 1
    assert benchmark.credit(said(answer, "no" if read == "yes" else "yes")) == 0


def test_the_published_files_hold_nine_thousand_balanced_questions(pope: Pope) -> None:
    questions = list(pope.questions())
    assert len(questions) == 9000 == len({q.id for q in questions})
    for split in SPLITS:
        assert [q.answers for q in questions if q.split == split].count(["yes"]) == 1500


def flipped(questions: list[Question]) -> np.ndarray:
    """The true answers with a tenth of each split's wrong, as 0 and 1."""
    true = np.array([q.answers == ["yes"] for q in questions])
    # of every twenty in a row one yes and one no, which alternate in the files
    true[9::20] ^= True
    true[18::20] ^= True
    return true


@pytest.mark.parametrize(
    ("words", "lmms"),
    [
        (("No", "Yes"), 90.0),
        (("No, there is not.", "Yes, there is."), 0.0),
        (("no ", ""), 45.0),
    ],
    ids=["clean", "verbose", "empty for yes"],
)
def test_noise_of_a_tenth_costs_ten_points(pope: Pope, words: tuple[str, str], lmms: float) -> None:
    questions = list(pope.questions())
    true, noisy = np.array([q.answers == ["yes"] for q in questions]), flipped(questions)
    predictions = answered(pope, [words[yes] for yes in noisy.astype(int)])
    started = time.process_time()
    scores = pope.score(predictions)
    # 0.03 s where it was measured
    assert time.process_time() - started < 2
    assert scores["accuracy"] == pytest.approx(90)
    splits = np.array([q.split for q in questions])
    f1 = [100 * f1_score(true[splits == split], noisy[splits == split]) for split in SPLITS]
    assert scores["f1"] == pytest.approx(np.mean(f1))
    assert scores["adversarial/f1"] == pytest.approx(f1[2])
    assert scores["all/yes_ratio"] == pytest.approx(100 * noisy.mean())
    assert scores["lmms-eval/accuracy"] == pytest.approx(lmms, abs=0.01)


def test_lmms_eval_says_half_of_the_answers_are_yes_whatever_they_are(pope: Pope) -> None:
    scores = pope.score(answered(pope, ["Yes"] * 9000))
    assert (scores["yes_ratio"], scores["lmms-eval/yes_ratio"]) == (100, 50)
    assert (scores["accuracy"], scores["recall"], scores["precision"]) == (50, 100, 50)
    verbose = pope.score(answered(pope, ["Yes, there is."] * 9000))
    assert verbose["f1"] == scores["f1"]
    assert (verbose["lmms-eval/accuracy"], verbose["lmms-eval/f1"]) == (0, 0)


def test_lmms_eval_misses_by_the_bare_word_alone() -> None:
    answers = [("Yes", "yes"), ("No", "yes"), ("Yes.", "yes"), ("yes ", "no"), ("", "no")]
    scores = Pope(Path()).score([said(answer, true) for answer, true in answers])
    # one hit, one false alarm, one miss: `Yes.` is none of them
    assert (scores["lmms-eval/accuracy"], scores["lmms-eval/f1"]) == (20, 50)


def test_choices_by_likelihood_have_areas_as_scikit_learn_computes_them(pope: Pope) -> None:
    questions = list(pope.questions())[::7]
    true = np.array([q.answers == ["yes"] for q in questions])
    draw = np.random.default_rng(0)
    yes, no = draw.normal(true, 1.5), draw.normal(~true, 1.5)
    predictions = [
        predict(pope, q, "Yes" if y > n else "No", scores={"Yes": y, "No": n})
        for q, y, n in zip(questions, yes.tolist(), no.tolist(), strict=True)
    ]
    scores = pope.score(predictions)
    probability = np.exp(yes) / (np.exp(yes) + np.exp(no))
    assert scores["all/auroc"] == pytest.approx(100 * roc_auc_score(true, probability))
    assert scores["all/aupr"] == pytest.approx(100 * average_precision_score(true, probability))
    assert scores["all/accuracy"] == pytest.approx(100 * np.mean((probability > 0.5) == true))
    predictions[0].scores.clear()
    assert "all/auroc" not in pope.score(predictions)


def test_of_no_answers_there_are_no_scores() -> None:
    assert Pope(Path()).score([]) == {}
    only = Pope(Path()).score([said("Yes", "yes", "popular")])
    assert (only["accuracy"], only["popular/f1"], only["precision"]) == (100, 100, 100)
    assert "random/f1" not in only


Damage = Callable[[list[str]], list[str]]
DAMAGES: dict[str, tuple[Damage, str]] = {
    "the version of 2,910 lines": (lambda lines: lines[:2910], "2910 questions.*fetch"),
    "cut short": (lambda lines: [*lines[:-1], lines[-1][:40]], "line 3000: no JSON.*cut short"),
    "an id twice": (lambda lines: [*lines[:-1], lines[0]], "id 1 twice"),
    "another format": (lambda lines: ['{"question": "?"}', *lines[1:]], "line 1: no 'question_id'"),
    "utf-16": (lambda lines: ["\udcff\udcfe" + line for line in lines], "no UTF-8"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_another_file_is_refused_in_one_line(tmp_path: Path, damage: str) -> None:
    change, message = DAMAGES[damage]
    row = {"image": "COCO_val2014_1.jpg", "text": "?", "label": "yes"}
    lines = [json.dumps({"question_id": number, **row}) for number in range(1, 3001)]
    (tmp_path / "pope").mkdir()
    path = tmp_path / "pope/coco_pope_random.json"
    path.write_bytes("\n".join(change(lines)).encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError, match=message) as error:
        list(Pope(tmp_path).questions())
    assert "\n" not in str(error.value)
