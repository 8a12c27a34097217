"""Two nodes of one process each, on the loopback, train what one node of two does: torchrun and SLURM."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.train.test_resume import command

NODES = ["--trainer.num_nodes", "2", "--trainer.devices", "1", "--trainer.accelerator", "cpu"]


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "COBRA_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run on one node of two devices; the pictures are drawn beside it."""
    folder = tmp_path_factory.mktemp("whole")
    fit = command(folder, "--trainer.devices", "2", "--trainer.accelerator", "cpu")
    subprocess.run(fit, env=environment(folder), check=True, capture_output=True, timeout=200)
    return folder


def model(folder: Path) -> bytes:
    return (folder / "model/model.safetensors").read_bytes()


def end(processes: list[subprocess.Popen]) -> list[int]:
    """Their exit codes; what they said is shown where a test fails."""
    try:
        for process in processes:
            print(process.communicate(timeout=200)[0])
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes]


def start(words: list[str], settings: dict[str, str]) -> subprocess.Popen:
    return subprocess.Popen(words, env=settings, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


@pytest.mark.slow
def test_torchrun_on_two_nodes_trains_what_one_node_trains(whole: Path, tmp_path: Path) -> None:
    """As docs/training.md starts it, but for the host."""
    endpoint = f"127.0.0.1:{free_port()}"
    launch = [
        sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1", "--rdzv-id",
        "7", "--rdzv-backend", "c10d", "--rdzv-endpoint", endpoint, *command(tmp_path, *NODES)[1:],
    ]  # fmt: skip
    assert end([start(launch, environment(whole)) for _ in range(2)]) == [0, 0]
    assert model(tmp_path) == model(whole)
    assert [path.name for path in (tmp_path / "logs").iterdir()] == ["version_0"]


def slurm(rank: int, port: str, folder: Path, programs: Path) -> dict[str, str]:
    """What srun tells the process of a node."""
    return {
        **environment(folder),
        "PATH": f"{programs}:{os.environ['PATH']}",
        "SLURM_JOB_ID": "4711",
        "SLURM_JOB_NAME": "cobra",
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "1",
        "SLURM_NNODES": "2",
        "SLURM_NODELIST": "127.0.0.1",
        "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": "0",
        "SLURM_NODEID": str(rank),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }


@pytest.mark.slow
def test_a_slurm_job_of_two_nodes_is_requeued_and_goes_on_as_if_nothing_had_been(
    whole: Path, tmp_path: Path
) -> None:
    """SIGUSR1 comes before the time limit; the same line runs again and finds the checkpoint."""
    programs, run = tmp_path / "bin", tmp_path / "run"
    programs.mkdir()
    (programs / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    (programs / "scontrol").chmod(0o755)
    fit = command(run, *NODES, "--ckpt_path", "auto")

    def srun() -> list[subprocess.Popen]:
        port = free_port()
        return [start(fit, slurm(rank, port, whole, programs)) for rank in (0, 1)]

    processes = srun()
    deadline = time.monotonic() + 200
    while not (run / "checkpoints/last.ckpt").exists() and time.monotonic() < deadline:
        time.sleep(0.001)
    # not to the other: all devices stop after the same step
    processes[0].send_signal(signal.SIGUSR1)
    assert end(processes) == [143, 0]
    assert (tmp_path / "asked").read_text() == "requeue 4711\n"
    assert not (run / "model").exists()
    assert end(srun()) == [0, 0]
    assert model(run) == model(whole)
