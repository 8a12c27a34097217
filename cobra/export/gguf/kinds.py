"""Kinds of operations of a picture's program, by the nodes of torch's graphs that they stand for."""

import math
from collections.abc import Callable, Sequence
from operator import getitem
from typing import Any

import torch
from torch.fx import Node

from cobra.export.gguf.axes import AXES, aligned, merged
from cobra.export.gguf.kernels import CannotExpress

_ATEN, _GGML = torch.ops.aten, torch.ops.cobra_ggml
# what other nodes are cut off
CUT = (_ATEN.unbind.int, _ATEN.split_with_sizes.default)


def tensors_of(arguments: Sequence[Any]) -> list[Node]:
    """Of a node's arguments those that are made by nodes."""
    flat = [a for group in arguments for a in (group if isinstance(group, list | tuple) else [group])]
    # what is cut off an `unbind` or a `split` is cut off its argument
    return [_source(a) for a in flat if isinstance(a, Node)]


def _source(node: Node) -> Node:
    return _argument(node, 0) if node.target in CUT else node


def shape_of(node: Node) -> torch.Size:
    """Of what a node makes."""
    return node.meta["val"].shape


# kind of an operation, and its settings
Made = tuple[str, dict[str, Any]]


def _argument(node: Node, place: int, default: Any = None) -> Any:
    return node.args[place] if len(node.args) > place else default


def _conv(node: Node) -> Made:
    stride, padding = _argument(node, 3, [1, 1]), _argument(node, 4, [0, 0])
    groups, channels = _argument(node, 6, 1), shape_of(_argument(node, 0))[1]
    if _argument(node, 5, [1, 1]) != [1, 1] or groups not in (1, channels) or isinstance(padding, str):
        raise CannotExpress(f"{node.name} is dilated or grouped")
    if groups != 1 and shape_of(node)[1] != channels:
        raise CannotExpress(f"{node.name} makes several channels of one")
    return "conv", {"stride": list(stride), "padding": list(padding), "depthwise": groups > 1}


def _norm(node: Node) -> Made:
    if len(_argument(node, 1)) != 1 or len(tensors_of(node.args)) != 3:
        raise CannotExpress(f"{node.name} has no scale or bias, or is over several axes")
    return "layer_norm", {"eps": _argument(node, 4, 1e-5)}


def _group_norm(node: Node) -> Made:
    return "group_norm", {"groups": node.args[1], "eps": _argument(node, 4, 1e-5)}


def _permute(node: Node) -> Made:
    axes = _argument(node, 1)
    return _permuted(node, [axis % len(axes) for axis in axes])


def _transpose(node: Node) -> Made:
    order = list(range(len(shape_of(node))))
    first, second = _argument(node, 1), _argument(node, 2)
    order[first], order[second] = order[second], order[first]
    return _permuted(node, order)


def _permuted(node: Node, order: Sequence[int]) -> Made:
    sizes, places = merged(shape_of(_argument(node, 0)), order)
    missing = AXES - len(sizes)
    if missing < 0:
        raise CannotExpress(f"{node.name} permutes {len(sizes)} axes, ggml has {AXES}")
    padded = [*range(missing), *(place + missing for place in places)]
    return "permute", {"sizes": [1] * missing + sizes, "order": padded}


def _item(node: Node) -> Made:
    cut, place = _argument(node, 0), _argument(node, 1)
    if cut.target is _ATEN.unbind.int:
        return "slice", {"axis": _argument(cut, 1, 0), "start": place, "length": 1}
    sizes = _argument(cut, 1)
    axis = _argument(cut, 2, 0) % len(shape_of(node))
    return "slice", {"axis": axis, "start": sum(sizes[:place]), "length": sizes[place]}


def _flip(node: Node) -> Made:
    axes = _argument(node, 1)
    shape, first = shape_of(node), axes[0] % len(shape_of(node))
    if len(axes) != 1 or math.prod(shape[:first]) != 1:
        raise CannotExpress(f"{node.name} reverses axes that are not the first alone")
    return "flip", {"axis": first}


def _slice(node: Node) -> Made:
    source = _argument(node, 0)
    axis = _argument(node, 1, 0) % len(shape_of(source))
    if _argument(node, 4, 1) != 1:
        raise CannotExpress(f"{node.name} skips")
    start = _argument(node, 2, 0) or 0
    return "slice", {"axis": axis, "start": start % shape_of(source)[axis], "length": shape_of(node)[axis]}


def _select(node: Node) -> Made:
    source = _argument(node, 0)
    axis, place = _argument(node, 1, 0) % len(shape_of(source)), _argument(node, 2, 0)
    return "slice", {"axis": axis, "start": place % shape_of(source)[axis], "length": 1}


def _concat(node: Node) -> Made:
    return "concat", {"axis": _argument(node, 1, 0) % len(shape_of(node))}


def _reshape(node: Node) -> Made:
    source = _argument(node, 0)
    if shape_of(source).numel() != shape_of(node).numel():
        raise CannotExpress(f"{node.name} repeats")
    return "reshape", {}


def _attention(node: Node) -> Made:
    if len(tensors_of(node.args)) != 3 or _argument(node, 5, False) or _argument(node, 4, 0.0):
        raise CannotExpress(f"{node.name} has a mask")
    scale = node.kwargs.get("scale") or 1 / math.sqrt(shape_of(_argument(node, 0))[-1])
    return "attention", {"scale": scale}


def _gelu(node: Node) -> Made:
    return ("gelu" if node.kwargs.get("approximate", "none") == "none" else "gelu_tanh"), {}


def _mean(node: Node) -> Made:
    rank = len(shape_of(_argument(node, 0)))
    axes = sorted(axis % rank for axis in _argument(node, 1))
    if axes != list(range(rank - len(axes), rank)):
        raise CannotExpress(f"{node.name} is over axes that are not the last")
    return "mean", {"axes": len(axes)}


def _divide(node: Node) -> Made:
    if len(tensors_of(node.args)) != 1:
        raise CannotExpress(f"{node.name} divides by a tensor")
    return "scale", {"by": 1 / float(_argument(node, 1))}


def _root_mean_square(node: Node) -> Made:
    return "rms_norm", {"eps": node.args[1]}


def _sum_or_scale(kind: str) -> Callable[[Node], Made]:
    def made(node: Node) -> Made:
        tensors = tensors_of(node.args)
        if len(tensors) == 2 and not node.kwargs.get("alpha"):
            return kind, {"sizes": _repeated(node, [shape_of(tensor) for tensor in tensors])}
        if kind == "add":
            raise CannotExpress(f"{node.name} adds a number")
        return "scale", {"by": float(_argument(node, 1))}

    return made


def _repeated(node: Node, shapes: Sequence[Sequence[int]]) -> list[list[int]]:
    """Two shapes in ggml's axes, of which one is repeated to the other's."""
    second, first = sorted(shapes, key=lambda shape: (math.prod(shape), len(shape)))
    if math.prod(first) != shape_of(node).numel():
        raise CannotExpress(f"{node.name} repeats both of its inputs")
    sizes = aligned(first, second)
    missing = AXES - len(sizes[0])
    if missing < 0:
        raise CannotExpress(f"{node.name} repeats over {len(sizes[0])} axes, ggml has {AXES}")
    whole, part = ([1] * missing + found for found in sizes)
    return [whole if shape is first else part for shape in shapes]


def _plain(kind: str) -> Callable[[Node], Made]:
    return lambda node: (kind, {})


KINDS: dict[Any, Callable[[Node], Made]] = {
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
