"""The error of a run whose loader has lost a process."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def workers_told() -> Iterator[None]:
    """Within it, a worker process that ends makes an error with the remedy; torch raises it anywhere.

    Raises:
        ChildProcessError: in place of torch's RuntimeError.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise ChildProcessError(
            f"a process that prepares batches is gone ({' '.join(str(error).split())}): the last checkpoint "
            "is kept, --ckpt_path last goes on; if memory was short (see dmesg), lower data.num_workers or "
            "the batch size, or give a container more shared memory"
        ) from error
