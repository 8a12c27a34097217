"""The command line of `cobra eval`."""

import pytest

from cobra.eval.arguments import said_in_full


@pytest.mark.parametrize(
    ("said", "full"),
    [
        (["eval", "runs/tiny/model", "--out", "o"], ["eval", "run", "runs/tiny/model", "--out", "o"]),
        (["eval", "--out", "o", "model"], ["eval", "run", "--out", "o", "model"]),
        (["eval", "run", "model"], ["eval", "run", "model"]),
        (["eval", "lm", "model", "--tasks", "t"], ["eval", "lm", "model", "--tasks", "t"]),
        (["eval", "--help"], ["eval", "--help"]),
        (["eval"], ["eval"]),
        (["bench", "model"], ["bench", "model"]),
    ],
)
def test_a_first_word_that_is_no_subcommand_is_the_model(said: list[str], full: list[str]) -> None:
    assert said_in_full(said) == full
