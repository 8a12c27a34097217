"""RefCOCO, RefCOCO+ and RefCOCOg: where is what a phrase speaks of? (Yu et al. 2016; Mao et al. 2016.)"""

import re
from collections.abc import Callable, Iterator, Sequence
from statistics import mean
from typing import Any

from cobra.eval.benchmarks.base import Benchmark, Download, Question, Scores
from cobra.eval.benchmarks.json_lines import read_json
from cobra.eval.predictions import Prediction
from cobra.eval.scorers.boxes import Box, find_box, in_picture, in_square, overlap, read_box

_URL = "https://github.com/Vision-CAIR/MiniGPT-4/tree/main/eval_scripts/eval_data"
_PICTURES = Download("coco/train2014/", "http://images.cocodataset.org/zips/train2014.zip", 82783)
# A box is found where it shares so much of the union with the true one.
_FOUND = 0.5


def _annotations(name: str) -> Download:
    note = (
        "MiniGPT-4's list of expressions; the original refs(unc).p is a pickle, which runs whatever it says "
        "when it is read, and is not"
    )
    return Download(f"{name}/{name}_val.json", _URL, note=note)


class RefCOCO(Benchmark):
    """Boxes `[left, top, right, bottom]` as shares of the sides with two decimals, of the validation split.

    Shares of which sides is what a model was trained with: of the picture's, as vlm-evaluation takes it and
    as a squashed picture shows it, or of the square that the picture is padded to, as LLaVA's data have it.
    Both are scored, whatever the model's transform, which says nothing of its data.
    """

    name = "refcoco"
    downloads = (_annotations("refcoco"), _PICTURES)

    def questions(self) -> Iterator[Question]:
        """One question an expression; its answer is the box of the picture's sides."""
        path = self.root / self.downloads[0].path
        rows = read_json(path)
        if not isinstance(rows, list):
            raise ValueError(f"{path} is no list of expressions: fetch MiniGPT-4's from {_URL}")
        for number, row in enumerate(rows):
            image = _image(row, f"{path}, expression {number}")
            truth = {"box": row["bbox"], "width": row["width"], "height": row["height"]}
            left, top, right, bottom = in_picture(row["bbox"], row["width"], row["height"])
            yield Question(
                id=str(number),
                fields={"expression": row["sents"]},
                images=[self.root / "coco/train2014" / image],
                answers=[f"[{left:.2f}, {top:.2f}, {right:.2f}, {bottom:.2f}]"],
                truth=truth,
            )

    def credit(self, prediction: Prediction) -> float:
        """1 where the box of the picture's sides is found."""
        return float(_overlap(prediction, in_picture) >= _FOUND)

    def boxes(self, prediction: Prediction) -> tuple[Box | None, Box | None]:
        """Both in shares of the picture's sides."""
        return _true(prediction, in_picture), read_box(prediction.prediction)

    def score(self, predictions: Sequence[Prediction]) -> Scores:
        """`acc@0.5` and the mean `iou` of the picture's sides, `padded/...` of the padded square's.

        The true box is rounded to two decimals, as in vlm-evaluation. What is no box is wrong, and `unread`
        its share. `lmms-eval/acc@0.5` takes the first four numbers in brackets anywhere, and rounds nothing.
        """
        if not predictions:
            return {}
        picture = [_overlap(p, in_picture) for p in predictions]
        padded = [_overlap(p, in_square) for p in predictions]
        found = [overlap(find_box(p.prediction), _true(p, in_picture)) for p in predictions]
        return {
            "acc@0.5": _share_found(picture),
            "iou": 100 * mean(picture),
            "padded/acc@0.5": _share_found(padded),
            "padded/iou": 100 * mean(padded),
            "unread": 100 * mean(read_box(p.prediction) is None for p in predictions),
            "lmms-eval/acc@0.5": _share_found(found),
        }


class RefCOCOPlus(RefCOCO):
    """Expressions without words of place."""

    name = "refcoco+"
    downloads = (_annotations("refcoco+"), _PICTURES)


class RefCOCOg(RefCOCO):
    """Longer expressions."""

    name = "refcocog"
    downloads = (_annotations("refcocog"), _PICTURES)


Convention = Callable[[Sequence[float], float, float], Box]


def _true(prediction: Prediction, convention: Convention) -> Box:
    truth = prediction.truth
    return convention(truth["box"], truth["width"], truth["height"])


def _overlap(prediction: Prediction, convention: Convention) -> float:
    said = read_box(prediction.prediction)
    left, top, right, bottom = (round(side, 2) for side in _true(prediction, convention))
    return overlap(said, (left, top, right, bottom)) if said else 0.0


def _share_found(overlaps: Sequence[float]) -> float:
    return 100 * mean(value >= _FOUND for value in overlaps)


def _image(row: Any, where: str) -> str:
    """The name of an expression's picture.

    Raises:
        ValueError: where the row is no expression with a box in a picture of COCO.
    """
    row = row if isinstance(row, dict) else {}
    numbers = [*row.get("bbox", []), row.get("width"), row.get("height")]
    is_box = len(numbers) == 6 and all(isinstance(n, int | float) for n in numbers) and min(numbers[2:]) > 0
    name = re.match(r"COCO_train2014_\d{12}", str(row.get("img_id")))
    if not (is_box and name and isinstance(row.get("sents"), str)):
        raise ValueError(
            f"{where} is no {{img_id, sents, bbox, width, height}} of a picture of COCO's train2014: fetch "
            f"MiniGPT-4's from {_URL}"
        )
    return f"{name[0]}.jpg"
