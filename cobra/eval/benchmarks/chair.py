"""CHAIR: objects in captions that are not in the picture (Rohrbach et al. 2018, arXiv 1809.02156)."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean

from cobra.eval.benchmarks.base import Benchmark, Download, Question, Scores
from cobra.eval.benchmarks.json_lines import read_json, refuse_duplicates
from cobra.eval.predictions import Prediction
from cobra.eval.scorers.objects import find_words


class Chair(Benchmark):
    """Captions of pictures whose objects are given in a file of one's own.

    `chair/objects.json` has `synonyms`, the other words for each object, and `images`, a list of
    `{id, image, objects}` with the picture below the root and the names of all that is in it:
    ```
    {"synonyms": {"dog": ["puppy"], "hot dog": []},
     "images": [{"id": 1, "image": "coco/val2014/COCO_val2014_000000000042.jpg", "objects": ["dog"]}]}
    ```
    CHAIR's own objects are those of COCO's instances and of the five captions of each picture, its synonyms
    those of its data/synonyms.txt.
    """

    name = "chair"
    downloads = (
        Download(
            "chair/objects.json",
            "https://github.com/LisaAnne/Hallucination",
            note="a file of one's own, see cobra/eval/benchmarks/chair.py",
        ),
    )

    def questions(self) -> Iterator[Question]:
        """One question a picture, without a word of its own."""
        path = self.root / "chair/objects.json"
        file = read_json(path)
        try:
            names = _names(file["synonyms"], path)
            rows = [(row["id"], row["image"], sorted(set(row["objects"]))) for row in file["images"]]
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path} is no {{synonyms, images: [{{id, image, objects}}]}} ({error!r}): mend it"
            ) from error
        refuse_duplicates(path, (each for each, _, _ in rows))
        for each, image, objects in rows:
            unknown = sorted(set(objects) - set(names.values()))
            if unknown:
                raise ValueError(f"{path}: {unknown} of image {each!r} are not among the synonyms: add them")
            yield Question(
                id=str(each),
                fields={},
                images=[self.root / image],
                truth={"objects": objects, "names": names},
            )

    def credit(self, prediction: Prediction) -> float:
        """1 where the caption makes nothing up."""
        return float(set(_mentions(prediction)) <= set(prediction.truth["objects"]))

    def score(self, predictions: Sequence[Prediction]) -> Scores:
        """`chair_i`, `chair_s` and `recall`, in per cent, and `words`, the mean length of a caption.

        Of all mentions of objects those of what is not there; of captions those with such a mention; of the
        objects in all pictures those that are mentioned. CHAIR finds plurals by a dictionary, we by spelling.
        """
        if not predictions:
            return {}
        said = [_mentions(p) for p in predictions]
        true = [set(p.truth["objects"]) for p in predictions]
        made_up = [sum(each not in there for each in s) for s, there in zip(said, true, strict=True)]
        mentioned = sum(len(there.intersection(s)) for s, there in zip(said, true, strict=True))
        return {
            "chair_i": 100 * sum(made_up) / (sum(map(len, said)) or 1),
            "chair_s": 100 * mean(map(bool, made_up)),
            "recall": 100 * mentioned / (sum(map(len, true)) or 1),
            "words": mean(len(p.prediction.split()) for p in predictions),
        }


def _names(synonyms: Mapping[str, Sequence[str]], path: Path) -> dict[str, str]:
    """The object of each word."""
    names: dict[str, str] = {}
    for name, others in synonyms.items():
        for word in (name, *others):
            if names.setdefault(word.lower(), name) != name:
                raise ValueError(
                    f"{path} has {word!r} for {names[word.lower()]!r} and for {name!r}: keep one"
                )
    return names


def _mentions(prediction: Prediction) -> list[str]:
    names: dict[str, str] = prediction.truth["names"]
    return [names[word] for word in find_words(prediction.prediction, names)]
