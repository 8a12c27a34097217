import base64
import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from cobra.data.image import load_rgb
from cobra.eval.benchmarks.mmbench import CCBench, MMBench, MMBenchCN
from cobra.eval.tasks import drawn
from tests.eval.benchmarks.fixtures import fixture
from tests.eval.benchmarks.predictions import answered, predict

PIXEL = base64.b64encode(b"\x89PNG" + bytes(range(64))).decode()
COLUMNS = [
    "index",
    "question",
    "hint",
    "A",
    "B",
    "C",
    "D",
    "answer",
    "category",
    "l2-category",
    "split",
    "image",
]
ROW = {"question": "?", "A": "cat", "B": "dog", "answer": "B", "l2-category": "animals", "image": PIXEL}
# as it is published: the copy turns the options by one and names the row that has its picture
COPY = {**ROW, "index": 1000003, "A": "dog", "B": "cat", "answer": "A", "image": "3"}


def table(root: Path, *rows: dict[str, object], kind: type[MMBench] = MMBench) -> MMBench:
    path = root / kind.downloads[0].path
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, delimiter="\t", restval="")
        writer.writeheader()
        writer.writerows(rows)
    return kind(root)


@pytest.fixture
def real(tmp_path: Path) -> MMBench:
    """Twenty real questions with their pictures."""
    path = tmp_path / MMBench.downloads[0].path
    path.parent.mkdir()
    path.symlink_to(fixture("mmbench_samples/MMBench_EN.tsv").resolve())
    return MMBench(tmp_path)


def test_real_questions_are_asked_in_all_rotations(real: MMBench) -> None:
    questions = list(real.questions())
    firsts = [q for q in questions if int(q.id) < 1_000_000]
    assert len(firsts) == 20
    assert len(questions) == sum(len(q.fields["letters"]) for q in firsts) == len({q.id for q in questions})
    for question in questions:
        (first,) = (q for q in firsts if int(q.id) == int(question.id) % 1_000_000)
        # the true option keeps its text and has each letter once
        assert question.truth["options"][question.answers[0]] == first.truth["options"][first.answers[0]]
        assert question.images == first.images
    for first in firsts:
        letters = {q.answers[0] for q in questions if int(q.id) % 1_000_000 == int(first.id)}
        assert letters == set(first.fields["letters"])
    assert load_rgb(firsts[3].images[0]).size > (1, 1)


def test_an_oracle_is_right_by_letter_and_by_text_and_one_letter_alone_is_not(real: MMBench) -> None:
    questions = list(real.questions())
    oracle = real.score(answered(real, [q.answers[0] for q in questions]))
    assert (oracle["vanilla"], oracle["circular"], oracle["unread"]) == (100, 100, 0)
    assert oracle["vlmevalkit/circular"] == 100
    verbose = real.score(answered(real, [f"The answer is {q.answers[0]}." for q in questions]))
    assert verbose == oracle
    constant = real.score(answered(real, ["A"] * len(questions)))
    # each question is right in one of its rotations
    assert constant["circular"] == 0
    firsts = [q.answers == ["A"] for q in questions if int(q.id) < 1_000_000]
    assert constant["vanilla"] == pytest.approx(100 * np.mean(firsts))


def test_circular_accuracy_falls_with_any_rotation(real: MMBench) -> None:
    questions = list(real.questions())
    right = np.random.default_rng(0).random(len(questions)) > 0.1
    predictions = answered(
        real, [q.answers[0] if r else "no idea" for q, r in zip(questions, right, strict=True)]
    )
    base = np.array([int(q.id) % 1_000_000 for q in questions])
    first = np.array([int(q.id) < 1_000_000 for q in questions])
    scores = real.score(predictions)
    assert scores["vanilla"] == pytest.approx(100 * right[first].mean())
    assert scores["circular"] == pytest.approx(
        100 * np.mean([right[base == b].all() for b in np.unique(base)])
    )
    assert scores["circular"] < scores["vanilla"]
    assert scores["unread"] == pytest.approx(100 * np.mean(~right))


def test_rotations_are_one_unit(real: MMBench) -> None:
    units = Counter(map(real.unit, answered(real, ["B"] * 78)))
    assert len(units) == 20


