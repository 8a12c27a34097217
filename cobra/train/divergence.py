"""Stop a run whose numbers are finite no longer, before they reach its last good checkpoint."""

from collections.abc import Mapping

from torch import Tensor

from cobra.weights.is_finite import is_finite

_REMEDY = (
    "lower the stage's lr or trainer.gradient_clip_val, or train in a wider precision, and resume from it"
)


def check_loss(loss: Tensor, stage: str, step: int, checkpoint: str | None) -> None:
    """Refuse a loss that is NaN or infinite.

    Raises:
        ValueError: naming the optimizer step and the checkpoint that is kept.
    """
    if not loss.isfinite():
        raise ValueError(f"the loss is {loss.item()} {_where(stage, step)}: {_kept(checkpoint)}; {_REMEDY}")


def check_state(state: Mapping[str, Tensor], stage: str, step: int, checkpoint: str | None) -> None:
    """Refuse weights that are NaN or infinite; arguments and errors as for `check_loss`."""
    bad = sorted(name for name, tensor in state.items() if not is_finite(tensor))
    if bad:
        raise ValueError(
            f"{len(bad)} weights, e.g. {bad[0]}, are not finite {_where(stage, step)}: {_kept(checkpoint)}; "
            f"{_REMEDY}"
        )


def _where(stage: str, step: int) -> str:
    return f"at step {step}, in stage {stage!r}"


def _kept(checkpoint: str | None) -> str:
    return f"{checkpoint} is kept as it was" if checkpoint else "no checkpoint had been written before"
