"""Runs that something befalls, as commands: each ends in one line or goes on to the very same weights."""

import json
import os
import random
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cobra.weights.saving import claim
from tests.test_cli import ROOT
from tests.train.test_resume import command, environment

# a launch takes 8 s of processor time, and minutes beside many others
pytestmark = [pytest.mark.faults, pytest.mark.timeout(1800)]

# What a run is killed five times under: a line adds one. Batches of each, and options.
CAMPAIGNS: dict[str, tuple[int, list[str]]] = {
    "plain": (30, []),
    "accumulated": (60, ["--trainer.accumulate_grad_batches", "2"]),
    "workers": (30, ["--data.num_workers", "2"]),
    "kept": (30, ["--checkpoint", "{keep: 3, best: val/macro}"]),
}
PLACES = ("start", "backward", "save", "move")
KILLS = 5


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pictures are drawn once."""
    return tmp_path_factory.mktemp("drawn")


def launch(cache: Path, out: Path, *options: str, seconds: int = 600) -> subprocess.CompletedProcess:
    last = out / "checkpoints/last.ckpt"
    resumed = ["--ckpt_path", "last"] if last.exists() and "--ckpt_path" not in options else []
    quiet = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
    settings = {**environment(cache), "COBRA_ALLOW": "tests", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command(out, *quiet, *resumed, *options),
        env=settings,
        capture_output=True,
        text=True,
        timeout=seconds,
    )


def struck(batch: int, where: str, number: int = signal.SIGKILL) -> list[str]:
    """Options under which a fault happens."""
    arguments = {"batch": batch, "where": where, "number": int(number)}
    return [
        "--trainer.callbacks",
        json.dumps([{"class_path": "tests.train.fault.Fault", "init_args": arguments}]),
    ]


def weights(out: Path) -> bytes:
    return (out / "model/model.safetensors").read_bytes()


@pytest.mark.parametrize("name", CAMPAIGNS)
def test_a_run_that_is_killed_again_and_again_ends_with_the_same_weights(
    name: str, cache: Path, tmp_path: Path
) -> None:
    batches, options = CAMPAIGNS[name]
    whole = launch(cache, tmp_path / "whole", *options)
    assert whole.returncode == 0, whole.stderr
    rng = random.Random(name)
    for batch in sorted(rng.sample(range(2, batches - 2), KILLS)):
        where = rng.choice(PLACES)
        killed = launch(cache, tmp_path / "killed", *options, *struck(batch, where))
        assert killed.returncode == -signal.SIGKILL, (batch, where, killed.stderr)
        assert not (tmp_path / "killed/model").exists()
    done = launch(cache, tmp_path / "killed", *options)
    assert done.returncode == 0, done.stderr
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")
    said = json.loads((tmp_path / "killed/manifest.json").read_text())["launches"]
    assert ["how" in started for started in said] == [*[False] * (len(said) - 1), True]


def test_a_run_that_is_terminated_in_a_save_writes_it_whole_and_goes_on(cache: Path, tmp_path: Path) -> None:
    whole = launch(cache, tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    cut = launch(cache, tmp_path / "cut", *struck(6, "save", signal.SIGTERM))
    assert cut.returncode == 143, cut.stderr
    assert os.listdir(tmp_path / "cut/checkpoints") == ["last.ckpt"]
    assert launch(cache, tmp_path / "cut").returncode == 0
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for one checkpoint and a half."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if shutil.which("mount") is None or os.geteuid():
        pytest.skip("mounting needs root")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2200k", "none", str(disk)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("this machine mounts nothing")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_disk_that_is_full_is_told_and_keeps_the_checkpoint_before(cache: Path, small_disk: Path) -> None:
    out = small_disk / "run"
    full = launch(cache, out)
    assert full.returncode == 1
    line = full.stderr.strip().splitlines()[-1]
    assert line.startswith(f"cobra fit: checkpoint {out}/checkpoints/last.ckpt cannot be written (")
    assert "the one before is kept; make room" in line
    assert os.listdir(out / "checkpoints") == ["last.ckpt"]


def test_a_worker_that_dies_ends_the_run_in_one_line_with_its_checkpoint(cache: Path, tmp_path: Path) -> None:
    dead = launch(cache, tmp_path, "--data.num_workers", "2", *struck(9, "worker"), seconds=300)
    assert dead.returncode == 1
    line = dead.stderr.strip().splitlines()[-1]
    assert line.startswith("cobra fit: a process that prepares batches is gone (")
    assert "Traceback" not in dead.stderr
    assert (tmp_path / "checkpoints/last.ckpt").is_file()


def chats(folder: Path, first: str = "what is it?") -> list[str]:
    """Options for a file of chats, the picture of one of which is none."""
    records = []
    for number in range(8):
        Image.fromarray(np.full((64, 64, 3), 30 * number, np.uint8)).save(folder / f"{number}.png")
        turns = [{"from": "human", "value": f"<image>\n{first if number == 4 else 'what?'}"}]
        turns += [{"from": "gpt", "value": "seven"}]
        records.append({"id": f"chat-{number}", "image": f"{number}.png", "conversations": turns})
    (folder / "5.png").write_bytes(b"no picture")
    (folder / "chats.json").write_text(json.dumps(records))
    source = {
        "json": str(folder / "chats.json"),
        "image_root": str(folder),
        "cache_dir": str(folder / "tables"),
    }
    named = {"chats": {"class_path": "cobra.data.llava.LlavaJson", "init_args": source}}
    stages = (
        "[{name: a, train: [lm], data: {chats: 1.0}, steps: 6, batch_size: 2, lr: 1.0e-3, validate: false}]"
    )
    return ["--stages", stages, "--data.train", json.dumps(named)]


def run_chats(out: Path, *options: str) -> subprocess.CompletedProcess:
    """As `launch`, without what it overrides of sources that are not there."""
    lm = "--model.model.init_args.lm.init_args"
    words = [*command(out)[:6], f"{lm}.d_model", "32", f"{lm}.head_dim", "16", f"{lm}.n_groups", "1"]
    words += ["--trainer.default_root_dir", str(out), "--trainer.limit_val_batches", "0", *options]
    return subprocess.run(words, env=environment(out), capture_output=True, text=True, timeout=120)


def test_a_corrupt_picture_is_passed_over_by_name_or_ends_the_run(tmp_path: Path) -> None:
    passed = run_chats(tmp_path / "skip", *chats(tmp_path))
    assert passed.returncode == 0, passed.stderr
    assert "chat-5" in passed.stderr
    stopped = run_chats(tmp_path / "stop", *chats(tmp_path), "--data.on_bad_sample", "stop")
    assert stopped.returncode == 1
    assert "chat-5" in stopped.stderr.strip().splitlines()[-1]


def test_data_that_has_changed_is_refused_by_name_unless_it_is_allowed(tmp_path: Path) -> None:
    """A word in the middle of the file."""
    out = tmp_path / "run"
    assert run_chats(out, *chats(tmp_path), "--trainer.max_steps", "3").returncode == 0
    refused = run_chats(out, *chats(tmp_path, "what was it"), "--ckpt_path", "last")
    assert refused.returncode == 1
    assert "data.train.chats.content was" in refused.stderr.strip().splitlines()[-1]
    assert "--change_plan" in refused.stderr
    allowed = run_chats(out, *chats(tmp_path, "what was it"), "--ckpt_path", "last", "--change_plan")
    assert allowed.returncode == 0, allowed.stderr


def test_a_second_run_into_the_same_folder_refuses(cache: Path, tmp_path: Path) -> None:
    lock = claim(tmp_path / ".lock")
    second = launch(cache, tmp_path)
    lock.close()
    assert second.returncode == 1
    line = second.stderr.strip().splitlines()[-1]
    assert f"is written to by another run (process {os.getpid()} on " in line
    assert os.listdir(tmp_path) == [".lock"]
