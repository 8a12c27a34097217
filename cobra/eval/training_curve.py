"""What a training run has logged, by steps and by processor time."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cobra.eval.learning_curve import Row, read_metrics

# of all types of questions
ACCURACY = "val/macro"


@dataclass
class Trained:
    """One run.

    Attributes:
        name: in the plots.
        folder: what `cobra fit` or `cobra demo` wrote.
        rows: its metrics.
    """

    name: str
    folder: Path
    rows: list[Row]

    @classmethod
    def read(cls, named: str) -> "Trained":
        """The run that `[NAME=]FOLDER` says; it is called after its folder where no name is given."""
        name, _, path = named.rpartition("=")
        folder = Path(path)
        rows = read_metrics(folder / "logs")
        columns = {column for row in rows for column in row}
        measured = [column for column in columns if column == ACCURACY or column.startswith("held_out/")]
        for what, there in (("cpu_seconds", "cpu_seconds" in columns), (ACCURACY, measured)):
            if not there:
                raise ValueError(f"{folder / 'logs'} has no {what}: train it with `cobra fit`, validated")
        return cls(name or folder.name, folder, rows)

    def curve(self, column: str = ACCURACY) -> tuple[list[float], list[float], list[float]]:
        """Steps, processor seconds and a metric of each validation, by default the macro accuracy."""
        timed = [row for row in self.rows if "cpu_seconds" in row]
        scored = [(row["step"], row[column]) for row in self.rows if column in row]
        steps = [step for step, _ in scored]
        # validations are logged without a time: between two that are, it runs evenly
        seconds = np.interp(steps, [row["step"] for row in timed], [row["cpu_seconds"] for row in timed])
        return steps, seconds.tolist(), [value for _, value in scored]
