"""The command line of `cobra export`."""

import pytest

from cobra.cli import _parser
from cobra.export import run
from cobra.export.lacking import LACKING, LackingError
from cobra.verbs import said_in_full


@pytest.mark.parametrize(
    ("said", "full"),
    [
        (["export", "runs/tiny/model", "--out", "o"], ["export", "write", "runs/tiny/model", "--out", "o"]),
        (["export", "verify", "o"], ["export", "verify", "o"]),
        (["export", "run", "o"], ["export", "run", "o"]),
        (["export", "--help"], ["export", "--help"]),
        (["eval", "model"], ["eval", "run", "model"]),
    ],
)
def test_a_first_word_that_is_no_subcommand_is_the_model(said: list[str], full: list[str]) -> None:
    assert said_in_full(said) == full


def test_pictures_and_questions_may_be_said_one_by_one() -> None:
    said = [
        "export",
        "run",
        "o",
        "--image",
        "a.png",
        "--image",
        "b.png",
        "--prompt",
        "a",
        "--prompt",
        "b",
        "c",
    ]
    options = _parser().parse_args(said)
    assert [path.name for path in options.image] == ["a.png", "b.png"]
    assert options.prompt == ["a", "b", "c"]
    assert _parser().parse_args(said[:3] + said[-5:]).image == []


def test_what_the_machine_lacks_has_a_status_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def lacking(*_: object) -> None:
        raise LackingError("no GPU: buy one")

    monkeypatch.setattr(run, "run_export", lacking)
    options = _parser().parse_args(["export", "run", "o", "--prompt", "a"])
    with pytest.raises(SystemExit) as ended:
        options.run(options)
    assert ended.value.code == LACKING
    assert capsys.readouterr().err == "cobra export: no GPU: buy one\n"
