"""A published checkpoint under this project's names, checked key by key before anything is read."""

from dataclasses import dataclass

import torch

from cobra.adapter_folder import Adapter, is_adapter_folder, open_adapter
from cobra.config.build import build_on_meta
from cobra.config.config_json import VLM
from cobra.config.limits import MAX_TENSORS
from cobra.convert.hub import fetch
from cobra.convert.layout import Layout, Tree, find_layout
from cobra.convert.layouts.own import Own
from cobra.convert.source import Source, open_source
from cobra.convert.vision import tower_tensors
from cobra.models.adapters import add_product
from cobra.models.vision.base import VisionEncoder
from cobra.models.vlm import CobraVLM
from cobra.pretrained import expected_shapes
from cobra.weights.check_fit import check_fit
from cobra.weights.tensors import Stored

VLM_CLASS = "cobra.models.vlm.CobraVLM"


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
        return {"class_path": VLM_CLASS, "init_args": self.parts}


def open_checkpoint(name: str, base: str | None = None) -> Checkpoint:
    """The checkpoint in a folder, a file or a hub repository, whatever its layout; see `Layout`.

    Args:
        name: of it; an adapter is joined with its base.
        base: of an adapter, named likewise; left out, what it names itself.

    Raises:
        OSError: where it is not there.
        ValueError: where it is damaged or of no known layout, where names or shapes do not fit what its
            configuration says, or where the tied head differs from the embedding.
    """
    path = fetch(name)
    if is_adapter_folder(path):
        return _merged(open_adapter(path), base)
    if base is not None:
        raise ValueError(f"{name} is no folder of an adapter: leave its --base out")
    checkpoint = arrange(open_source(path))
    _check_copies(checkpoint.source, checkpoint.layout.copies(checkpoint.source))
    return checkpoint


def _merged(adapter: Adapter, base: str | None) -> Checkpoint:
    """An adapter and its base as one checkpoint; no weight is read."""
    if adapter.config.get("model_type") == VLM:
        return _of_this_project(adapter, base)
    if base is None:
        raise ValueError(
            f"{adapter.path} is an adapter{adapter.named_base()} (LoRA), not a model: name its base with "
            "--base, into which it is merged"
        )
    source = open_source(fetch(base))
    tensors = {**source.tensors, **{_plain(name): tensor for name, tensor in adapter.others.items()}}
    for name, pair in adapter.products.items():
        weight = f"{name}.weight"
        if weight not in tensors:
            raise ValueError(
                f"{adapter.path} adapts {name}, which {source.path} has not: name another --base"
            )
        tensors[weight] = add_product(tensors[weight], *pair, adapter.scaling)
    config = {**source.config, **adapter.config}
    return arrange(Source(source.path, config, tensors))


def _plain(name: str) -> str:
    """The name of a weight in LLaVA's `non_lora_trainables.bin` as in its models."""
    name = name.removeprefix("base_model.").removeprefix("model.")
    return name if name.startswith(("model.", "lm_head.")) else f"model.{name}"


def _of_this_project(adapter: Adapter, base: str | None) -> Checkpoint:
    """Each part from where the run read it, or from the base, and what the run trained instead."""
    source = Source(adapter.path, adapter.config, {})
    parts = Own().parts(source)
    model = build_on_meta({"class_path": VLM_CLASS, "init_args": parts}, MAX_TENSORS)
    assert isinstance(model, CobraVLM)
    named = adapter.sources if base is None else dict.fromkeys(parts, base)
    tensors: dict[str, Stored] = {}
    for part, module in model.parts().items():
        needed = {f"{part}.{name}" for name in expected_shapes(module)} - set(adapter.others)
        if needed:
            read = _part(part, parts, named, adapter)
            tensors |= {f"{part}.{name}": tensor for name, tensor in read.items()}
    adapter.check_base(tensors)
    tensors |= adapter.others
    for name, pair in adapter.by_our_names(model).items():
        if f"{name}.weight" in tensors:
            tensors[f"{name}.weight"] = add_product(tensors[f"{name}.weight"], *pair, adapter.scaling)
    checkpoint = Checkpoint(source, Own(), parts, tensors)
    _check(checkpoint)
    return checkpoint


def _part(part: str, trees: dict[str, Tree], named: dict[str, str], adapter: Adapter) -> dict[str, Stored]:
    if part in named:
        try:
            found = open_checkpoint(named[part]).part(part)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"{error}; or name what {adapter.path.parent} adapts by --base"
            ) from error
        if found or part != "vision":
            return found
    elif part != "vision":
        raise ValueError(f"{adapter.path} does not say where its {part} was read: name its --base")
    return tower_tensors(trees["vision"], [])


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
