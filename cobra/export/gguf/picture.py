"""A picture's program run by ggml: pixels go in, image tokens come out, without PyTorch."""

import ctypes
import json
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from cobra.export.engine import Floats
from cobra.export.gguf.ggml import ContextOptions, FileOptions, ggml

# metadata of a file of weights that holds the program as JSON
PROGRAM = "cobra.program"
_FLOAT32 = 0
# tensors in ggml's graph for one of an operation's, at most
_TENSORS = 16


class PictureProgram:
    """A program and its weights, read from a GGUF file.

    Args:
        path: of the file.
        threads: of a product.
    """

    def __init__(self, path: Path, threads: int = 1) -> None:
        self._ggml, weights = ggml(), ctypes.c_void_p()
        options = FileOptions(False, ctypes.pointer(weights))
        self._file = self._ggml.gguf_init_from_file(str(path).encode(), options)
        key = self._ggml.gguf_find_key(self._file, PROGRAM.encode()) if self._file else -1
        if key < 0:
            raise OSError(f"{path} is no picture's program: export the model again")
        self.program = json.loads(self._ggml.gguf_get_val_str(self._file, key))
        self._weights = weights
        self._backend = self._ggml.backend_cpu_init()
        self._ggml.backend_cpu_set_n_threads(self._backend, threads)

    def __call__(self, *planes: Floats) -> Floats:
        """Pixels (1, 3, H, W), as many as the program has, to image tokens (M, D)."""
        expected = list(self.program["pixels"].values())
        if [list(plane.shape) for plane in planes] != expected:
            raise ValueError(f"pixels are of {[p.shape for p in planes]}, the program takes {expected}")
        lib, operations = self._ggml, self.program["operations"]
        size = len(operations) * _TENSORS
        room = size * lib.tensor_overhead() + lib.graph_overhead_custom(size, False)
        context = lib.init(ContextOptions(room, None, True))
        memory = lib.gallocr_new(lib.backend_get_default_buffer_type(self._backend))
        try:
            graph = Graph(lib, context, self._weights, self.program)
            made = lib.new_graph_custom(context, size, False)
            lib.set_output(graph.tokens)
            lib.build_forward_expand(made, graph.tokens)
            if not lib.gallocr_alloc_graph(memory, made):
                raise MemoryError("there is no memory for the picture's program")
            for name, plane in zip(self.program["pixels"], planes, strict=True):
                values = np.ascontiguousarray(plane, np.float32)
                lib.backend_tensor_set(graph.pixels[name], values.ctypes.data, 0, values.nbytes)
            if failed := lib.backend_graph_compute(self._backend, made):
                raise RuntimeError(f"ggml could not run the picture's program (status {failed})")
            tokens = np.empty(graph.shape, np.float32)
            lib.backend_tensor_get(graph.tokens, tokens.ctypes.data, 0, tokens.nbytes)
            return tokens
        finally:
            lib.gallocr_free(memory)
            lib.free(context)

    def close(self) -> None:
        """Let go of the weights."""
        self._ggml.gguf_free(self._file)
        self._ggml.free(self._weights)
        self._ggml.backend_free(self._backend)


