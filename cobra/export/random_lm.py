"""A language model of random weights from the yaml of its class, for laws, which hold for any weights."""

from pathlib import Path

import torch
import yaml
from safetensors.torch import save_file

from cobra.config.build import build
from cobra.config.config_json import LM, write_config
from cobra.config.text_file import read_text
from cobra.models.lm.base import LanguageModel
from cobra.pretrained import WEIGHTS, expected_shapes

# of the noise on initial weights, lest something hides behind a one or a zero
_STD = 0.05


def write_random_lm(tree: Path, folder: Path) -> None:
    """Write the folder of a language model; the weights of a yaml are always the same.

    Args:
        tree: yaml file, class_path and init_args.
        folder: that is there.

    Raises:
        ValueError: where the yaml makes no language model.
    """
    said = yaml.safe_load(read_text(tree))
    if not isinstance(said, dict) or "class_path" not in said:
        raise ValueError(f"{tree} has no class_path and init_args of a language model")
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        lm = build(said)()
    if not isinstance(lm, LanguageModel):
        raise ValueError(f"{tree} makes a {type(lm).__name__}, not a LanguageModel")
    generator = torch.Generator().manual_seed(0)
    weights = lm.state_dict()
    noisy = {
        name: weights[name] + _STD * torch.randn(shape, generator=generator)
        for name, shape in expected_shapes(lm).items()
    }
    save_file(noisy, folder / WEIGHTS, metadata={"format": "pt"})
    write_config(folder, LM, lm.config())
