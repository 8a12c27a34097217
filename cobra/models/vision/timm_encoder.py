"""Towers from timm: SigLIP, DINOv2, CLIP and any other plain ViT."""

from typing import Any

import cobra.torchvision_shim  # noqa: F401  (before timm)

import timm  # isort: skip
import torch
from torch import Tensor

from cobra.models.vision.base import Pixels, VisionEncoder
from cobra.models.vision.transform import SquashTransform


class TimmEncoder(VisionEncoder):
    """Patch features of a timm ViT's penultimate block, without final norm and prefix tokens.

    These are the features that Cobra, ML-Mamba and prismatic use (class and register tokens dropped).

    Args:
        name: timm model with its weight tag, e.g. `vit_so400m_patch14_siglip_384.webli`; a tag that is left
            out may change with timm's version.
        image_size: side of the square input in pixels.
        pretrained: load timm's weights (downloaded once, or taken from the local hub cache).
    """

    def __init__(self, name: str, image_size: int, pretrained: bool = True) -> None:
        super().__init__()
        # on the meta device there is nothing to load into
        load = pretrained and not torch.empty(0).is_meta
        self.tower = timm.create_model(name, pretrained=load, num_classes=0, img_size=image_size)
        data = timm.data.resolve_model_data_config(self.tower)
        self.layer = len(self.tower.blocks) - 2
        self.embed_dim = self.tower.embed_dim
        self.num_patches = self.tower.patch_embed.num_patches
        self.transform = SquashTransform(image_size, data["mean"], data["std"])

    def forward(self, pixels: Pixels) -> Tensor:
        """Pixels (B, 3, image_size, image_size) to patches (B, N, embed_dim)."""
        (patches,) = self.tower.forward_intermediates(
            pixels,
            indices=[self.layer],
            norm=False,
            stop_early=True,
            output_fmt="NLC",
            intermediates_only=True,
        )
        return patches

    def arguments(self) -> dict[str, Any]:
        """The arguments; a saved model holds the tower's weights, so timm's are not loaded again."""
        return {**self.init_args, "pretrained": False}
