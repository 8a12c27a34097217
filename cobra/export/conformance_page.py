"""The matrix of laws and engines, on the terminal and as docs/conformance.md."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cobra.export.laws.law import NONE, RED, Finding, Law

_HEAD = """\
# Conformance

Every engine of a model with a state is to keep these laws, whatever its runtime: how a text is cut, batched,
padded or packed changes nothing of what is remembered of it. A cell holds the largest relative RMS between
logits that are one by the law. It is **red** above what is allowed, a multiple of what the engine rounds by
(see Engines; × 0 is bit for bit); n/a is a law about what the engine has not. Below is the shortest text that
shows each red one; `--law` tries one law again. Made by this command, which takes any engines and models, and
whose status is 1 where one of ours is red:

```
{command}
```

"""
# what is red in these is not ours to mend
_THEIRS = ("transformers",)


@dataclass(frozen=True)
class Column:
    """An engine of the matrix.

    Attributes:
        engine: its name.
        model: name of what it computes.
        version: of the runtime.
        rounding: see `Engine`.
        findings: of each law, in order.
    """

    engine: str
    model: str
    version: str
    rounding: float
    findings: list[Finding]

    @property
    def title(self) -> str:
        """Engine and model; of an export its folder, where that begins with the engine's name."""
        return self.model if self.model.startswith(self.engine) else f"{self.engine} {self.model}"

    @property
    def about(self) -> str:
        """What it ran in."""
        return f"version {self.version or 'not stated'}, rounds by {self.rounding:.0e}"

    @property
    def is_conforming(self) -> bool:
        """Whether it breaks no law, or is not ours."""
        return self.engine in _THEIRS or all(found.status != RED for found in self.findings)


def printed(columns: Sequence[Column], laws: Sequence[Law]) -> str:
    """The matrix for a terminal, and below it what is red and what was not asked."""
    rows = [["", *(column.title for column in columns)]]
    rows += [
        [law.name, *(_cell(column.findings[index]) for column in columns)] for index, law in enumerate(laws)
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return "\n".join([*lines, *_reds(columns), *_not_asked(columns)])


def page(columns: Sequence[Column], laws: Sequence[Law], command: str) -> str:
    """The matrix in Markdown, with the command that makes it."""
    rows = [["law", "allowed", *(column.title for column in columns)], ["---"] * (len(columns) + 2)]
    for index, law in enumerate(laws):
        cells = [_cell(column.findings[index]) for column in columns]
        marked = [f"**{cell}**" if cell.startswith(RED) else cell for cell in cells]
        rows.append([f"`{law.name}`: {law.title}", f"× {law.slack:g}", *marked])
    parts = [_HEAD.format(command=command), *(f"| {' | '.join(row)} |\n" for row in rows)]
    for title, lines in (("Red", _reds(columns)), ("Not applicable", _not_asked(columns))):
        if found := [f"- {line}\n" for line in lines]:
            parts += [f"\n## {title}\n\n", *found]
    parts += ["\n## Engines\n\n"]
    parts += [f"- {column.title}: {column.about}\n" for column in columns]
    return "".join(parts)


def _cell(finding: Finding) -> str:
    if finding.status == NONE or finding.error is None:
        return NONE
    error = "error" if finding.reason else f"{finding.error:.2g}"
    return f"{RED} {error}" if finding.status == RED else error


def _reds(columns: Sequence[Column]) -> Iterator[str]:
    """The smallest reproduction of each."""
    for column in columns:
        for found in column.findings:
            if found.status == RED:
                shown = found.reproduction
                error = found.reason or f"off by {shown['error']:.2g}, where {found.tolerance:.2g} is allowed"
                yield (
                    f"{column.title}, {found.law}: ids {_short(shown['ids'])}, position {shown['position']}, "
                    f"{shown['what']}: {error}"
                )


def _short(ids: list[int]) -> str:
    return str(ids) if len(ids) < 32 else f"{ids[:4]} and {len(ids) - 4} more"


def _not_asked(columns: Sequence[Column]) -> Iterator[str]:
    for column in columns:
        reasons: dict[str, list[str]] = {}
        for found in column.findings:
            if found.status == NONE:
                reasons.setdefault(found.reason, []).append(found.law)
        for reason, laws in reasons.items():
            yield f"{column.title}, {', '.join(laws)}: {reason}"
