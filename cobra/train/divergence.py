"""Checks that stop a run whose numbers are finite no longer, before they reach its last good checkpoint."""

from collections.abc import Callable, Mapping

from torch import Tensor
from torch.distributed.tensor import DTensor

from cobra.weights.is_finite import is_finite

_REMEDY = (
    "lower the stage's lr (and give --change_plan) or trainer.gradient_clip_val, or train in a wider "
    "precision, and resume from it"
)


def check_loss(loss: Tensor, stage: str, step: int, checkpoint: str | None) -> None:
    """Refuse a loss that is NaN or infinite.

    Raises:
        ValueError: naming the optimizer step and the checkpoint that is kept.
    """
    if not loss.isfinite():
        raise ValueError(f"the loss is {loss.item()} {_where(stage, step)}: {_kept(checkpoint)}; {_REMEDY}")


def check_state(
    state: Mapping[str, Tensor],
    stage: str,
    step: int,
    checkpoint: str | None,
    on_any_device: Callable[[bool], bool] = bool,
) -> None:
    """Refuse weights that are NaN or infinite, here or on another device; the rest as for `check_loss`."""
    bad = sorted(name for name, tensor in state.items() if not is_finite(_share(tensor)))
    if on_any_device(bool(bad)):
        which = f"{len(bad)} weights, e.g. {bad[0]}," if bad else "weights on another device"
        raise ValueError(f"{which} are not finite {_where(stage, step)}: {_kept(checkpoint)}; {_REMEDY}")


def _share(tensor: Tensor) -> Tensor:
    """What this device has of a weight."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _where(stage: str, step: int) -> str:
    return f"at step {step}, in stage {stage!r}"


def _kept(checkpoint: str | None) -> str:
    return f"{checkpoint} is kept as it was" if checkpoint else "no checkpoint had been written before"
