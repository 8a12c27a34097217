"""AMBER's captions: what they leave out, make up, and expect (Wang et al. 2023, arXiv 2311.07397)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from cobra.eval.benchmarks.base import Benchmark, Download, Question, Scores
from cobra.eval.benchmarks.json_lines import read_json, refuse_duplicates
from cobra.eval.predictions import Prediction
from cobra.eval.scorers.objects import find_words

_URL = "https://github.com/junyangwang0410/AMBER"
_PICTURES = 1004


class Amber(Benchmark):
    """The part that AMBER calls generative: captions of pictures whose objects are annotated.

    Its script tags nouns, and takes words for one whose vectors are near. Here words count as they are
    listed, whatever part of speech they are: the numbers are near the published ones, but not those.
    """

    name = "amber"
    downloads = (
        Download("amber/data/annotations.json", _URL, note="the repository's folder `data`"),
        Download("amber/data/relation.json", _URL),
        Download("amber/data/safe_words.txt", _URL),
        Download("amber/data/query/query_generative.json", _URL, _PICTURES),
        Download("amber/image/", _URL, _PICTURES, note="its README links to the archive"),
    )

    def questions(self) -> Iterator[Question]:
        """1,004 questions, one a picture; see the base class."""
        data = self.root / "amber/data"
        queries = read_json(data / "query/query_generative.json")
        annotations, relation = read_json(data / "annotations.json"), read_json(data / "relation.json")
        safe = (data / "safe_words.txt").read_text(encoding="utf-8").lower().split()
        try:
            refuse_duplicates(data / "query/query_generative.json", (query["id"] for query in queries))
            rows = {row["id"]: row for row in annotations}
            asked = [(query, _truth(rows[query["id"]], relation)) for query in queries]
            vocabulary = sorted({w.lower() for name, others in relation.items() for w in (name, *others)})
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"{data} has no files of AMBER that fit ({error!r}): fetch {_URL}") from error
        if len(asked) != _PICTURES:
            raise ValueError(f"{data} has {len(asked)} queries, not {_PICTURES}: fetch {_URL}")
        for query, truth in asked:
            yield Question(
                id=str(query["id"]),
                fields={"question": query["query"]},
                images=[self.root / "amber/image" / query["image"]],
                truth={**truth, "safe": safe, "vocabulary": vocabulary},
            )

    def credit(self, prediction: Prediction) -> float:
        """1 where the caption makes nothing up."""
        return float(not _read(prediction).made_up)

    def score(self, predictions: Sequence[Prediction]) -> Scores:
        """`chair`, `cover`, `hal` and `cog`, in per cent.

        Of all mentions of objects those of what is not there; of the objects in all pictures those that are
        mentioned; of captions those that make something up; of the objects that people would expect where
        they are not, those that are mentioned.
        """
        if not predictions:
            return {}
        read = [_read(p) for p in predictions]
        there = sum(p.truth["objects"] for p in predictions)
        expected = sum(p.truth["not_there"] for p in predictions)
        return {
            "chair": 100 * sum(r.made_up for r in read) / (sum(r.mentions for r in read) or 1),
            "cover": 100 * sum(r.covered for r in read) / (there or 1),
            "hal": 100 * mean(r.made_up > 0 for r in read),
            "cog": 100 * sum(r.expected for r in read) / (expected or 1),
        }


@dataclass(frozen=True)
class _Caption:
    mentions: int
    made_up: int
    covered: int
    expected: int


def _read(prediction: Prediction) -> _Caption:
    truth = prediction.truth
    # nearly all `can` are verbs, which AMBER's tagger leaves out
    said = find_words(prediction.prediction, set(truth["vocabulary"]) - {"can"})
    there = [word for word in said if word in truth["words"]]
    made_up = [word for word in said if word not in truth["safe"] and word not in truth["words"]]
    covered = {truth["words"][word] for word in there if word not in truth["safe"]}
    expected = {truth["expected"][word] for word in made_up if word in truth["expected"]}
    return _Caption(len(said), len(made_up), len(covered), len(expected))


def _truth(row: Mapping[str, Any], relation: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    return {
        "words": _words(row["truth"], relation),
        "objects": len(row["truth"]),
        "expected": _words(row["hallu"], relation),
        "not_there": len(row["hallu"]),
    }


def _words(names: Sequence[str], relation: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Which object a word stands for: the related words of all objects come first, then their names."""
    words: dict[str, int] = {}
    related = [(word, number) for number, name in enumerate(names) for word in relation[name]]
    for word, number in [*related, *((name, number) for number, name in enumerate(names))]:
        words.setdefault(word.lower(), number)
    return words
