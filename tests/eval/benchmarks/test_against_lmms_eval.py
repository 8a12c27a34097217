"""Our scorers beside lmms-eval's functions, where both mean the same; skipped where it is not installed."""

import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from cobra.eval.benchmarks.amber import Amber, _truth
from cobra.eval.benchmarks.chair import Chair
from cobra.eval.benchmarks.mme import COGNITION, PERCEPTION, Mme
from cobra.eval.benchmarks.pope import Pope
from cobra.eval.benchmarks.refcoco import RefCOCO
from cobra.eval.benchmarks.scienceqa import ScienceQA
from cobra.eval.predictions import Prediction
from cobra.eval.protocols.protocol import read_protocol
from cobra.eval.scorers.letters import read_letter
from cobra.eval.scorers.objects import find_words

WORDS = ["Yes", "No", "yes", " no ", "Yes.", "No, it is not.", "maybe", "", "Not", "y", "Notice"]


def task(name: str) -> Any:
    pytest.importorskip("lmms_eval", reason="no lmms-eval here: pip install cobra[lmms]")
    return pytest.importorskip(f"lmms_eval.tasks.{name}")


def drawn(said: Sequence[str], kinds: Sequence[str] = ("all",), count: int = 400) -> list[Prediction]:
    """Pairs of questions about a picture, one to be affirmed, answered at random."""
    draw = np.random.default_rng(0)
    return [
        Prediction(
            "random", str(number), kinds[number // 2 % len(kinds)], "?", said[int(draw.integers(len(said)))],
            ["Yes", "No"][number % 2 : number % 2 + 1], truth={"picture": str(number // 2)},
        )
        for number in range(count)
    ]  # fmt: skip


def test_pope() -> None:
    theirs = task("pope.utils")
    predictions = drawn(WORDS)
    for each in predictions:
        each.answers = [each.answers[0].lower()]
    docs = [{"answer": p.answers[0], "question_id": p.question_id} for p in predictions]
    rows = [
        theirs.pope_process_results(doc, [p.prediction]) for doc, p in zip(docs, predictions, strict=True)
    ]
    ours = Pope(Path()).score(predictions)
    for name, function in (
        ("accuracy", theirs.pope_aggregate_accuracy),
        ("f1_score", theirs.pope_aggregate_f1_score),
        ("yes_ratio", theirs.pope_aggregate_yes_ratio),
    ):
        expected = 100 * function([row[f"pope_{name}"] for row in rows])
        assert ours[f"lmms-eval/{name.removesuffix('_score')}"] == pytest.approx(expected)


def test_mme() -> None:
    theirs = task("mme.utils")
    predictions = drawn(WORDS, (*PERCEPTION, *COGNITION))
    rows = [
        theirs.mme_process_results(
            {"answer": p.answers[0], "category": p.kind, "question_id": p.truth["picture"]}, [p.prediction]
        )
        for p in predictions
    ]
    ours = Mme(Path()).score(predictions)
    for name, key in (("perception", "mme_perception_score"), ("cognition", "mme_cognition_score")):
        # older versions misspell it
        keys = (key, "mme_percetion_score" if name == "perception" else key)
        found = [row[k] for row in rows for k in dict.fromkeys(keys) if k in row]
        assert ours[f"lmms-eval/{name}"] == pytest.approx(theirs.mme_aggregate_results(found))


def test_scienceqa() -> None:
    theirs = task("scienceqa.utils")
    said = ["A", "B", "B. dog", "B.", "The answer is B.", "b", ""]
    draw = np.random.default_rng(0)
    predictions = [
        Prediction("", str(n), "all", "?", said[int(draw.integers(len(said)))], ["AB"[n % 2]],
                   truth={"letters": ["A", "B"], "pictured": True})
        for n in range(100)
    ]  # fmt: skip
    credits = [
        theirs.sqa_process_results({"choices": ["cat", "dog"], "answer": n % 2}, [p.prediction])[
            "exact_match"
        ]
        for n, p in enumerate(predictions)
    ]
    ours = ScienceQA(Path()).score(predictions)
    assert ours["lmms-eval/img/accuracy"] == pytest.approx(100 * np.mean(credits))


def test_refcoco() -> None:
    theirs = task("refcoco.utils_rec")
    draw = np.random.default_rng(0)
    boxes = draw.uniform(0, 300, (200, 2, 2)).round(2)
    predictions, rows = [], []
    for number, ((left, top), (wide, high)) in enumerate(boxes.tolist()):
        true = np.array([left, top, left + wide, top + high]) / 600
        said = np.clip(true + draw.normal(0, 0.05, 4), 0, 1).round(2).tolist()
        text = f"It is {said}." if number % 3 else str(said)
        truth = {"box": [left, top, wide, high], "width": 600, "height": 600}
        predictions.append(Prediction("", str(number), "all", "?", text, [], truth=truth))
        rows.append({"bbox": true.tolist(), "pred": theirs.parse_float_sequence_within(text)})
    expected = 100 * theirs.refcoco_bbox_rec_acc05(rows)
    assert RefCOCO(Path()).score(predictions)["lmms-eval/acc@0.5"] == pytest.approx(expected)


@pytest.mark.parametrize(
    "answer", ["B", "B.", "(B)", "Answer: B", "The answer is B.", "dog", "It is a dog.", "", "x"]
)
def test_letters(answer: str) -> None:
    theirs = task("mmbench.mmbench_evals").MMBench_Evaluator()
    options = {"A": "cat", "B": "dog", "C": "bird"}
    assert read_letter(answer, options) == (theirs.can_infer(answer, dict(options)) or None)


def test_chair() -> None:
    theirs = task("coco_cap_chair.utils")
    objects, draw = ["dog", "cat", "bench", "person"], np.random.default_rng(0)
    names = {each: each for each in objects}
    predictions, rows = [], []
    for number in range(50):
        said, true = (draw.choice(objects, draw.integers(0, 6)).tolist() for _ in range(2))
        truth = {"objects": sorted(set(true)), "names": names}
        predictions.append(Prediction("", str(number), "all", "?", ", ".join(said), [], truth=truth))
        rows.append({"answer": true, "pred": said})
    ours = Chair(Path()).score(predictions)
    assert ours["chair_i"] == pytest.approx(theirs.coco_cap_chair_aggregate_results_chair_i(rows))
    assert ours["chair_s"] == pytest.approx(theirs.coco_cap_chair_aggregate_results_chair_s(rows))
    assert ours["recall"] == pytest.approx(theirs.coco_cap_chair_aggregate_results_recall(rows))


RELATION = {
    "sky": [], "grass": ["ground"], "ground": ["floor"], "person": ["people", "man"], "man": ["person"],
    "dog": [], "ship": ["boat"], "light": [], "sun": [],
}  # fmt: skip


def test_amber(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its counts for words that are tagged as nouns and have no synonyms beside those listed."""
    pytest.importorskip("lmms_eval", reason="no lmms-eval here: pip install cobra[lmms]")
    monkeypatch.setitem(sys.modules, "spacy", ModuleType("spacy"))
    theirs = task("amber_g.utils")
    vocabulary = {word for name, others in RELATION.items() for word in (name, *others)}
    monkeypatch.setattr(theirs, "extract_nouns", lambda text: find_words(text, vocabulary))
    monkeypatch.setattr(theirs, "check_synonyms_word", lambda one, other, threshold: one == other)
    draw, names = np.random.default_rng(0), list(RELATION)
    counts = dict.fromkeys(
        ("chair_score", "chair_num", "safe_cover_score", "safe_cover_num", "hallu_cover_score",
         "hallu_cover_num", "non_hallu_score", "non_hallu_num"), 0,
    )  # fmt: skip
    predictions = []
    for number in range(200):
        row = {which: draw.choice(names, 3).tolist() for which in ("truth", "hallu")}
        said = ", ".join(draw.choice(sorted(vocabulary), draw.integers(0, 7)))
        truth = {**_truth(row, RELATION), "safe": ["light"], "vocabulary": sorted(vocabulary)}
        predictions.append(Prediction("", str(number), "all", "?", said, [], truth=truth))
        answer = {"question_id": number, "text": said}
        theirs.process_generative_task(answer, row, RELATION, vocabulary, ["light"], 0.8, counts)
    ours = Amber(Path()).score(predictions)
    assert ours["chair"] == pytest.approx(100 * counts["chair_score"] / counts["chair_num"])
    assert ours["cover"] == pytest.approx(100 * counts["safe_cover_score"] / counts["safe_cover_num"])
    assert ours["cog"] == pytest.approx(100 * counts["hallu_cover_score"] / counts["hallu_cover_num"])
    assert ours["hal"] == pytest.approx(100 - 100 * counts["non_hallu_score"] / counts["non_hallu_num"])


WORD = "\nAnswer the question using a single word or phrase."
LETTER = "\nAnswer with the option's letter from the given choices directly."
CHINESE = "\n请直接使用所提供的选项字母作为答案回答。"
DOC = {
    "question": "What is it?", "hint": "Look.", "A": "cat", "B": "dog", "answer": "A",
    "choices": ["cat", "dog"], "category": "", "L2-category": "", "index": 0, "source": "", "split": "",
}  # fmt: skip
OPTIONS = {"question": "What is it?", "hint": "Look.", "options": "A. cat\nB. dog", "letters": ["A", "B"]}


@pytest.mark.parametrize(
    ("benchmark", "function", "doc", "suffix", "fields"),
    [
        ("pope", "pope.utils.pope_doc_to_text", {"question": "Is it?"}, WORD, {"question": "Is it?"}),
        ("mme", "mme.utils.mme_doc_to_text", {"question": "Is it? Please answer yes or no."}, WORD,
         {"question": "Is it? Please answer yes or no."}),
        ("scienceqa", "scienceqa.utils.sqa_doc_to_text", DOC, LETTER, OPTIONS),
        ("mmbench", "mmbench.en_utils.mmbench_doc_to_text", DOC, LETTER, OPTIONS),
        ("mmbench_cn", "mmbench.cn_utils.mmbench_doc_to_text", DOC, CHINESE, OPTIONS),
        ("ccbench", "mmbench.cc_utils.mmbench_cn_cc_doc_to_text", DOC, CHINESE, OPTIONS),
        ("refcoco", "refcoco.utils_rec.refcoco_bbox_rec_doc_to_text", {"answer": "a dog"}, None,
         {"expression": "a dog"}),
        ("chair", "coco_cap_chair.utils.coco_cap_chair_doc_to_text", {}, None, {}),
    ],
)  # fmt: skip
def test_prompts(
    benchmark: str, function: str, doc: dict[str, Any], suffix: str | None, fields: dict[str, Any]
) -> None:
    module, _, name = function.rpartition(".")
    settings = {"pre_prompt": "", "post_prompt": suffix, "format": "default"}
    theirs = getattr(task(module), name)(doc, *([settings] if suffix else []))
    (ask,) = read_protocol("lmms-eval").asks[benchmark]
    assert ask.render(fields) == theirs
