"""A check of the file that a training run is to go on from."""

from pathlib import Path

from cobra.weights.tensors import is_pickle, load_plain

_NAME = "name its checkpoints/last.ckpt"


def check_checkpoint(path: Path, goes_on: bool = False) -> None:
    """Look at a checkpoint before anything is built for it.

    Args:
        path: the checkpoint.
        goes_on: whether training is to go on from it; else its weights are enough.

    Raises:
        ValueError: where it is damaged, holds anything but data or was not written by a training run.
    """
    # sharded strategies write a folder
    if (path / "meta.pt").is_file():
        load_plain(path / "meta.pt")
        return
    if not path.is_file():
        raise ValueError(f"{path} is no checkpoint: name its file, e.g. checkpoints/last.ckpt of a run")
    held = load_plain(path) if is_pickle(path) else None
    if not isinstance(held, dict) or not held.get("state_dict"):
        raise ValueError(
            f"{path} is no checkpoint of a training run: {_NAME}; weights alone go to `model.weights`"
        )
    if goes_on and not {"optimizer_states", "lr_schedulers", "loops"} <= set(held):
        parts = ", ".join(f"{part}: {path}" for part in ("vision", "projector", "lm"))
        raise ValueError(
            f"{path} holds weights alone, without the optimizer's state: {_NAME}, or start anew from the "
            f"weights with `model.weights` {{{parts}}}"
        )
