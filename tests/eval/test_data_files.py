"""What of the benchmarks' files is there."""

from hashlib import sha256
from pathlib import Path

import pytest

from cobra.eval.data_files import print_data

# its question asks about a picture of the folder
OWN = """
from cobra.eval.benchmarks.base import Benchmark, Download, Question

class Mine(Benchmark):
    name = "mine"
    downloads = (
        Download("mine/questions.txt", "https://example.org/questions", 1, "{hash}"),
        Download("mine/pictures/", "https://example.org/pictures.zip", 2),
        Download("mine/ocr.json", "https://example.org/ocr", optional=True),
    )

    def questions(self):
        for line in (self.root / "mine/questions.txt").read_text().splitlines():
            yield Question(line, {{}}, [self.root / "mine/pictures" / line])

    def credit(self, prediction):
        return 1.0
"""


@pytest.fixture
def own(tmp_path: Path) -> str:
    (tmp_path / "own.py").write_text(OWN.format(hash=sha256(b"a.png\n").hexdigest()))
    return str(tmp_path / "own.py")


def fill(root: Path, questions: str, pictures: int) -> None:
    (root / "mine/pictures").mkdir(parents=True)
    (root / "mine/questions.txt").write_text(questions)
    for number in range(pictures):
        (root / f"mine/pictures/{'ab'[number]}.png").touch()


def test_only_what_is_whole_passes(tmp_path: Path, own: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert not print_data([own], tmp_path / "nothing")
    assert capsys.readouterr().out.count("✗ missing") == 2
    for name, questions, pictures, whole in [
        ("whole", "a.png\n", 2, True),
        ("enough", "a.png\n", 1, True),
        ("none", "a.png\n", 0, False),
        ("another", "a.png\nb.png\n", 2, False),
    ]:
        fill(tmp_path / name, questions, pictures)
        assert print_data([own], tmp_path / name) == whole, name
    assert "hash" in capsys.readouterr().out


def test_a_picture_that_is_asked_about_must_be_there(tmp_path: Path, own: str) -> None:
    fill(tmp_path, "a.png\n", 2)
    (tmp_path / "mine/pictures/a.png").rename(tmp_path / "mine/pictures/c.png")
    assert not print_data([own], tmp_path)
