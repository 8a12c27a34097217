"""An encoder and its projector as a list of a dozen operations, which ggml can run without PyTorch."""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from operator import getitem
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node
from torch.utils._pytree import tree_map

from cobra.export.gguf.kernels import KERNELS, CannotExpress
from cobra.kernels.dispatch import exporting_with
from cobra.models.projectors.base import Projector
from cobra.models.vision.base import VisionEncoder
from cobra.models.vision.pictures import ONE_TILE, Pixels

_ATEN, _GGML = torch.ops.aten, torch.ops.cobra_ggml
# of a tensor of ggml's
_AXES = 4


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
    planes = {n.name: list(_shape(n)) for n in nodes if n.op == "placeholder" and n.name not in weights}
    operations = [made for n in nodes if n.op == "call_function" for made in _made(n)]
    used = {name for operation in operations for name in operation.inputs}
    constants = {f"{node.name}{_CELLS}": _cells(node) for node in nodes if node.target is _POOL}
    kept = {ours: name for ours, name in weights.items() if ours in used}
    return Program(planes, kept, operations, constants)


def _made(node: Node) -> Iterator[Operation]:
    if node.target in (*_CUT, *_CHECKS):
        return
    if node.target is _POOL:
        yield from _pooled(node)
        return
    if node.target not in _KINDS:
        raise CannotExpress(f"ggml's operations here have no {node.target} ({node.name})")
    kind, settings = _KINDS[node.target](node)
    tensors = _tensors(node.args)
    yield Operation(kind, node.name, [n.name for n in tensors], list(_shape(node)), settings)


def _tensors(arguments: Sequence[Any]) -> list[Node]:
    flat = [a for group in arguments for a in (group if isinstance(group, list | tuple) else [group])]
    # what is cut off an `unbind` or a `split` is cut off its argument
    return [_source(a) for a in flat if isinstance(a, Node)]


def _source(node: Node) -> Node:
    return node.args[0] if node.target in _CUT else node  # type: ignore[return-value]


def _shape(node: Node) -> torch.Size:
    return node.meta["val"].shape


_Made = tuple[str, dict[str, Any]]


def _argument(node: Node, place: int, default: Any) -> Any:
    return node.args[place] if len(node.args) > place else default


def _conv(node: Node) -> _Made:
    stride, padding = _argument(node, 3, [1, 1]), _argument(node, 4, [0, 0])
    groups, channels = _argument(node, 6, 1), _shape(node.args[0])[1]  # type: ignore[arg-type]
    if _argument(node, 5, [1, 1]) != [1, 1] or groups not in (1, channels) or isinstance(padding, str):
        raise CannotExpress(f"{node.name} is dilated or grouped")
    if groups != 1 and _shape(node)[1] != channels:
        raise CannotExpress(f"{node.name} makes several channels of one")
    return "conv", {"stride": list(stride), "padding": list(padding), "depthwise": groups > 1}


def _norm(node: Node) -> _Made:
    if len(node.args[1]) != 1 or len(_tensors(node.args)) != 3:  # type: ignore[arg-type]
        raise CannotExpress(f"{node.name} has no scale or bias, or is over several axes")
    return "layer_norm", {"eps": _argument(node, 4, 1e-5)}


def _group_norm(node: Node) -> _Made:
    return "group_norm", {"groups": node.args[1], "eps": _argument(node, 4, 1e-5)}


def _permute(node: Node) -> _Made:
    axes: Sequence[int] = node.args[1]  # type: ignore[assignment]
    return _permuted(node, [axis % len(axes) for axis in axes])


def _transpose(node: Node) -> _Made:
    order = list(range(len(_shape(node))))
    first, second = node.args[1:3]
    order[first], order[second] = order[second], order[first]  # type: ignore[index]
    return _permuted(node, order)


def _permuted(node: Node, order: Sequence[int]) -> _Made:
    sizes, places = merged(_shape(node.args[0]), order)  # type: ignore[arg-type]
    missing = _AXES - len(sizes)
    if missing < 0:
        raise CannotExpress(f"{node.name} permutes {len(sizes)} axes, ggml has {_AXES}")
    padded = [*range(missing), *(place + missing for place in places)]
    return "permute", {"sizes": [1] * missing + sizes, "order": padded}


