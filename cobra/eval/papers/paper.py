"""A paper, a yaml beside this file: its systems, how it asked them, and which published tables are its."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import yaml

from cobra.eval.protocols.protocol import Headline

_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class System:
    """A system of a paper.

    Attributes:
        config: its name for `cobra models`; empty where there is none.
        weights: hub repository of the released weights; empty where there is none.
    """

    config: str = ""
    weights: str = ""


@dataclass(frozen=True)
class Paper:
    """What a paper printed and what makes it here.

    Attributes:
        name: on the command line.
        title: authors, name and version.
        protocol: of `cobra.eval.protocols`, after which it asked.
        systems: by their names in published.yaml.
        tables: of published.yaml.
        columns: ask and metric of a column, named `benchmark` or `benchmark, how`, where they are not
            those of its protocol.
        benchmarks: that it can be asked, where it printed no table.
        not_found: what nobody published.
    """

    name: str
    title: str
    protocol: str
    systems: Mapping[str, System]
    tables: tuple[str, ...] = ()
    columns: Mapping[str, Headline] = field(default_factory=dict)
    benchmarks: tuple[str, ...] = ()
    not_found: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: Path) -> "Paper":
        """From its yaml."""
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
        return cls(
            name=path.stem,
            title=tree["title"],
            protocol=tree["protocol"],
            systems={name: System(**given) for name, given in tree["systems"].items()},
            tables=tuple(tree.get("tables", ())),
            columns={name: Headline(**given) for name, given in tree.get("columns", {}).items()},
            benchmarks=tuple(tree.get("benchmarks", ())),
            not_found=tuple(tree.get("not_found", ())),
        )


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
