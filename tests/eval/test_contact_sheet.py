"""The sheet of pictures, questions and answers."""

from pathlib import Path

import numpy as np
from PIL import Image

from cobra.data.record import Record, assistant, user
from cobra.eval.contact_sheet import Answered, draw_contact_sheet, pick
from cobra.eval.predictions import Prediction


def answered(kind: str, color: tuple[int, int, int]) -> Answered:
    pixels = np.full((8, 8, 3), color, dtype=np.uint8)
    record = Record(kind, [user("what?", images=1), assistant("yes")], [pixels], meta={"type": kind})
    return record, Prediction.of(record, "test", "yes")


def test_every_picture_is_drawn(tmp_path: Path) -> None:
    colors = [(200, 10, 20), (30, 200, 40), (50, 60, 200)]
    draw_contact_sheet(
        [answered(str(i), color) for i, color in enumerate(colors)], tmp_path / "s.png", columns=2
    )
    with Image.open(tmp_path / "s.png") as sheet:
        drawn = {color for count, color in sheet.convert("RGB").getcolors(1 << 24) or [] if count > 500}
    assert set(colors) <= drawn


def test_the_pick_is_spread_over_every_kind() -> None:
    pairs = [answered(kind, (i, 0, 0)) for i, kind in enumerate("babababa")]
    chosen = pick(pairs, per_kind=2)
    assert [record.images[0][0, 0, 0] for record, _ in chosen] == [1, 5, 2, 6]  # type: ignore[index, call-overload]
