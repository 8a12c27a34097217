from pathlib import Path

import pytest

from cobra.bench.subjects import Subject
from cobra.bench.systems.configs import read_systems


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """The tiny Cobra, read without the other configs."""
    folder = tmp_path_factory.mktemp("configs")
    (folder / "cobra_tiny.yaml").write_text(Path("configs/cobra_tiny.yaml").read_text())
    tree = read_systems(folder)["cobra_tiny"]
    return Subject("cobra_tiny", tree["init_args"]["lm"], tree)
