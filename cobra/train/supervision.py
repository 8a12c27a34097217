"""A count of the records of a stage that teach nothing, because no token of theirs is an answer's."""

from cobra.data.batch import Batch

# the share of such records that a stage bears, and the records after which a share means something
_BOUND = 0.1
_ENOUGH = 50
# ids that a message names
_SHOWN = 5


class Supervision:
    """Stops a stage in which too many records have nothing to learn.

    Args:
        stage: its name.
        records: how many it will see.
        max_length: of a sequence, which may be what cuts the answers.
    """

    def __init__(self, stage: str, records: int, max_length: int) -> None:
        self.stage, self.records, self.max_length = stage, records, max_length
        self.seen = 0
        self.empty: list[str] = []

    def add(self, batch: Batch) -> None:
        """Count a batch.

        Raises:
            ValueError: naming records, where the share passes the bound, or will whatever follows.
        """
        self.seen += batch.examples
        self.empty += batch.empty
        if len(self.empty) > _BOUND * max(self.seen, min(self.records, _ENOUGH)):
            ids = ", ".join(repr(record) for record in dict.fromkeys(self.empty[:_SHOWN]))
            raise ValueError(
                f"stage {self.stage!r}: {len(self.empty)} of {self.seen} records have no answer to learn "
                f"from, e.g. {ids}: their answers are empty, or data.max_length {self.max_length} cuts them; "
                "raise it or take these records out"
            )
