"""What a run was made of, as its manifest says."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException

from cobra.train.manifest import Manifest, _command, _source
from cobra.train.stop_when_terminated import StopWhenTerminated
from tests.test_cli import ROOT
from tests.train.test_module import run, stage
from tests.train.test_stop_when_terminated import Terminate


def test_each_launch_adds_how_it_began_and_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    stages = [stage("a", ["projector"], steps=2), stage("b", ["lm"], steps=2)]
    path, last = tmp_path / "manifest.json", tmp_path / "last.ckpt"
    options: dict[str, Any] = {"limit_val_batches": 0}
    with pytest.raises(SIGTERMException):
        run(stages, tmp_path, [Terminate(1), StopWhenTerminated(last), Manifest(path)], **options)
    module = run(stages, tmp_path, [Manifest(path)], resume=last, **options)
    said = json.loads(path.read_text())
    assert [launch["how"] for launch in said["launches"]] == ["terminated", "finished"]
    first, second = said["launches"]
    assert (first["from"], first["from_step"], first["step"]) == (None, 0, 2)
    assert (second["from"], second["from_step"], second["step"]) == (str(last), 2, 4)
    assert second["metrics"]["loss"] == pytest.approx(float(module.trainer.callback_metrics["loss"]))
    assert first["started"] <= first["ended"] <= second["started"]
    assert said["data"] == json.loads(json.dumps(module.trainer.datamodule.identity()))
    assert said["seed"] == 0
    assert said["stages"] == [{"name": "a", "steps": 2}, {"name": "b", "steps": 2}]
    assert second["versions"]["torch"] == torch.__version__
    assert "hunter2" not in path.read_text()
    run(stages, tmp_path, [Manifest(path)], **options)
    assert len(json.loads(path.read_text())["launches"]) == 1


def test_an_error_is_told_and_a_number_that_json_has_not_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    with pytest.raises(ValueError, match="the loss is"):
        run(
            [stage("a", ["lm", "projector"], steps=8, lr=1e30)],
            tmp_path,
            [Manifest(path)],
            limit_val_batches=0,
        )
    (launch,) = json.loads(path.read_text(), parse_constant=pytest.fail)["launches"]
    assert launch["how"].startswith("failed: the loss is")
    assert launch["metrics"]["loss"] is None or abs(launch["metrics"]["loss"]) < float("inf")


def test_a_command_line_keeps_no_key() -> None:
    words = [
        "/home/me/bin/cobra",
        "fit",
        "--data.tokenizer",
        "a/b",
        "--hub.token",
        "hf_x",
        "--api_key=y",
        "-c",
        "z",
    ]
    assert _command(words) == [
        "cobra", "fit", "--data.tokenizer", "a/b", "--hub.token", "***", "--api_key=***", "-c", "z",
    ]  # fmt: skip


def test_the_commit_is_that_of_a_checkout(tmp_path: Path) -> None:
    assert _source(tmp_path) is None
    source = _source(ROOT)
    assert source is None or len(source["commit"]) == 40
