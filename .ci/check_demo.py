"""What must hold of a demo however short its training was: it learned something, and every artefact opens."""

import csv
import json
import sys
from pathlib import Path

from PIL import Image
from safetensors import safe_open

KEYS = {"seconds", "steps", "load", "macro", "macro_blind", "model", "blind"}


def main(folder: Path) -> None:
    """Check a folder that `cobra demo` wrote."""
    summary = json.loads((folder / "summary.json").read_text())
    assert set(summary) >= KEYS, sorted(KEYS - set(summary))
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    for stage in sorted({row["stage"] for row in rows if row["stage"]}):
        losses = [float(row["loss"]) for row in rows if row["stage"] == stage]
        assert losses[-1] < losses[0], f"stage {stage}: the loss went from {losses[0]} to {losses[-1]}"
    for name in ("learning_curve", "contact_sheet-test", "contact_sheet-composition", "confusion-test"):
        with Image.open(folder / f"{name}.png") as picture:
            assert min(picture.size) > 400, (name, picture.size)
            colors = picture.convert("RGB").getcolors(maxcolors=1 << 24)
            assert len(colors or []) > 100, f"{name}: nothing is drawn"
    with safe_open(folder / "model/model.safetensors", framework="pt") as weights:
        assert len(weights.keys()) > 20
    assert (folder / "summary.md").read_text().startswith("| question |")
    predictions = (folder / "predictions-test.jsonl").read_text().splitlines()
    assert len(predictions) >= 80
    print(f"demo artefacts are whole: macro {summary['macro']:.3f}, blind {summary['macro_blind']:.3f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
