"""docs/models.md, from the measured systems and the notes on them."""

from collections.abc import Mapping

from cobra.bench.systems.measure import System
from cobra.bench.systems.notes import Note
from cobra.bench.systems.table import COLUMNS, rows

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


def document(systems: list[System], notes: Mapping[str, Note]) -> str:
    """The whole page."""
    parts = [_HEAD]
    for title, columns in COLUMNS.items():
        head = [f"| {' | '.join(columns)} |", f"|---|{'---:|' * (len(columns) - 1)}"]
        body = [f"| {' | '.join(row)} |" for row in rows(systems, notes, title)]
        parts += [f"\n## {title[0].upper()}{title[1:]}\n\n" + "\n".join(head + body) + "\n"]
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
