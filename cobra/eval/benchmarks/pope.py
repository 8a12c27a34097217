"""POPE: is there such a thing in the picture? (Li et al. 2023, arXiv 2305.10355.)"""

from collections.abc import Iterator, Sequence
from statistics import mean

from cobra.eval.benchmarks.base import Benchmark, Download, Question, Scores
from cobra.eval.benchmarks.json_lines import read_json_lines, refuse_duplicates
from cobra.eval.predictions import Prediction
from cobra.eval.scorers.yes_no import areas, two_class_scores

SPLITS = ("random", "popular", "adversarial")
# Of each split.
_QUESTIONS = 3000
# Of the files at commit 08d957b.
_SHA256 = {
    "random": "ac25245170b975a5bdf9080b23fd431dfe6be458bc038259c1f4f09a6bef7994",
    "popular": "72c1a8ad45d0c13514f5f22598261df41d3b533854d29682e924db50ed8aa753",
    "adversarial": "420b3407db1fa9f1187a805dca41cb7b97fd91504e6c2179706188c107fb8ef8",
}
_URL = "https://github.com/AoiDragon/POPE/tree/main/output/coco"


class Pope(Benchmark):
    """Yes or no about objects, in three splits that differ in what is asked about but is not there."""

    name = "pope"
    downloads = (
        *(
            Download(f"pope/coco_pope_{split}.json", _URL, _QUESTIONS, sha256)
            for split, sha256 in _SHA256.items()
        ),
        Download(
            "coco/val2014/",
            "http://images.cocodataset.org/zips/val2014.zip",
            40504,
            note="500 of its pictures are asked about",
        ),
    )

    def questions(self) -> Iterator[Question]:
        """9,000 questions; see the base class."""
        for split in SPLITS:
            path = self.root / f"pope/coco_pope_{split}.json"
            rows = read_json_lines(path, {"question_id": int, "image": str, "text": str, "label": str})
            refuse_duplicates(path, (row["question_id"] for row in rows))
            if len(rows) != _QUESTIONS:
                raise ValueError(
                    f"{path} has {len(rows)} questions, not {_QUESTIONS}: it is another version (random had "
                    f"2,910 until 2023, which LLaVA-1.5 and vlm-evaluation used); fetch it from {_URL}"
                )
            for row in rows:
                yield Question(
                    id=f"{split}-{row['question_id']}",
                    fields={"question": row["text"]},
                    images=[self.root / "coco/val2014" / row["image"]],
                    answers=[row["label"]],
                    split=split,
                )

    def credit(self, prediction: Prediction) -> float:
        """1 where it is read as the true answer."""
        return float(read_answer(prediction) == prediction.answers[0])

    def score(self, predictions: Sequence[Prediction]) -> Scores:
        """Of each split and over all; `f1` and `accuracy` are the means of the splits, which papers print.

        LLaVA-1.5 and MobileVLM print the mean F1, TinyLLaVA and Cobra the mean accuracy, Cobra by likelihood,
        which adds `auroc` and `aupr`. `lmms-eval/...` is what lmms-eval counts.
        """
        splits = {split: [p for p in predictions if p.split == split] for split in SPLITS}
        parts = {split: _counts(part) for split, part in splits.items() if part}
        if not parts:
            return {}
        shared = set.intersection(*(set(part) for part in parts.values()))
        means = {
            name: mean(part[name] for part in parts.values())
            for name in next(iter(parts.values()))
            if name in shared
        }
        over_all = {f"all/{name}": value for name, value in _counts(predictions).items()}
        each = {f"{split}/{name}": value for split, part in parts.items() for name, value in part.items()}
        return {**means, **over_all, **each, **_lmms_eval(predictions)}


def read_answer(prediction: Prediction) -> str:
    """`yes` or `no`, as POPE's evaluate.py reads it: all that says no such word is a yes, even nothing."""
    sentence = prediction.prediction.split(".")[0].replace(",", "")
    return "no" if {"No", "not", "no"} & set(sentence.split(" ")) else "yes"


def _counts(predictions: Sequence[Prediction]) -> Scores:
    said = [read_answer(p) == "yes" for p in predictions]
    true = [p.answers[0] == "yes" for p in predictions]
    return {**two_class_scores(said, true), **areas(predictions, true, "yes", "no")}


def _lmms_eval(predictions: Sequence[Prediction]) -> Scores:
    """lmms-eval's numbers: only the bare word counts, and its share of yes is that of the true answers."""
    words = [p.prediction.lower().strip() for p in predictions]
    true = [p.answers[0] for p in predictions]
    pairs = list(zip(words, true, strict=True))
    hits = pairs.count(("yes", "yes"))
    # what is neither word is no miss to it
    precision = hits / ((hits + pairs.count(("yes", "no"))) or 1)
    recall = hits / ((hits + pairs.count(("no", "yes"))) or 1)
    return {
        "lmms-eval/accuracy": 100 * mean(said == right for said, right in pairs),
        "lmms-eval/f1": 100 * 2 * precision * recall / ((precision + recall) or 1),
        "lmms-eval/yes_ratio": 100 * mean(right == "yes" for right in true),
    }
