"""What the README shows is run as it stands there."""

import json
import re
import sys
import textwrap
from pathlib import Path

import pytest
from safetensors import safe_open

from cobra.eval.benchmarks.find import find_benchmark
from cobra.eval.predictions import Prediction
from cobra.train.cli import main

ROOT = Path(__file__).parents[1]
STAGE = "{name: a, train: [projector, lm], data: {captions: 1.0}, steps: 1, batch_size: 2, lr: 1.0e-3}"


def block(language: str, start: str) -> str:
    """The README's block of code that starts with a line."""
    blocks = re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    return next(text for text in blocks if text.startswith(start))


def test_its_projector_and_its_hybrid_train_from_one_file_and_yaml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mypackage").mkdir()
    (tmp_path / "mypackage/gated.py").write_text(block("python", "# cobra/models/projectors/gated.py"))
    line = block("yaml", "projector:").replace("cobra.models.projectors.gated", "mypackage.gated")
    parts = textwrap.indent(line + block("yaml", "lm:"), 6 * " ")
    (tmp_path / "gated.yaml").write_text(f"model:\n  model:\n    init_args:\n{parts}stages: [{STAGE}]\n")
    configs = ["-c", str(ROOT / "configs/cobra_tiny.yaml"), "-c", str(tmp_path / "gated.yaml")]
    small = [f"--data.train.{name}.init_args.size=4" for name in ("cells", "captions", "places", "questions")]
    out = ["--trainer.default_root_dir", str(tmp_path / "run"), "--trainer.limit_val_batches", "0"]
    monkeypatch.setattr(
        sys, "argv", ["cobra", "fit", *configs, *small, "--data.val.val.init_args.size=4", *out]
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SystemExit):
        main()
    monkeypatch.setenv("COBRA_ALLOW", "mypackage")
    main()
    config = json.loads((tmp_path / "run/model/config.json").read_text())
    projector = config["model"]["init_args"]["projector"]
    assert len(config["model"]["init_args"]["lm"]["init_args"]["mixers"]) == 3
    assert projector == {"class_path": "mypackage.gated.GatedProjector", "init_args": {"temperature": 0.5}}
    with safe_open(tmp_path / "run/model/model.safetensors", framework="pt") as weights:
        assert "projector.gate.weight" in weights.keys()  # noqa: SIM118  (no mapping)


def test_its_benchmark_of_ones_own_reads_asks_and_scores(tmp_path: Path) -> None:
    (tmp_path / "colors.py").write_text(block("python", "# colors.py"))
    (tmp_path / "colors").mkdir()
    rows = [
        {"image": f"{color}.png", "question": "What colour?", "answer": color} for color in ("red", "blue")
    ]
    (tmp_path / "colors/questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    benchmark = find_benchmark(str(tmp_path / "colors.py"))(tmp_path)
    asked = list(benchmark.questions())
    (ask,) = type(benchmark).asks
    assert ask.render(asked[0].fields) == "What colour?\nAnswer with one word."
    assert [question.images for question in asked] == [[tmp_path / f"colors/{row['image']}"] for row in rows]
    said = [
        Prediction(q.split, q.id, q.kind, "", answer, q.answers)
        for q, answer in zip(asked, ("Red.", "green"), strict=True)
    ]
    assert benchmark.score(said) == {"accuracy": 50}
