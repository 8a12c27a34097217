"""VLMEvalKit's tables of questions."""

import base64
import csv
import io
from pathlib import Path

import pytest
from PIL import Image

from cobra.data.image import load_rgb
from cobra.data.tsv import BenchTSV

COLUMNS = ["index", "image", "question", "hint", "A", "B", "C", "answer", "category"]


def code(value: int) -> str:
    buffer = io.BytesIO()
    # noise, so that it is longer than any index
    Image.effect_noise((40, 40), value).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def write(folder: Path, rows: list[dict[str, object]]) -> Path:
    with (folder / "Bench.tsv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, delimiter="\t", restval="")
        writer.writeheader()
        writer.writerows(rows)
    return folder / "Bench.tsv"


def test_a_row_that_is_cut_or_lost_in_an_open_quote_is_counted(tmp_path: Path) -> None:
    # a name that is a pattern, too
    path = tmp_path / "Bench[1].tsv"
    table = ["index\timage\tquestion\tanswer", "1\t\twhy?\tso", '2\t\t"why?\tso', "3\t\twhy?\tso"]
    path.write_text("\n".join(table))
    data = BenchTSV(path, cache_dir=tmp_path / "cache")
    assert (len(data), data.dropped) == (1, {"it has fewer cells than the header": 1})


def test_rows_are_questions_with_options_and_pictures(tmp_path: Path) -> None:
    # as Python writes a list
    several = str([code(2), code(3)])
    rows: list[dict[str, object]] = [
        {"index": 7, "image": code(1), "question": 'a "b"\nc?', "hint": "look", "A": "x", "B": "y",
         "answer": "B"},
        {"index": 1000007, "image": 7, "question": "again?", "A": "y", "B": "x", "answer": "A"},
        {"index": 8, "image": "[1, 'no base64!']", "question": "?", "answer": "a"},
        {"index": 9, "image": several, "question": "how many?", "answer": "2", "category": "count"},
        {"index": 10, "image": code(4), "question": "secret?"},
        {"index": 11, "image": code(5), "answer": "a"},
        {"index": 12, "image": 9, "question": "alike?"},
        {"index": 13, "image": 11, "question": "gone?"},
    ]  # fmt: skip
    data = BenchTSV(write(tmp_path, rows), cache_dir=tmp_path / "cache")
    assert data.dropped == {"its picture is no base64": 1, "empty turn": 1}
    first, again, count, secret, alike = (data[number] for number in range(5))
    letter = "Answer with the option's letter from the given choices directly."
    assert first.messages[0].text == f'look\na "b"\nc?\nA. x\nB. y\n{letter}'
    assert (first.messages[1].text, first.meta["answer"], first.meta["hint"]) == ("B", "B", "look")
    assert first.images == again.images == [base64.b64decode(code_of(rows[0]))]
    assert count.messages[0].text == "how many?\nAnswer the question using a single word or phrase."
    assert (len(count.images), count.meta["category"]) == (2, "count")
    assert load_rgb(count.images[1]).size == (40, 40)
    assert [message.role for message in secret.messages] == ["user"]
    assert alike.images == count.images
    with pytest.raises(ValueError, match=r"record '13' of Bench: the row 5 that has its picture was dropped"):
        data[5]


def code_of(row: dict[str, object]) -> str:
    return str(row["image"])


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("index\tquestion\n1\twhat?\n", r"a\.tsv has no columns \['image'\], but"),
        ("image\tquestion\n\twhat?\tmore\n", r"a\.tsv: line 2 has more cells than the header"),
        ("image\tquestion\n\t" + "a" * 2000 + "\n", r"a\.tsv: line 2 has more than 1000 characters"),
        ("image\tquestion\n", "holds no records"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused_with_its_line(
    content: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cobra.data.tsv_rows.MAX_RECORD_TEXT", 1000)
    (tmp_path / "a.tsv").write_text(content)
    with pytest.raises(ValueError, match=problem):
        BenchTSV(tmp_path / "a.tsv", cache_dir=tmp_path / "cache")
