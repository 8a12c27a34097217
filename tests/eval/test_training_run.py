"""A run's folder: what was begun one way is not finished another."""

from pathlib import Path

import pytest

from cobra.eval.training_run import Run


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "run" / "model").mkdir(parents=True)
    # a run that has ended: nothing is launched
    (tmp_path / "run" / "model" / "config.json").touch()
    (tmp_path / "a.yaml").write_text("lr: 1")
    return tmp_path / "a.yaml"


def test_a_folder_remembers_its_precision(config: Path) -> None:
    folder = config.parent / "run"
    assert Run.precision_of(folder) is None
    Run([config], folder, seed=0, precision="bf16-mixed").train()
    assert Run.precision_of(folder) == "bf16-mixed"


@pytest.mark.parametrize("change", [{"seed": 1}, {"precision": "32-true"}, {}])
def test_a_folder_of_another_run_is_refused(config: Path, change: dict) -> None:
    folder = config.parent / "run"
    Run([config], folder, seed=0).train()
    if not change:
        config.write_text("lr: 2")
    with pytest.raises(ValueError, match="another seed, precision or recipe: name another --out"):
        Run([config], folder, **{"seed": 0, **change}).train()


def test_a_folder_of_another_version_is_refused_not_misread(config: Path) -> None:
    folder = config.parent / "run"
    (folder / "recipe.json").write_text('["seed 0", "lr: 1"]')
    assert Run.precision_of(folder) is None
    with pytest.raises(ValueError, match="another seed, precision or recipe"):
        Run([config], folder, seed=0).train()
