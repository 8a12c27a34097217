"""Notes on the systems beside their configuration: sources, checks, gaps. Written by hand."""

from dataclasses import dataclass, field
from pathlib import Path

import yaml

from cobra.config.text_file import read_text


@dataclass(frozen=True)
class Note:
    """One system.

    Attributes:
        title: what it is called, and what of.
        source: where it is described and published.
        parameters: the published count, 0 where there is none.
        parameters_from: where that count is from.
        verified: what tests hold it to.
        conflicts: numbers or facts that were published twice and differ.
        not_found: what nobody published.
    """

    title: str = ""
    source: str = ""
    parameters: int = 0
    parameters_from: str = ""
    verified: list[str] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)
    not_found: list[str] = field(default_factory=list)


def read_notes(path: Path) -> dict[str, Note]:
    """The notes in a yaml by the system's name; none where there is no such file.

    Raises:
        ValueError: where an entry has other fields than those of a note.
    """
    if not path.is_file():
        return {}
    try:
        entries = yaml.safe_load(read_text(path))
        return {name: Note(**entry) for name, entry in entries.items()}
    except (yaml.YAMLError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} holds no notes on systems: {error}") from error
