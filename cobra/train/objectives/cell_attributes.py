"""Objective: what stands in each cell of a picture, and which cell it is, for a small vision tower."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cobra.data.batch import Batch
from cobra.models.projectors.pixel_unshuffle import pixel_unshuffle
from cobra.models.vlm import CobraVLM
from cobra.train.objectives.base import Objective


class CellAttributes(Objective):
    """Classify the attributes of every cell, and its place, from the patches that cover it.

    The miniature of what pretraining gives SigLIP or DINOv2: without it (or captions) a model that sees only
    questions stays at chance. The features of pretrained towers tell where a patch is; a tower that is only
    asked what it shows forgets that, and the language model has to count tokens.

    Args:
        factor: side of a cell in patches.
        classes: classes of each attribute, the first of each being "nothing here".
    """

    reads_answers = False

    def __init__(self, model: CobraVLM, factor: int = 2, classes: tuple[int, ...] = (9, 8, 11)) -> None:
        super().__init__()
        self.factor = factor
        self.classes = list(classes)
        width = model.vision.embed_dim * factor**2
        self.head = nn.Linear(width, sum(classes))
        self.place = nn.Linear(width, model.vision.num_patches // factor**2)

    def forward(self, model: CobraVLM, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Sum of the cross-entropies; logs the accuracy of attributes over what is really there."""
        if batch.cells is None:
            raise ValueError("CellAttributes needs records with labels of their cells, e.g. of ShapesCells")
        pixels = batch.pictures.map(lambda p: p.to(self.head.weight.dtype)).pixels
        cells = pixel_unshuffle(model.vision(pixels), self.factor)  # (B, cells, embed_dim × factor²)
        scores = self.head(cells).split(self.classes, dim=-1)
        truth = batch.cells.unbind(-1)
        pairs = list(zip(scores, truth, strict=True))
        loss = torch.stack([F.cross_entropy(s.flatten(0, 1), t.flatten()) for s, t in pairs]).sum()
        right = torch.stack([(s.argmax(-1) == t)[t > 0].float().mean() for s, t in pairs])
        places = self.place(cells)  # (B, cells, cells)
        truth_of_places = torch.arange(places.shape[1], device=places.device).expand(places.shape[:2])
        loss = loss + F.cross_entropy(places.flatten(0, 1), truth_of_places.flatten())
        return loss, {"cell_accuracy": right.mean()}
