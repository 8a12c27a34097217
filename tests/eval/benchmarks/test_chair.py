import json
from pathlib import Path

import pytest

from cobra.eval.benchmarks.chair import Chair
from tests.eval.benchmarks.predictions import answered

OBJECTS = {
    "synonyms": {"dog": ["puppy"], "person": ["man", "people"], "hot dog": [], "bench": [], "frisbee": []},
    "images": [
        {"id": 1, "image": "a.jpg", "objects": ["dog", "frisbee"]},
        {"id": 2, "image": "b.jpg", "objects": ["person", "bench", "bench"]},
        {"id": 3, "image": "c.jpg", "objects": []},
    ],
}


def written(root: Path, objects: object) -> Chair:
    (root / "chair").mkdir(exist_ok=True)
    (root / "chair/objects.json").write_text(json.dumps(objects))
    return Chair(root)


@pytest.mark.parametrize(
    ("captions", "chair_i", "chair_s", "recall"),
    [
        (["A puppy with a frisbee.", "A man on a bench.", "Grass."], 0, 0, 100),
        # a mention counts as often as it is made
        (["A dog and two benches on a bench.", "", ""], 100 * 2 / 3, 100 / 3, 25),
        # synonyms are one object, in recall too
        (["dog, puppy, puppies", "people", "a dog"], 20, 100 / 3, 50),
        (["a hot dog", "hot dogs", "a hot dog"], 100, 100, 0),
        (["", "", ""], 0, 0, 0),
    ],
)
def test_what_is_made_up_is_counted(
    tmp_path: Path, captions: list[str], chair_i: float, chair_s: float, recall: float
) -> None:
    benchmark = written(tmp_path, OBJECTS)
    predictions = answered(benchmark, captions)
    scores = benchmark.score(predictions)
    assert scores["chair_i"] == pytest.approx(chair_i)
    assert scores["chair_s"] == pytest.approx(chair_s)
    assert scores["recall"] == pytest.approx(recall)
    assert sum(map(benchmark.credit, predictions)) == pytest.approx(3 - 3 * chair_s / 100)


def test_pictures_are_below_the_root(tmp_path: Path) -> None:
    questions = list(written(tmp_path, OBJECTS).questions())
    assert [q.images for q in questions] == [[tmp_path / name] for name in ("a.jpg", "b.jpg", "c.jpg")]
    assert Chair(tmp_path).score([]) == {}


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        ({"images": []}, "is no {synonyms, images"),
        ([], "is no {synonyms, images"),
        ({**OBJECTS, "images": [{"id": 1, "image": "a.jpg"}]}, "is no {synonyms.*objects"),
        (
            {**OBJECTS, "images": [{"id": 1, "image": "a.jpg", "objects": ["cat"]}]},
            r"\['cat'\] of image 1 are not",
        ),
        ({**OBJECTS, "images": OBJECTS["images"][:1] * 2}, "id 1 twice"),  # type: ignore[index]
        ({**OBJECTS, "synonyms": {"dog": ["pet"], "cat": ["pet"]}}, "'pet' for 'dog' and for 'cat'"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path: Path, objects: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(written(tmp_path, objects).questions())
