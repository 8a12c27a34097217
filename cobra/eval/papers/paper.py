"""A paper, a yaml beside this file: its systems, how it asked them, and which published tables are its."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import yaml

from cobra.eval.protocols.protocol import Headline, Protocol, read_protocol

_FOLDER = Path(__file__).parent
# of lm-evaluation-harness: by the likelihood of a choice as it stands
_TASK_METRIC = "acc"


@dataclass(frozen=True)
class System:
    """A system of a paper.

    Attributes:
        config: its name for `cobra models`; empty where there is none.
        weights: hub repository of the released weights; empty where there is none.
        adapter: whether training leaves an adapter, to be merged.
    """

    config: str = ""
    weights: str = ""
    adapter: bool = False


@dataclass(frozen=True)
class Paper:
    """What a paper printed and what makes it here.

    Attributes:
        name: on the command line.
        title: authors, name and version.
        protocol: of `cobra.eval.protocols`, after which it asked; what `paper` means on the command line.
        systems: by their names in published.yaml.
        tables: of published.yaml.
        columns: ask and metric of a column, named `benchmark` or `benchmark, how`, where they are not
            those of its protocol.
        benchmarks: that it can be asked, where it printed no table.
        tasks: of lm-evaluation-harness, where it asked these and no benchmarks; there is no protocol then.
        not_found: what nobody published.
    """

    name: str
    title: str
    protocol: str
    systems: Mapping[str, System]
    tables: tuple[str, ...] = ()
    columns: Mapping[str, Headline] = field(default_factory=dict)
    benchmarks: tuple[str, ...] = ()
    tasks: str = ""
    not_found: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: Path) -> "Paper":
        """From its yaml."""
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
        return cls(
            name=path.stem,
            title=tree["title"],
            protocol=tree.get("protocol", ""),
            systems={name: System(**given) for name, given in tree["systems"].items()},
            tables=tuple(tree.get("tables", ())),
            columns={name: Headline(**given) for name, given in tree.get("columns", {}).items()},
            benchmarks=tuple(tree.get("benchmarks", ())),
            tasks=tree.get("tasks", ""),
            not_found=tuple(tree.get("not_found", ())),
        )

    def headline(self, benchmark: str, how: str = "", protocol: str = "") -> Headline | None:
        """Ask and metric of a column; None where nobody says.

        Args:
            benchmark: of the column.
            how: what was special in it.
            protocol: of its table, where it is another than the paper's.
        """
        if self.tasks:
            return Headline("", _TASK_METRIC)
        if special := self.columns.get(f"{benchmark}, {how}"):
            return special
        if protocol in ("", self.protocol) and benchmark in self.columns:
            return self.columns[benchmark]
        return cached_protocol(protocol or self.protocol).headlines.get(benchmark)


@cache
def cached_protocol(name: str) -> Protocol:
    """The protocol of that name, read once."""
    return read_protocol(name)


def paper_names() -> list[str]:
    """The papers that can be reproduced."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


@cache
def read_papers() -> tuple[Paper, ...]:
    """All of them."""
    return tuple(Paper.read(_FOLDER / f"{name}.yaml") for name in paper_names())


def read_paper(name: str) -> Paper:
    """One by its name.

    Raises:
        ValueError: where there is none.
    """
    found = {paper.name: paper for paper in read_papers()}
    if name not in found:
        raise ValueError(f"there is no paper {name!r}: take one of {', '.join(found)}")
    return found[name]
