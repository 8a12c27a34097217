"""MME: two questions about each picture, of which one is to be denied (Fu et al. 2023, arXiv 2306.13394)."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from pathlib import Path
from statistics import mean

from cobra.eval.benchmarks.base import Benchmark, Download, Question, Scores
from cobra.eval.predictions import Prediction
from cobra.eval.scorers.yes_no import read_word

PERCEPTION = (
    "existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR",
)  # fmt: skip
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
_PICTURES = 1187
_URL = "https://github.com/BradyFU/Awesome-Multimodal-Large-Language-Models/tree/Evaluation"
_SUFFIXES = (".jpg", ".png", ".jpeg")


class Mme(Benchmark):
    """Yes or no in fourteen categories, with points for a picture whose two questions are both right."""

    name = "mme"
    downloads = tuple(
        Download(
            f"mme/{category}/",
            _URL,
            note="a folder of MME_Benchmark_release_version: pictures with a text of questions each",
        )
        for category in (*PERCEPTION, *COGNITION)
    )

    def questions(self) -> Iterator[Question]:
        """2,374 questions, whose kind is the category; see the base class."""
        texts = {category: self._texts(category) for category in (*PERCEPTION, *COGNITION)}
        found = sum(map(len, texts.values()))
        if found != _PICTURES:
            raise ValueError(
                f"{self.root / 'mme'} has questions about {found} pictures, not {_PICTURES}: it is cut short "
                f"or another version; fetch it from {_URL}"
            )
        for category, paths in texts.items():
            for path in paths:
                picture = _picture(path)
                for number, (question, answer) in enumerate(_pair(path)):
                    yield Question(
                        id=f"{category}/{path.stem}/{number}",
                        fields={"question": question},
                        images=[picture],
                        answers=[answer],
                        kind=category,
                        truth={"picture": f"{category}/{path.stem}"},
                        group=f"{category}/{path.stem}",
                    )

    def _texts(self, category: str) -> list[Path]:
        folder = self.root / "mme" / category
        # half of the categories have their texts and pictures in folders of their own
        inner = folder / "questions_answers_YN"
        texts = sorted((inner if inner.is_dir() else folder).glob("*.txt"))
        if not texts:
            raise FileNotFoundError(f"there are no questions in {folder}: unpack MME from {_URL} there")
        return texts

    def credit(self, prediction: Prediction) -> float:
        """1 where it says the true one of `yes` and `no`, and not the other."""
        return float(read_word(prediction.prediction) is (prediction.answers[0] == "Yes"))

    def unit(self, prediction: Prediction) -> Hashable:
        """Its picture, of which one question is to be denied."""
        return prediction.truth["picture"]

    def score(self, predictions: Sequence[Prediction]) -> Scores:
        """`perception` (2,000 at most), `cognition` (800), `total`, and `acc` and `acc+` of each category.

        A category's points are the per cent of questions that are right, `acc`, plus that of pictures whose
        two questions both are, `acc+`. `lmms-eval/...` reads answers as lmms-eval does, and MME's own
        calculation.py: of long ones the first four letters alone. Papers on small models print its
        `perception`.
        """
        if not predictions:
            return {}
        return {
            **_points(predictions, self.credit),
            **{f"lmms-eval/{name}": value for name, value in _points(predictions, _first_letters).items()},
        }


def _points(predictions: Sequence[Prediction], credit: Callable[[Prediction], float]) -> Scores:
    pictures: dict[str, dict[str, list[float]]] = {}
    for prediction in predictions:
        of_kind = pictures.setdefault(prediction.kind, {})
        of_kind.setdefault(prediction.truth["picture"], []).append(credit(prediction))
    scores, sums = {}, {"perception": 0.0, "cognition": 0.0}
    for category, credits in sorted(pictures.items()):
        accuracy = 100 * mean(value for pair in credits.values() for value in pair)
        # a picture of which one question was asked says nothing
        both = 100 * mean([pair == [1, 1] for pair in credits.values() if len(pair) == 2] or [0])
        scores[f"{category}/acc"], scores[f"{category}/acc+"] = accuracy, both
        sums["cognition" if category in COGNITION else "perception"] += accuracy + both
    return {**sums, "total": sum(sums.values()), **scores}


def _first_letters(prediction: Prediction) -> float:
    text = prediction.prediction.lower().strip().replace(".", "")
    if len(text) == 1:
        said = {"y": "Yes", "n": "No"}.get(text, "")
    else:
        said = "Yes" if "yes" in text[:4] else "No" if "no" in text[:4] else ""
    return float(said == prediction.answers[0])


def _pair(path: Path) -> list[tuple[str, str]]:
    """The two questions of a text, each with `Yes` or `No`."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no UTF-8 ({error.reason}): unpack it again") from error
    pairs = [tuple(map(str.strip, line.rsplit("\t", 1))) for line in lines]
    if len(pairs) != 2 or any(len(pair) != 2 or pair[1] not in ("Yes", "No") for pair in pairs):
        raise ValueError(f"{path} has no two lines of a question, a tab, and Yes or No: unpack it again")
    return [(question, answer) for question, answer in pairs]


def _picture(text: Path) -> Path:
    """The picture of a text, beside it or in the folder of pictures."""
    folder = text.parent.with_name("images") if text.parent.name == "questions_answers_YN" else text.parent
    pictures = [folder / f"{text.stem}{suffix}" for suffix in _SUFFIXES]
    return next((path for path in pictures if path.is_file()), pictures[0])
