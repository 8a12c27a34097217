from pathlib import Path

import pytest

from cobra.eval.benchmarks.ocrbench import OcrBench
from cobra.eval.predictions import Prediction
from tests.eval.benchmarks.fixtures import fixture
from tests.eval.benchmarks.predictions import answered

TYPES = {
    "Scene Text-centric VQA": 200,
    "Doc-oriented VQA": 200,
    "Key Information Extraction": 200,
    "Handwritten Mathematical Expression Recognition": 100,
}


def said(text: str, answers: list[str], dataset: str) -> Prediction:
    return Prediction("", "0", "all", "?", text, answers, "ocrbench", truth={"dataset": dataset})


@pytest.mark.parametrize(
    ("text", "answers", "dataset", "right"),
    [
        ("CENTRE", ["CENTRE"], "IIIT5K", True),
        ("centre", ["CENTRE"], "IIIT5K", True),
        ("The word is Centre.", ["CENTRE"], "IIIT5K", True),
        # A part of a word will do.
        ("decentred", ["CENTRE"], "IIIT5K", True),
        ("center", ["CENTRE"], "IIIT5K", False),
        ("cen tre", ["CENTRE"], "IIIT5K", False),
        ("", ["CENTRE"], "IIIT5K", False),
        ("CENT", ["CENTRE"], "IIIT5K", False),
        ("It has 312Cal", ["312 Cal", "1295 kJ", "312Cal"], "POIE", True),
        ("1295", ["312 Cal", "1295 kJ"], "POIE", False),
        ("9 royal crescent", [" 9 Royal\nCrescent\n"], "SROIE", True),
        ("9 Royal\nCrescent", ["9 royal crescent"], "SROIE", True),
        ("9 Royal\n\nCrescent", ["9 royal crescent"], "SROIE", False),
        ("9  Royal", ["9 royal"], "SROIE", False),
        # Formulas: spaces do not matter, and case does.
        ("B a=CH", ["B a = C H"], "HME100k", True),
        ("b a = c h", ["B a = C H"], "HME100k", False),
        ("$$ B a = C H $$", ["B a = C H\n"], "HME100k", True),
        ("\\frac{9-1}{2}", ["\\frac { 9 - 1 } { 2 }"], "HME100k", True),
        ("B a =\nC H", ["B a = C H"], "HME100k", True),
        ("B\ta = C H", ["B a = C H"], "HME100k", False),
        ("x = 1 or x = 2", ["x = 3", "x = 2"], "HME100k", True),
        ("X", ["x"], "hme100k", True),
    ],
)
def test_an_answer_anywhere_in_the_prediction_is_right(
    text: str, answers: list[str], dataset: str, right: bool
) -> None:
    assert OcrBench(Path()).credit(said(text, answers, dataset)) == right


@pytest.fixture
def benchmark(tmp_path: Path) -> OcrBench:
    (tmp_path / "ocrbench").symlink_to(fixture("ocrbench").resolve())
    return OcrBench(tmp_path)


def test_the_published_questions_are_a_thousand_of_ten_types(benchmark: OcrBench) -> None:
    questions = list(benchmark.questions())
    assert len({q.id for q in questions}) == 1000
    assert questions[0].images == [benchmark.root / "ocrbench/OCRBench_Images/IIIT5K/test/918_1.png"]
    assert all(isinstance(answer, str) for q in questions for answer in q.answers)


def test_the_answers_score_a_thousand_points(benchmark: OcrBench) -> None:
    truth = [q.answers[-1] for q in benchmark.questions()]
    clean = benchmark.score(answered(benchmark, truth))
    assert clean["score"] == 1000
    assert clean["accuracy"] == clean["macro"] == 100
    assert clean["recognition/score"] == 300
    assert {kind: clean[f"{kind}/score"] for kind in TYPES} == TYPES
    verbose = benchmark.score(answered(benchmark, [f"I read: {text}." for text in truth]))
    assert verbose["score"] == 1000


def test_every_fifth_answer_left_out_scores_eight_hundred(benchmark: OcrBench) -> None:
    truth = [q.answers[0] for q in benchmark.questions()]
    noisy = answered(benchmark, [text if n % 5 else "~" for n, text in enumerate(truth)])
    assert benchmark.score(noisy)["score"] == 800
    assert benchmark.score(answered(benchmark, [""] * 1000))["score"] == 0


def test_lmms_eval_reads_letters_of_full_width_but_in_formulas() -> None:
    def scored(said: str, dataset: str) -> dict[str, float]:
        asked = Prediction("", "1", "kind", "", said, ["A 1"], "ocrbench", truth={"dataset": dataset})
        return OcrBench(Path()).score([asked])

    wide = "Ａ\u3000１"
    assert (scored(wide, "IIIT5K")["score"], scored(wide, "IIIT5K")["lmms-eval/score"]) == (0, 1)
    assert scored(wide, "HME100k")["lmms-eval/score"] == 0
    assert scored("a1", "HME100k")["lmms-eval/score"] == 0
    assert scored("A1", "HME100k")["lmms-eval/score"] == 1
