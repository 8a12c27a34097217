"""Tower weights for checkpoints that hold none: timm's own, or files of the user's."""

import copy
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from cobra.config.build import build, build_on_meta
from cobra.convert.hub import fetch
from cobra.convert.layout import Tree
from cobra.models.vision.base import VisionEncoder
from cobra.weights.tensors import Stored


def tower_tensors(tree: Tree, files: list[Path]) -> dict[str, Stored]:
    """The weights of an encoder as it starts training, by their names inside it; built when first read.

    Args:
        tree: the encoder's class_path tree.
        files: a file or folder of weights for each of its towers, in channel order; where there are none,
            the file or hub repository in the tower's `weights`, or timm's.

    Raises:
        ValueError: where there are files, but not one for each tower.
    """
    tree = copy.deepcopy(tree)
    towers = list(_towers(tree))
    if files and len(files) != len(towers):
        names = [tower["init_args"]["name"] for tower in towers]
        raise ValueError(
            f"--vision needs a file for each of the {len(towers)} towers {names}, got {len(files)}"
        )
    named = [tower["init_args"].get("weights") for tower in towers]
    for tower, file in zip(towers, files or named, strict=True):
        if file is not None:
            tower["init_args"]["weights"] = str(fetch(str(file)))
    loaded: dict[str, Tensor] = {}

    def read(name: str) -> Tensor:
        if name not in loaded:
            built: VisionEncoder = build(tree)()
            loaded.update(built.state_dict())
        # each is read once: what is written is freed
        return loaded.pop(name)

    encoder = build_on_meta(tree)
    assert isinstance(encoder, VisionEncoder)
    unused = encoder.unused_parameters()
    return {
        name: Stored(tensor.shape, tensor.dtype, lambda name=name: read(name))  # type: ignore[misc]
        for name, tensor in encoder.state_dict().items()
        if name not in unused
    }


def _towers(tree: Tree) -> Iterator[Tree]:
    """The encoders in a tree that take weights of their own, in channel order."""
    inner = tree.get("init_args", {}).get("encoders")
    if inner is None:
        yield tree
    for encoder in inner or ():
        yield from _towers(encoder)
