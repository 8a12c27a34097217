"""A published checkpoint under this project's names, checked key by key before anything is read."""

from dataclasses import dataclass

import torch

from cobra.config.build import build_on_meta
from cobra.config.limits import MAX_TENSORS
from cobra.convert.hub import fetch
from cobra.convert.layout import Layout, Tree, find_layout
from cobra.convert.source import Source, open_source
from cobra.models.vision.base import VisionEncoder
from cobra.models.vlm import CobraVLM
from cobra.pretrained import expected_shapes
from cobra.weights.check_fit import check_fit
from cobra.weights.tensors import Stored


@dataclass(frozen=True)
class Checkpoint:
    """Weights of the parts of a model.

    Attributes:
        source: the files.
        layout: how they are laid out.
        parts: class_path tree of each part.
        tensors: by this project's names, which start with the part.
    """

    source: Source
    layout: Layout
    parts: dict[str, Tree]
    tensors: dict[str, Stored]

    def part(self, name: str) -> dict[str, Stored]:
        """The tensors of one part by their names inside it; empty where the checkpoint has none."""
        prefix = f"{name}."
        return {k.removeprefix(prefix): t for k, t in self.tensors.items() if k.startswith(prefix)}

    @property
    def tree(self) -> Tree:
        """The class_path tree of the whole: a vision-language model, or a language model alone."""
        if set(self.parts) == {"lm"}:
            return self.parts["lm"]
        return {"class_path": "cobra.models.vlm.CobraVLM", "init_args": self.parts}


def open_checkpoint(name: str) -> Checkpoint:
    """The checkpoint in a folder, a file or a hub repository, whatever its layout; see `Layout`.

    Raises:
        OSError: where it is not there.
        ValueError: where it is damaged or of no known layout, where names or shapes do not fit what its
            configuration says, or where the tied head differs from the embedding.
    """
    checkpoint = arrange(open_source(fetch(name)))
    _check_copies(checkpoint.source, checkpoint.layout.copies(checkpoint.source))
    return checkpoint


def arrange(source: Source) -> Checkpoint:
    """A checkpoint by this project's names; no weight is read. Errors as for `open_checkpoint`."""
    layout = find_layout(source)
    copies, key_map, parts = layout.copies(source), layout.key_map(source), _parts(layout, source)
    held = layout.tensors(source)
    renamed = {name: _rename(name, key_map) for name in held if name not in copies}
    tensors = {ours or theirs: held[theirs] for theirs, ours in renamed.items()}
    checkpoint = Checkpoint(source, layout, parts, _without_unused(tensors, parts))
    _check(checkpoint)
    return checkpoint


def _parts(layout: Layout, source: Source) -> dict[str, Tree]:
    try:
        return layout.parts(source)
    except (TypeError, AttributeError, ArithmeticError) as error:
        raise ValueError(
            f"{source.path}: its config.json has values that do not fit ({error}): restore that file"
        ) from error


def _rename(name: str, key_map: dict[str, str]) -> str | None:
    prefix = max((prefix for prefix in key_map if name.startswith(prefix)), key=len, default=None)
    return None if prefix is None else key_map[prefix] + name.removeprefix(prefix)


def _without_unused(tensors: dict[str, Stored], parts: dict[str, Tree]) -> dict[str, Stored]:
    """Without the blocks of a whole tower that features do not depend on."""
    if not any(name.startswith("vision.") for name in tensors):
        return tensors
    encoder = build_on_meta(parts["vision"], MAX_TENSORS)
    assert isinstance(encoder, VisionEncoder)
    unused = {f"vision.{name}" for name in encoder.unused_parameters()}
    return {name: tensor for name, tensor in tensors.items() if name not in unused}


def _check_copies(source: Source, copies: dict[str, str]) -> None:
    for copy, original in copies.items():
        if copy not in source.tensors or original not in source.tensors:
            continue
        one, other = source.tensors[copy], source.tensors[original]
        if one.shape != other.shape or not torch.equal(one.read(), other.read()):
            raise ValueError(
                f"{source.path}: {copy} differs from {original}, but here head and embedding are one tensor: "
                f"a model with an untied head, or a damaged file"
            )


def _check(checkpoint: Checkpoint) -> None:
    """Every part that the checkpoint holds must be whole, and it must hold nothing else."""
    model = build_on_meta(checkpoint.tree, MAX_TENSORS)
    parts = model.parts() if isinstance(model, CobraVLM) else {"lm": model}
    held = {name.partition(".")[0] for name in checkpoint.tensors}
    expected = {
        f"{part}.{name}": shape
        for part, module in parts.items()
        for name, shape in expected_shapes(module).items()
        if part in held
    }
    found = {name: tensor.shape for name, tensor in checkpoint.tensors.items()}
    check_fit(expected, found, f"{checkpoint.source.path} is no whole {checkpoint.layout.title} checkpoint")
