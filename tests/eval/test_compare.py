"""Runs beside each other."""

from pathlib import Path

import pytest
from PIL import Image

from cobra.eval.compare import draw_comparison
from cobra.eval.training_curve import Trained

HEADER = "step,loss,cpu_seconds,val/macro\n"


def run(folder: Path, rows: str) -> str:
    (folder / "logs/version_0").mkdir(parents=True)
    (folder / "logs/version_0/metrics.csv").write_text(HEADER + rows)
    return str(folder)


def test_a_validation_stands_where_the_clock_stood(tmp_path: Path) -> None:
    folder = run(tmp_path / "a", "0,9,1.0,\n10,8,21.0,\n15,,,0.25\n20,7,41.0,\n20,,,0.75\n")
    trained = Trained.read(f"twin={folder}")
    assert trained.name == "twin"
    assert trained.curve() == ([15, 20], [31.0, 41.0], [0.25, 0.75])
    other = Trained.read(run(tmp_path / "b", "0,9,2.0,\n5,8,12.0,\n5,,,0.5\n"))
    assert other.name == "b"
    draw_comparison([trained, other], tmp_path / "both.png")
    with Image.open(tmp_path / "both.png") as picture:
        assert picture.width > 2 * picture.height


def test_a_run_without_a_clock_is_refused_by_name(tmp_path: Path) -> None:
    folder = run(tmp_path / "old", "0,9,,\n1,,,0.5\n")
    with pytest.raises(ValueError, match=r"old.*no cpu_seconds"):
        Trained.read(folder)
