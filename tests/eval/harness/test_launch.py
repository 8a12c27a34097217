"""`cobra eval lmms` and `cobra eval lm` become the harnesses' own command lines."""

import re
import sys

import pytest

from cobra.cli import main
from cobra.eval.harness.launch import _with_model


def test_the_model_is_one_of_its_arguments_and_all_other_options_are_the_harness_s(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    said = ["--tasks", "a,b", "--model_args", "dtype=bf16,quant=int4", "--limit", "8", "--device", "cuda:1"]
    assert _with_model("runs/m", said) == [
        "--model", "cobra", "--model_args", "pretrained=runs/m,dtype=bf16,quant=int4", "--device", "cpu",
        "--tasks", "a,b", "--limit", "8", "--device", "cuda:1",
    ]  # fmt: skip
    assert _with_model("m", [])[:4] == ["--model", "cobra", "--model_args", "pretrained=m"]


@pytest.mark.parametrize(("word", "extra"), [("lmms", "lmms"), ("lm", "lm-eval")])
def test_a_harness_that_is_not_installed_is_named_with_its_extra(
    word: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cobra.eval.harness.launch.find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["cobra", "eval", word, "MODEL", "--tasks", "t"])
    with pytest.raises(SystemExit, match=re.escape(f"pip install 'cobra-vlm[{extra}]'")):
        main()