class Graph:
    """ggml's tensors of a program's operations, each laid out row by row as torch has it.

    ggml counts axes from the last and has four; every operation first views its arguments as it needs them.

    Attributes:
        pixels: tensors to be filled, by name.
        tokens: what the last operation makes.
        shape: of that.
    """

    def __init__(self, lib: Any, context: Any, weights: Any, program: Mapping[str, Any]) -> None:
        self._lib, self._context = lib, context
        self._made: dict[str, Any] = {}
        self._shapes: dict[str, list[int]] = {}
        self.pixels: dict[str, Any] = {}
        for name, shape in program["pixels"].items():
            self.pixels[name] = self._made[name] = self._op("new_tensor_1d", _FLOAT32, prod(shape))
            lib.set_input(self._made[name])
            self._shapes[name] = shape
        for name, (place, shape) in program["weights"].items():
            self._made[name] = lib.get_tensor(weights, place.encode())
            self._shapes[name] = shape
        for operation in program["operations"]:
            made = getattr(self, operation["kind"])(operation)
            self._made[operation["name"]], self._shapes[operation["name"]] = made, operation["shape"]
        self.tokens, self.shape = made, operation["shape"]

    def linear(self, operation: Any) -> Any:
        x, weight, *bias = operation["inputs"]
        made = self._op("mul_mat", self._made[weight], self._rows(x))
        return self._op("add", made, self._made[bias[0]]) if bias else made

    def conv(self, operation: Any) -> Any:
        x, weight, *bias = operation["inputs"]
        (down, right), (above, left) = operation["settings"]["stride"], operation["settings"]["padding"]
        moves = (right, down, left, above, 1, 1)
        if operation["settings"]["depthwise"]:
            made = self._op("conv_2d_dw_direct", self._view(weight), self._view(x), *moves)
        else:
            # not ggml_conv_2d, which rounds what it gathers to fp16
            gathered = self._op("im2col", self._view(weight), self._view(x), *moves, True, _FLOAT32)
            channels, *kernel = self._shapes[weight]
            *_, height, width = operation["shape"]
            rows = self._reshaped(gathered, [height * width, prod(kernel)])
            made = self._op("mul_mat", rows, self._view(weight, [channels, prod(kernel)]))
            made = self._reshaped(made, operation["shape"])
        return self._op("add", made, self._channels(bias[0])) if bias else made

    def group_norm(self, operation: Any) -> Any:
        x, scale, bias = operation["inputs"]
        settings = operation["settings"]
        made = self._op("group_norm", self._view(x), settings["groups"], settings["eps"])
        made = self._op("mul", made, self._channels(scale))
        return self._op("add", made, self._channels(bias))

    def layer_norm(self, operation: Any) -> Any:
        x, scale, bias = operation["inputs"]
        made = self._op("norm", self._rows(x), operation["settings"]["eps"])
        return self._op("add", self._op("mul", made, self._made[scale]), self._made[bias])

    def attention(self, operation: Any) -> Any:
        q, k, v = operation["inputs"]
        scores = self._op("mul_mat", self._view(k), self._view(q))
        shares = self._op("soft_max_ext", scores, None, operation["settings"]["scale"], 0.0)
        turned = self._op("cont", self._op("permute", self._view(v), 1, 0, 2, 3))
        return self._op("mul_mat", turned, shares)

    def add(self, operation: Any) -> Any:
        return self._both("add", operation)

    def mul(self, operation: Any) -> Any:
        return self._both("mul", operation)

    def scale(self, operation: Any) -> Any:
        return self._op("scale", self._made[operation["inputs"][0]], operation["settings"]["by"])

    def relu(self, operation: Any) -> Any:
        return self._each("relu", operation)

    def gelu(self, operation: Any) -> Any:
        return self._each("gelu_erf", operation)

    def gelu_tanh(self, operation: Any) -> Any:
        return self._each("gelu", operation)

    def silu(self, operation: Any) -> Any:
        return self._each("silu", operation)

    def sigmoid(self, operation: Any) -> Any:
        return self._each("sigmoid", operation)

    def hardswish(self, operation: Any) -> Any:
        return self._each("hardswish", operation)

    def hardsigmoid(self, operation: Any) -> Any:
        return self._each("hardsigmoid", operation)

    def reshape(self, operation: Any) -> Any:
        return self._made[operation["inputs"][0]]

    def permute(self, operation: Any) -> Any:
        (x,) = operation["inputs"]
        sizes, places = merged(self._shapes[x], operation["settings"]["order"])
        if len(sizes) > 4:
            raise ValueError(f"{operation['name']} permutes {len(sizes)} axes, ggml has 4")
        while len(sizes) < 4:
            sizes, places = [1, *sizes], [0, *(place + 1 for place in places)]
        # where each axis goes, counted from the last
        goes = [3 - places.index(3 - axis) for axis in range(4)]
        return self._op("cont", self._op("permute", self._view(x, sizes), *goes))

    def slice(self, operation: Any) -> Any:
        (x,), settings = operation["inputs"], operation["settings"]
        outer, size, inner = self._around(x, settings["axis"])
        start, length, bytes_ = settings["start"], settings["length"], 4 * inner
        made = self._op("view_3d", self._made[x], inner, length, outer, bytes_, bytes_ * size, bytes_ * start)
        return self._op("cont", made)

    def concat(self, operation: Any) -> Any:
        axis = operation["settings"]["axis"]
        first, *others = (self._view(x, self._around(x, axis)) for x in operation["inputs"])
        for other in others:
            first = self._op("concat", first, other, 1)
        return first

    def mean(self, operation: Any) -> Any:
        (x,), axes = operation["inputs"], operation["settings"]["axes"]
        shape = self._shapes[x]
        return self._op("mean", self._view(x, [prod(shape[:-axes]), prod(shape[-axes:])]))

    def _op(self, name: str, *arguments: Any) -> Any:
        return getattr(self._lib, name)(self._context, *arguments)

    def _each(self, name: str, operation: Any) -> Any:
        return self._op(name, self._made[operation["inputs"][0]])

    def _both(self, name: str, operation: Any) -> Any:
        first, second = operation["inputs"]
        if prod(self._shapes[first]) < prod(self._shapes[second]):
            first, second = second, first
        sizes = aligned(self._shapes[first], self._shapes[second])
        return self._op(
            name, *(self._view(x, shape) for x, shape in zip((first, second), sizes, strict=True))
        )

    def _view(self, name: str, shape: Sequence[int] | None = None) -> Any:
        """A tensor with at most four axes, as torch counts them; those of size 1 before all do not count."""
        sizes = list(self._shapes[name] if shape is None else shape)
        while len(sizes) > 4 and sizes[0] == 1:
            sizes = sizes[1:]
        return self._reshaped(self._made[name], sizes)

    def _reshaped(self, tensor: Any, shape: Sequence[int]) -> Any:
        return self._op("reshape_4d", tensor, *reversed([1] * (4 - len(shape)) + list(shape)))

    def _rows(self, name: str) -> Any:
        shape = self._shapes[name]
        return self._view(name, [prod(shape[:-1]), shape[-1]])

    def _channels(self, name: str) -> Any:
        """A value a channel (C,), for maps (1, C, H, W)."""
        return self._view(name, [*self._shapes[name], 1, 1])

    def _around(self, name: str, axis: int) -> list[int]:
        """Sizes before an axis, of it and behind it."""
        shape = self._shapes[name]
        return [prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :])]


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
    sizes = [prod(shape[axis] for axis in group) for group in by_place]
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
