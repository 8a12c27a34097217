"""Small checkpoints with exactly the published names, as their projects would write them."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cobra.convert import published
from tests.convert import published_keys
from tests.convert.published_keys import Shapes

TOWER = "test_vit.r160_in1k"
VISION, VOCAB, D, LAYERS = 64, 432, 32, 2
COBRA_CONFIG = {
    "run_id": "llava-lvis4v-lrv+cobra+3b+stage-finetune+x7",
    "stage": "finetune",
    "model": {
        "model_id": "cobra+3b",
        "arch_specifier": "no-align+fused-gelu-mlp",
        "vision_backbone_id": "dinosiglip-vit-so-384px",
        "llm_backbone_id": "mamba-2.8b-zephyr",
        "image_resize_strategy": "resize-naive",
        "llm_max_length": 2048,
    },
}


def random(shapes: Shapes, tied: dict[str, str] | None = None) -> dict[str, Tensor]:
    """Seeded weights; a copy gets the tensor it copies."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for name, shape in shapes.items():
        scale = 1 / math.sqrt(shape[-1]) if len(shape) > 1 else 0.1
        tensors[name] = torch.randn(shape, generator=generator) * scale
    for copy, original in (tied or {}).items():
        tensors[copy] = tensors[original].clone()
    return tensors


def nest(tensors: dict[str, Tensor]) -> dict[str, Any]:
    """`model/projector/x` as {"model": {"projector": {"x": ...}}}."""
    tree: dict[str, Any] = {}
    for name, tensor in tensors.items():
        *groups, last = name.split("/")
        group = tree
        for key in groups:
            group = group.setdefault(key, {})
        group[last] = tensor
    return tree


def shrink(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the published identifiers stand for small models."""
    lm = {
        "class_path": "cobra.models.lm.mamba.MambaLM",
        "init_args": {"vocab_size": VOCAB, "d_model": D, "n_layers": LAYERS},
    }
    for name, (_, template) in published.LMS.items():
        monkeypatch.setitem(published.LMS, name, (lm, template))
    mamba2 = {"vocab_size": VOCAB, "d_model": 2 * D, "n_layers": LAYERS}
    monkeypatch.setitem(published.MAMBA2_27B, "init_args", mamba2)
    monkeypatch.setitem(published.TOWERS, "dinosiglip-vit-so-384px", ((TOWER, TOWER), 64))
    monkeypatch.setitem(published.TOWERS, "siglip-vit-so400m-384px", ((TOWER,), 64))


def write_cobra(folder: Path, config: dict | None = None) -> dict[str, Tensor]:
    """The folder of a Cobra run; the tensors that are in it."""
    lm = "model/llm_backbone/llm."
    tied = {f"{lm}lm_head.weight": f"{lm}backbone.embedding.weight"}
    tensors = random(published_keys.cobra(2 * VISION, VOCAB, D, LAYERS), tied)
    write_run(folder, tensors, COBRA_CONFIG if config is None else config)
    return tensors


def write_ml_mamba(path: Path) -> dict[str, Tensor]:
    """ML-Mamba's file, twice as wide for two heads of 64 channels; the tensors that are in it."""
    lm = "model/llm_backbone/"
    tied = {f"{lm}lm_head.weight": f"{lm}backbone.embedding.weight"}
    tensors = random(published_keys.ml_mamba(2 * VISION, VOCAB, 2 * D, LAYERS), tied)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(nest(tensors), path)
    return tensors


def write_run(folder: Path, tensors: dict[str, Tensor], config: dict) -> None:
    """config.json and checkpoints/latest-checkpoint.pt."""
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    torch.save(nest(tensors), folder / "checkpoints/latest-checkpoint.pt")


def write_tower(path: Path, seed: int = 0) -> dict[str, Tensor]:
    """A tower's weight file in timm's layout."""
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(seed)
    tensors = timm.create_model(TOWER, pretrained=False, num_classes=0, img_size=64).state_dict()
    save_file(tensors, path)
    return tensors
