"""The numbers of a run: what was trained on a second, and how long it will take."""

import csv
import time
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from cobra.models.vlm import IGNORE_ID, IMAGE_ID, CobraVLM
from cobra.train.step_flops import StepFlops, _passes, peak_of
from cobra.train.throughput import Throughput
from tests.models.builders import LMS, PROJECTORS, small_vit
from tests.train.test_module import run, stage


class Counted(L.Callback):
    """Counts tensors of batches, as the callback under test does not."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, int, int]] = []

    def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, batch: Any, n: int) -> None:
        pixels = batch.pictures.pixels
        pictures = 0 if pixels is None else len(pixels)
        answers = int((batch.labels != IGNORE_ID).sum())
        self.batches.append((pictures, int(batch.mask.sum()), answers))


def read(logger: CSVLogger) -> list[dict[str, float]]:
    rows = csv.DictReader(Path(logger.experiment.metrics_file_path).read_text().splitlines())
    return [{k: float(v) for k, v in row.items() if v} for row in rows if row["tokens_per_second"]]


def test_rates_are_counts_by_time_and_the_rest_of_the_plan_is_priced_by_the_example(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A clock that goes on by a second a training batch; two batches make a step."""
    now, seconds = 0.0, 1.0

    class Tick(L.Callback):
        def on_train_batch_start(self, *_: Any) -> None:
            nonlocal now
            now += seconds

        def on_validation_start(self, *_: Any) -> None:
            nonlocal now
            now += 50

    monkeypatch.setattr(time, "perf_counter", lambda: now)
    stages = [stage("a", ["lm"], steps=6), stage("b", ["lm"], steps=2, batch_size=6)]
    counted, throughput = Counted(), Throughput()
    options: dict[str, Any] = {"accumulate_grad_batches": 2, "log_every_n_steps": 2, "val_check_interval": 8}
    logger = CSVLogger(tmp_path)
    run(
        stages,
        tmp_path,
        [throughput, Tick(), counted],
        logger=logger,
        check_val_every_n_epoch=None,
        **options,
    )
    rows = read(logger)
    assert len(rows) == 4
    for number, row in enumerate(rows):
        pictures, tokens, answers = (sum(n) / 4 for n in zip(*counted.batches[4 * number :][:4], strict=True))
        assert row["images_per_second"] == pytest.approx(pictures)
        assert row["tokens_per_second"] == pytest.approx(tokens)
        assert row["answer_tokens_per_second"] == pytest.approx(answers)
        assert row["data_wait"] == 0
    # steps of 2 s; the 2 of `b` have thrice the examples; validation after the fourth costs 50 s in 5 steps
    expected = [(4 + 6) * 2, (2 + 6) * 2, 6 * (2 + 50 / 5), 0]
    assert [row["eta_hours"] * 3600 for row in rows] == pytest.approx(expected)
    assert throughput.shown["eta"] == "0:00:00"


def test_waiting_for_data_is_told(tmp_path: Path) -> None:
    class Slow(L.Callback):
        """Every batch takes a while to come."""

        def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
            loader = trainer.train_dataloader
            collate = loader.collate_fn

            def slow(samples: Any) -> Any:
                time.sleep(0.05)
                return collate(samples)

            loader.collate_fn = slow

    logger = CSVLogger(tmp_path)
    run(
        [stage("a", ["projector"], steps=4)],
        tmp_path,
        [Slow(), Throughput()],
        logger=logger,
        log_every_n_steps=4,
    )
    (row,) = read(logger)
    assert 0.2 / row["tokens_per_second"] <= row["data_wait"] <= 1


def test_the_operations_of_a_step_are_those_that_torch_counts() -> None:
    """Of a transformer, whose forward and backward passes torch sees whole."""
    model = CobraVLM(small_vit, PROJECTORS["linear"], LMS["mobile_llm"])
    for trained in (["lm"], ["projector", "lm"], ["projector"]):
        for name, part in model.parts().items():
            part.requires_grad_(name in trained)
        ids = torch.randint(0, 60, (2, 24))
        ids[:, :16] = IMAGE_ID
        pixels = torch.zeros(2, 3, 32, 32)
        labels = ids.clone()
        labels[:, :16] = IGNORE_ID
        # the counter knows no fused attention of a CPU
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            model.loss(model(ids, pixels), labels).backward()
        found = StepFlops(model, True)(2, 48, 16, 2)
        assert found == pytest.approx(counter.get_total_flops(), rel=0.03), trained


def test_what_learns_in_part_costs_in_part() -> None:
    frozen, half, after = nn.Linear(4, 4, bias=False), nn.Linear(4, 4), nn.Linear(4, 4)
    for part in (frozen, after):
        part.requires_grad_(False)
    half.weight.requires_grad_(False)
    assert _passes([frozen, half, after]) == [1, 2 + 4 / 20, 2]


@pytest.mark.parametrize(
    ("device", "peak"),
    [("NVIDIA H200", 989e12), ("NVIDIA A100-SXM4-80GB", 312e12), ("NVIDIA L4", 121e12), ("a CPU", None)],
)
def test_peaks_are_known_by_name(device: str, peak: float | None) -> None:
    assert peak_of(device) == peak
