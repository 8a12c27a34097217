"""Processes of an evaluation: one, or several that Lightning Fabric or torchrun starts."""

import ctypes
import os
import signal
import sys
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

# longer than any evaluation: those that have finished wait for the others
_PATIENCE = timedelta(days=14)
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Processes:
    """This process among all that answer.

    Attributes:
        rank: its number; the first is 0.
        size: how many there are.
        device: its own.
        fabric: what joins them; None where it is alone.
    """

    rank: int
    size: int
    device: str
    fabric: Any = None

    def wait(self) -> None:
        """Until all have come here.

        Raises:
            ChildProcessError: where one of them has ended.
        """
        if self.fabric is None:
            return
        try:
            self.fabric.barrier()
        except RuntimeError as error:
            raise ChildProcessError(
                "another process of this evaluation has ended before it was done; what is answered is kept: "
                "run the same command again"
            ) from error


def this_rank() -> int:
    """The number of this process, whoever started it, also before they are joined."""
    return next((int(os.environ[name]) for name in ("RANK", "LOCAL_RANK") if name in os.environ), 0)


def join_processes(devices: int, device: str) -> Processes:
    """Start the others, where torchrun has not, and join them; each runs the same command.

    Args:
        devices: processes on this machine, each on a device of its own.
        device: `cpu`, `cuda` or one of these by number.

    Raises:
        ValueError: where there are not so many on this machine.
    """
    local = int(os.environ.get("LOCAL_WORLD_SIZE", devices))
    total = int(os.environ.get("WORLD_SIZE", local)) if "LOCAL_WORLD_SIZE" in os.environ else local
    if "LOCAL_RANK" in os.environ:
        _end_with_parent()
    if total == 1:
        return Processes(0, 1, device)
    if ":" in device:
        raise ValueError(f"--device {device} is one, and there are {total} processes: name its type alone")
    import cobra.torchvision_shim  # noqa: F401  (before lightning)

    from lightning.fabric import Fabric  # isort: skip
    from lightning.fabric.strategies import DDPStrategy
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    # they only wait for each other, which gloo can do on any device
    strategy = DDPStrategy(process_group_backend="gloo", timeout=_PATIENCE)
    try:
        fabric = Fabric(accelerator=device, devices=local, num_nodes=total // local, strategy=strategy)
    except (MisconfigurationException, RuntimeError, ValueError) as error:
        raise ValueError(f"--devices {local} --device {device}: not on this machine ({error})") from error
    fabric.launch()
    return Processes(fabric.global_rank, fabric.world_size, str(fabric.device), fabric)


def _end_with_parent() -> None:
    """Let the system end this process with the one that started it, which may be killed (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
