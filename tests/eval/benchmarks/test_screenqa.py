from pathlib import Path

import pytest

from cobra.eval.benchmarks.base import Benchmark
from cobra.eval.benchmarks.screenqa import ScreenQa, ScreenQaComplex, ScreenQaFull
from tests.eval.benchmarks.fixtures import fixture
from tests.eval.benchmarks.predictions import answered
from tests.eval.benchmarks.small_files import allow_any_size, write_small


@pytest.fixture(params=[(ScreenQa, "short_answers_test"), (ScreenQaComplex, "complex_qa_data")])
def benchmark(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ScreenQa:
    kind, name = request.param
    allow_any_size(monkeypatch, kind)
    file = tmp_path / kind.file
    file.parent.mkdir(parents=True)
    file.symlink_to(fixture(f"screenqa/{name}_head2000.json").resolve())
    found: ScreenQa = kind(tmp_path)
    return found


def test_questions_of_a_screen_have_ids_of_their_own(benchmark: Benchmark) -> None:
    questions = list(benchmark.questions())
    assert len({q.id for q in questions}) == 2000
    assert questions[0].images[0] in {benchmark.root / f"screenqa/images/{n}.jpg" for n in (3, 5)}


def test_any_answer_that_was_given_is_right(benchmark: Benchmark) -> None:
    for place in (0, -1):
        truth = [q.answers[place] for q in benchmark.questions()]
        scores = benchmark.score(answered(benchmark, truth))
        # Answers of punctuation alone match exactly and share no word, in the published metrics, too.
        blank = sum(text in ("$", '"+"') for text in truth)
        assert scores["exact_match"] == 100
        assert scores["f1"] == pytest.approx(100 * (2000 - blank) / 2000)
        assert scores["mobilevlm-ui/f1"] == 100


def test_every_fourth_answer_left_out_costs_a_quarter(benchmark: Benchmark) -> None:
    truth = [q.answers[0] for q in benchmark.questions()]
    scores = benchmark.score(answered(benchmark, [text if n % 4 else "zzzz" for n, text in enumerate(truth)]))
    assert scores["exact_match"] == 75


def test_the_full_set_compares_lists_of_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    allow_any_size(monkeypatch, ScreenQaFull)
    people = [["12:00", "8 km"], ["12:00"], []]
    truth = [
        {
            "full_answer": "It is.",
            "ui_elements": [{"text": t, "bounds": [0, 0, 1, 1], "vh_index": 2} for t in texts],
        }
        for texts in people
    ]
    row = {"image_id": 7, "image_width": 2, "image_height": 3, "question": "When?", "ground_truth": truth}
    write_small(tmp_path, ScreenQaFull.file, [row] * 4)
    benchmark = ScreenQaFull(tmp_path)
    given = answered(benchmark, ["8 km\n12:00", " 12:00 \n", "", "9 km\n12:00"])
    scores = benchmark.score(given)
    # In another order it is no exact match; nothing is right, for one of three people chose nothing.
    assert scores["exact_match"] == 50
    # The last has one of two lines right, against the list of one: 2/3.
    assert scores["f1"] == pytest.approx(100 * (1 + 1 + 1 + 2 / 3) / 4)
    # The last has it in the second place: 1 / log2(3) of the list of one.
    assert scores["ndcg"] == pytest.approx(100 * (1 + 1 + 1 + 0.6309297535714574) / 4)
    assert benchmark.credit(given[3]) == pytest.approx(2 / 3)


def test_a_short_file_in_the_place_of_the_full_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    allow_any_size(monkeypatch, ScreenQaFull)
    row = {"image_id": 7, "question": "When?", "ground_truth": ["12:00"]}
    write_small(tmp_path, ScreenQaFull.file, [row])
    with pytest.raises(ValueError, match="a row is not of the full set"):
        list(ScreenQaFull(tmp_path).questions())
