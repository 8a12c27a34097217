"""Papers' numbers beside the results of an evaluation, with what tells the two apart."""

from collections.abc import Sequence
from dataclasses import dataclass

from cobra.eval.protocols.protocol import protocol_names
from cobra.eval.published import Beside, published_beside

COLUMNS = ("benchmark", "system", "printed", "ours", "asked by", "what differs", "split", "source")


@dataclass(frozen=True)
class Asked:
    """A number of ours.

    Attributes:
        benchmark: that was answered.
        protocol: whose papers print this number.
        ours: it; None where nothing was scored.
        part: how many of the questions it is of; empty where of all.
    """

    benchmark: str
    protocol: str
    ours: float | None
    part: str = ""


def beside_rows(asked: Sequence[Asked]) -> list[tuple[str, ...]]:
    """A row of `COLUMNS` for each number that papers print of these benchmarks, in the order of these.

    Of several protocols a number stands beside the one that differs from its own in the fewest things; a
    user's own protocol is left out.
    """
    found = []
    for benchmark in dict.fromkeys(each.benchmark for each in asked):
        ours = [each for each in asked if each.benchmark == benchmark and each.protocol in protocol_names()]
        columns = [published_beside(benchmark, each.protocol) for each in ours]
        for choices in zip(*columns, strict=True):
            nearest = min(zip(choices, ours, strict=True), key=lambda pair: len(pair[0].differences))
            found.append(_row(*nearest))
    return found


def beside_table(rows: Sequence[tuple[str, ...]]) -> str:
    """The rows as Markdown; nothing without any."""
    lines = [" | ".join(COLUMNS), "|".join("---" for _ in COLUMNS), *(" | ".join(row) for row in rows)]
    return "\n".join(["\nPrinted by papers:\n", *(f"| {line} |" for line in lines), ""]) if rows else ""


def _row(beside: Beside, ours: Asked) -> tuple[str, ...]:
    number = beside.number
    differences = [*([f"{ours.part} questions"] if ours.part else []), *beside.differences]
    return (
        number.benchmark,
        number.system,
        f"{number.value}{' †' if number.conflict else ''}",
        "n/a" if ours.ours is None else f"{ours.ours:.2f}",
        ours.protocol,
        "; ".join(differences) or "–",
        ", ".join(filter(None, (number.split, number.how))) or "not stated",
        f"{number.source}; {number.conflict}" if number.conflict else number.source,
    )
