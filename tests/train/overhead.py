"""What the loop costs beside a model's own passes: `python -m tests.train.overhead 2 16` on a terminal.

Both in processor time of one process, in turns on the same batches: a step of `cobra fit` with all that it
has by itself, and the bare forward pass, backward pass, clipping and AdamW. Reading data is neither's. The
arguments are sizes of a batch, of which 16 take 200 ms. Printed are the medians, by how much one is more, the
median of pairs, and by how much all steps together are more, those with a save among them.
"""

import copy
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any
from unittest import mock

import cobra.torchvision_shim  # noqa: F401  (before lightning)

import lightning as L  # isort: skip
import torch
from torch.nn.utils import clip_grad_norm_

from cobra.train.cli import CobraCLI, main
from cobra.train.schedule import ResumableLoader

_STEPS, _WARM = 120, 20


class Beside(L.Callback):
    """Runs a bare step behind each of the trainer's; the last of the callbacks."""

    def __init__(self) -> None:
        self.ours: list[float] = []
        self.bare: list[float] = []
        self.read = self.since = 0.0

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.model = copy.deepcopy(module.model)
        self.learning = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.learning, lr=1e-4)
        self.since = time.process_time()

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, outputs: Any, batch: Any, n: int) -> None:
        now = time.process_time()
        self.ours.append(now - self.since - self.read)
        start = time.process_time()
        self.model.loss(self.model(batch.ids, batch.pictures), batch.labels, batch.places).backward()
        clip_grad_norm_(self.learning, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.bare.append(time.process_time() - start)
        self.read, self.since = 0.0, time.process_time()

    def timed(self, batches: Iterator) -> Iterator:
        while True:
            start = time.process_time()
            batch = next(batches, None)
            self.read += time.process_time() - start
            if batch is None:
                return
            yield batch


def measure(size: int, every: int) -> str:
    beside, own, reading = Beside(), CobraCLI._checkpointing, ResumableLoader._timed
    stage = (
        f"[{{name: a, train: [projector, lm], data: {{captions: 1.0}}, steps: {_STEPS}, lr: 1.0e-4, "
        f"batch_size: {size}}}]"
    )
    with tempfile.TemporaryDirectory() as folder:
        words = ["fit", "-c", "configs/cobra_tiny.yaml", "--stages", stage, "--model.muon", "[]"]
        words += ["--model.model.init_args.lm.init_args.n_layers", "4"]
        words += ["--model.model.init_args.lm.init_args.A_range", "[1.0, 16.0]"]
        words += ["--trainer.limit_val_batches", "0", "--trainer.default_root_dir", folder]
        words += [
            "--trainer.log_every_n_steps",
            str(every),
            "--checkpoint",
            "{every: 50, minutes: 30, keep: 3}",
        ]
        timed = mock.patch.object(
            ResumableLoader, "_timed", lambda loader, batches: beside.timed(reading(loader, batches))
        )
        last = mock.patch.object(CobraCLI, "_checkpointing", lambda cli: [*own(cli), beside])
        with timed, last, mock.patch.object(sys, "argv", ["cobra", *words]):
            main()
    ours, bare = beside.ours[_WARM:], beside.bare[_WARM:]
    median, alone = statistics.median(ours), statistics.median(bare)
    ratio = statistics.median(a / b for a, b in zip(ours, bare, strict=True))
    mean = statistics.mean(ours) / statistics.mean(bare)
    shares = (f"{100 * (share - 1):+.1f} %" for share in (median / alone, ratio, mean))
    return (
        f"{size}, every {every}. logged: {1e3 * median:.1f} ms, bare {1e3 * alone:.1f}: {', '.join(shares)}"
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    found = [measure(int(size), every) for size in sys.argv[1:] for every in (50, 5)]
    print("\n".join(found))
