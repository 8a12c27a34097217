"""Runs that something befalls, as commands: each ends in one line or goes on to the very same weights."""

import json
import os
import random
import shutil
import signal
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cobra.weights.saving import claim
from tests.train.launch import launched
from tests.train.test_resume import ROOT, STAGES, command, environment

# a launch takes 2 s of processor time, and many times that beside many others
pytestmark = [pytest.mark.faults, pytest.mark.timeout(1800)]

PACKED = STAGES.replace("lr: 1.0e-3}", "lr: 1.0e-3, batching: packed}")
ADAPTERS = "{lm: {r: 4, alpha: 8, dropout: 0.1}}"
# What a run is killed under: a line adds one. Batches of each, how often it is killed, and options.
CAMPAIGNS: dict[str, tuple[int, int, list[str]]] = {
    "plain": (30, 3, []),
    "accumulated": (60, 4, ["--trainer.accumulate_grad_batches", "2"]),
    "workers": (30, 3, ["--data.num_workers", "2"]),
    "kept": (30, 4, ["--checkpoint", "{keep: 3, best: val/macro}"]),
    "packed": (30, 3, ["--stages", PACKED, "--data.max_length", "128"]),
    "lora": (30, 3, ["--model.adapters", ADAPTERS, "--model.muon", "[]", "--model.quantization", "int8"]),
}
PLACES = ("start", "backward", "save", "move")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pictures are drawn once."""
    return tmp_path_factory.mktemp("drawn")


def launch(cache: Path, out: Path, *options: str, seconds: int = 600) -> tuple[int, str]:
    """The exit status and the messages of a run that goes on where it can."""
    quiet = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
    words = command(out, *quiet, "--ckpt_path", "auto", *options)
    # of the words those behind `python -m cobra`
    return launched(words[3:], {**environment(cache), "COBRA_ALLOW": "tests"}, seconds)


def struck(batch: int, where: str, number: int = signal.SIGKILL, rank: int = 0) -> list[str]:
    """Options under which a fault happens."""
    arguments = {"batch": batch, "where": where, "number": int(number), "rank": rank}
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
    batches, kills, options = CAMPAIGNS[name]
    status, said = launch(cache, tmp_path / "whole", *options)
    assert status == 0, said
    rng = random.Random(name)
    ends = [2 + (batches - 4) * n // kills for n in range(kills + 1)]
    for (first, end), where in zip(pairwise(ends), rng.sample(PLACES, kills), strict=True):
        batch = rng.randrange(first, end)
        status, said = launch(cache, tmp_path / "killed", *options, *struck(batch, where))
        assert status == -signal.SIGKILL, (batch, where, said)
        assert not (tmp_path / "killed/model").exists()
    status, said = launch(cache, tmp_path / "killed", *options)
    assert status == 0, said
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")
    left = [sorted(os.listdir(tmp_path / f"{run}/checkpoints")) for run in ("killed", "whole")]
    assert left[0] == left[1]
    launches = json.loads((tmp_path / "killed/manifest.json").read_text())["launches"]
    assert ["how" in started for started in launches] == [*[False] * (len(launches) - 1), True]


def test_a_run_that_is_terminated_in_a_save_writes_it_whole_and_goes_on(cache: Path, tmp_path: Path) -> None:
    assert launch(cache, tmp_path / "whole")[0] == 0
    status, said = launch(cache, tmp_path / "cut", *struck(6, "save", signal.SIGTERM))
    assert status == 143, said
    assert os.listdir(tmp_path / "cut/checkpoints") == ["last.ckpt"]
    assert launch(cache, tmp_path / "cut")[0] == 0
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
    status, said = launch(cache, out)
    assert status == 1
    line = said.strip().splitlines()[-1]
    assert line.startswith(f"cobra fit: checkpoint {out}/checkpoints/last.ckpt cannot be written (")
    assert "the one before is kept; make room" in line
    assert os.listdir(out / "checkpoints") == ["last.ckpt"]


def test_a_worker_that_dies_ends_the_run_in_one_line_with_its_checkpoint(cache: Path, tmp_path: Path) -> None:
    status, said = launch(cache, tmp_path, "--data.num_workers", "2", *struck(9, "worker"), seconds=300)
    assert status == 1
    line = said.strip().splitlines()[-1]
    assert line.startswith("cobra fit: a process that prepares batches is gone (")
    # a thread of Python's own, which hands memory to the worker, may say that it lost it
    assert "Traceback" not in said or "resource_sharer.py" in said
    assert (tmp_path / "checkpoints/last.ckpt").is_file()


@pytest.mark.parametrize("rank", [0, 1])
def test_a_device_that_dies_ends_the_other_in_one_line(rank: int, cache: Path, tmp_path: Path) -> None:
    """The messages of both are there when both have ended."""
    options = ["--trainer.devices", "2", "--model.muon", "[]", *struck(9, "backward", rank=rank)]
    settings = {**environment(cache), "COBRA_ALLOW": "tests", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command(tmp_path, *options), env=settings, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == (1 if rank else -signal.SIGKILL)
    assert "cobra fit: another device is not heard of any more (" in done.stderr
    assert "--ckpt_path last goes on" in done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr


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


def run_chats(out: Path, *options: str) -> tuple[int, str]:
    """As `launch`, without what it overrides of sources that are not there."""
    lm = "--model.model.init_args.lm.init_args"
    words = [*command(out)[3:6], f"{lm}.d_model", "32", f"{lm}.head_dim", "16", f"{lm}.n_groups", "1"]
    words += ["--trainer.default_root_dir", str(out), "--trainer.limit_val_batches", "0", *options]
    return launched(words, environment(out), 300)


def test_a_corrupt_picture_is_passed_over_by_name_or_ends_the_run(tmp_path: Path) -> None:
    status, said = run_chats(tmp_path / "skip", *chats(tmp_path))
    assert status == 0, said
    assert "chat-5" in said
    status, said = run_chats(tmp_path / "stop", *chats(tmp_path), "--data.on_bad_sample", "stop")
    assert status == 1
    assert "chat-5" in said.strip().splitlines()[-1]


def test_data_that_has_changed_is_refused_by_name_unless_it_is_allowed(tmp_path: Path) -> None:
    """A word in the middle of the file."""
    out = tmp_path / "run"
    assert run_chats(out, *chats(tmp_path), "--trainer.max_steps", "3")[0] == 0
    changed = [*chats(tmp_path, "what was it"), "--ckpt_path", "last"]
    status, said = run_chats(out, *changed)
    assert status == 1
    assert "data.train.chats.content was" in said.strip().splitlines()[-1]
    assert "--change_plan" in said
    status, said = run_chats(out, *changed, "--change_plan")
    assert status == 0, said


def test_a_second_run_into_the_same_folder_refuses(cache: Path, tmp_path: Path) -> None:
    lock = claim(tmp_path / ".lock")
    status, said = launch(cache, tmp_path)
    lock.close()
    assert status == 1
    line = said.strip().splitlines()[-1]
    assert f"is written to by another run (process {os.getpid()} on " in line
    assert os.listdir(tmp_path) == [".lock"]
