"""A paper's page: empty where nothing was run, ours beside theirs where it was, and priced differences."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from cobra.cli import _parser
from cobra.eval.papers.cells import Cell
from cobra.eval.papers.commands import paper_commands
from cobra.eval.papers.paper import paper_names, read_paper, read_papers
from cobra.eval.predictions import Prediction, write_predictions
from cobra.eval.protocols.protocol import protocol_names, read_protocol
from cobra.eval.published import read_numbers
from cobra.eval.reproduce import reproduce
from cobra.verbs import said_in_full

ROOT = Path(__file__).parents[2]
PAPERS = [
    *("cobra", "imp", "llava-1.5", "ml-mamba", "mobilellm", "mobilevlm", "mobilevlm-v2", "phiva", "tinyllava")
]


def answered(folder: Path, ask: str, answers: str, model: str = "m", **about: Any) -> Path:
    """An evaluation folder: answers `y`, `n` to POPE; true are yes, no, yes, no of each split."""
    made = [
        Prediction(
            split,
            f"{split}-{n}",
            "all",
            "?",
            {"y": "Yes", "n": "No"}[answer],
            [true],
            "pope",
            ask,
            model=model,
        )
        for n, (answer, true, split) in enumerate(
            zip(answers, ["yes", "no"] * 4, ["random"] * 4 + ["popular"] * 4, strict=True)
        )
    ]
    write_predictions(folder / f"pope-{ask}.jsonl", made)
    (folder / "run.json").write_text(json.dumps(about))
    scored = [{"benchmark": "pope", "ask": path.stem[5:], "questions": 8} for path in folder.glob("*.jsonl")]
    (folder / "scores.json").write_text(json.dumps(scored))
    return folder


def page(capsys: pytest.CaptureFixture[str], paper: str, *runs: str, out: Path | None = None) -> str:
    capsys.readouterr()
    reproduce(paper, runs, [], out)
    return capsys.readouterr().out


def test_where_nothing_was_run_every_cell_of_ours_is_empty(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert paper_names() == PAPERS
    for name in PAPERS:
        shown = page(capsys, name, out=tmp_path)
        ours = [line for line in shown.splitlines() if line.startswith("| **here** |")]
        assert ours, name
        assert not any(line.removeprefix("| **here** |").strip(" |") for line in ours), name
        tables = json.loads((tmp_path / "reproduce.json").read_text())["tables"]
        assert not any(cell["ours"] is not None for cells in tables.values() for cell in cells)
    assert "Accuracy: not found" in page(capsys, "phiva")
    assert "any accuracy of PhiVA" in page(capsys, "phiva")


def test_a_note_says_of_which_column_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert "- LLaVA-1.5-7B, vsr: not among the numbers of LLaVA itself" in page(capsys, "cobra")
    assert "- MobileVLM V2 1.7B, v1 recipe: recipe and projector of v1" in page(capsys, "mobilevlm-v2")


def test_every_printed_number_of_a_papers_tables_is_on_its_page(capsys: pytest.CaptureFixture[str]) -> None:
    for paper in read_papers():
        shown = page(capsys, paper.name)
        for number in read_numbers():
            if number.table in paper.tables:
                assert f" {number.value} " in shown, number


def test_ours_stand_beside_theirs_by_the_papers_own_protocol(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = answered(tmp_path / "o", "short_likelihood", "ynynynnn", model="abc", weights="w")
    answered(tmp_path / "o", "short", "yyyyyyyy", model="abc")
    shown = page(capsys, "cobra", f"Cobra-3.5B={out}", out=tmp_path / "page")
    row = shown.split("| Cobra-3.5B | 77.8 †")[1].splitlines()[1]
    assert row == "| **here** |  |  |  |  |  | **87.50** (-0.90) |"
    assert f"| Cobra-3.5B | {out} | – | abc | pope | short | 8 |" in shown
    report = json.loads((tmp_path / "page/reproduce.json").read_text())
    filled = [cell for cells in report["tables"].values() for cell in cells if cell["ours"] is not None]
    # not beside what others quote, nor where nobody says how it was asked
    assert {(cell["system"], cell["benchmark"], cell["number"]["table"]) for cell in filled} == {
        ("Cobra-3.5B", "pope", "cobra-2"),
        ("Cobra-3.5B", "pope", "cobra-5"),
    }
    assert {(cell["ours"], cell["folder"]) for cell in filled} == {(87.5, str(out))}
    assert (tmp_path / "page/reproduce.md").read_text() in shown


def test_differences_are_priced_in_points_from_the_papers_way(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    first = answered(tmp_path / "a", "short_likelihood", "ynynynny", resize="letterbox", model_name="m")
    answered(tmp_path / "a", "short", "ynyyyyyy", resize="letterbox", model_name="m")
    second = answered(tmp_path / "b", "short_likelihood", "ynynynyn", resize="squash", model_name="m")
    shown = page(capsys, "cobra", f"Cobra-3.5B={first}", f"Cobra-3.5B={second}", out=tmp_path)
    prices = json.loads((tmp_path / "reproduce.json").read_text())["prices"]
    found = {(price["what"], price["other"]): price["points"] for price in prices}
    # the paper's way: 6 of 8 by likelihood, 4 of 4 random and 2 of 4 popular
    assert found["generated", "short accuracy"] == pytest.approx(100 * (5 - 6) / 8)
    assert found["split", "short_likelihood random/accuracy"] == pytest.approx(25)
    assert found["split", "short_likelihood popular/accuracy"] == pytest.approx(-25)
    assert found["run: resize letterbox → squash", f"{second} accuracy"] == pytest.approx(25)
    assert ("metric", "short_likelihood f1") in found
    generated = next(price for price in prices if price["what"] == "generated")
    assert generated["interval"][0] < -12.5 < generated["interval"][1]
    assert "| generated | short_likelihood accuracy | short accuracy | -12.50 |" in shown
    assert "75.00 (short_likelihood, accuracy)" in shown


def test_runs_that_share_no_question_have_no_price(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    first = answered(tmp_path / "a", "short_likelihood", "ynynynny", model_name="m")
    second = answered(tmp_path / "b", "short_likelihood", "ynynynyn", model_name="n")
    path = second / "pope-short_likelihood.jsonl"
    path.write_text(path.read_text().replace("random-", "random-1").replace("popular-", "popular-1"))
    page(capsys, "cobra", f"Cobra-3.5B={first}", f"Cobra-3.5B={second}", out=tmp_path)
    prices = json.loads((tmp_path / "reproduce.json").read_text())["prices"]
    assert not [price for price in prices if price["what"].startswith("run:")]


def test_a_part_of_the_questions_and_secret_answers_are_marked(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = answered(tmp_path / "o", "short_likelihood", "ynynynnn")
    (out / "scores.json").write_text(
        json.dumps([{"benchmark": "pope", "ask": "short_likelihood", "questions": 9000}])
    )
    shown = page(capsys, "cobra", f"Cobra-3.5B={out}")
    assert "| **here** |  |  |  |  |  | 87.50 * |" in shown
    assert "* ours is of a part of the questions" in shown
    assert "| short_likelihood | 8 of 9,000 |" in shown
    # of the test set are also Imp's numbers of VizWiz: its scripts/eval/vizwiz.sh asks that
    for row in (("llava-1.5-zoo", "LLaVA-1.5-7B"), ("imp-readme", "Imp-v1.5-3B")):
        printed = [n for n in read_numbers() if (n.table, n.system) == row]
        cells = [Cell(n.system, n.column, n.benchmark, n, 70.0, "o", True) for n in printed]
        assert {cell.benchmark for cell in cells if cell.secret} == {"vqav2", "vizwiz"}


def test_a_run_that_was_stopped_is_no_whole_one(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = answered(tmp_path / "o", "short_likelihood", "ynynynnn")
    (out / "scores.json").unlink()
    shown = page(capsys, "cobra", f"Cobra-3.5B={out}")
    assert "| **here** |  |  |  |  |  | 87.50 * |" in shown
    assert "| short_likelihood | 8, not finished |" in shown


def test_a_benchmark_of_ones_own_is_left_out(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = answered(tmp_path / "o", "short_likelihood", "ynynynnn")
    own = Prediction("", "0", "all", "?", "x", ["x"], "mine", "words", model="m")
    write_predictions(out / "mine-words.jsonl", [own])
    reproduce("cobra", [f"Cobra-3.5B={out}"], [], None)
    shown = capsys.readouterr()
    assert "**87.50** (-0.90)" in shown.out
    assert shown.err.splitlines() == [f"left out: {out / 'mine-words.jsonl'} is of no benchmark of a paper"]


def test_where_nobody_says_how_it_was_asked_ours_does_not_stand_beside_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    people = ["yes"] * 10
    made = Prediction("", "1", "all", "?", "yes", people, "textvqa", "ocr_first", model="m")
    write_predictions(tmp_path / "o/textvqa-ocr_first.jsonl", [made])
    shown = page(capsys, "ml-mamba", f"ML-Mamba={tmp_path / 'o'}")
    assert "100.00 (ocr_first, accuracy)" in shown
    # whether ML-Mamba was given OCR tokens is not found
    assert "**100.00**" not in shown
    assert "**100.00**" in page(capsys, "cobra", f"Cobra-3.5B={tmp_path / 'o'}")


def test_a_folder_must_be_of_one_model_and_of_a_system_of_the_paper(tmp_path: Path) -> None:
    out = answered(tmp_path / "o", "short", "ynynynyn")
    for said, message in (
        (str(out), "which system of cobra is it"),
        (f"Imp={out}", "which system of cobra is it"),
        (f"Cobra-8B={tmp_path / 'none'}", "no predictions"),
    ):
        with pytest.raises(ValueError, match=message):
            reproduce("cobra", [said], [], None)
    answered(tmp_path / "o", "short_likelihood", "ynynynyn", model="other")
    with pytest.raises(ValueError, match="answers of 2 models: m, other"):
        reproduce("cobra", [f"Cobra-3.5B={out}"], [], None)
    with pytest.raises(ValueError, match="no protocol 'lava'"):
        reproduce("cobra", [], ["lava"], None)


def test_weights_from_the_hub_say_which_system_they_are(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = answered(tmp_path / "o", "short", "yyyyyyyy", model="m", **{"weights": 1})
    (out / "run.json").write_text(json.dumps({"model": "MILVLG/imp-v1-3b"}))
    shown = page(capsys, "imp", str(out))
    assert f"| Imp-v1-3B | {out} | MILVLG/imp-v1-3b |" in shown


def test_results_of_the_language_models_harness_fill_mobilellms_table(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    results = {
        "arc_easy": {"alias": "arc_easy", "acc,none": 0.441, "acc_stderr,none": 0.01, "acc_norm,none": 0.39},
        "commonsense": {"acc,none": 0.46, "alias": "commonsense"},
    }
    (tmp_path / "model").mkdir()
    (tmp_path / "model/results_2026.json").write_text(
        json.dumps({"results": results, "n-samples": {"arc_easy": {"original": 2376, "effective": 2376}}})
    )
    shown = page(capsys, "mobilellm", f"MobileLLM-125M={tmp_path}")
    row = shown.split("| MobileLLM-125M | 43.9 |")[1].splitlines()[1]
    assert row == "| **here** | **44.10** (+0.20) |  |  |  |  |  |  |  | **46.00** (-0.30) |"
    assert "| arc_easy | – | 2,376 |" in shown


def test_a_limit_of_the_language_models_harness_is_told(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    results = {"boolq": {"acc,none": 0.5}, "piqa": {"acc,none": 0.5}, "commonsense": {"acc,none": 0.5}}
    counts = {"boolq": {"original": 3270, "effective": 10}, "piqa": {"original": 8, "effective": 8}}
    path = tmp_path / "results_2026.json"
    path.write_text(json.dumps({"results": results, "n-samples": counts}))
    shown = page(capsys, "mobilellm", f"MobileLLM-125M={tmp_path}")
    row = shown.split("| MobileLLM-125M | 43.9 |")[1].splitlines()[1]
    assert row == "| **here** |  |  | 50.00 * | **50.00** (-15.30) |  |  |  |  | 50.00 * |"
    assert "| boolq | – | 10 of 3,270 |" in shown
    path.write_text("[]")
    with pytest.raises(ValueError, match=r"results_2026\.json has no `results`"):
        page(capsys, "mobilellm", f"MobileLLM-125M={tmp_path}")


def test_commands_are_those_that_there_are() -> None:
    parser = _parser()
    for paper in read_papers():
        script = "\n".join(paper_commands(paper, []))
        for line in script.replace("\\\n", "").splitlines():
            words = shlex.split(line, comments=True)[1:]
            if words[:1] == ["fit"]:
                files = [ROOT / word for word in words if word.endswith(".yaml") and word != "mine.yaml"]
                assert files, line
                assert all(file.is_file() for file in files), line
            elif words and words[:2] != ["eval", "lm"]:
                parser.parse_args(said_in_full(words))
    assert "--tasks commonsense" in "\n".join(paper_commands(read_paper("mobilellm"), []))


def test_what_a_paper_asks_otherwise_is_an_ask_of_some_protocol() -> None:
    protocols = [read_protocol(name) for name in protocol_names()]
    for paper in read_papers():
        for column, headline in paper.columns.items():
            benchmark = column.partition(",")[0]
            asks = [ask.name for protocol in protocols for ask in protocol.asks.get(benchmark, ())]
            assert not asks or headline.ask in asks, (paper.name, column)
