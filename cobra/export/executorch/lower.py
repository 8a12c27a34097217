"""Programs lowered to a backend of ExecuTorch, all in one .pte file; what was left outside is counted."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from cobra.export.executorch.quiet import quiet
from cobra.export.executorch.rewrites import plain_attention, split_with_sizes

Programs = Mapping[str, tuple[nn.Module, tuple[Tensor, ...]]]

_PARTITIONERS = {
    "xnnpack": ("executorch.backends.xnnpack.partition.xnnpack_partitioner", "XnnpackPartitioner"),
    "vulkan": ("executorch.backends.vulkan.partitioner.vulkan_partitioner", "VulkanPartitioner"),
}


@dataclass
class Lowered:
    """How much of a program its backend runs.

    Attributes:
        delegates: parts that the backend runs in one go.
        left: operators outside, by name, and how many.
    """

    delegates: int = 0
    left: dict[str, int] = field(default_factory=dict)


def lower(programs: Programs, backend: str, path: Path) -> dict[str, Lowered]:
    """Write programs as methods of one file, under progress bars; what became of each.

    Args:
        programs: a module each, and inputs as an example; their names become the methods'.
        backend: xnnpack or vulkan.
        path: of the file.
    """
    module, name = _PARTITIONERS[backend]
    console = Console(stderr=True)
    with quiet():
        exir, partitioner = import_module("executorch.exir"), getattr(import_module(module), name)
        shown = track(programs.items(), "tracing", console=console)
        exported = {name: _exported(*program) for name, program in shown}
        with console.status("lowering and writing: minutes for a large model"):
            edge = exir.to_edge_transform_and_lower(
                exported,
                partitioner={name: [partitioner()] for name in exported},
                compile_config=exir.EdgeCompileConfig(_check_ir_validity=False),
            )
            found = {name: _counted(edge.exported_program(name).graph_module) for name in exported}
            with path.open("wb") as file:
                edge.to_executorch().write_to_file(file)
    return found


def quantize_linears(modules: Sequence[nn.Module], bits: int, group: int | None) -> None:
    """Let linears multiply integers, in place: weights of so many bits, inputs of 8, rounded when they come.

    Args:
        modules: may share linears; what else they hold stays as it is.
        bits: 4 or 8.
        group: inputs that share a scale; None: all of a row do. Linears whose width is no multiple stay.

    Raises:
        ValueError: as of `torchao`.
    """
    quantization, granularity = torchao()
    config = quantization.Int8DynamicActivationIntxWeightConfig(
        weight_dtype=getattr(torch, f"int{bits}"),
        weight_granularity=granularity.PerAxis(0) if group is None else granularity.PerGroup(group),
    )

    # those that are shared are met again
    done: set[nn.Module] = set()

    def fits(linear: nn.Module, name: str) -> bool:
        is_new = linear not in done
        done.add(linear)
        return is_new and isinstance(linear, nn.Linear) and linear.in_features % (group or 1) == 0

    with quiet():
        quantization.quantize_(nn.ModuleList(modules), config, fits)


def torchao() -> tuple[Any, Any]:
    """torchao's modules of quantization and of its granularity.

    Raises:
        ValueError: where it is missing.
    """
    try:
        with quiet():
            return import_module("torchao.quantization"), import_module("torchao.quantization.granularity")
    except ImportError as error:
        raise ValueError(f"torchao is missing ({error}): pip install 'cobra-vlm[export]'") from error


def _exported(module: nn.Module, inputs: tuple[Tensor, ...]) -> Any:
    with torch.no_grad():
        program = torch.export.export(module.eval(), inputs, strict=False)
    aten = torch.ops.aten
    return program.run_decompositions(
        {
            aten.scaled_dot_product_attention.default: plain_attention,
            aten.split_with_sizes.default: split_with_sizes,
            aten.split.Tensor: _split,
        }
    )


def _split(x: Tensor, size: int, dim: int = 0) -> list[Tensor]:
    """torch's operator `split`; the last part may be smaller."""
    length = x.shape[dim]
    return split_with_sizes(x, [min(size, length - start) for start in range(0, length, size)], dim)


def _counted(graph: torch.fx.GraphModule) -> Lowered:
    found, left = Lowered(), Counter[str]()
    for node in graph.graph.nodes:
        if node.op != "call_function":
            continue
        name = getattr(node.target, "__name__", str(node.target))
        if "call_delegate" in name:
            found.delegates += 1
        elif "getitem" not in name:
            left[name] += 1
    found.left = dict(left.most_common())
    return found
