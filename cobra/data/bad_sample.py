"""A record that a run cannot use, and why."""

from dataclasses import dataclass


@dataclass(frozen=True)
class BadSample:
    """A record that is no chat, or whose picture is missing, broken or too large.

    Attributes:
        source: name of its data set.
        id: unique within its source.
        reason: what is wrong, and the remedy.
    """

    source: str
    id: str
    reason: str

    def __str__(self) -> str:
        return f"record {self.id!r} of {self.source}: {self.reason}"
