"""Files of predictions scored and compared offline, and what is refused of them."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from cobra.eval.answer_file import AnswerFile
from cobra.eval.compare_answers import compare_answers, compare_files
from cobra.eval.compare_several import compare_several
from cobra.eval.predictions import Prediction, write_predictions
from cobra.eval.results import Result, print_results, write_results
from cobra.eval.score_files import score_files


def said(number: int, answer: str, true: str = "yes", **more: Any) -> Prediction:
    given = {"benchmark": "pope", "ask": "short", "model": "m", **more}
    return Prediction("random", str(number), given.pop("kind", "all"), "?", answer, [true], **given)


def written(path: Path, predictions: list[Prediction]) -> Path:
    write_predictions(path, predictions)
    return path


def test_files_of_one_benchmark_stand_beside_each_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    right = written(tmp_path / "a" / "pope-short.jsonl", [said(n, "Yes") for n in range(4)])
    half = written(tmp_path / "b" / "pope-short.jsonl", [said(n, "Yes" if n % 2 else "No") for n in range(4)])
    trained = [Prediction("test", str(n), f"k{n % 2}", "?", "3", ["3" if n else "4"]) for n in range(4)]
    plain = written(tmp_path / "predictions-test.jsonl", trained)
    score_files([right, half, plain], report=tmp_path / "scores.json")
    shown = capsys.readouterr().out
    assert f"| pope | {right} | {half} |" in shown
    assert "| random/accuracy | 100.00 | 50.00 |" in shown
    assert "| exact match | predictions-test |" in shown
    assert "| macro | 75.00 |" in shown
    report = json.loads((tmp_path / "scores.json").read_text())
    assert [each["scores"]["accuracy"] for each in report] == [100, 50, 75]
    assert report[0]["questions"] == 4


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (said(1, "Yes", model="n"), r"mixes predictions of more than one model: 'm' \(1 lines\), 'n'"),
        (said(1, "Yes", ask="long"), "more than one ask: 'short'"),
        (said(1, "Yes", benchmark="gqa"), "more than one benchmark"),
        (said(0, "No"), "answers question '0' of random more than once"),
        (said(1, 3), "no predictions in line 2 .*prediction. has a"),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_single_run_is_refused(tmp_path: Path, second: Prediction, message: str) -> None:
    path = written(tmp_path / "x.jsonl", [said(0, "Yes"), second])
    with pytest.raises(ValueError, match=message):
        AnswerFile.read(path)


def test_broken_lines_are_named_all_at_once(tmp_path: Path) -> None:
    path = written(tmp_path / "x.jsonl", [said(n, "Yes") for n in range(12)])
    lines = path.read_bytes().splitlines(keepends=True)
    lines[2] = b"\n"
    lines[4:6] = [b'{"split": "random"}\n', b"\xff\xfe\n"]
    lines[-1] = lines[-1][:40]
    path.write_bytes(b"".join(lines))
    with pytest.raises(ValueError, match=r"x.jsonl: no predictions in line 3 .*line 5 .*line 6 .*line 12"):
        AnswerFile.read(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="holds no predictions"):
        AnswerFile.read(path)
    unknown = written(tmp_path / "y.jsonl", [said(0, "Yes", benchmark="mine")])
    with pytest.raises(ValueError, match="no benchmark 'mine': name its Python file with --benchmark"):
        AnswerFile.read(unknown)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("scores", {"Yes": None}, "no predictions in line 1"),
        ("scores", {"Yes": 10**400}, "no predictions in line 1"),
        ("scores", {"Yes": float("nan"), "No": -1.0}, "line 1 .the score of .Yes. is nan"),
        ("answers", [1], "no predictions in line 1"),
        ("answers", [], "a line lacks what pope is scored by"),
    ],
)
def test_a_line_that_was_changed_by_hand_is_refused(
    tmp_path: Path, field: str, value: object, message: str
) -> None:
    path = written(tmp_path / "x.jsonl", [said(0, "Yes")])
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}) + "\n")
    with pytest.raises(ValueError, match=message):
        assert AnswerFile.read(path).scores
    with pytest.raises(ValueError, match=message):
        compare_files(path, path)
    path.write_text("[" * 100_000)
    with pytest.raises(ValueError, match="no predictions in line 1"):
        AnswerFile.read(path)


def test_questions_are_paired_by_their_names_in_any_order(tmp_path: Path) -> None:
    a = [said(n, "Yes" if n < 6 else "No", kind=f"k{n % 2}") for n in range(10)]
    b = [said(n, "Yes" if n > 1 else "No", kind=f"k{n % 2}") for n in range(10)]
    results = compare_files(written(tmp_path / "a.jsonl", a), written(tmp_path / "b.jsonl", b[::-1]))
    assert list(results) == ["all", "k0", "k1"]
    whole = results["all"]
    assert (whole.both, whole.only_a, whole.only_b, whole.neither) == (4, 2, 4, 0)
    assert (results["k0"].a, results["k0"].b) == (60, 80)


def test_other_questions_are_named_and_left_out_on_request(tmp_path: Path) -> None:
    a = written(tmp_path / "a.jsonl", [said(n, "Yes") for n in range(8)])
    b = written(tmp_path / "b.jsonl", [said(n, "Yes") for n in range(2, 9)])
    with pytest.raises(ValueError, match=r"2 only in .*a.jsonl \(first: random 0, random 1\); 1 only in .*b"):
        compare_files(a, b)
    assert compare_files(a, b, common=True)["all"].questions == 6
    other = written(tmp_path / "c.jsonl", [said(n, "Yes", true="no") for n in range(8)])
    with pytest.raises(ValueError, match="question '0' has other true answers"):
        compare_files(a, other)
    plain = written(tmp_path / "d.jsonl", [said(n, "Yes", benchmark="") for n in range(8)])
    with pytest.raises(ValueError, match=r"answers pope, .* answers exact match"):
        compare_files(a, plain)


def test_folders_are_compared_file_by_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder, answer in (("a", "Yes"), ("b", "No")):
        written(tmp_path / folder / "pope-short.jsonl", [said(n, answer) for n in range(50)])
    written(tmp_path / "b" / "pope-long.jsonl", [said(0, "Yes", ask="long")])
    compare_answers(tmp_path / "a", tmp_path / "b", out=tmp_path / "out")
    shown = capsys.readouterr().out
    assert "| **pope-short** | 50 | 100.00 | 0.00 | -100.00 | -100.00 … -100.00 | 0 | 50 | 0 | 0 |" in shown
    assert f"Only in {tmp_path / 'b'}: pope-long" in shown
    report = json.loads((tmp_path / "out/comparison.json").read_text())
    assert report["results"]["pope-short"]["all"]["p"] == 2 / 2**50
    assert (tmp_path / "out/comparison.png").stat().st_size > 5000
    with pytest.raises(ValueError, match="compare two files or two folders"):
        compare_answers(tmp_path / "a", tmp_path / "b/pope-short.jsonl")
    with pytest.raises(FileNotFoundError, match="c is missing"):
        compare_answers(tmp_path / "a", tmp_path / "c")


SECRET = """
from cobra.eval.benchmarks.base import Benchmark

