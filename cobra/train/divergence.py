"""Checks that stop a run whose numbers are finite no longer, before they reach its last good checkpoint."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor
from torch.distributed.tensor import DTensor

from cobra.kernels.on_its_way import OnItsWay
from cobra.weights.is_finite import is_finite

_REMEDY = (
    "lower the stage's lr (and give --change_plan) or trainer.gradient_clip_val, or train in a wider "
    "precision, and resume from it"
)


# ids that a message names: a batch of most runs
_SHOWN = 32
# steps that a GPU may be behind when its losses are read
_BEHIND = 8


class LossCheck:
    """Refuses a loss that is NaN or infinite; on a GPU when it has come, so that no step waits for it.

    Args:
        checkpoint: names the one that is kept, for the message.
    """

    def __init__(self, checkpoint: Callable[[], str | None]) -> None:
        self.checkpoint = checkpoint
        self.coming: deque[tuple[OnItsWay, str, int, Sequence[str]]] = deque()

    def add(self, loss: Tensor, stage: str, step: int, names: Sequence[str] = ()) -> None:
        """Take one loss, with the ids of the records that it is of, and read those that have come.

        Raises:
            ValueError: naming the optimizer step, the records and the checkpoint that is kept.
        """
        self.coming.append((OnItsWay(loss.detach()), stage, step, names))
        while self.coming:
            first, stage, step, names = self.coming[0]
            if len(self.coming) <= _BEHIND and not first.are_there():
                return
            (value,) = first.arrived()
            self.coming.popleft()
            if not value.isfinite():
                kept = _kept(self.checkpoint())
                raise ValueError(
                    f"the loss is {value.item()} {_where(stage, step)}{_of(names)}: {kept}; {_REMEDY}"
                )


def check_state(
    state: Mapping[str, Tensor],
    stage: str,
    step: int,
    checkpoint: str | None,
    on_any_device: Callable[[bool], bool] = bool,
) -> None:
    """Refuse weights that are NaN or infinite, here or on another device; the rest as for `LossCheck`."""
    bad = sorted(name for name, tensor in state.items() if not is_finite(_share(tensor)))
    if on_any_device(bool(bad)):
        which = f"{len(bad)} weights, e.g. {bad[0]}," if bad else "weights on another device"
        raise ValueError(f"{which} are not finite {_where(stage, step)}: {_kept(checkpoint)}; {_REMEDY}")


def _share(tensor: Tensor) -> Tensor:
    """What this device has of a weight."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _where(stage: str, step: int) -> str:
    return f"at step {step}, in stage {stage!r}"


def _of(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f", of records {', '.join(map(repr, names[:_SHOWN]))}{more}" if names else ""


def _kept(checkpoint: str | None) -> str:
    return f"{checkpoint} is kept as it was" if checkpoint else "no checkpoint had been written before"
