"""From text to a language model that another starts from, by the commands of docs/pretraining.md."""

import json
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from cobra.cli import main
from cobra.convert.parts import load_parts
from cobra.eval.training_curve import Trained
from cobra.models.lm.mamba2 import Mamba2LM
from cobra.models.vlm import CobraVLM
from cobra.pretrained import from_pretrained
from tests.models.builders import PROJECTORS, small_vit
from tests.test_cli import ROOT, fit_or_answer

_CONFIGS = (
    "-c",
    str(ROOT / "configs/pretrain_small.yaml"),
    "-c",
    str(ROOT / "configs/presets/pretrain_smoke.yaml"),
)


@pytest.mark.slow
def test_a_small_run_learns_and_its_language_model_starts_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COBRA_CACHE", str(tmp_path / "cache"))
    text = Path("download/shipped_text")
    text.mkdir(parents=True)
    sources = sorted((ROOT / "cobra/train").glob("*.py"))
    for name in ("python", "debian"):
        rows = [{"text": f"# {name} {part}\n{path.read_text()}"} for part in range(9) for path in sources]
        (text / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = [*map(str, text.glob("*.jsonl")), "--held-out", "0.02", "--out", str(text / "tokenizer")]
    monkeypatch.setattr(sys, "argv", ["cobra", "data", "tokenizer", *words])
    main()
    fit_or_answer(monkeypatch, "fit", *_CONFIGS, "--trainer.precision", "32-true")

    losses = Trained.read("runs/pretrain_smoke").curve("held_out/python")[2]
    assert len(losses) == 2
    assert losses[1] < losses[0] < 8.4
    trained, _ = from_pretrained(Path("runs/pretrain_smoke/model"))
    lm = partial(Mamba2LM, 4096, 64, 2, d_state=64)
    other = CobraVLM(small_vit, PROJECTORS["mlp"], lm)
    load_parts(other, {"lm": "runs/pretrain_smoke/model"})
    torch.testing.assert_close(other.lm.state_dict(), trained.lm.state_dict(), rtol=0, atol=0)
