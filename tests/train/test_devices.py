"""Several devices, as they are asked for on a command line."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy

from cobra.cli import lightning
from cobra.train.fully_sharded import FullySharded
from tests.test_cli import ROOT, instantiate
from tests.train.test_resume import OVERRIDES, STAGES

CONFIG = ["-c", str(ROOT / "configs/cobra_tiny.yaml")]


@pytest.mark.parametrize(
    ("devices", "ids"),
    [
        ("0,1", [0, 1]),
        ("[0, 1]", [0, 1]),
        ("2", [0, 1]),
        ("-1", [0, 1, 2, 3]),
        ("auto", [0, 1, 2, 3]),
        ("1", [0]),
    ],
)
def test_devices_are_what_lightning_takes_them_for(
    devices: str, ids: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for package in ("fabric", "pytorch"):
        monkeypatch.setattr(f"lightning.{package}.accelerators.cuda.num_cuda_devices", lambda: 4)
    options = ["--trainer.accelerator", "gpu", "--trainer.default_root_dir", str(tmp_path)]
    trainer = instantiate(monkeypatch, "fit", *CONFIG, *options, f"--trainer.devices={devices}").trainer
    assert trainer.device_ids == ids
    if len(ids) > 1:
        assert isinstance(trainer.strategy, DDPStrategy)
        expected = {"find_unused_parameters": True, "gradient_as_bucket_view": True}
        assert trainer.strategy._ddp_kwargs == expected
    else:
        assert isinstance(trainer.strategy, SingleDeviceStrategy)


@pytest.mark.parametrize(
    ("devices", "processes"), [("0,1", 2), ("[0, 1]", 2), ("0,", 1), ("2", 2), ("auto", 1)]
)
def test_the_cpu_takes_as_many_processes_as_devices_are_named(
    devices: str, processes: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    options = ["--trainer.accelerator", "cpu", "--trainer.default_root_dir", str(tmp_path)]
    trainer = instantiate(monkeypatch, "fit", *CONFIG, *options, f"--trainer.devices={devices}").trainer
    assert trainer.num_devices == processes
    assert isinstance(trainer.strategy, DDPStrategy if processes > 1 else SingleDeviceStrategy)


@pytest.mark.parametrize("verb", ["fit", "validate"])
def test_a_checkpoint_of_shares_is_refused_where_weights_are_whole(
    verb: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shares = tmp_path / "checkpoints/last.ckpt"
    shares.mkdir(parents=True)
    (shares / "meta.pt").touch()
    monkeypatch.setattr("cobra.train.run_folder.check_checkpoint", lambda *_, **options: None)
    options = ["--trainer.default_root_dir", str(tmp_path), "--ckpt_path", "last"]
    with pytest.raises(SystemExit, match=r"last\.ckpt is a folder of shares.*--trainer\.strategy sharded"):
        instantiate(monkeypatch, verb, *CONFIG, *options)
    sharded = ["--trainer.strategy", "sharded", "--trainer.devices", "2"]
    assert instantiate(monkeypatch, verb, *CONFIG, *options, *sharded).trainer.num_devices == 2


@pytest.mark.parametrize("strategy", ["deepspeed_stage_3", "fsdp", "fsdp_cpu_offload"])
def test_strategies_that_flatten_weights_are_refused_for_the_one_that_does_not(
    strategy: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    options = ["--trainer.default_root_dir", str(tmp_path), "--trainer.devices", "2"]
    with pytest.raises(SystemExit, match=f"^cobra fit: trainer.strategy {strategy} flattens .* take sharded"):
        instantiate(monkeypatch, "fit", *CONFIG, *options, "--trainer.strategy", strategy)


def test_the_readmes_sharded_command_shards_among_all_devices(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    readme = (ROOT / "README.md").read_text().replace("\\\n", " ")
    line = next(line for line in readme.splitlines() if "strategy sharded" in line)
    program, *args = shlex.split(line)
    monkeypatch.chdir(ROOT)
    on_cpu = ["--trainer.accelerator", "cpu", "--trainer.default_root_dir", str(tmp_path)]
    strategy = instantiate(monkeypatch, *args, *on_cpu).trainer.strategy
    assert program == "cobra"
    assert isinstance(strategy, FullySharded)
    assert strategy.num_processes == 8


@pytest.mark.parametrize(
    ("options", "strategy"),
    [
        (["--trainer.devices", "2"], FullySharded),
        (["--trainer.devices", "1"], SingleDeviceStrategy),
        (["--trainer.devices", "auto"], SingleDeviceStrategy),
        (["--trainer.devices", "2", "--trainer.strategy", "auto"], DDPStrategy),
    ],
)
def test_a_large_config_is_sharded_where_there_are_several_devices(
    options: list[str], strategy: type, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = ["-c", str(ROOT / "configs/cobra_2.8b.yaml"), "--trainer.default_root_dir", str(tmp_path)]
    trainer = instantiate(monkeypatch, "fit", *config, "--trainer.accelerator", "cpu", *options).trainer
    assert type(trainer.strategy) is strategy


def test_a_command_that_trains_can_be_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning starts a process of the same sys.argv for each further device."""
    argv = ["/somewhere/bin/lightning", "fit"]
    programs: list[str] = []
    monkeypatch.setattr(sys, "argv", list(argv))
    monkeypatch.setattr("cobra.train.cli.main", programs.append)
    lightning()
    assert sys.argv == argv
    assert programs == ["lightning"]


def started(how: str, folder: Path) -> list[str]:
    """The command, as pip installs it or of the module."""
    if how == "python -m cobra":
        return [sys.executable, "-m", "cobra"]
    script = folder / how
    entry = {"cobra": "main", "lightning": "lightning"}[how]
    script.write_text(f"#!{sys.executable}\nimport sys\nfrom cobra.cli import {entry}\nsys.exit({entry}())\n")
    script.chmod(0o755)
    return [str(script)]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["cobra", "lightning", "python -m cobra"])
def test_two_devices_train_however_the_command_was_started(how: str, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "COBRA_CACHE": str(tmp_path / "cache"),
    }
    options = [
        *OVERRIDES,
        "--stages",
        STAGES.replace("steps: 6", "steps: 1").replace("steps: 18", "steps: 1"),
    ]
    devices = ["--trainer.devices", "2", "--trainer.accelerator", "cpu"]
    result = subprocess.run(
        [*started(how, tmp_path), "fit", *CONFIG, *options, *devices],
        cwd=elsewhere, env=environment, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Starting with 2 processes" in result.stderr
    assert (elsewhere / "runs/tiny/model/model.safetensors").is_file()
