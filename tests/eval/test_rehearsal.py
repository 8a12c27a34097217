"""A rehearsal: what is judged of it, and where its configs read and write."""

import json
from pathlib import Path

import pytest
import yaml
from PIL import Image

from cobra.eval.rehearsal import WAYS, Rehearsal
from cobra.eval.rehearsal_report import DEMO, Outcome, report
from tests.test_cli import ROOT


def outcome(way: str, seed: int, macro: float) -> Outcome:
    curve = [(100.0, macro / 2), (200.0, macro)]
    return Outcome(way, seed, macro, macro, macro, 60.0, 50.0, 9000.0, None if way == DEMO else 0.02, curve)


def test_a_way_may_be_two_points_below_the_demo_in_the_mean_and_no_more(tmp_path: Path) -> None:
    near = [
        outcome(DEMO, 0, 0.98),
        outcome(DEMO, 1, 0.96),
        outcome("lora", 0, 0.985),
        outcome("lora", 1, 0.92),
    ]
    report(near, tmp_path)
    assert json.loads((tmp_path / "rehearsal.json").read_text())[2]["way"] == "lora"
    assert (
        "| lora | 1 | 92.0 % | 92.0 % | 92.0 % | 60 | 50 | 9,000 | 2.0 % |"
        in (tmp_path / "rehearsal.md").read_text().splitlines()
    )
    with Image.open(tmp_path / "rehearsal.png") as picture:
        assert picture.width > 2 * picture.height
    far = [*near[:3], outcome("lora", 1, 0.91)]
    with pytest.raises(ValueError, match=r"lora 94\.8%: more than 2 points below the demo's 97\.0%"):
        report(far, tmp_path)
    report(far, tmp_path, judges=False)


def test_the_configs_of_a_seed_read_and_start_from_its_own_folders(tmp_path: Path) -> None:
    rehearsal = Rehearsal(ROOT / "configs", tmp_path / "out")
    for way in WAYS:
        config = rehearsal._config(way.configs[0], tmp_path / "out/seed-1")
        tree = yaml.safe_load(config.read_text())
        assert set(tree["model"]["weights"].values()) == {str(tmp_path / "out/seed-1/base")}
        for source in tree["data"]["train"].values():
            assert source["init_args"]["image_root"] == str(tmp_path / "out/shapes")
            assert Path(source["init_args"]["json"]).parent == tmp_path / "out/shapes"