def test_published_copies_are_taken_as_they_are(tmp_path: Path) -> None:
    benchmark = table(tmp_path, {**ROW, "index": 3}, COPY)
    first, copy = benchmark.questions()
    assert (copy.id, copy.answers, copy.images) == ("1000003", ["A"], first.images)
    assert copy.fields["options"] == "A. dog\nB. cat"
    scores = benchmark.score([predict(benchmark, first, "B"), predict(benchmark, copy, "B")])
    assert (scores["vanilla"], scores["circular"]) == (100, 0)
    # a question that was not asked in all rotations says nothing of them
    assert "circular" not in benchmark.score([predict(benchmark, first, "B")])


def test_copies_are_made_as_llava_turns_options(tmp_path: Path) -> None:
    benchmark = table(tmp_path, {**ROW, "index": 3, "C": "bird", "hint": "Look."})
    first, second, third = benchmark.questions()
    assert [q.id for q in (first, second, third)] == ["3", "1000003", "2000003"]
    assert [q.answers for q in (first, second, third)] == [["B"], ["A"], ["C"]]
    assert second.fields["options"] == "A. dog\nB. bird\nC. cat"
    assert (third.fields["hint"], third.fields["letters"]) == ("Look.", ["A", "B", "C"])


def test_a_part_of_a_benchmark_has_whole_questions(tmp_path: Path) -> None:
    made = list(table(tmp_path / "made", *({**ROW, "index": n} for n in range(9))).questions())
    published = list(table(tmp_path / "published", {**ROW, "index": 3}, COPY).questions())
    assert len(published) == len(drawn(published, 1)) == 2
    part = Counter(int(q.id) % 1_000_000 for q in drawn(made, 8))
    assert list(part.values()) == [2] * 4


def test_categories_are_scored_apart_and_secret_answers_not_at_all(tmp_path: Path) -> None:
    rows = [
        {**ROW, "index": 1},
        {**ROW, "index": 2, "l2-category": "people"},
        {**ROW, "index": 4, "answer": ""},
    ]
    benchmark = table(tmp_path, *rows)
    predictions = answered(benchmark, ["B", "A", "A", "A", "A", "A"])
    scores = benchmark.score(predictions)
    assert (scores["vanilla"], scores["circular"]) == (50, 50)
    assert (scores["animals/circular"], scores["people/vanilla"], scores["people/circular"]) == (100, 0, 0)
    assert benchmark.score(predictions[4:]) == {}
    # neither a comparison nor the page of answers may count it as wrong
    with pytest.raises(ValueError, match="row 4 of mmbench is secret: `cobra eval submit mmbench"):
        benchmark.credit(predictions[4])


def test_chinese_tables_are_read_and_the_english_reader_is_priced(tmp_path: Path) -> None:
    row = {**ROW, "index": 1, "question": "图中是什么？", "A": "猫", "B": "狗"}
    benchmark = table(tmp_path, row, kind=MMBenchCN)
    scores = benchmark.score(answered(benchmark, ["答案是B。", "答案是A。"]))
    assert (scores["circular"], scores["vlmevalkit/circular"]) == (100, 0)
    # CCBench's options are not turned
    (question,) = table(tmp_path, row, kind=CCBench).questions()
    assert question.fields["question"] == "图中是什么？"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{**ROW, "index": 3, "image": "7"}], "index 3 is that of 7, which is not there"),
        ([COPY, {**ROW, "index": 3}], "index 1000003 is that of 3, which is not there, or later"),
        ([{**ROW, "index": 3}, {**ROW, "index": 3}], "index 3 twice"),
        ([{**ROW, "index": 3, "image": ""}], "index 3 has no picture"),
        ([{**ROW, "index": 3, "image": PIXEL[:-3]}], "index 3 is no base64"),
        ([{**ROW, "index": 3, "answer": "D"}], r"options \['A', 'B'\] and the answer 'D'"),
        ([{**ROW, "index": 3, "B": "nan", "answer": "A"}], r"options \['A'\]"),
        ([{**ROW, "index": "x3"}], "index is 'x3', no number"),
    ],
)
def test_damaged_tables_are_refused_by_row(
    tmp_path: Path, rows: list[dict[str, object]], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as error:
        list(table(tmp_path, *rows).questions())
    assert "\n" not in str(error.value)


def test_a_download_that_is_cut_short_is_refused(real: MMBench, tmp_path: Path) -> None:
    path = tmp_path / MMBench.downloads[0].path
    whole = path.read_bytes()
    path.unlink()
    for damaged, message in (
        (whole[: len(whole) // 3], "cut short"),
        (whole.decode().encode("utf-16"), "no UTF-8"),
        (whole.replace(b"question", b"text", 1), "no columns"),
        (b"", "no columns"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=message):
            list(real.questions())
