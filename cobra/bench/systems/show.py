"""`cobra models`: the systems as tables in the terminal, or as the page docs/models.md."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from cobra.bench.systems.configs import chosen, read_systems
from cobra.bench.systems.measure import System, measure
from cobra.bench.systems.notes import Note, read_notes
from cobra.bench.tables import table

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
_COLUMNS: dict[str, dict[str, Cell]] = {"parts": _PARTS, "costs of one sequence": _COSTS}
_HEAD = """\
# Systems

<!-- Made by `cobra models --markdown > docs/models.md` from configs/ and docs/models.yaml: edit those. -->

Every yaml in `configs/` is a system; `name/variant` is `configs/variants/name/variant.yaml` laid over it:
`cobra fit -c configs/name.yaml -c configs/variants/name/variant.yaml`. `cobra models` prints the tables.
[Add a part](../README.md#add-a-part) shows how a projector is added in one file.

The numbers are measured on the models that the yamls build, on the meta device:

- *Parameters* counts towers whole, as they are published, and a tied head once. *In use* leaves out what the
  features do not depend on (a tower's last block, final norm and pooling head): neither built nor loaded.
- *Published* is the count that the release implies; its source is below. Where a release leaves out what the
  features do not depend on, as those with SigLIP in LLaVA's family do, it is that of *in use*.
- An operation (FLOP) is an addition or a multiplication. Matrix products and convolutions of encoder and
  projector are counted as they run; in a state-space language model linears have 2 a weight, and scans, of D
  inner channels and N states, 9 D N + 2 D a token for Mamba and 2 Q (N + D) + 4 D N for Mamba-2 in chunks of
  Q, in decoding 6 D N and 5 D N. A transformer's are counted at a context of 1024. *Prefill* is without the
  head, which runs once a prompt.
- *Decode reads* is what a step must move for one sequence: the language model's weights in bf16, and its
  state. A state-space model's is read and written: recurrent states in fp32, the last d_conv - 1 inputs of
  each convolution in bf16. With all of it in bf16 and d_conv inputs, as published code has it, Cobra's is
  5.563 GB and ML-Mamba's 5.578 GB. A transformer's is read: keys and values of 1024 tokens in bf16.
"""
# what a row takes unfolded but for its encoder
_WIDTH = 200


def print_systems(configs: Path, notes: Path, markdown: bool, names: Sequence[str] = ()) -> None:
    """Measure every system in a folder of yamls and print it.

    Args:
        configs: the folder.
        notes: what is known of the systems beside their configuration.
        markdown: print the page instead of the tables.
        names: those that are shown; none are all.
    """
    trees = read_systems(configs)
    systems = [measure(name, trees[name]) for name in chosen(trees, names) or trees]
    known = read_notes(notes)
    if markdown:
        print(document(systems, known), end="")
        return
    console = Console()
    if not console.is_terminal:  # a file or a pager, whose lines may be long
        console.width = max(console.width, _WIDTH)
    for title, columns in _COLUMNS.items():
        grid = Table(title=title, title_justify="left")
        for number, column in enumerate(columns):
            grid.add_column(column, justify="left" if number == 0 else "right", overflow="fold")
        for row in _rows(systems, known, title):
            grid.add_row(*row)
        console.print(grid)


def document(systems: list[System], notes: Mapping[str, Note]) -> str:
    """The whole page."""
    parts = [_HEAD]
    for title, columns in _COLUMNS.items():
        cells = table(list(columns), _rows(systems, notes, title))
        parts += [f"\n## {title[0].upper()}{title[1:]}\n\n{cells}\n"]
    parts += ["\n## Sources, checks, gaps\n"]
    parts += [_section(system, notes.get(system.name, Note())) for system in systems]
    return "".join(parts)


def _section(system: System, note: Note) -> str:
    name, _, variant = system.name.partition("/")
    yaml = f"configs/variants/{name}/{variant}.yaml" if variant else f"configs/{name}.yaml"
    lines = [f"\n### {system.name}: {note.title}\n", f"- Config: `{yaml}`", f"- Source: {note.source}"]
    if note.parameters:
        lines += [f"- Published parameters: {note.parameters:,} ({note.parameters_from})"]
    lines += [f"- Verified: {item}" for item in note.verified]
    lines += [f"- Conflict: {item}" for item in note.conflicts]
    lines += [f"- Not found: {item}" for item in note.not_found]
    return "\n".join(lines) + "\n"


def _rows(systems: list[System], notes: Mapping[str, Note], title: str) -> list[list[str]]:
    """The cells of one table, a row for each system."""
    nothing = Note()
    return [
        [cell(system, notes.get(system.name, nothing)) for cell in _COLUMNS[title].values()]
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
