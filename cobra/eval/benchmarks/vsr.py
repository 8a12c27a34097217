"""Visual Spatial Reasoning: is what a caption says of two things true? (Liu et al. 2023, TACL.)"""

from collections.abc import Iterator, Sequence
from typing import ClassVar

from cobra.eval.benchmarks.base import Benchmark, Download, Question, Scores
from cobra.eval.benchmarks.json_lines import read_json_lines, refuse_duplicates
from cobra.eval.predictions import Prediction
from cobra.eval.scorers.yes_no import areas, read_word, two_class_scores

_URL = "https://github.com/cambridgeltl/visual-spatial-reasoning/tree/master/data/splits"
_COLUMNS = {"image": str, "image_link": str, "caption": str, "label": int, "relation": str}
_PICTURES = tuple(
    Download(f"coco/{split}/", f"http://images.cocodataset.org/zips/{split}.zip", entries)
    for split, entries in (("train2017", 118287), ("val2017", 5000))
)


class Vsr(Benchmark):
    """True or false, of the zero-shot test split, whose concepts are in no training split."""

    name = "vsr"
    downloads = (Download("vsr/zeroshot/test.jsonl", _URL, 1222), *_PICTURES)
    # where nobody says how many there are, any number is right
    count: ClassVar[int] = 1222

    def questions(self) -> Iterator[Question]:
        """1,222 questions of 715 pictures, whose kind is the relation; see the base class."""
        path = self.root / self.downloads[0].path
        rows = read_json_lines(path, _COLUMNS)
        refuse_duplicates(path, ((row["image"], row["caption"]) for row in rows))
        if self.count and len(rows) != self.count:
            raise ValueError(f"{path} has {len(rows)} captions, not {self.count}: fetch it again from {_URL}")
        for number, row in enumerate(rows):
            if row["label"] not in (0, 1):
                raise ValueError(f"{path}, line {number + 1}: the label {row['label']} is neither 0 nor 1")
            # VSR draws on both sets of COCO and says of which by the address alone
            pictures = "val2017" if "/val2017/" in row["image_link"] else "train2017"
            yield Question(
                id=str(number),
                fields={"caption": row["caption"]},
                images=[self.root / "coco" / pictures / row["image"]],
                answers=[str(bool(row["label"]))],
                kind=row["relation"],
            )

    def credit(self, prediction: Prediction) -> float:
        """1 where it says the true one of `true` and `false`, and not the other."""
        return float(read_word(prediction.prediction, "true", "false") is _is_true(prediction))

    def score(self, predictions: Sequence[Prediction]) -> Scores:
        """Accuracy, over all and of each relation; of choices `auroc` and `aupr`; `true_ratio`.

        `always_true` is what the answer `True` to all questions earns.
        """
        scores = super().score(predictions)
        if not scores:
            return {}
        true = [_is_true(p) for p in predictions]
        said = [read_word(p.prediction, "true", "false") for p in predictions]
        return {
            **scores,
            **areas(predictions, true, "true", "false"),
            "true_ratio": two_class_scores(said, true)["yes_ratio"],
            "always_true": 100 * sum(true) / len(true),
        }


class VsrRandom(Vsr):
    """True or false, of the test split that was drawn at random."""

    name = "vsr_random"
    downloads = (Download("vsr/random/test.jsonl", _URL), *_PICTURES)
    count = 0


def _is_true(prediction: Prediction) -> bool:
    return prediction.answers[0] == "True"
