"""The stages of a training run: what is trained, on what, for how long, how fast."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from cobra.train.objectives.base import Objective
from cobra.train.objectives.next_token import NextToken

# How examples come together in batches.
Batching = Literal["random", "grouped", "packed"]


@dataclass
class Stage:
    """One stage of a run.

    Args:
        name: shown in logs, e.g. `align`.
        train: parts of the model that learn; the others are frozen. A part may learn in part, by the path of
            a module in it: `vision.tower.blocks.12-` are a tower's blocks from number 12 on.
        data: names of training sources and the share of the batches that each provides. Which a batch is
            from is drawn; a source is gone through in random order, and again in another when it ends. Or
            names alone: every record of each comes once in a pass, all shuffled together.
        batch_size: examples a batch on each device; rows where they are packed.
        lr: peak learning rate, or those by name of the parts in which something learns.
        steps: optimizer steps.
        epochs: passes over as many examples as the sources hold together; only where steps are left out.
            With one source, or names without shares, each record comes once in a pass. With several, shares
            decide how often those of each come: on average once where the shares are as the sizes of the
            sources.
        warmup: share of the steps in which the rate rises from 0.
        hold: share of the steps after which the rate starts to fall.
        decay: shape of the fall, `cosine` or `linear`.
        final_lr: rate at the end, as a share of the peak.
        weight_decay: of matrices; never on norms, biases, A_log, D and dt_bias.
        objective: what is minimised.
        validate: whether the validation questions are answered in it; before a model has learned to answer
            they only take time.
        batching: how examples come together. `random`: as they come. `grouped`: batches purely with or purely
            without pictures, of examples of similar length, so that little is padded. `packed`: rows of
            data.max_length filled with whole examples that do not see each other, so that hardly anything is.
            For the latter two the tokens of all records are counted before the first step, once.
    """

    name: str
    train: list[str]
    data: dict[str, float] | list[str]
    batch_size: int
    lr: float | dict[str, float]
    steps: int | None = None
    epochs: float | None = None
    warmup: float = 0.03
    hold: float = 0.0
    decay: str = "cosine"
    final_lr: float = 0.0
    weight_decay: float = 0.0
    objective: Callable[[object], Objective] = NextToken  # type: ignore[assignment]
    validate: bool = True
    batching: Batching = "random"

    def __post_init__(self) -> None:
        if self.steps is None and self.epochs is None:
            raise ValueError(f"stage {self.name!r} needs steps or epochs")
        if isinstance(self.lr, dict) and set(self.lr) != self.parts:
            raise ValueError(
                f"stage {self.name!r} trains {self.train}, but lr names {list(self.lr)}: name the same parts"
            )
        if (
            self.batch_size < 1
            or min(self.peaks.values()) <= 0
            or (self.steps is not None and self.steps < 1)
        ):
            raise ValueError(
                f"stage {self.name!r}: batch_size {self.batch_size}, lr {self.lr} and steps {self.steps} "
                "must be positive"
            )
        if self.decay not in ("cosine", "linear"):
            raise ValueError(f"stage {self.name!r}: decay must be cosine or linear, got {self.decay!r}")
        if not self.data or not all(0 < share < math.inf for share in self.streams.values()):
            raise ValueError(f"stage {self.name!r}: every share in data must be positive, got {self.data}")
        if len(set(self.data)) < len(self.data):
            raise ValueError(f"stage {self.name!r}: data names a source twice, in {self.data}")
        if self.epochs is not None and self.epochs <= 0:
            raise ValueError(f"stage {self.name!r}: epochs must be positive, got {self.epochs}")
        if not 0 <= self.warmup <= 1 or not 0 <= self.hold <= 1 or self.final_lr < 0:
            raise ValueError(
                f"stage {self.name!r}: warmup {self.warmup} and hold {self.hold} are shares of its steps, "
                f"from 0 to 1, and final_lr {self.final_lr} is one of the peak, 0 or more"
            )
        if not self.train:
            raise ValueError(f"stage {self.name!r} trains no part of the model: name some in `train`")

    @property
    def streams(self) -> dict[tuple[str, ...], float]:
        """Sources whose records are shuffled together, and the share of the batches that they provide."""
        if isinstance(self.data, dict):
            return {(name,): share for name, share in self.data.items()}
        return {tuple(self.data): 1.0} if self.data else {}

    @property
    def parts(self) -> set[str]:
        """The parts of the model in which something learns."""
        return {name.partition(".")[0] for name in self.train}

    @property
    def peaks(self) -> dict[str, float]:
        """Peak learning rate by part; under "" that of what belongs to none."""
        return {**self.lr, "": max(self.lr.values())} if isinstance(self.lr, dict) else {"": self.lr}

    def rate(self, step: int, steps: int, part: str = "") -> float:
        """Learning rate of a part at `step` of `steps`, the last of which is where no step follows.

        Raises:
            ValueError: outside of them, where a rate would fall below 0 or rise again.
        """
        if not 0 <= step <= steps:
            raise ValueError(f"stage {self.name!r} has no learning rate at step {step}: it has {steps} steps")
        peak = self.peaks.get(part, self.peaks[""])
        warmup = int(self.warmup * steps)
        if step < warmup:
            return peak * step / warmup
        start = max(warmup, int(self.hold * steps))
        progress = max(0.0, (step - start) / max(1, steps - start))
        fall = 0.5 * (1 + math.cos(math.pi * progress)) if self.decay == "cosine" else 1 - progress
        return peak * (self.final_lr + (1 - self.final_lr) * fall)


@dataclass
class Plan:
    """Stages with their lengths: which optimizer step belongs to which.

    Attributes:
        stages: in order.
        steps: optimizer steps of each.
    """

    stages: Sequence[Stage]
    steps: list[int]
    ends: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.ends = [sum(self.steps[: i + 1]) for i in range(len(self.steps))]

    @property
    def total(self) -> int:
        """Optimizer steps of the whole run."""
        return self.ends[-1]

    def index(self, step: int) -> int:
        """The stage that optimizer step `step` belongs to; after the end, the last."""
        return next((i for i, end in enumerate(self.ends) if step < end), len(self.ends) - 1)

    def rate(self, step: int, part: str = "") -> float:
        """Learning rate of a part at optimizer step `step`."""
        i = self.index(step)
        return self.stages[i].rate(step - self.ends[i] + self.steps[i], self.steps[i], part)
