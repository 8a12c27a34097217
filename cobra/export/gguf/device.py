"""GPUs that llama.cpp finds: whether they can run a model, and what ran where."""

import ctypes
from collections import Counter, defaultdict
from ctypes import POINTER, Structure, c_bool, c_char_p, c_int, c_int64, c_size_t, c_void_p
from dataclasses import dataclass, field
from functools import cache
from types import SimpleNamespace
from typing import Any

from cobra.export.gguf.ggml import functions
from cobra.export.gguf.llama import bindings
from cobra.export.lacking import LackingError

VULKAN = "Vulkan0"
_NO_VULKAN = (
    f"llama.cpp finds no device {VULKAN}: install a GPU's driver for Vulkan 1.2 (vulkaninfo lists devices); "
    "for one in software, e.g. Mesa's lavapipe, set GGML_VK_VISIBLE_DEVICES=0 besides"
)
# of one tensor as another, which computes nothing
_VIEWS = {"NONE", "RESHAPE", "VIEW", "PERMUTE", "TRANSPOSE"}
_FLOAT32, _INT32 = 0, 26


class _ContextOptions(Structure):
    """`ggml_init_params`."""

    _fields_ = (("mem_size", c_size_t), ("mem_buffer", c_void_p), ("no_alloc", c_bool))


class _Tensor(Structure):
    """`ggml_tensor`, up to where its memory is."""


_Tensor._fields_ = (
    ("type", c_int),
    ("buffer", c_void_p),
    ("ne", c_int64 * 4),
    ("nb", c_size_t * 4),
    ("op", c_int),
    ("op_params", ctypes.c_int32 * 16),
    ("flags", ctypes.c_int32),
    ("src", c_void_p * 10),
    ("view_src", POINTER(_Tensor)),
)
_P, _N = c_void_p, c_int64
_BASE: dict[str, tuple[object, ...]] = {
    "ggml_init": (_P, _ContextOptions),
    "ggml_free": (None, _P),
    "ggml_new_tensor_4d": (_P, _P, c_int, _N, _N, _N, _N),
    "ggml_ssm_scan": (_P, *[_P] * 8, _N),
    "ggml_op_name": (c_char_p, c_int),
    "ggml_backend_buffer_name": (c_char_p, _P),
    "ggml_backend_dev_description": (c_char_p, _P),
    "ggml_backend_dev_supports_op": (c_bool, _P, _P),
}
_REGISTRY: dict[str, tuple[object, ...]] = {"ggml_backend_dev_by_name": (_P, c_char_p)}


@dataclass(frozen=True)
class Device:
    """A device of a backend.

    Attributes:
        pointer: to ggml's own.
        description: of the hardware, or of what stands in for it.
    """

    pointer: int
    description: str


@dataclass
class Placement:
    """Operations of graphs by the buffer that holds what they make, and by kind, as often as they ran.

    Only the backend that a buffer is of computes into it; views, which compute nothing, are left out.
    """

    counts: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    def count(self, tensor: int, ask: bool, data: Any) -> bool:
        """Called by llama.cpp with every tensor of a graph before it is computed; asks for none of them."""
        found = _Tensor.from_address(tensor)
        kind = _ggml().op_name(found.op).decode()
        if ask and kind not in _VIEWS:
            buffer = found.buffer or found.view_src.contents.buffer
            self.counts[_ggml().backend_buffer_name(buffer).decode()][kind] += 1
        return False


def open_vulkan() -> Device:
    """The first GPU.

    Raises:
        LackingError: where llama.cpp was not built for it, or there is no GPU.
        ValueError: where this process runs another llama.cpp.
    """
    bindings("vulkan")
    found = _ggml().backend_dev_by_name(VULKAN.encode())
    if not found:
        raise LackingError(_NO_VULKAN)
    return Device(found, _ggml().backend_dev_description(found).decode())


def check_scan(device: Device, weights: Any) -> None:
    """Refuse a state-space model whose scan a GPU has not: llama.cpp would run it on the CPU, in silence.

    Raises:
        LackingError: naming the sizes.
    """
    architecture = _said(weights, "general.architecture")
    sizes = ("state_size", "inner_size", "time_step_rank", "group_count")
    state, inner, rank, groups = (_said(weights, f"{architecture}.ssm.{size}") for size in sizes)
    if not state:
        return
    # a Mamba-1 is as many heads as channels, each with a decay for every part of its state
    heads, decays = (int(rank), 1) if groups else (int(inner), int(state))
    if not _scans(device, int(state), int(inner) // heads, heads, int(groups or 1), decays):
        raise LackingError(
            f"{device.description} has no scan of a {architecture} with a state of {state} and heads of "
            f"{int(inner) // heads}, only of Mamba-2 with a state of 128 or 256 and heads of a multiple of "
            "16: run it with --device cpu"
        )


def _scans(device: Device, state: int, width: int, heads: int, groups: int, decays: int) -> bool:
    """What the backend says of one step of the scan with tensors of these sizes."""
    lib = _ggml()
    context = lib.init(_ContextOptions(1 << 16, None, True))

    def tensor(*sizes: int, type: int = _FLOAT32) -> Any:
        return lib.new_tensor_4d(context, type, *sizes, *[1] * (4 - len(sizes)))

    try:
        made = lib.ssm_scan(
            context,
            tensor(state, width, heads),
            tensor(width, heads),
            tensor(heads),
            tensor(decays, heads),
            tensor(state, groups),
            tensor(state, groups),
            tensor(1, type=_INT32),
            1,
        )
        return lib.backend_dev_supports_op(device.pointer, made)
    finally:
        lib.free(context)


def _said(weights: Any, key: str) -> str:
    """A value of a model's metadata; empty where there is none."""
    text = ctypes.create_string_buffer(64)
    found = bindings().llama_model_meta_val_str(weights, key.encode(), text, len(text))
    return text.value.decode() if found >= 0 else ""


@cache
def _ggml() -> SimpleNamespace:
    return functions({"libggml-base": _BASE, "libggml": _REGISTRY})
