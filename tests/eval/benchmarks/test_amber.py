import json
from pathlib import Path

import pytest

from cobra.eval.benchmarks import amber
from cobra.eval.benchmarks.amber import Amber
from tests.eval.benchmarks.predictions import answered

# as it is published: related words point both ways, and an annotation may have an object twice
RELATION = {
    "sky": [], "grass": ["ground"], "ground": ["floor"], "person": ["people", "man"], "dog": [],
    "ship": ["boat"], "sun": [], "cloud": [], "can": [], "light": [], "television": ["TV"],
}  # fmt: skip
ANNOTATIONS = [
    {"id": 1, "type": "generative", "truth": ["sky", "grass", "ground", "person"], "hallu": ["dog", "sun"]},
    {"id": 2, "type": "generative", "truth": ["ship", "ship", "television"], "hallu": ["cloud", "ground"]},
]


@pytest.fixture
def benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Amber:
    monkeypatch.setattr(amber, "_PICTURES", 2)
    data = tmp_path / "amber/data"
    (data / "query").mkdir(parents=True)
    queries = [{"id": n, "image": f"AMBER_{n}.jpg", "query": "Describe this image."} for n in (1, 2)]
    (data / "query/query_generative.json").write_text(json.dumps(queries))
    (data / "annotations.json").write_text(json.dumps(ANNOTATIONS))
    (data / "relation.json").write_text(json.dumps(RELATION))
    (data / "safe_words.txt").write_text("light\nsign")
    return Amber(tmp_path)


@pytest.mark.parametrize(
    ("captions", "chair", "cover", "hal", "cog"),
    [
        # 4 + 3 objects, 4 expected
        (["The sky.", "A boat."], 0, 200 / 7, 0, 0),
        (["A man under the sky.", "Boats and a TV."], 0, 400 / 7, 0, 0),
        # `ground` is a word for grass, which comes first
        (["Grass on the ground.", ""], 0, 100 / 7, 0, 0),
        (["Grass on the floor.", ""], 0, 200 / 7, 0, 0),
        (["A dog.", "A sky."], 100, 0, 100, 25),
        (["A dog, a dog, the sky.", "A boat."], 50, 200 / 7, 50, 25),
        # `floor` is a word for the ground that is expected, but not there
        (["", "The floor."], 100, 0, 50, 25),
        # what is safe is a mention, and never wrong
        (["A light and a dog.", ""], 50, 0, 50, 25),
        (["A cat, trees and cars.", ""], 0, 0, 0, 0),
        (["It can be seen.", ""], 0, 0, 0, 0),
        (["", ""], 0, 0, 0, 0),
    ],
)
def test_captions_are_scored_by_hand(
    benchmark: Amber, captions: list[str], chair: float, cover: float, hal: float, cog: float
) -> None:
    scores = benchmark.score(answered(benchmark, captions))
    assert scores == pytest.approx({"chair": chair, "cover": cover, "hal": hal, "cog": cog})


def test_questions_are_ambers(benchmark: Amber) -> None:
    first, _ = benchmark.questions()
    assert (first.fields["question"], first.images) == (
        "Describe this image.",
        [benchmark.root / "amber/image/AMBER_1.jpg"],
    )
    assert benchmark.score([]) == {}


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("query/query_generative.json", "[]", "0 queries, not 2"),
        ("query/query_generative.json", '[{"id": 3, "image": "", "query": ""}]', "that fit.*3"),
        ("relation.json", "{}", "that fit.*sky"),
        ("annotations.json", "[1]", "that fit"),
        ("annotations.json", "[", "no JSON"),
    ],
)
def test_files_that_do_not_fit_are_refused(benchmark: Amber, file: str, content: str, message: str) -> None:
    (benchmark.root / "amber/data" / file).write_text(content)
    with pytest.raises(ValueError, match=message):
        list(benchmark.questions())
