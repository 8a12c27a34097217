"""The errors of a run that has lost one of its processes: a loader's, or another device's."""

import multiprocessing
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from torch.distributed import DistError

_KEPT = "the last checkpoint is kept, --ckpt_path last goes on"


@contextmanager
def workers_told() -> Iterator[None]:
    """Within it, a process that ends makes an error with the remedy; torch raises it anywhere.

    Raises:
        ChildProcessError: in place of torch's RuntimeError, where a worker of a loader has ended.
        ConnectionError: where another device's process has.
    """
    try:
        yield
    except RuntimeError as error:
        said = " ".join(str(error).split())
        if tells_of_worker(error):
            raise ChildProcessError(
                f"a process that prepares batches is gone ({said}): {_KEPT}; if memory was short (see "
                "dmesg), lower data.num_workers or the batch size, or give a container more shared memory"
            ) from error
        # of gloo's errors no class says so
        if isinstance(error, DistError) or "gloo/transport" in said:
            raise ConnectionError(
                f"another device is not heard of any more ({said}): its own messages say why, or dmesg where "
                f"it was killed; {_KEPT}"
            ) from error
        raise


def tells_of_worker(error: BaseException) -> bool:
    """Whether it is torch's that a worker of a loader has ended, whatever it came in the midst of."""
    return "DataLoader worker" in str(error)


def end_workers() -> None:
    """End the workers of loaders that are left: what a run that fails leaves would be waited for.

    They outlive one SIGTERM (`cobra.train.data`), and two that come close together may count as one.
    """
    # torch would tell of each
    watch = signal.signal(signal.SIGCHLD, lambda *_: None)
    for worker in [child for child in multiprocessing.active_children() if child.daemon]:
        worker.kill()
        worker.join()
    signal.signal(signal.SIGCHLD, watch)
