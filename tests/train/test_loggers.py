"""Loggers that a yaml names: beside the CSV, in the run's folder, with their packages or a remedy."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from PIL import Image

from cobra.train import loggers
from cobra.train.loggers import TrackioLogger, log_picture, with_csv
from tests.test_cli import ON_CPU, ROOT, fit_or_answer, instantiate
from tests.train.test_module import run, stage

TINY = ["-c", str(ROOT / "configs/cobra_tiny.yaml"), *ON_CPU]


def test_a_yamls_logger_joins_the_csv_in_the_runs_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    named = "{class_path: lightning.pytorch.loggers.CSVLogger, init_args: {save_dir: ., name: mine}}"
    trackio = "{class_path: cobra.train.loggers.TrackioLogger, init_args: {name: first}}"
    monkeypatch.setattr(loggers, "find_spec", lambda package: package)
    words = [*TINY, "--trainer.default_root_dir", str(tmp_path), "--trainer.logger"]
    mine, theirs = instantiate(monkeypatch, "fit", *words, f"[{named}, {trackio}]").trainer.loggers
    assert mine.root_dir == str(tmp_path / "mine")
    assert (theirs.name, theirs.version) == ("cobra", "first")
    csv, same = with_csv(theirs, tmp_path)
    assert (csv.root_dir, same) == (str(tmp_path / "logs"), theirs)
    assert isinstance(with_csv(True, tmp_path)[0], CSVLogger)
    assert with_csv(False, tmp_path) is False


@pytest.mark.parametrize(
    ("path", "package"),
    [
        ("lightning.pytorch.loggers.TensorBoardLogger", "tensorboard"),
        ("lightning.pytorch.loggers.WandbLogger", "wandb"),
        ("cobra.train.loggers.TrackioLogger", "trackio"),
    ],
)
def test_a_missing_package_is_told_with_the_extra_that_has_it(
    path: str, package: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(loggers, "find_spec", lambda name: None)
    words = [*TINY, "--trainer.default_root_dir", str(tmp_path), f"--trainer.logger={path}"]
    words += ["--trainer.logger.save_dir=."] if package == "tensorboard" else []
    with pytest.raises(
        SystemExit, match=rf"^cobra fit: .* needs the package {package}: .*vlm\[{package}\]'$"
    ):
        fit_or_answer(monkeypatch, "fit", *words)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    Image.new("RGB", (4, 3), "red").save(tmp_path / "sheet.png")
    return tmp_path / "sheet.png"


class Board(TensorBoardLogger):
    """One whose package is not there."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    @property
    def experiment(self) -> Any:
        return SimpleNamespace(add_image=lambda *args, **options: self.seen.append((args, options)))


def test_pictures_go_to_the_loggers_that_take_them(
    picture: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    board, trackio = Board(), fake_trackio(monkeypatch)
    log_picture([CSVLogger(tmp_path), board, TrackioLogger()], "samples", picture, 7)
    (((key, pixels, step), options),) = board.seen
    assert (key, step, options) == ("samples", 7, {"dataformats": "HWC"})
    assert np.array_equal(pixels, np.full((3, 4, 3), (255, 0, 0)))
    assert trackio.logged == [({"samples": ("image", str(picture))}, 7)]


def fake_trackio(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module with as much of Trackio as is used."""
    fake: Any = ModuleType("trackio")
    fake.logged, fake.begun, fake.ended = [], [], 0

    def finish() -> None:
        fake.ended += 1

    def init(**options: Any) -> Any:
        fake.begun.append(options)
        return SimpleNamespace(log=lambda metrics, step: fake.logged.append((metrics, step)), finish=finish)

    fake.init, fake.Image = init, lambda file: ("image", file)
    monkeypatch.setitem(sys.modules, "trackio", fake)
    return fake


def test_trackio_is_told_every_row_of_a_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = fake_trackio(monkeypatch)
    logger: Logger = TrackioLogger("mine", "first")
    run(
        [stage("a", ["projector"], steps=4)],
        tmp_path,
        logger=[logger],
        log_every_n_steps=2,
        limit_val_batches=0,
    )
    assert [options["project"] for options in fake.begun] == ["mine"]
    assert [step for _, step in fake.logged] == [1, 3]
    assert {"loss", "lr"} <= set(fake.logged[0][0])
    assert fake.ended == 1
