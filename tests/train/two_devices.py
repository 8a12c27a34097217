"""Two devices on one machine: processes over gloo, or one that only believes in another."""

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from torch import multiprocessing
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.testing._internal.distributed.fake_pg import FakeStore


def on_two_devices(function: Callable[..., None], *args: Any, seconds: int = 240, devices: int = 2) -> None:
    """Run `function(*args)` in forked processes, as Lightning and torch find them; raise what one raises.

    Devices that wait for each other would do so for ever, so after some seconds they end in an error.
    """
    threads = torch.get_num_threads()
    # a forked process has none of its parent's threads, and would wait for them
    torch.set_num_threads(1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    with mock.patch.dict(
        os.environ, MASTER_ADDR="127.0.0.1", MASTER_PORT=port, NODE_RANK="0", WORLD_SIZE=str(devices)
    ):
        processes = multiprocessing.start_processes(
            _run, (function, args), nprocs=devices, join=False, start_method="fork"
        )
        deadline = time.monotonic() + seconds
        try:
            while not processes.join(timeout=1):
                assert time.monotonic() < deadline, "the devices wait for each other"
        finally:
            for process in processes.processes:
                process.kill()
            torch.set_num_threads(threads)


@contextmanager
def one_of_two_devices(*shape: int) -> Iterator[DeviceMesh]:
    """The mesh of two devices, as the first sees them; what they would exchange is not computed."""
    dist.init_process_group("fake", rank=0, world_size=2, store=FakeStore())
    try:
        names = ("data_parallel", "tensor_parallel")[: len(shape)]
        yield init_device_mesh("cpu", shape, mesh_dim_names=names)
    finally:
        dist.destroy_process_group()


def _run(rank: int, function: Callable[..., None], args: tuple[Any, ...]) -> None:
    os.environ["RANK"] = os.environ["LOCAL_RANK"] = str(rank)
    function(*args)
