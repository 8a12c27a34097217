"""Scorers beside lmms-eval's functions, where it is installed, on texts at random of what they look at."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cobra.eval.benchmarks.ocrbench import OcrBench
from cobra.eval.benchmarks.vqav2 import VqaV2
from cobra.eval.predictions import Prediction
from cobra.eval.scorers.vqa_accuracy import evalai_answer, official_answer, soft_accuracy
from tests.eval.benchmarks.fixtures import fixture
from tests.eval.benchmarks.predictions import answered

WORDS = "the an none two Ten dont couldnt've somebody'd 's it's yes No. 1,000 3.5 a.m. t-shirt"
PIECES = [*"abcxyz 0123 .,;:!?/-_'\"()<>@`\\+=[]{}\n\té’北İ", *WORDS.split()]


def texts(seed: int, count: int) -> list[str]:
    rng = random.Random(seed)
    return [
        "".join(rng.choice(PIECES) + rng.choice(["", "", " "]) for _ in range(rng.randrange(8)))
        for _ in range(count)
    ]


def test_normalisation_is_that_of_their_processor() -> None:
    metric = pytest.importorskip("lmms_eval.tasks._task_utils.vqa_eval_metric", reason="no lmms_eval")
    processor = metric.EvalAIAnswerProcessor()
    for text in texts(0, 5000):
        assert evalai_answer(text) == processor(text), repr(text)
        # These two leave line ends to their caller; they take several commas between digits for one.
        line = text.replace("\n", " ").replace("\t", " ").strip()
        if ",," not in text:
            theirs = processor.process_digit_article(processor.process_punctuation(line))
            assert official_answer(text) == theirs, repr(text)


@pytest.mark.parametrize("seed", range(3))
def test_soft_accuracy_is_theirs(seed: int) -> None:
    vqav2 = pytest.importorskip("lmms_eval.tasks.vqav2.utils", reason="no lmms_eval")
    textvqa = pytest.importorskip("lmms_eval.tasks.textvqa.utils", reason="no lmms_eval")
    rng = random.Random(seed)
    for _ in range(1000):
        said, *pool = texts(rng.randrange(10**9), 4)
        people = [rng.choice([*pool[: rng.randrange(1, 4)], said]) for _ in range(10)]
        doc: dict[str, Any] = {"question_id": 1, "answers": list(people)}
        theirs = textvqa.textvqa_process_results(doc, [said])["exact_match"]
        assert soft_accuracy(said, people, official=False) == pytest.approx(theirs)
        doc["answers"] = [{"answer": text, "answer_id": n} for n, text in enumerate(people)]
        theirs = vqav2.vqav2_process_results_val(doc, [said])["exact_match"]
        given = [Prediction("val", "1", "all", "", said, people, "vqav2")]
        # they take several commas between digits for one
        if not any(",," in text for text in (said, *people)):
            assert VqaV2(Path()).score(given)["lmms-eval/accuracy"] == pytest.approx(100 * theirs)


@pytest.mark.parametrize("change", [str, str.upper, "I read {}.".format, lambda text: text[1:]])
def test_ocrbench_points_are_theirs(tmp_path: Path, change: Callable[[str], str]) -> None:
    theirs = pytest.importorskip("lmms_eval.tasks.ocrbench.utils", reason="no lmms_eval")
    (tmp_path / "ocrbench").symlink_to(fixture("ocrbench").resolve())
    benchmark = OcrBench(tmp_path)
    given = answered(benchmark, [change(q.answers[0]) for q in benchmark.questions()])

    def points(p: Prediction) -> int:
        doc = {"dataset": p.truth["dataset"], "answer": p.answers, "question_type": p.kind}
        score: int = theirs.ocrbench_process_results(doc, [p.prediction])["ocrbench_accuracy"]["score"]
        return score

    assert benchmark.score(given)["lmms-eval/score"] == sum(map(points, given))
