"""Damaged versions of files: by their bytes, or by their structure."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np


def mutate_bytes(data: bytes, rng: np.random.Generator) -> bytes:
    """The bytes with a few changed, lost, repeated or added, or cut; headers are hit as often as the rest."""
    at = int(rng.integers(0, min(len(data), 200) if rng.random() < 0.5 else len(data)))
    size = int(rng.integers(1, 33))
    noise = rng.integers(0, 256, size, np.uint8).tobytes()
    kind = rng.integers(0, 6)
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data[:at] + data[at + size :]
    if kind == 2:
        return data[:at] + noise + data[at:]
    if kind == 3:
        return data[:at] + noise + data[at + size :]
    if kind == 4:
        return (
            data[:at] + rng.choice([b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff"]) + data[at + 4 :]
        )
    flipped = bytearray(data)
    for place in rng.integers(0, len(data), int(rng.integers(1, 9))):
        flipped[place] ^= 1 << int(rng.integers(0, 8))
    return bytes(flipped)


# what may stand in a JSON file in place of anything else
_VALUES: list[Any] = [
    None, True, 0, -1, 3, 2**40, 10**400, 0.5, float("nan"), float("inf"), "", "x", "os.system", [], [1], {},
    {"class_path": "os.system", "init_args": {"command": "exit 99"}}, "../../x",
]  # fmt: skip


def mutate_json(text: bytes, rng: np.random.Generator) -> bytes:
    """The JSON with one value replaced, removed or added, anywhere in it."""
    tree = json.loads(text)
    places: list[tuple[Any, Any]] = []
    pending = [tree]
    while pending:
        node = pending.pop()
        keys = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else []
        places += [(node, key) for key in keys]
        pending += [node[key] for key in keys]
    node, key = places[rng.integers(0, len(places))]
    kind = rng.integers(0, 4)
    if kind == 0:
        del node[key]
    elif kind == 1 and isinstance(node, dict):
        node[f"{key}x"] = node.pop(key)
    else:
        node[key] = _VALUES[rng.integers(0, len(_VALUES))]
    return json.dumps(tree).encode()


def mutate_header(data: bytes, rng: np.random.Generator) -> bytes:
    """Safetensors whose header says something else about the same bytes."""
    size = int.from_bytes(data[:8], "little")
    header = mutate_json(data[8 : 8 + size], rng)
    return len(header).to_bytes(8, "little") + header + data[8 + size :]


def mutate_member(path: Path, rng: np.random.Generator) -> None:
    """A file of torch.save whose pickle or one of whose tensors is damaged, but not the archive around it."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    damaged = str(rng.choice([name for name, data in members.items() if "/data" in name and data]))
    if damaged.endswith(".pkl") or rng.random() < 0.3:
        damaged = next(name for name in members if name.endswith(".pkl"))
        members[damaged] = mutate_bytes(members[damaged], rng)
    else:
        values = np.frombuffer(members[damaged], np.uint8).copy()
        values[rng.integers(0, len(values))] ^= 1 << rng.integers(0, 8)
        members[damaged] = values.tobytes()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
