"""The command line of `cobra export`."""

import pytest

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
