"""A run that is terminated in the middle ends up where the uninterrupted run does; see also test_faults."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STAGES = """[
{name: tower, train: [vision], data: {cells: 1.0}, steps: 6, batch_size: 4, lr: 1.0e-3,
 objective: {class_path: cobra.train.objectives.cell_attributes.CellAttributes}},
{name: align, train: [projector, lm], data: {captions: 1.0}, steps: 6, batch_size: 4, lr: 1.0e-3},
{name: instruct, train: [projector, lm], data: {questions: 0.5, captions: 0.5}, steps: 18, batch_size: 4,
 lr: 1.0e-3}]
"""
_LM = "--model.model.init_args.lm.init_args"
_SOURCES = [f"--data.train.{name}.init_args.size=40" for name in ("cells", "captions", "places", "questions")]
OVERRIDES = [
    *(f"{_LM}.d_model", "32", f"{_LM}.head_dim", "16", f"{_LM}.n_groups", "1"),
    *_SOURCES,
    *("--data.val.val.init_args.size", "16", "--trainer.val_check_interval", "7"),
    *("--trainer.log_every_n_steps", "1", "--checkpoint_every", "4"),
]


def command(out: Path, *options: str) -> list[str]:
    fit = [
        sys.executable,
        "-m",
        "cobra",
        "fit",
        "-c",
        str(ROOT / "configs/cobra_tiny.yaml"),
        "--stages",
        STAGES,
    ]
    return [*fit, *OVERRIDES, "--trainer.default_root_dir", str(out), *options]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing interrupted; the pictures are drawn beside it."""
    folder = tmp_path_factory.mktemp("whole")
    subprocess.run(command(folder), env=environment(folder), check=True, capture_output=True, timeout=200)
    return folder


def environment(whole: Path) -> dict[str, str]:
    return {**os.environ, "COBRA_CACHE": str(whole / "cache"), "OMP_NUM_THREADS": "1"}


@pytest.mark.faults
def test_a_terminated_run_says_so_and_is_resumed_bit_for_bit(whole: Path, tmp_path: Path) -> None:
    """No file is left behind, in its folder or in $TMPDIR."""
    stopped, nowhere = tmp_path / "stopped", tmp_path / "nowhere"
    nowhere.mkdir()
    settings = {**environment(whole), "TMPDIR": str(nowhere)}
    process = subprocess.Popen(
        command(stopped), env=settings, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    checkpoint, deadline = stopped / "checkpoints/last.ckpt", time.monotonic() + 200
    while not checkpoint.is_file() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.001)
    process.terminate()
    assert checkpoint.is_file()
    assert process.wait() == 143
    assert not (stopped / "model").exists()
    assert {path.name for path in stopped.iterdir()} == {".lock", "checkpoints", "logs", "manifest.json"}
    assert os.listdir(stopped / "checkpoints") == ["last.ckpt"]

    resumed = command(stopped, "--ckpt_path", "last")
    subprocess.run(resumed, env=settings, check=True, capture_output=True, timeout=200)
    files = [folder / "model/model.safetensors" for folder in (whole, stopped)]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert not [path for path in nowhere.rglob("*") if path.is_file()]
