"""File of the predictions of one ask, which several processes write and a killed run goes on with."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from cobra.eval.predictions import Prediction, read_predictions, write_predictions

_PART = ".part-"


class PredictionFile:
    """Predictions of a benchmark's ask in a folder; further processes write parts of it beside.

    Attributes:
        path: of the file, which the first process writes.
    """

    def __init__(self, folder: Path, benchmark: str, ask: str) -> None:
        self.path = folder / f"{benchmark}-{ask}.jsonl"

    def append(self, predictions: Sequence[Prediction], rank: int = 0) -> None:
        """Write a batch of this process, whole and on the disk, so that a kill costs no other."""
        lines = "".join(json.dumps(asdict(p), ensure_ascii=False) + "\n" for p in predictions)
        path = self.path if rank == 0 else self.path.with_name(f"{self.path.name}{_PART}{rank}")
        with path.open("ab") as file:
            file.write(lines.encode())
            file.flush()
            os.fsync(file.fileno())

    def read(self, model: str) -> dict[str, Prediction]:
        """What is answered, by the ids of the questions.

        Args:
            model: fingerprint of the one that goes on.

        Raises:
            ValueError: where another model answered, or a question is answered twice.
        """
        found: dict[str, Prediction] = {}
        for prediction in read_predictions(self.path) if self.path.is_file() else ():
            if prediction.model != model:
                raise ValueError(
                    f"{self.path} holds answers of another checkpoint, dtype or quantization (fingerprint "
                    f"{prediction.model or 'none'}, this one's is {model}): name another --out"
                )
            if prediction.question_id in found:
                raise ValueError(
                    f"{self.path} answers question {prediction.question_id!r} twice: remove one of the lines"
                )
            found[prediction.question_id] = prediction
        return found

    def mend(self, model: str) -> None:
        """Cut off the line that a kill left unfinished, and take in the parts of other processes.

        Raises:
            ValueError: as `read`.
        """
        parts = sorted(self.path.parent.glob(f"{self.path.name}{_PART}*"))
        for path in (self.path, *parts):
            _cut(path)
        found = self.read(model)
        if not parts:
            return
        for part in parts:
            # a kill may have come when a part was taken in and not yet removed
            found |= {prediction.question_id: prediction for prediction in read_predictions(part)}
        self.write(list(found.values()))
        for part in parts:
            part.unlink()

    def write(self, predictions: Sequence[Prediction]) -> None:
        """Replace the file as a whole."""
        write_predictions(self.path, predictions)


def _cut(path: Path) -> None:
    """Cut off what stands behind the last line break of a file."""
    if not path.is_file():
        return
    with path.open("rb+") as file:
        end = file.seek(0, os.SEEK_END)
        whole = end
        # a line of a prediction is short; a long answer has more than one piece
        while whole:
            start = max(0, whole - (1 << 16))
            file.seek(start)
            place = file.read(whole - start).rfind(b"\n")
            whole = start + place + 1 if place >= 0 else start
            if place >= 0:
                break
        if whole < end:
            file.truncate(whole)
