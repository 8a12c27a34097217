"""The recipe of a run, as its checkpoints say it: a run that goes on from one must have the same."""

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from torch import nn

from cobra.train.stages import Plan

# changes that a message names
_SHOWN = 5


def describe(
    plan: Plan, objectives: list[nn.Module], data: dict[str, Any], accumulate: int, devices: int
) -> Any:
    """All that decides which examples make which step, and at what rate, as plain data.

    Args:
        plan: the stages and their lengths.
        objectives: those of the stages.
        data: what is known of the data.
        accumulate: batches an optimizer step.
        devices: on which as many batches are taken at a time.
    """
    stages = []
    for stage, steps, objective in zip(plan.stages, plan.steps, objectives, strict=True):
        values = {field.name: getattr(stage, field.name) for field in fields(stage)}
        # validation changes no weight, and epochs have become steps
        for name in ("validate", "epochs"):
            del values[name]
        # what checkpoints of before it could be chosen had
        if stage.batching == "random":
            del values["batching"]
        kind = type(objective)
        stages.append({**values, "steps": steps, "objective": f"{kind.__module__}.{kind.__qualname__}"})
    return {"stages": stages, "accumulate_grad_batches": accumulate, "devices": devices, "data": data}


def check_recipe(then: Any, now: Any, checkpoint: str) -> None:
    """Refuse to go on with another recipe than a checkpoint's.

    Raises:
        ValueError: naming what differs, with both values.
    """
    if then is None:
        raise ValueError(
            f"{checkpoint} does not say how its run was planned (an earlier version wrote it): --change_plan "
            "goes on with this plan"
        )
    old, new = dict(_leaves(then)), dict(_leaves(now))
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    if names:
        changes = [f"{name} was {old.get(name)} and is {new.get(name)}" for name in names[:_SHOWN]]
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        raise ValueError(
            f"{checkpoint} is of a run with another plan: {'; '.join(changes)}{more}. Go on with what it "
            "had, or give --change_plan to go on with what it is, from the same step"
        )


def _leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values in nested dicts and lists, by their dotted names."""
    if not isinstance(tree, dict | list):
        yield prefix.removesuffix("."), tree
        return
    for name, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        yield from _leaves(value, f"{prefix}{name}.")


def check_groups(states: list[dict[str, Any]], groups: list[dict[str, Any]], checkpoint: str) -> None:
    """Refuse to go on with the state of an optimizer of other weights, which torch could not give to these.

    Args:
        states: those of a checkpoint's optimizers.
        groups: of the parameters that the stages train.
        checkpoint: its name.

    Raises:
        ValueError: naming the parts that were trained, and those that are to be.
    """
    then = [_group(group) for state in states for group in state["param_groups"]]
    now = [_group(group) for group in groups]
    if then != now:
        old, new = (
            ", ".join(dict.fromkeys(part or "objectives" for part, *_ in kind)) for kind in (then, now)
        )
        raise ValueError(
            f"{checkpoint} has the optimizer's state of other weights (of {old}) than the stages train and "
            f"`muon` steps (of {new}): train the same parts, or start anew from its weights with "
            "`model.weights`"
        )


def _group(group: dict[str, Any]) -> tuple[str, bool, int]:
    """The part, whether Muon steps it, and the number of weights in it."""
    return group.get("part", "another version"), bool(group.get("muon")), len(group["params"])


def go_on(checkpoint: dict[str, Any], total: int, accumulate: int, name: str) -> None:
    """Let Lightning's loops go on behind the last step of a checkpoint, however it left their one epoch.

    Lightning counts an epoch that was stopped as one that is over. Batches of a step that was not finished
    are taken again: their gradients are lost.

    Args:
        checkpoint: it is changed.
        total: steps of the plan.
        accumulate: batches an optimizer step.
        name: of the checkpoint.

    Raises:
        ValueError: where it says nothing of the loops, or is of a step behind the end of the plan.
    """
    if "loops" not in checkpoint:
        raise ValueError(f"{name} holds weights without the state of a training run: name a whole checkpoint")
    steps, fit = checkpoint["global_step"], checkpoint["loops"]["fit_loop"]
    if steps > total:
        raise ValueError(
            f"{name} is of step {steps}, and the stages have {total} steps: give them more, or start anew"
        )
    batches = steps * accumulate
    # what Lightning saves at the end of a batch, where it does not know yet that this is completed
    epoch = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
    batch = {"ready": batches, "started": batches, "processed": batches, "completed": batches - 1}
    fit["epoch_progress"] = {"total": epoch, "current": {**epoch}}
    fit["epoch_loop.batch_progress"] = {"total": batch, "current": {**batch}, "is_last_batch": False}
    # where validation was stopped within, it is not gone on with
    none = {"ready": 0, "started": 0, "processed": 0, "completed": 0}
    validation = {"total": none, "current": {**none}, "is_last_batch": False}
    fit["epoch_loop.val_loop.batch_progress"] = validation
    fit["epoch_loop.state_dict"]["_batches_that_stepped"] = steps - 1
    fit["state_dict"]["combined_loader"] = [{"batches": batches}]
