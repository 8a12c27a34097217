"""The folder of a run: who may write there, what it holds, and the checkpoint that a launch starts from."""

from pathlib import Path
from tempfile import TemporaryFile
from typing import TextIO

from cobra.config.config_json import CONFIG
from cobra.train.resume import check_checkpoint
from cobra.weights.saving import claim, is_there, restore


class RunFolder:
    """Where a run writes.

    Attributes:
        root: the folder.
        last: its newest checkpoint.
        best: the one with the best of a metric, where the run was asked for it.
        model: the model that a finished run leaves.
        lock: held from `claim` on, for as long as the process lives.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.last = root / "checkpoints" / "last.ckpt"
        self.best = root / "checkpoints" / "best.ckpt"
        self.model = root / "model"
        self.lock: TextIO | None = None

    def chosen(self, checkpoint: str | None) -> str | None:
        """What `auto` stands for: the last checkpoint, if a run has left one; others stand for themselves."""
        if checkpoint != "auto":
            return checkpoint
        # another process may be about to mend it
        return "last" if is_there(self.last) else None

    def named(self, checkpoint: str) -> Path:
        """The checkpoint that a command line names, `last`, `best` or a path."""
        return {"last": self.last, "best": self.best}.get(checkpoint) or Path(checkpoint).expanduser()

    def check_start(self, checkpoint: str, fits: bool) -> None:
        """Refuse a checkpoint that is not there or is none.

        Args:
            checkpoint: `last`, `best` or a path.
            fits: whether training goes on from it.
        """
        path = self.named(checkpoint)
        if not path.exists():
            remedy = "leave --ckpt_path out to start afresh" if fits else "train first"
            if checkpoint == "best":
                remedy = "checkpoint.best names the metric of a run that is to have one; try last"
            raise FileNotFoundError(f"--ckpt_path {checkpoint}: there is no {path}; {remedy}")
        if not fits and is_model(path):
            return
        check_checkpoint(path, goes_on=fits)

    def refuse_results(self, checkpoint: str | None) -> None:
        """Refuse to replace what the folder holds of a run that this one does not go on with."""
        held = [path for path in (self.last, self.model / "config.json") if path.exists()]
        goes_on = checkpoint and self.named(checkpoint).resolve().parent == self.last.resolve().parent
        if held and not goes_on:
            names = ", ".join(str(path.relative_to(self.root)) for path in held)
            raise ValueError(
                f"{self.root} holds a run ({names}): --ckpt_path last goes on with it, --overwrite starts "
                "anew; or name another trainer.default_root_dir"
            )

    def claim(self) -> None:
        """Keep other runs out, where the folder is there, and mend what one left that was killed."""
        if self.lock is not None or not self.root.is_dir():
            return
        try:
            self.lock = claim(self.root / ".lock")
        except OSError as error:
            raise self._unwritable(error) from error
        for checkpoint in (self.last, self.best):
            restore(checkpoint)

    def make(self) -> None:
        """Make the folder, or say why nothing can be written there."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            TemporaryFile(dir=self.root).close()
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> OSError:
        return OSError(f"{self.root} cannot be written to ({error}): set trainer.default_root_dir")


def is_model(path: Path) -> bool:
    """Whether it is a model folder, which holds weights to answer with, not a run to go on with."""
    return (path / CONFIG).is_file()