def _item(node: Node) -> _Made:
    cut: Node = node.args[0]  # type: ignore[assignment]
    place: int = node.args[1]  # type: ignore[assignment]
    if cut.target is _ATEN.unbind.int:
        return "slice", {"axis": _argument(cut, 1, 0), "start": place, "length": 1}
    sizes: list[int] = cut.args[1]  # type: ignore[assignment]
    axis = _argument(cut, 2, 0) % len(_shape(node))
    return "slice", {"axis": axis, "start": sum(sizes[:place]), "length": sizes[place]}


def _flip(node: Node) -> _Made:
    axes: list[int] = node.args[1]  # type: ignore[assignment]
    shape, first = _shape(node), axes[0] % len(_shape(node))
    if len(axes) != 1 or math.prod(shape[:first]) != 1:
        raise CannotExpress(f"{node.name} reverses axes that are not the first alone")
    return "flip", {"axis": first}


def _slice(node: Node) -> _Made:
    source: Node = node.args[0]  # type: ignore[assignment]
    axis = _argument(node, 1, 0) % len(_shape(source))
    if _argument(node, 4, 1) != 1:
        raise CannotExpress(f"{node.name} skips")
    start = _argument(node, 2, 0) or 0
    return "slice", {"axis": axis, "start": start % _shape(source)[axis], "length": _shape(node)[axis]}


def _select(node: Node) -> _Made:
    source: Node = node.args[0]  # type: ignore[assignment]
    axis, place = _argument(node, 1, 0) % len(_shape(source)), _argument(node, 2, 0)
    return "slice", {"axis": axis, "start": place % _shape(source)[axis], "length": 1}


def _concat(node: Node) -> _Made:
    return "concat", {"axis": _argument(node, 1, 0) % len(_shape(node))}


def _reshape(node: Node) -> _Made:
    source: Node = node.args[0]  # type: ignore[assignment]
    if _shape(source).numel() != _shape(node).numel():
        raise CannotExpress(f"{node.name} repeats")
    return "reshape", {}


def _attention(node: Node) -> _Made:
    if len(_tensors(node.args)) != 3 or _argument(node, 5, False) or _argument(node, 4, 0.0):
        raise CannotExpress(f"{node.name} has a mask")
    scale = node.kwargs.get("scale") or 1 / math.sqrt(_shape(node.args[0])[-1])  # type: ignore[arg-type]
    return "attention", {"scale": scale}


def _gelu(node: Node) -> _Made:
    return ("gelu" if node.kwargs.get("approximate", "none") == "none" else "gelu_tanh"), {}


def _mean(node: Node) -> _Made:
    rank = len(_shape(node.args[0]))  # type: ignore[arg-type]
    axes = sorted(axis % rank for axis in node.args[1])  # type: ignore[union-attr, operator]
    if axes != list(range(rank - len(axes), rank)):
        raise CannotExpress(f"{node.name} is over axes that are not the last")
    return "mean", {"axes": len(axes)}


def _divide(node: Node) -> _Made:
    if len(_tensors(node.args)) != 1:
        raise CannotExpress(f"{node.name} divides by a tensor")
    return "scale", {"by": 1 / float(node.args[1])}  # type: ignore[arg-type]


def _root_mean_square(node: Node) -> _Made:
    return "rms_norm", {"eps": node.args[1]}


def _pooled(node: Node) -> Iterator[Operation]:
    """Averages of cells, which may be of several sizes and overlap, as a product with their weights."""
    (x,), shape = _tensors(node.args), list(_shape(node))
    flat = Operation("reshape", f"{node.name}_flat", [x.name], [*_shape(x)[:2], _shape(x)[2:].numel()])
    yield flat
    yield Operation("linear", node.name, [flat.name, f"{node.name}{_CELLS}"], shape)


def _cells(node: Node) -> Tensor:
    """Weights (places made, places) of an average pool."""
    (x,) = _tensors(node.args)
    places = _shape(x)[2:]
    height, width = _shape(node)[2:]
    each = torch.eye(places.numel()).view(-1, 1, *places)
    return nn.functional.adaptive_avg_pool2d(each, (height, width)).flatten(1).T.contiguous()


def _sum_or_scale(kind: str) -> Callable[[Node], _Made]:
    def made(node: Node) -> _Made:
        tensors = _tensors(node.args)
        if len(tensors) == 2 and not node.kwargs.get("alpha"):
            return kind, {"sizes": _repeated(node, [_shape(tensor) for tensor in tensors])}
        if kind == "add":
            raise CannotExpress(f"{node.name} adds a number")
        return "scale", {"by": float(node.args[1])}  # type: ignore[arg-type]

    return made


