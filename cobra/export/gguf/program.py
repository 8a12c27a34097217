"""An encoder and its projector as a list of a dozen operations, which ggml can run without PyTorch."""

import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node
from torch.utils._pytree import tree_map

from cobra.export.gguf.kernels import KERNELS, CannotExpress
from cobra.export.gguf.kinds import CUT, KINDS, shape_of, tensors_of
from cobra.kernels.dispatch import exporting_with
from cobra.models.projectors.base import Projector
from cobra.models.vision.base import VisionEncoder
from cobra.models.vision.pictures import ONE_TILE, Pixels

_ATEN = torch.ops.aten
_POOL, _CELLS = _ATEN.adaptive_avg_pool2d.default, "_cells"
_CHECKS = (_ATEN._assert_tensor_metadata.default,)


@dataclass(frozen=True)
class Operation:
    """A tensor and how it is made.

    Attributes:
        kind: method of `Graph` in native/graph.cpp.
        name: of what it makes.
        inputs: names of weights, pixels or what was made before.
        shape: of what it makes, as torch counts.
        settings: arguments besides the inputs.
    """

    kind: str
    name: str
    inputs: list[str]
    shape: list[int]
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Program:
    """What makes image tokens (M, D) of the pixels of a picture.

    Attributes:
        pixels: shape of each tensor of pixels, by name.
        weights: names in the model, by names in the operations.
        operations: in their order; the last makes the tokens.
        constants: weights that are none of the model's, by their names in the operations.
    """

    pixels: dict[str, list[int]]
    weights: dict[str, str]
    operations: list[Operation]
    constants: dict[str, Tensor]

    def as_dict(self) -> dict[str, Any]:
        """Pixels and operations as plain data."""
        return {"pixels": self.pixels, "operations": [asdict(operation) for operation in self.operations]}


class _Path(nn.Module):
    def __init__(self, vision: VisionEncoder, projector: Projector) -> None:
        super().__init__()
        self.vision, self.projector = vision, projector

    def forward(self, pixels: Pixels) -> Tensor:
        return self.projector.arrange(self.projector(self.vision(pixels)), (ONE_TILE,))


def traced(vision: VisionEncoder, projector: Projector, tile: Pixels) -> Program:
    """The program of a picture that is one tile.

    Args:
        vision: may be on the meta device, as all that follow.
        projector: behind it.
        tile: pixels of the shape that its transform makes.

    Raises:
        CannotExpress: where an operation is none of ggml's here, naming it.
    """
    pixels = tree_map(lambda plane: plane[None].to("meta"), tile)
    path = _Path(vision, projector).eval()
    with torch.no_grad(), warnings.catch_warnings(), exporting_with(KERNELS):
        # of what torch's own exporter calls
        warnings.simplefilter("ignore", FutureWarning)
        exported = torch.export.export(path, (pixels,), strict=False).run_decompositions({})
    signature = exported.graph_signature
    weights = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    if computed := [*signature.inputs_to_lifted_tensor_constants.values(), *signature.non_persistent_buffers]:
        raise CannotExpress(f"{computed[0]} is computed when the model is built, and not among its weights")
    # final states of scans
    exported.graph.eliminate_dead_code()
    nodes = list(exported.graph.nodes)
    planes = {n.name: list(shape_of(n)) for n in nodes if n.op == "placeholder" and n.name not in weights}
    operations = [made for n in nodes if n.op == "call_function" for made in _made(n)]
    used = {name for operation in operations for name in operation.inputs}
    constants = {f"{node.name}{_CELLS}": _cells(node) for node in nodes if node.target is _POOL}
    kept = {ours: name for ours, name in weights.items() if ours in used}
    return Program(planes, kept, operations, constants)


def _made(node: Node) -> Iterator[Operation]:
    if node.target in (*CUT, *_CHECKS):
        return
    if node.target is _POOL:
        yield from _pooled(node)
        return
    if node.target not in KINDS:
        raise CannotExpress(f"ggml's operations here have no {node.target} ({node.name})")
    kind, settings = KINDS[node.target](node)
    tensors = tensors_of(node.args)
    yield Operation(kind, node.name, [n.name for n in tensors], list(shape_of(node)), settings)


def _pooled(node: Node) -> Iterator[Operation]:
    """Averages of cells, which may be of several sizes and overlap, as a product with their weights."""
    (x,), shape = tensors_of(node.args), list(shape_of(node))
    flat = Operation("reshape", f"{node.name}_flat", [x.name], [*shape_of(x)[:2], shape_of(x)[2:].numel()])
    yield flat
    yield Operation("linear", node.name, [flat.name, f"{node.name}{_CELLS}"], shape)


def _cells(node: Node) -> Tensor:
    """Weights (places made, places) of an average pool."""
    (x,) = tensors_of(node.args)
    places = shape_of(x)[2:]
    height, width = shape_of(node)[2:]
    each = torch.eye(places.numel()).view(-1, 1, *places)
    return nn.functional.adaptive_avg_pool2d(each, (height, width)).flatten(1).T.contiguous()
