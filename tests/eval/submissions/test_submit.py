import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cobra.cli import main
from cobra.eval.benchmarks.base import Benchmark, Question
from cobra.eval.benchmarks.gqa import Gqa
from cobra.eval.benchmarks.mmvet import MmVet
from cobra.eval.benchmarks.vizwiz import VizWizTest
from cobra.eval.benchmarks.vqav2 import VqaV2Test
from cobra.eval.predictions import write_predictions
from cobra.eval.submissions import formats
from cobra.eval.submissions.submit import submit
from tests.eval.benchmarks.predictions import predict
from tests.eval.benchmarks.small_files import allow_any_size, write_small

GQA_ROW = {
    "imageId": "n1",
    "question": "?",
    "answer": "no",
    "types": {"structural": "verify", "semantic": "obj"},
    "groups": {"global": None},
}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    allow_any_size(monkeypatch, Gqa, MmVet, VizWizTest, VqaV2Test)
    test = [{"question_id": n, "image_id": n, "question": "?"} for n in range(5)]
    write_small(tmp_path, "vqav2/v2_OpenEnded_mscoco_test2015_questions.json", {"questions": test})
    write_small(tmp_path, "vqav2/v2_OpenEnded_mscoco_test-dev2015_questions.json", {"questions": test[1:3]})
    write_small(tmp_path, "gqa/testdev_balanced_questions.json", {"7": GQA_ROW, "8": GQA_ROW})
    write_small(
        tmp_path, "vizwiz/test.json", [{"image": f"VizWiz_test_{n}.jpg", "question": "?"} for n in range(2)]
    )
    mmvet = {"imagename": "v1_0.png", "question": "?", "answer": "a", "capability": ["ocr"]}
    write_small(tmp_path, "mmvet/mm-vet.json", {"v1_0": mmvet, "v1_1": mmvet})
    return tmp_path


def write_answers(root: Path, benchmark: Benchmark, *said: str) -> Path:
    questions = list(benchmark.questions())
    file = root / "predictions.jsonl"
    write_predictions(
        file, [predict(benchmark, q, text, ask="short") for q, text in zip(questions, said, strict=False)]
    )
    return file


@pytest.mark.parametrize(
    ("server", "benchmark", "said", "value"),
    [
        (
            "gqa",
            Gqa,
            ("No.", " Left\n"),
            [{"questionId": "7", "prediction": "no"}, {"questionId": "8", "prediction": "left"}],
        ),
        (
            "vizwiz",
            VizWizTest,
            ("Unanswerable.", "The ten cans"),
            [
                {"image": "VizWiz_test_0.jpg", "answer": "unanswerable"},
                {"image": "VizWiz_test_1.jpg", "answer": "10 cans"},
            ],
        ),
        (
            "mmvet",
            MmVet,
            ("It says “A”.\nSo x = 3.", ""),
            {"v1_0": "It says “A”.\nSo x = 3.", "v1_1": ""},
        ),
    ],
)
def test_files_are_what_each_server_reads(
    root: Path, server: str, benchmark: type[Benchmark], said: tuple[str, ...], value: Any
) -> None:
    out = root / "up/load.json"
    done = submit(server, write_answers(root, benchmark(root), *said), root, out, pad=False)
    assert json.loads(out.read_text(encoding="utf-8")) == value
    assert done == f"{out}: 2 answers"
    assert list(out.parent.iterdir()) == [out]


def test_vqav2_wants_every_test_question(root: Path) -> None:
    file, out = write_answers(root, VqaV2Test(root), "Yes.", "Two"), root / "upload.json"
    with pytest.raises(ValueError, match=r"answers 2 of 5 questions.*the other 3 an empty answer with --pad"):
        submit("vqav2", file, root, out, pad=False)
    assert not out.exists()
    assert submit("vqav2", file, root, out, pad=True) == f"{out}: 5 answers, 3 of them empty"
    assert json.loads(out.read_text()) == [
        {"question_id": n, "answer": answer} for n, answer in enumerate(["", "yes", "2", "", ""])
    ]


