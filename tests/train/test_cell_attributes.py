"""What the tower is taught: attributes of every cell, and its place."""

import math

import numpy as np
import pytest
import torch

from cobra.data.chat import Chat
from cobra.data.processor import Processor
from cobra.data.record import Record, user
from cobra.models.vlm import CobraVLM
from cobra.train.objectives.cell_attributes import CellAttributes
from tests.models.builders import ENCODERS, LMS, PROJECTORS

CLASSES = (9, 8, 11)


@torch.no_grad()
def test_a_loss_counts_all_attributes_and_places_and_the_accuracy_what_is_there() -> None:
    """Knowing nothing costs the logarithm of the classes; a head that says 1 is right where 1 stands."""
    model = CobraVLM(ENCODERS["small_vit"], PROJECTORS["linear"], LMS["mamba2"])
    cells = np.zeros((4, 3), np.int8)
    # classes of three attributes in the first cells: 1 is one of two, one of one and none of two
    cells[:2] = [[1, 1, 2], [3, 0, 5]]
    record = Record("a", [user("look", images=1)], [np.zeros((32, 32, 3), np.uint8)], labels=cells)
    processor = Processor.of(model, Chat("cobra:data/shapes/tokenizer"))
    batch = processor.collate([processor.encode(record)])
    objective = CellAttributes(model, classes=CLASSES)
    for parameter in objective.parameters():
        parameter.zero_()
    loss, _ = objective(model, batch)
    assert loss.item() == pytest.approx(sum(map(math.log, (*CLASSES, 4))))
    for first in (0, 9, 17):
        objective.head.bias[first + 1] = 9.0
    _, logged = objective(model, batch)
    assert logged["cell_accuracy"].item() == pytest.approx((1 / 2 + 1 + 0) / 3)
    objective.place.bias[3] = 1e4
    assert objective(model, batch)[0].item() > 3 / 4 * 1e4 - 1


@torch.no_grad()
def test_a_cell_is_told_from_its_own_patches() -> None:
    """A tower whose features are the number of the patch shows each cell the four that cover it."""
    model = CobraVLM(ENCODERS["small_vit"], PROJECTORS["linear"], LMS["mamba2"])
    objective = CellAttributes(model)
    seen: list[torch.Tensor] = []
    objective.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    numbers = torch.arange(16.0)[:, None].expand(16, model.vision.embed_dim)
    model.vision.forward = lambda pixels: numbers[None]  # type: ignore[method-assign]
    record = Record(
        "a", [user("look", images=1)], [np.zeros((32, 32, 3), np.uint8)], labels=np.zeros((4, 3), np.int8)
    )
    processor = Processor.of(model, Chat("cobra:data/shapes/tokenizer"))
    objective(model, processor.collate([processor.encode(record)]))
    covered = [sorted(set(cell.tolist())) for cell in seen[0][0]]
    assert covered == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
