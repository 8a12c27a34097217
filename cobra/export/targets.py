"""Targets of `cobra export` and engines of `cobra conform`, a line each; none is imported before its use."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

# not for `--help`, which is to need no numpy
if TYPE_CHECKING:
    from cobra.export.engine import Engine


@dataclass(frozen=True)
class Target:
    """A kind of mobile build.

    Attributes:
        quants: precisions of the language model's weights, the default first.
        writer: `module:function` that is called with (model folder, quant, folder to fill) and returns the
            `cobra.export.manifest.Contents`.
        engines: names in ENGINES of what opens the folder, by device; none where nothing here can run it.
    """

    quants: tuple[str, ...]
    writer: str
    engines: Mapping[str, str]


# that exports run on
DEVICES = ("cpu", "vulkan")
# by what `--target` calls them
TARGETS: dict[str, Target] = {
    "gguf": Target(
        ("q4_k_m", "q4_0", "q8_0", "f16", "f32"),
        "cobra.export.gguf.target:write_gguf_target",
        {"cpu": "gguf", "vulkan": "gguf-vulkan"},
    ),
    "executorch-cpu": Target(
        ("fp32", "8da4w"), "cobra.export.executorch.write:write_cpu", {"cpu": "executorch"}
    ),
    "executorch-vulkan": Target(("fp32", "8da4w"), "cobra.export.executorch.write:write_vulkan", {}),
}
# `module:Class` (or a function), called with a folder: a model's, but an export's for runtimes of exports
ENGINES: dict[str, str] = {
    "ours": "cobra.export.engines.ours:open_own",
    "ours-int8": "cobra.export.engines.ours:open_int8",
    "ours-int4": "cobra.export.engines.ours:open_int4",
    "transformers": "cobra.export.engines.transformers:TransformersApart",
    "gguf": "cobra.export.engines.gguf:GGUFEngine",
    "gguf-vulkan": "cobra.export.engines.gguf_vulkan:open_gguf_vulkan",
    "executorch": "cobra.export.engines.executorch:ExecuTorchEngine",
}


def engine_of(target: str, device: str = DEVICES[0]) -> str:
    """Name in ENGINES of what runs an export of that target on one of DEVICES.

    Raises:
        ValueError: where nothing does.
    """
    found = TARGETS.get(target)
    if found is None or device not in found.engines:
        raise ValueError(f"nothing here runs an export of target {target!r} on --device {device}")
    return found.engines[device]


def open_engine(name: str, folder: Path) -> "Engine":
    """The engine of that name on a folder.

    Raises:
        ValueError: where there is none of that name.
    """
    if name not in ENGINES:
        raise ValueError(f"engine {name!r} is not one of {', '.join(ENGINES)}")
    return load(ENGINES[name])(folder)


def load(place: str) -> Callable[..., Any]:
    """What stands at `module:name`."""
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)
