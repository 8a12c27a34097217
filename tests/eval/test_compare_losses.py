"""Language models beside each other: tokens, time and losses of each run."""

import json
from pathlib import Path

import pytest
from PIL import Image

from cobra.data.chat import Chat
from cobra.eval.compare import compare
from cobra.eval.compare_losses import table
from cobra.models.vlm import CobraVLM
from cobra.pretrained import save_pretrained
from tests.models.builders import LMS, PROJECTORS, small_vit
from tests.test_cli import ROOT

HEADER = "step,answer_tokens,cpu_seconds,held_out/text,held_out/text_bits_per_byte\n"
CONFIG = "trainer: {accumulate_grad_batches: 2, devices: '3', num_nodes: 1}\n"


def run(folder: Path, lm: str, last: float) -> str:
    logs = folder / "logs/version_0"
    logs.mkdir(parents=True)
    logs.joinpath("config.yaml").write_text(CONFIG)
    logs.joinpath("metrics.csv").write_text(
        f"{HEADER}0,100,1.0,,\n10,100,21.0,,\n10,,,5.0,2.5\n20,100,41.0,,\n20,,,{last},2.0\n"
    )
    model = CobraVLM(small_vit, PROJECTORS["linear"], LMS[lm])
    save_pretrained(model, Chat("cobra:data/shapes/tokenizer"), folder / "model")
    return str(folder)


def test_runs_are_compared_by_tokens_time_and_loss(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [run(tmp_path / str(n), lm, 4.0 - n) for n, lm in enumerate(("mamba2", "mamba2", "mobile_llm"))]
    compare([f"{name}={folder}" for name, folder in zip("aab", runs, strict=True)], tmp_path / "out")
    results = json.loads((tmp_path / "out/held_out.json").read_text())
    assert [len(seeds) for seeds in results.values()] == [2, 1]
    first = results["a"][0]
    assert (first["tokens"], first["cpu_seconds"]) == ([11 * 600, 21 * 600], [21.0, 41.0])
    assert first["held_out"] == {"text": [5.0, 4.0], "text_bits_per_byte": [2.5, 2.0]}
    assert first["parameters"] == sum(p.numel() for p in LMS["mamba2"]().parameters())
    assert f"| a | {first['parameters']:,} | 12,600 | 41 | 3.000 | 2.000 |" in capsys.readouterr().out
    with Image.open(tmp_path / "out/held_out.png") as picture:
        assert picture.width > 2 * picture.height


def test_the_page_has_the_numbers_that_were_measured() -> None:
    page = (ROOT / "docs/pretraining.md").read_text()
    measured = json.loads((ROOT / "docs/pretraining.json").read_text())
    assert table(measured["runs"]) in page
    for name, told in measured["text"].items():
        assert f"| {name} | {told['documents']:,} | {told['bytes']:,} |" in page
        assert told["sha256"] in page
