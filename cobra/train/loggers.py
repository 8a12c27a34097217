"""Loggers of a run: Lightning's and Trackio, what they need, and one door for pictures."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cobra.torchvision_shim  # noqa: F401  (before lightning)

import numpy as np  # isort: skip
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from PIL import Image

# packages of which a class needs one, the first of which this project's extra of that name installs
_NEEDS = {
    "TensorBoardLogger": ("tensorboard", "tensorboardX"),
    "WandbLogger": ("wandb",),
    "TrackioLogger": ("trackio",),
}


class TrackioLogger(Logger):
    """Logs to Trackio, on this machine: `trackio show` opens a page of it.

    Args:
        project: groups runs.
        name: of the run; Trackio makes one if left out.
    """

    def __init__(self, project: str = "cobra", name: str | None = None) -> None:
        super().__init__()
        self.project, self.run = project, name
        self.config: dict[str, Any] = {}
        self.begun: Any = None

    @property
    def name(self) -> str:
        """The project."""
        return self.project

    @property
    def version(self) -> str | None:
        """The run."""
        return self.run

    @property
    def experiment(self) -> Any:
        """Trackio's run, which begins when first something is logged."""
        import trackio

        if self.begun is None:
            self.begun = trackio.init(project=self.project, name=self.run, config=self.config)
        return self.begun

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Keep them for when the run begins."""
        self.config.update(vars(params) if hasattr(params, "__dict__") else params)

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Log numbers of a step."""
        self.experiment.log(dict(metrics), step=step)

    @rank_zero_only
    def log_image(self, key: str, images: Sequence[Any], step: int | None = None) -> None:
        """Log files of pictures, under the key and their number."""
        import trackio

        pictures = {f"{key}/{n}" if n else key: trackio.Image(str(image)) for n, image in enumerate(images)}
        self.experiment.log(pictures, step=step)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """End the run."""
        if self.begun is not None:
            self.begun.finish()
            self.begun = None


def place_loggers(configured: Any, root: Path) -> None:
    """Have loggers whose `save_dir` is `.` write into a run's folder; refuse those that cannot be built.

    Args:
        configured: `trainer.logger` before anything is built; it is changed.
        root: of the run.

    Raises:
        ValueError: where a package is missing, saying how to install it.
    """
    for logger in configured if isinstance(configured, list | tuple) else [configured]:
        if not hasattr(logger, "class_path"):
            continue
        needs = _NEEDS.get(logger.class_path.rpartition(".")[2], ())
        if needs and not any(find_spec(package) for package in needs):
            raise ValueError(
                f"trainer.logger {logger.class_path} needs the package {needs[0]}: pip install "
                f"'cobra-vlm[{needs[0]}]'"
            )
        if str(getattr(logger.init_args, "save_dir", None)) == ".":
            logger.init_args.save_dir = str(root)


def with_csv(loggers: Any, root: Path) -> Any:
    """The loggers of a yaml, behind the CSV that curves are drawn from; none where the yaml wants none."""
    if loggers is False:
        return False
    chosen = [] if loggers in (None, True) else loggers if isinstance(loggers, list | tuple) else [loggers]
    # a new folder every launch: a CSV that is opened again loses its first part
    own = any(isinstance(logger, CSVLogger) for logger in chosen)
    return [*([] if own else [CSVLogger(root, name="logs")]), *chosen]


def log_picture(loggers: Sequence[Logger], key: str, path: Path, step: int) -> None:
    """Hand a file of a picture to those loggers that take pictures."""
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            pixels = np.asarray(Image.open(path).convert("RGB"))
            logger.experiment.add_image(key, pixels, step, dataformats="HWC")
        elif hasattr(logger, "log_image"):
            logger.log_image(key, [str(path)], step=step)