class Secret(Benchmark):
    name = "secret"

    def questions(self):
        return iter(())

    def credit(self, prediction):
        raise ValueError("secret is not scored here")
"""


def test_what_is_not_scored_here_is_said_and_the_rest_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "secret.py").write_text(SECRET)
    for folder in ("a", "b"):
        written(tmp_path / folder / "pope-short.jsonl", [said(0, "Yes")])
        written(tmp_path / folder / "secret-plain.jsonl", [said(0, "Yes", benchmark="secret")])
    compare_answers(tmp_path / "a", tmp_path / "b", benchmark=str(tmp_path / "secret.py"))
    shown = capsys.readouterr().out
    assert "| **pope-short** | 1 |" in shown
    assert "Not compared: secret is not scored here" in shown
    other = written(tmp_path / "x.jsonl", [said(0, "Yes", benchmark="mine")])
    with pytest.raises(ValueError, match="answers 'mine', and pope is 'pope'"):
        AnswerFile.read(other, "pope")


def test_nine_thousand_answers_are_scored_in_two_seconds(tmp_path: Path) -> None:
    path = written(tmp_path / "pope-short.jsonl", [said(n, "Yes, there is.") for n in range(9000)])
    start = time.process_time()
    assert AnswerFile.read(path).scores["accuracy"] == 100
    assert time.process_time() - start < 2


def test_a_folder_and_a_benchmark_that_nothing_is_scored_by_are_refused(tmp_path: Path) -> None:
    answers = written(tmp_path / "pope-short.jsonl", [said(0, "Yes")])
    with pytest.raises(ValueError, match=r"is a folder: name the files of predictions in it, .*\*\.jsonl"):
        score_files([tmp_path])
    with pytest.raises(ValueError, match="--benchmark gqa: the predictions are of pope: leave it out"):
        score_files([answers], "gqa")
    score_files([answers], "pope")


def test_a_later_protocol_leaves_the_headline_of_an_earlier_one(tmp_path: Path) -> None:
    for protocol, metric in (("llava", "f1"), ("prismatic", "accuracy"), ("llava", "f1")):
        write_results(
            tmp_path, [Result("pope", "short", 4, 4, {"accuracy": 75, "f1": 50}, {protocol: metric})]
        )
    table = (tmp_path / "scores.md").read_text()
    assert "| pope | llava | short | f1 | 50.00 |" in table
    assert "| pope | prismatic | short | accuracy | 75.00 |" in table


def test_no_number_is_cut_off_in_a_narrow_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    print_results([Result("mine", "plain_likelihood", 1500, 3000, {"macro": 98.26}, {"llava": "macro"})])
    shown = capsys.readouterr().out
    assert "98.26" in shown
    assert "…" not in shown


def test_several_folders_are_held_to_one_metric_whatever_protocol_each_was_run_by(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "abc"]
    for folder, printed in zip(folders, ("f1", "accuracy", "f1"), strict=True):
        answers = [said(n, "Yes" if n < 3 else "No", "yes" if n % 2 else "no") for n in range(4)]
        file = AnswerFile.read(written(folder / "pope-short.jsonl", answers))
        write_results(folder, [Result("pope", "short", 4, 4, file.scores, {"one": printed})])
    table = compare_several(folders[0], folders[1:])
    assert "| image tokens | f1 | lost |" in table
    assert table.count("|  |  |  | 40.00 | 0.00 | +0.00 |") == 2
