"""GQA: questions that are put together from scene graphs (Hudson and Manning 2019, arXiv 1902.09506)."""

import string
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from statistics import mean

from cobra.eval.benchmarks.base import Benchmark, Download, Question, Scores
from cobra.eval.benchmarks.json_lines import require_columns
from cobra.eval.benchmarks.published import published_rows
from cobra.eval.predictions import Prediction

_FILE = "gqa/testdev_balanced_questions.json"
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


class Gqa(Benchmark):
    """The balanced test-dev questions, which all papers here report.

    Consistency, validity and plausibility need answers to the unbalanced questions, or files of choices, and
    are left to the official script: `cobra eval submit gqa` writes what it reads.
    """

    name = "gqa"
    downloads = (
        Download(_FILE, "https://downloads.cs.stanford.edu/nlp/data/gqa/questions1.2.zip", 12578),
        Download("gqa/images/", "https://downloads.cs.stanford.edu/nlp/data/gqa/images.zip"),
    )

    def questions(self) -> Iterator[Question]:
        """12,578 questions; see the base class."""
        columns = {"imageId": str, "question": str, "answer": str, "types": dict, "groups": dict}
        for row in published_rows(self, _FILE, columns):
            types = require_columns(
                row["types"], {"structural": str, "semantic": str}, f"{_FILE}, question {row['id']}"
            )
            yield Question(
                id=row["id"],
                fields={"question": row["question"]},
                images=[self.root / "gqa/images" / f"{row['imageId']}.jpg"],
                answers=[row["answer"]],
                kind=types["structural"],
                truth={"semantic": types["semantic"], "group": row["groups"].get("global")},
            )

    def credit(self, prediction: Prediction) -> float:
        """1 for the true answer, as LLaVA prepares it for the official script."""
        return float(gqa_answer(prediction.prediction) == prediction.answers[0])

    def score(self, predictions: Sequence[Prediction]) -> Scores:
        """Besides the base class's: `binary` and `open` questions, semantic types, and how others score.

        `prismatic` drops all punctuation of the prediction, `lmms-eval` that of the true answer, too.
        `distribution` is the official chi-square statistic over the answers of each group; less is better.
        """
        if not predictions:
            return {}
        semantic = sorted({p.truth["semantic"] for p in predictions})
        parts = {name: [p for p in predictions if p.truth["semantic"] == name] for name in semantic}
        parts["open"] = [p for p in predictions if p.kind == "query"]
        parts["binary"] = [p for p in predictions if p.kind != "query"]
        return {
            **super().score(predictions),
            **{
                f"{name}/accuracy": 100 * mean(map(self.credit, part)) for name, part in parts.items() if part
            },
            "prismatic/accuracy": _accuracy(predictions, _bare, str),
            "lmms-eval/accuracy": _accuracy(predictions, _bare, _bare),
            "distribution": _chi_square(predictions),
        }


def gqa_answer(text: str) -> str:
    """The answer as LLaVA hands it to the official script: lower case, without periods at its end."""
    return text.strip().rstrip(".").lower()


def _bare(text: str) -> str:
    return text.strip().translate(_NO_PUNCTUATION).lower()


def _accuracy(
    predictions: Iterable[Prediction], read: Callable[[str], str], read_true: Callable[[str], str]
) -> float:
    return 100 * mean(read(p.prediction) == read_true(p.answers[0]) for p in predictions)


def _chi_square(predictions: Iterable[Prediction]) -> float:
    """Of the counts of answers against the true ones, over the groups by their size, a hundredth of it."""
    true: dict[str, Counter[str]] = {}
    said: dict[str, Counter[str]] = {}
    for each in predictions:
        if (group := each.truth["group"]) is not None:
            true.setdefault(group, Counter())[each.answers[0]] += 1
            said.setdefault(group, Counter())[gqa_answer(each.prediction)] += 1
    sizes = [counts.total() for counts in true.values()]
    each_group = [
        size * sum((said[group][answer] - count) ** 2 / count for answer, count in counts.items())
        for size, (group, counts) in zip(sizes, true.items(), strict=True)
    ]
    return sum(each_group) / (sum(sizes) or 1) / 100
