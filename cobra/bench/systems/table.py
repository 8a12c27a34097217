"""The columns of `cobra models`."""

from collections.abc import Callable, Mapping

from cobra.bench.systems.measure import System
from cobra.bench.systems.notes import Note

Cell = Callable[[System, Note], str]

_PARTS: dict[str, Cell] = {
    "system": lambda s, n: s.name,
    "encoder": lambda s, n: s.encoder,
    "image tokens": lambda s, n: str(s.image_tokens),
    "projector": lambda s, n: s.projector,
    "language model": lambda s, n: s.lm.title,
    "parameters": lambda s, n: f"{s.parameters:,}",
    "in use": lambda s, n: f"{s.in_use:,}",
    "published": lambda s, n: f"{n.parameters:,}" if n.parameters else "–",
}
_COSTS: dict[str, Cell] = {
    "system": lambda s, n: s.name,
    "vision GFLOP": lambda s, n: _giga(s.vision_flops),
    "projector GFLOP": lambda s, n: _giga(s.projector_flops),
    "prefill GFLOP/token": lambda s, n: _giga(s.lm.prefill_flops),
    "decode GFLOP/token": lambda s, n: _giga(s.lm.decode_flops),
    "decode reads": lambda s, n: _bytes(s.lm.decode_bytes),
    "state at 1k": lambda s, n: _bytes(s.lm.state_bytes[0]),
    "8k": lambda s, n: _bytes(s.lm.state_bytes[1]),
    "32k": lambda s, n: _bytes(s.lm.state_bytes[2]),
}
COLUMNS: dict[str, dict[str, Cell]] = {"parts": _PARTS, "costs of one sequence": _COSTS}


def rows(systems: list[System], notes: Mapping[str, Note], title: str) -> list[list[str]]:
    """The cells of one table, a row for each system."""
    nothing = Note()
    return [
        [cell(system, notes.get(system.name, nothing)) for cell in COLUMNS[title].values()]
        for system in systems
    ]


def _giga(operations: int) -> str:
    giga = operations / 1e9
    return f"{giga:.1f}" if giga >= 100 else f"{giga:.3f}"


def _bytes(size: int) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if size >= scale:
            return f"{size / scale:.3f} {unit}" if unit == "GB" else f"{size / scale:.1f} {unit}"
    return f"{size / 1e3:.1f} kB"