def _repeated(node: Node, shapes: Sequence[Sequence[int]]) -> list[list[int]]:
    """Two shapes in ggml's axes, of which one is repeated to the other's."""
    second, first = sorted(shapes, key=lambda shape: (math.prod(shape), len(shape)))
    if math.prod(first) != _shape(node).numel():
        raise CannotExpress(f"{node.name} repeats both of its inputs")
    sizes = aligned(first, second)
    missing = _AXES - len(sizes[0])
    if missing < 0:
        raise CannotExpress(f"{node.name} repeats over {len(sizes[0])} axes, ggml has {_AXES}")
    whole, part = ([1] * missing + found for found in sizes)
    return [whole if shape is first else part for shape in shapes]


def _plain(kind: str) -> Callable[[Node], _Made]:
    return lambda node: (kind, {})


def merged(shape: Sequence[int], order: Sequence[int]) -> tuple[list[int], list[int]]:
    """Sizes and order of the same permutation with as few axes as possible.

    Those of size 1 are left out, and those that stay neighbours are one.
    """
    kept = [axis for axis in order if shape[axis] > 1]
    groups: list[list[int]] = []
    for axis in kept:
        before = [a for a in range(axis) if shape[a] > 1]
        if groups and before and groups[-1][-1] == before[-1]:
            groups[-1].append(axis)
        else:
            groups.append([axis])
    by_place = sorted(groups)
    sizes = [math.prod(shape[axis] for axis in group) for group in by_place]
    return sizes, [by_place.index(group) for group in groups]


def aligned(first: Sequence[int], second: Sequence[int]) -> tuple[list[int], list[int]]:
    """Two shapes of which the second is repeated to the first, with as few axes as possible."""
    second = [1] * (len(first) - len(second)) + list(second)
    pairs: list[list[int]] = []
    for a, b in zip(first, second, strict=True):
        if a == 1:
            continue
        if pairs and (pairs[-1][1] == 1) == (b == 1):
            pairs[-1] = [pairs[-1][0] * a, pairs[-1][1] * b]
        else:
            pairs.append([a, b])
    return [a for a, _ in pairs], [b for _, b in pairs]


_KINDS: dict[Any, Callable[[Node], _Made]] = {
    _ATEN.conv2d.default: _conv,
    _ATEN.group_norm.default: _group_norm,
    _ATEN.layer_norm.default: _norm,
    _ATEN.linear.default: _plain("linear"),
    _ATEN.add.Tensor: _sum_or_scale("add"),
    _ATEN.mul.Tensor: _sum_or_scale("mul"),
    _ATEN.div.Tensor: _divide,
    _ATEN.scaled_dot_product_attention.default: _attention,
    _ATEN.relu.default: _plain("relu"),
    _ATEN.gelu.default: _gelu,
    _ATEN.silu.default: _plain("silu"),
    _ATEN.sigmoid.default: _plain("sigmoid"),
    _ATEN.hardswish.default: _plain("hardswish"),
    _ATEN.hardsigmoid.default: _plain("hardsigmoid"),
    _ATEN.exp.default: _plain("exp"),
    _ATEN.neg.default: _plain("neg"),
    _GGML.rms_norm.default: _root_mean_square,
    _GGML.ssm_conv.default: _plain("ssm_conv"),
    _GGML.ssm_scan.default: _plain("ssm_scan"),
    _ATEN.permute.default: _permute,
    _ATEN.flip.default: _flip,
    _ATEN.transpose.int: _transpose,
    _ATEN.slice.Tensor: _slice,
    _ATEN.select.int: _select,
    _ATEN.cat.default: _concat,
    _ATEN.mean.dim: _mean,
    getitem: _item,
    **dict.fromkeys(
        (
            _ATEN.view.default, _ATEN._unsafe_view.default, _ATEN.reshape.default, _ATEN.clone.default,
            _ATEN.alias.default, _ATEN.expand.default, _ATEN.unsqueeze.default, _ATEN.squeeze.dim,
            _ATEN.contiguous.default,
        ),
        _reshape,
    ),
}  # fmt: skip
_POOL, _CELLS = _ATEN.adaptive_avg_pool2d.default, "_cells"
_CHECKS = (_ATEN._assert_tensor_metadata.default,)
_CUT = (_ATEN.unbind.int, _ATEN.split_with_sizes.default)
