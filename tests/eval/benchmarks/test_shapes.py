"""ShapesVQA as benchmarks: what is asked is true of the pictures, and true answers score as they should."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from cobra.data.shapes.dataset import ShapesEval
from cobra.data.shapes.scene import CELL_NAMES, COLORS, SHAPES
from cobra.eval.asks import asks_of, headline_of
from cobra.eval.benchmarks.base import Benchmark, Question
from cobra.eval.benchmarks.find import find_benchmark
from cobra.eval.benchmarks.shapes import ShapesPope, ShapesRefcoco, ShapesVqa
from cobra.eval.predictions import Prediction
from cobra.eval.protocols.protocol import read_protocol

NAMES = ["shapes", "shapes_pope", "shapes_vqa", "shapes_refcoco"]


def said(question: Question, answer: str) -> Prediction:
    return Prediction(
        question.split, question.id, question.kind, "", answer, question.answers, truth=question.truth
    )


@pytest.fixture(scope="module")
def asked() -> dict[str, tuple[Benchmark, list[Question]]]:
    benchmarks = {name: find_benchmark(name)(Path()) for name in NAMES}
    return {name: (benchmark, list(benchmark.questions())) for name, benchmark in benchmarks.items()}


Asked = dict[str, tuple[Benchmark, list[Question]]]


@pytest.mark.parametrize("name", NAMES)
def test_ids_are_unique_and_true_answers_score_best(asked: Asked, name: str) -> None:
    benchmark, questions = asked[name]
    assert len({question.id for question in questions}) == len(questions) >= 800
    scores = benchmark.score([said(question, question.answers[0]) for question in questions])
    protocol = read_protocol("llava")
    headline = headline_of(type(benchmark), protocol)
    assert headline is not None
    assert headline.ask in {ask.name for ask in asks_of(type(benchmark), [protocol])}
    # an object of the smallest size fills less than half of its cell
    assert scores[headline.metric] == 100
    wrong = benchmark.score([said(question, "nothing") for question in questions])
    assert wrong[headline.metric] <= 70


def test_there_is_what_pope_asks_for_where_it_says_so(asked: Asked) -> None:
    _, questions = asked["shapes_pope"]
    scenes = ShapesEval("test", 1600, 4).scenes
    labels = {id(q): scenes.labels[int(q.id.split("-")[1])] for q in questions}
    colors, popular = list(COLORS), Counter[str]()
    for q in questions:
        color, shape = q.fields["question"].rstrip("?").split()[-2:]
        cells = [(c, s) for c, s, _ in labels[id(q)].tolist() if c]
        there = (colors.index(color) + 1, SHAPES.index(shape) + 1) in cells
        assert q.answers == ["yes" if there else "no"]
        if q.split == "adversarial" and not there:
            assert colors.index(color) + 1 in {c for c, _ in cells}
            assert SHAPES.index(shape) + 1 in {s for _, s in cells}
        if q.split == "popular" and not there:
            popular[q.fields["question"]] += 1
    assert Counter((q.split, *q.answers) for q in questions) == {
        (split, answer): 500 for split in ("random", "popular", "adversarial") for answer in ("yes", "no")
    }
    assert len(popular) < 12
    # each positive question in all splits, as in the original
    assert len({(q.id.split("-")[1], q.fields["question"]) for q in questions if q.answers == ["yes"]}) == 500


def test_choices_have_areas(asked: Asked) -> None:
    benchmark, questions = asked["shapes_pope"]
    (choices,) = (ask.choices for ask in benchmark.asks if ask.choices)
    predictions = [said(q, q.answers[0]) for q in questions]
    for each in predictions:
        each.scores = {choice: -float(choice != each.answers[0]) for choice in choices}
    assert benchmark.score(predictions)["auroc"] == 100


def test_ten_people_agree_but_for_two(asked: Asked) -> None:
    benchmark, questions = asked["shapes_vqa"]
    for question in questions[:50]:
        assert Counter(question.answers).most_common(1) == [(question.answers[0], 8)]
        assert benchmark.credit(said(question, question.answers[0])) == 1
        # each of the two is helped by the other alone, all else by both
        assert benchmark.credit(said(question, question.answers[-1])) == pytest.approx(0.8 * 2 / 3 + 0.2 / 3)


def test_boxes_hold_the_objects_and_nothing_else_of_their_cells(asked: Asked) -> None:
    benchmark, questions = asked["shapes_refcoco"]
    for question in questions[:200]:
        left, top, right, bottom = question.truth["box"]
        row, column = divmod(CELL_NAMES.index(question.answers[0]), 4)
        assert 16 * column <= left < right <= 16 * column + 16
        assert 16 * row <= top < bottom <= 16 * row + 16
        picture = np.array(question.images[0]).astype(int)
        cell = picture[16 * row : 16 * row + 16, 16 * column : 16 * column + 16].copy()
        cell[top - 16 * row : bottom - 16 * row, left - 16 * column : right - 16 * column] = np.median(
            picture.reshape(-1, 3), axis=0
        )
        # what is left of the cell is ground
        assert abs(cell - np.median(picture.reshape(-1, 3), axis=0)).max() <= 45
    prediction = said(questions[0], "the cell a")
    assert benchmark.credit(prediction) == 0
    overlaps = [benchmark.score([said(q, q.answers[0])])["iou"] for q in questions[:200]]
    assert 15 < min(overlaps) < 50 < max(overlaps) <= 100
    assert benchmark.score([said(q, q.answers[0]) for q in questions])["acc@0.5"] == pytest.approx(87, abs=1)


def test_they_need_no_files() -> None:
    assert not any(
        kind.downloads for kind in (ShapesPope, ShapesVqa, ShapesRefcoco, find_benchmark("shapes"))
    )
