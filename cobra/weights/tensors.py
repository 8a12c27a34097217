"""Tensors on disk by name, read one at a time; nothing in a file is run."""

import json
import mmap
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

# safetensors' names of dtypes
DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8,
    "BOOL": torch.bool,
}  # fmt: skip


@dataclass(frozen=True)
class Stored:
    """A tensor that is still on disk.

    Attributes:
        shape: its shape.
        dtype: its dtype.
        read: brings it into memory.
    """

    shape: torch.Size
    dtype: torch.dtype
    read: Callable[[], Tensor]

    @property
    def nbytes(self) -> int:
        """Its size in bytes."""
        return self.shape.numel() * self.dtype.itemsize


def open_tensors(path: Path) -> dict[str, Stored]:
    """The tensors of a .safetensors file, of a file that torch.save wrote, or of an index of such files.

    Names of nested dictionaries are joined by `/`: {"model": {"projector": {"0.weight": ...}}} gives
    `model/projector/0.weight`.

    Raises:
        FileNotFoundError: where a file that an index names is missing.
        ValueError: where a file is incomplete, of another format or holds anything but data.
    """
    if path.name.endswith(".index.json"):
        return {name: tensor for shard in _shards(path) for name, tensor in open_tensors(shard).items()}
    with path.open("rb") as file:
        start = file.read(9)
    # a length of 8 bytes, which may look like anything, and an object
    # torch.load goes by the name, too
    if start[8:] == b"{" or path.suffix == ".safetensors":
        return open_safetensors(path)
    if start[:2] == b"PK" or start[:1] == b"\x80":
        return _open_torch(path)
    return open_safetensors(path)


def open_safetensors(path: Path) -> dict[str, Stored]:
    """The tensors of a .safetensors file.

    Raises:
        ValueError: where it is incomplete or of another format.
    """
    try:
        file = safe_open(path, framework="pt")
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
        offsets = _offsets(path)
        sizes = {name: (torch.Size(s.get_shape()), DTYPES[s.get_dtype()]) for name, s in slices.items()}
        return {
            name: Stored(*size, partial(_read, path, offsets[name], *size)) for name, size in sizes.items()
        }
    except SafetensorError as error:
        if is_pickle(path):
            raise ValueError(
                f"{path} is a pickle, not safetensors: get the weights as safetensors, or name it .pt and "
                "give it to cobra convert"
            ) from error
        raise ValueError(f"{path} {_INCOMPLETE.format(size=path.stat().st_size)} ({error})") from error
    except KeyError as error:
        raise ValueError(f"{path} holds tensors of dtype {error}, not one of {', '.join(DTYPES)}") from error


def _offsets(path: Path) -> dict[str, int]:
    """Where each tensor of a safetensors file starts; the file is whole."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    return {name: 8 + length + at["data_offsets"][0] for name, at in header.items() if name != "__metadata__"}


def _read(path: Path, start: int, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """A tensor in memory of its own, which the system gets back at once when it is not needed any more.

    What a mapping of the file has shown would count until the file is closed, and malloc keeps what is freed.
    """
    size = shape.numel() * dtype.itemsize
    memory = mmap.mmap(-1, max(size, 1))
    with path.open("rb") as file:
        file.seek(start)
        if file.readinto(memoryview(memory)[:size]) != size:
            raise ValueError(f"{path} {_INCOMPLETE.format(size=path.stat().st_size)}")
    # torch takes no buffer of nothing
    flat = torch.frombuffer(memory, dtype=dtype, count=shape.numel()) if size else torch.empty(0, dtype=dtype)
    return flat.view(shape)


def is_pickle(path: Path) -> bool:
    """Whether a file is a pickle, in a zip file as torch.save writes them or bare."""
    with path.open("rb") as opened:
        start = opened.read(2)
    # a zip, or a pickle of protocols 2 to 5
    return start == b"PK" or (start[:1] == b"\x80" and start[1:] in b"\2\3\4\5")


def _open_torch(path: Path) -> dict[str, Stored]:
    tensors = dict(_flat(load_plain(path)))
    foreign = sorted({str(tensor.dtype) for tensor in tensors.values()} - set(map(str, DTYPES.values())))
    if foreign:
        raise ValueError(f"{path} holds tensors of dtype {foreign}, not one of {', '.join(DTYPES)}")
    return in_memory(tensors)


def load_plain(path: Path) -> Any:
    """What torch.save wrote, if it is nothing but data; its tensors stay on disk until they are used.

    Raises:
        ValueError: where the file is incomplete, damaged or holds anything else.
    """
    with path.open("rb") as file:
        # a pickle that is not in a zip file: before torch 1.6, and not by torch.save
        if file.read(1) == b"\x80":
            raise ValueError(
                f"{path} is a bare pickle, which cannot be read without running it: save it again with a "
                "recent torch.save, or as safetensors"
            )
    # its table of contents is at the end
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} {_INCOMPLETE.format(size=path.stat().st_size)}")
    _check_sums(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    # a pickle's bytes are instructions: they fail in as many ways as there are
    except Exception as error:
        lines = str(error).split("\n")
        # torch first advises to run it all the same
        reason = next((line for line in lines if "GLOBAL" in line), lines[0]).partition(". ")[0]
        raise ValueError(
            f"{path} does not hold plain tensors, and nothing else in it is run ({reason}): get the weights "
            f"as safetensors"
        ) from error


def _check_sums(path: Path) -> None:
    """Compare what a zip file holds with its check sums, some 3 GB a second; torch does not."""
    try:
        with zipfile.ZipFile(path) as file:
            # torch.save may be told to leave them out: they are 0 then
            damaged = file.testzip() if any(record.CRC for record in file.infolist()) else None
    # a bit anywhere may have changed: in a name, a length, the way it is packed
    except Exception as error:
        raise ValueError(f"{path} is damaged ({error}): {_ANOTHER}") from error
    if damaged is not None:
        raise ValueError(f"{path} is damaged: {damaged} in it does not have its check sum: {_ANOTHER}")


def _flat(data: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(data, Tensor):
        yield path, data
    elif isinstance(data, dict):
        for key, value in data.items():
            yield from _flat(value, f"{path}/{key}" if path else str(key))


def in_memory(tensors: Mapping[str, Tensor]) -> dict[str, Stored]:
    """Tensors that are in memory as if they were on disk."""
    return {name: Stored(t.shape, t.dtype, partial(_identity, t)) for name, t in tensors.items()}


def _identity(tensor: Tensor) -> Tensor:
    return tensor


def _shards(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{index} is no index of weight files ({error}): download it again") from error
    outside = [name for name in names if Path(str(name)).name != name]
    if outside:
        raise ValueError(f"{index} names files outside its folder: {outside[:5]}")
    indices = [name for name in names if name.endswith(".index.json")]
    if indices:
        raise ValueError(f"{index} names {indices[:5]}, not files of weights: download it again")
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{index.parent} lacks {missing[:5]}, which {index.name} names: download them"
        )
    return [index.parent / name for name in names]


_INCOMPLETE = "is incomplete or no file of weights: it has {size} bytes; download it again"
_ANOTHER = "get the file again, or take an earlier checkpoint"
