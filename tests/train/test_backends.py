"""A step of Cobra's and ML-Mamba's configs at tiny dimensions, on every backend that trains without a GPU."""

from pathlib import Path
from typing import Any

import cobra.torchvision_shim  # noqa: F401  (before timm)

import pytest  # isort: skip
import timm
import torch
import yaml

from cobra.config.build import build
from cobra.kernels.dispatch import BACKENDS, use_backend
from cobra.models.recompute import recompute
from cobra.models.vision.pictures import ONE_TILE
from cobra.models.vlm import IGNORE_ID, IMAGE_ID, CobraVLM
from tests.models.test_vlm import pixels_of
from tests.test_configs import shrink

# as few tokens as towers of four patches leave: Triton's interpreter takes its time over each
TOWER = {"embed_dim": 8, "depth": 2, "num_heads": 1, "patch_size": 192}


def tiny(config: dict[str, Any]) -> CobraVLM:
    """The model of a config as its last stage trains it, but small."""
    create = timm.create_model
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timm, "create_model", lambda name, **options: create(name, **{**options, **TOWER}))
        tree = shrink(config["model"]["model"])
        for encoder in tree["init_args"]["vision"]["init_args"]["encoders"]:
            encoder["init_args"]["pretrained"] = False
        model = build(tree)()
    recompute(model, config["model"]["recompute"])
    for name, part in model.parts().items():
        part.requires_grad_(name in config["stages"][-1]["train"])
    return model


def losses(name: str, backend: str) -> list[float]:
    """The losses around a step of AdamW, whose rate is large enough to show a gradient that is wrong."""
    config = yaml.safe_load(Path(f"configs/{name}.yaml").read_text())
    model, found = tiny(config), []
    torch.manual_seed(1)
    ids = torch.tensor([[IMAGE_ID] * model.num_image_tokens(ONE_TILE) + [1, 2, 3, 7, 9, 4, 5]])
    pixels, labels = pixels_of(model, 1), ids.masked_fill(ids == IMAGE_ID, IGNORE_ID)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2, weight_decay=config["stages"][-1]["weight_decay"])
    with use_backend(backend):
        for _ in range(2):
            loss = model.loss(model(ids, pixels), labels)
            found.append(loss.item())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return found


@pytest.mark.parametrize("backend", ["cpu", "torch", pytest.param("triton", marks=pytest.mark.triton)])
@pytest.mark.parametrize("config", ["cobra_2.8b", "ml_mamba_2.7b"])
def test_a_step_of_a_config_costs_what_it_does_on_the_reference(config: str, backend: str) -> None:
    (taken,) = (candidate for candidate in BACKENDS if candidate.name == backend)
    if reason := taken.unavailable():
        pytest.skip(reason)
    expected = losses(config, "reference")
    assert losses(config, backend) == pytest.approx(expected, rel=1e-4)
    assert abs(expected[0] - expected[1]) > 0.1, "the step moved too little to show a wrong gradient"
