"""The page of answers: what is in it, and that nothing in predictions can run in it."""

import json
import re
from base64 import b64encode
from collections import Counter
from dataclasses import asdict, replace
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cobra.eval.answers_page.page import write_page
from cobra.eval.answers_page.pictures import Pictures
from cobra.eval.answers_page.rows import Judges
from cobra.eval.predictions import Prediction, write_predictions

ATTACK = '</script><script>alert(1)</script><img src="https://example.org/x" onerror="alert(2)">\u2028\x00'
# its pictures are no files
OWN = """
import numpy as np
from cobra.eval.benchmarks.base import Benchmark, Question

class Made(Benchmark):
    name = "made"

    def questions(self):
        for number in range(3):
            picture = np.full((8, 8, 3), 0 if number < 2 else 255, dtype=np.uint8)
            yield Question(str(number), {}, [picture])

    def credit(self, prediction):
        return float(prediction.prediction.lower() == prediction.answers[0])
"""


class Page(HTMLParser):
    """Tags, their attributes, and the texts of scripts, as a browser reads them."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str | None]] = []
        self.scripts: dict[str, list[str]] = {}
        self._type = ""
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += attrs
        self._type = (dict(attrs).get("type") or "run") if tag in ("script", "style") else ""

    def handle_endtag(self, tag: str) -> None:
        self._type = ""

    def handle_data(self, data: str) -> None:
        if self._type:
            self.scripts.setdefault(self._type, []).append(data)

    @property
    def data(self) -> dict[str, Any]:
        return json.loads(self.scripts["application/json"][0])


def said(id: str, answer: str, true: str = "yes", benchmark: str = "made", **more: Any) -> Prediction:
    return Prediction("", id, "all", f"question {id}?", answer, [true], benchmark, "short", **more)


def show(folder: Path, *files: list[Prediction], **options: Any) -> Page:
    paths = []
    for number, predictions in enumerate(files):
        paths.append(folder / f"{number}.jsonl")
        write_predictions(paths[-1], predictions)
    (folder / "made.py").write_text(OWN)
    page = write_page(paths, options.pop("root", folder), own=[str(folder / "made.py")], **options)
    return Page(page)


def test_nothing_in_a_prediction_becomes_markup(tmp_path: Path) -> None:
    plain = show(tmp_path, [said("1", "yes", benchmark="", images=["a.png"], scores={"yes": -1.0})])
    attack: dict[str, Any] = {
        name: ATTACK for name, value in asdict(said("1", "yes")).items() if isinstance(value, str)
    }
    attack |= {
        "answers": [ATTACK],
        "images": [ATTACK],
        "scores": {ATTACK: float("nan")},
        "truth": {"box": [ATTACK]},
    }
    (tmp_path / "0.jsonl").write_text(json.dumps({**attack, "question": "\ud800" + ATTACK}))
    page = Page(write_page([tmp_path / "0.jsonl"], tmp_path))
    assert page.tags == plain.tags
    assert page.attributes == plain.attributes
    assert page.data["rows"][0]["said"][0]["text"] == ATTACK
    assert not [value for _, value in page.attributes if value and "//" in value]


def test_the_browser_is_told_to_run_this_script_alone(tmp_path: Path) -> None:
    page = show(tmp_path, [said("1", "yes")])
    style, script = page.scripts["run"]
    policy = next(value for _, value in page.attributes if value and value.startswith("default-src"))
    hashes = [b64encode(sha256(text.encode()).digest()).decode() for text in (script, style)]
    assert re.findall("'sha256-(.*?)'", policy) == hashes
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy


def test_each_picture_is_written_once_wherever_it_comes_from(tmp_path: Path) -> None:
    Image.fromarray(np.full((600, 800, 3), 90, dtype=np.uint8)).save(tmp_path / "a.png")
    made = [said(str(number), "yes", images=["scene"][number:]) for number in range(3)]
    files = [said("f1", "yes", images=["a.png"]), said("f2", "yes", images=["a.png", "none.png"])]
    page = show(tmp_path, [*made, *files])
    assert [row["pictures"] for row in page.data["rows"]] == [[1], [1], [2], [0], [None, None]]
    assert page.data["sizes"] == [[800, 600], [8, 8], [8, 8]]
    assert len(page.scripts["text/plain"]) == 3


def test_a_name_leads_nowhere_but_below_the_root(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "private.png")
    names = ["../private.png", str(tmp_path / "private.png"), "root/../../private.png", "", ".", "\0"]
    page = show(tmp_path, [said(name, "yes", images=[name]) for name in names], root=tmp_path / "root")
    assert page.data["sizes"] == []


def test_a_full_page_says_what_is_left_out(tmp_path: Path) -> None:
    with (tmp_path / "page").open("w") as file:
        pictures = Pictures(file, tmp_path, Judges([], tmp_path), budget=1)
        for name in "ab":
            Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
        places = pictures.write([said(name, "yes", images=[f"{name}.png"]) for name in "ab"])
    assert places == [[0], [None]]
    assert "1 pictures left out" in pictures.notes[0]


def test_the_benchmark_says_what_an_answer_earns(tmp_path: Path) -> None:
    rows = [said("1", "YES"), said("2", "no"), said("3", "yes", benchmark=""), said("4", "YES", benchmark="")]
    page = show(
        tmp_path, [*rows, said("5", "x", benchmark="unknown"), replace(rows[0], question_id="6", answers=[])]
    )
    assert [row["said"][0]["credit"] for row in page.data["rows"]] == [1, 0, 1, 0, None, None]
    sums = {sum["benchmark"]: (sum["count"], sum["credit"]) for sum in page.data["sums"]}
    assert sums == {"made": (3, [50]), "": (2, [50]), "unknown": (1, [None])}
    assert "unknown is no benchmark" in page.data["notes"][0]


def test_two_files_of_the_same_questions_come_side_by_side(tmp_path: Path) -> None:
    one, other = [said("1", "yes"), said("2", "yes")], [said("2", "no"), said("3", "no")]
    likelihood = [replace(p, ask="likelihood") for p in other]
    page = show(tmp_path, one, likelihood, [said("7", "yes")])
    assert len(page.data["sides"]) == 2
    texts = {row["id"]: [a and a["text"] for a in row["said"]] for row in page.data["rows"]}
    assert texts == {"1": ["yes", None], "2": ["yes", "no"], "3": [None, "no"], "7": ["yes", None]}
    with pytest.raises(ValueError, match="two of them"):
        show(tmp_path, one, other, other)


def test_one_folder_with_two_ways_to_ask_shows_both(tmp_path: Path) -> None:
    write_predictions(tmp_path / "out/a.jsonl", [said("1", "yes")])
    write_predictions(tmp_path / "out/b.jsonl", [replace(said("1", "no"), ask="likelihood")])
    page = Page(write_page([tmp_path / "out"], tmp_path))
    assert [(row["ask"], len(row["said"])) for row in page.data["rows"]] == [("short", 1), ("likelihood", 1)]
    with pytest.raises(ValueError, match="no predictions"):
        write_page([tmp_path], tmp_path)


def test_a_limit_cuts_rows_and_not_numbers(tmp_path: Path) -> None:
    page = show(tmp_path, [said(str(number), "yes" * (number < 5)) for number in range(10)], limit=3)
    assert [row["id"] for row in page.data["rows"]] == ["0", "3", "6"]
    assert page.data["sums"][0]["credit"] == [50]
    assert "3 of 10" in page.data["notes"][0]


def test_the_benchmark_says_which_boxes_are_drawn(tmp_path: Path) -> None:
    truth = {"box": [32, 16, 48, 32]}
    rows = [said(name, name, benchmark="shapes_refcoco", truth=truth) for name in ("g", "?")]
    rows += [said("f", "f", benchmark="shapes_refcoco", truth={"box": ["x", float("nan")]}), said("1", "g")]
    # the cells of a picture of 64 pixels are a to p, row by row; a cell says where but for 2 pixels
    box, middle = (0.5, 0.25, 0.75, 0.5), (34 / 64, 18 / 64, 46 / 64, 30 / 64)
    judges = Judges([], tmp_path)
    assert [judges.boxes(p) for p in rows] == [(box, middle), (box, None), (None, None), (None, None)]


@pytest.mark.parametrize(
    "wrong",
    ['{"question": 1}', '{"scores": {"a": "x"}}', '{"answers": [1]}', "[" * 100_000, "[]", '{"no": 1}'],
)
def test_what_is_no_prediction_is_named(tmp_path: Path, wrong: str) -> None:
    line = json.dumps(asdict(said("1", "yes")))
    broken = wrong if wrong.startswith("[") else json.dumps({**json.loads(line), **json.loads(wrong)})
    (tmp_path / "p.jsonl").write_text(f"{line}\n{broken}\n")
    with pytest.raises(ValueError, match=r"p\.jsonl, line 2"):
        write_page([tmp_path / "p.jsonl"], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["p.jsonl"]


def test_a_folder_is_no_page(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is a folder: name the page, .*answers\.html"):
        show(tmp_path, [said("0", "yes")], out=tmp_path)
