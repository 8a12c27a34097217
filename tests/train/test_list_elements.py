"""Elements of lists on the command line."""

from pathlib import Path
from typing import Any

import pytest

from cobra.train.list_elements import merge_elements
from cobra.train.objectives.next_token import NextToken
from tests.test_cli import ROOT, instantiate

CONFIG = {
    "stages": [{"name": "a", "lr": 1.0}, {"name": "b", "lr": 2.0}],
    "model": {"betas": [0.9, 0.99], "m": 3},
}


def parse(words: list[str]) -> dict[str, Any]:
    assert words == ["fit", "-c", "x.yaml"]
    return CONFIG


def test_an_element_becomes_its_list_and_other_words_stay() -> None:
    words = [
        "fit",
        "-c",
        "x.yaml",
        "--stages.1.lr",
        "-3.5",
        "--stages.1.data.c=1",
        "--model.betas.0=.1",
        "--print_config",
    ]
    *rest, stages, betas = merge_elements(words, parse)
    assert rest == ["fit", "-c", "x.yaml", "--print_config"]
    assert stages == ('--stages=[{"name": "a", "lr": 1.0}, {"name": "b", "lr": "-3.5", "data": {"c": "1"}}]')
    assert betas == '--model.betas=[".1", 0.99]'
    # a number in a value is none in a name
    plain = ["fit", "--data.x=a.0.b", "--lr", "--x.1e-3"]
    assert merge_elements(plain, lambda words: pytest.fail("nothing is to be merged")) == plain


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("--stages.2.lr", r"--stages\.2: stages has 2 elements, counted from 0"),
        ("--stages.0.lr.x", r"--stages\.0\.lr\.x: stages\.0\.lr is 1\.0"),
        ("--model.m.0", r"--model\.m: there is no list of this name"),
        ("--stagez.0.lr", r"--stagez: there is no list of this name"),
    ],
)
def test_an_element_that_is_not_there_is_named(word: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        merge_elements(["fit", "-c", "x.yaml", word, "1"], parse)


def test_the_command_takes_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    words = [
        "--stages.0.steps",
        "3",
        "--stages.1.data.captions=2",
        "--stages.0.objective.init_args.factor",
        "4",
    ]
    words += ["--model.betas.1", "0.5", "--trainer.default_root_dir", str(tmp_path)]
    cli = instantiate(monkeypatch, "fit", "-c", str(ROOT / "configs/cobra_tiny.yaml"), *words)
    tower, align, _ = cli.model.stages
    assert (tower.steps, tower.lr, align.data, align.steps) == (
        3,
        2e-3,
        {"captions": 2.0, "places": 0.5},
        800,
    )
    assert cli.model.betas == (0.9, 0.5)
    assert [stage.steps for stage in cli.datamodule.stages] == [3, 800, 1300]


def test_a_mistake_in_one_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        instantiate(monkeypatch, "fit", "-c", str(ROOT / "configs/cobra_tiny.yaml"), "--stages.9.steps", "3")
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--stages.9: stages has 3 elements" in line


def test_a_later_list_of_stages_takes_nothing_from_an_earlier_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stage = "{train: [lm], data: {captions: 1.0}, batch_size: 4, lr: 1.0e-3, steps: 6, name: "
    later = tmp_path / "later.yaml"
    # as many stages as there are already
    later.write_text("stages: [" + ", ".join(f"{stage}{name}}}" for name in "abc") + "]")
    words = ["-c", str(ROOT / "configs/cobra_tiny.yaml"), "-c", str(later)]
    words += ["--trainer.default_root_dir", str(tmp_path)]
    cli = instantiate(monkeypatch, "fit", *words)
    assert [(s.decay, s.hold, s.validate) for s in cli.model.stages] == [("cosine", 0.0, True)] * 3
    assert {type(s.objective(cli.model)) for s in cli.model.stages} == {NextToken}