def test_answers_of_another_kind_are_refused(root: Path) -> None:
    benchmark, out = Gqa(root), root / "upload.json"
    first, second = (predict(benchmark, q, "no", ask="short", model="a") for q in benchmark.questions())
    file = root / "predictions.jsonl"

    def refused(match: str, *given: Any, server: str = "gqa") -> None:
        write_predictions(file, given)
        with pytest.raises(ValueError, match=match):
            submit(server, file, root, out, pad=True)
        assert not out.exists()

    refused("has answers to gqa, not vqav2_test", first, server="vqav2")
    refused("has answers to no benchmark, not gqa", replace(first, benchmark=""))
    refused("answers question 7 twice", first, first)
    refused("mixes 2 benchmarks, asks or models", first, replace(second, model="b"))
    refused("mixes 2 benchmarks, asks or models", first, replace(second, ask="long"))
    refused(
        "answers 1 questions that the benchmark has not, such as 9", first, replace(second, question_id="9")
    )
    refused("has no answers")


def test_the_command_says_what_it_wrote_or_what_is_missing(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_answers(root, MmVet(root), "a", "b")

    def run(server: str) -> None:
        words = ["cobra", "eval", "submit", server, file, "--data", root, "--out", root / "up.json"]
        monkeypatch.setattr(sys, "argv", [str(word) for word in words])
        main()

    run("mmvet")
    assert capsys.readouterr().out == f"{root / 'up.json'}: 2 answers\n"
    (root / "mmvet/mm-vet.json").unlink()
    with pytest.raises(
        SystemExit, match=r"there is no .*mm-vet.json: fetch it from https://github.com/yuweihao"
    ):
        run("mmvet")


def option_question(index: int, options: dict[str, str], answers: list[str]) -> Question:
    return Question(
        str(index), {"question": f"What is {index}?"}, [], answers, split="dev", truth={"options": options}
    )


ANSWERED = [
    (option_question(1, {"A": "cat", "B": "dog"}, ["A"]), "A"),
    (option_question(1_000_001, {"A": "dog", "B": "cat"}, ["B"]), "=1+1"),
    (option_question(2, {"A": "x", "B": "y", "C": "z"}, ["C"]), "C\x00."),
]


def test_mmbench_becomes_the_table_that_llava_uploads(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl", reason="no openpyxl")
    formats.write_mmbench(tmp_path / "up.xlsx", ANSWERED)
    sheet = openpyxl.load_workbook(tmp_path / "up.xlsx").active
    assert [list(row) for row in sheet.iter_rows(values_only=True)] == [
        ["index", "question", "A", "B", "C", "prediction", "answer", "split"],
        [1, "What is 1?", "cat", "dog", None, "A", "A", "dev"],
        [1_000_001, "What is 1000001?", "dog", "cat", None, "=1+1", "B", "dev"],
        [2, "What is 2?", "x", "y", "z", "C.", "C", "dev"],
    ]
    assert sheet["F3"].data_type == "s"
    secret = [(replace(question, answers=[]), said) for question, said in ANSWERED]
    formats.write_mmbench(tmp_path / "up.xlsx", secret)
    header = next(openpyxl.load_workbook(tmp_path / "up.xlsx").active.iter_rows(values_only=True))
    assert header == ("index", "question", "A", "B", "C", "prediction", "split")


def test_without_openpyxl_the_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(ValueError, match="pip install openpyxl"):
        formats.write_mmbench(tmp_path / "up.xlsx", ANSWERED)


@pytest.mark.parametrize(
    "write", [formats.write_vqav2, formats.write_gqa, formats.write_vizwiz, formats.write_mmvet]
)
def test_answers_in_other_scripts_are_kept(tmp_path: Path, write: Callable[..., None]) -> None:
    write(tmp_path / "up.json", [(Question("3", {}, []), "北京")])
    assert "北京" in (tmp_path / "up.json").read_text(encoding="utf-8")
