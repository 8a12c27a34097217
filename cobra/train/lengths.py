"""Lightning's own settings of a run's length, beside the stages, which are the plan."""

from collections.abc import Mapping
from typing import Any

# how much of an evaluation is done, by its verb
_LIMITS = {"fit": "limit_train_batches", "test": "limit_test_batches", "predict": "limit_predict_batches"}


def check_lengths(trainer: Mapping[str, Any]) -> None:
    """Refuse settings under which a run could not be what its stages say.

    Raises:
        ValueError: naming the setting and what of a stage to use in its place.
    """
    if trainer["max_epochs"] != 1:
        raise ValueError(
            f"trainer.max_epochs {trainer['max_epochs']}: a run goes through its stages once; how long each "
            "is say its `steps` or `epochs`, e.g. --stages.0.steps 300"
        )
    if trainer["overfit_batches"]:
        raise ValueError(
            f"trainer.overfit_batches {trainer['overfit_batches']}: a run goes through its stages once; to "
            "overfit, train on a source of few records for many `steps`"
        )


def trial(trainer: Mapping[str, Any], verb: str) -> str | None:
    """The setting that makes a run a trial, which writes nothing; None where it is none."""
    limit = _LIMITS.get(verb, "limit_val_batches")
    settings = [name for name in ("fast_dev_run", "barebones") if trainer[name]]
    # of batches, 1 is one of them and 1.0 are all
    settings += [limit] if trainer[limit] is not None and repr(trainer[limit]) != "1.0" else []
    return f"trainer.{settings[0]} {trainer[settings[0]]}" if settings else None
