"""A check of the file that a training run is to go on from."""

from pathlib import Path

from cobra.weights.tensors import open_tensors


def check_checkpoint(path: Path) -> None:
    """Look at a checkpoint before anything is built for it; no weight is read.

    Raises:
        ValueError: where it is damaged, holds anything but data or was not written by a training run.
    """
    # sharded strategies write a folder
    if (path / "meta.pt").is_file():
        return
    if not path.is_file():
        raise ValueError(f"{path} is no checkpoint: name its file, e.g. checkpoints/last.ckpt of a run")
    if not any(name.startswith("state_dict/") for name in open_tensors(path)):
        raise ValueError(
            f"{path} is no checkpoint of a training run: name its checkpoints/last.ckpt; weights alone go to "
            "`model.weights`"
        )
