"""The pace of a run on some devices: operations of its steps over an assumed share of a device's peak."""

from collections.abc import Mapping
from dataclasses import dataclass

from cobra.bench.systems.measure import System
from cobra.train.memory import Step
from cobra.train.stages import Stage

# devices of a node, which are joined by a faster link than nodes are
_NODE = 8


@dataclass(frozen=True)
class Assumptions:
    """What the pace is computed from, besides the config.

    Args:
        tflops: peak of a device in the precision that it multiplies in; an A100's in bf16.
        mfu: the share of it that the operations of a step reach, those that recompute included. With 0.25
            Cobra takes 26 hours on 8 A100; published are 26.5 (arXiv 2403.14520).
        text_tokens: of an example, all of them answers, beside its picture.
        bandwidth: GB/s that a device exchanges within a node of 8.
        network: GB/s that a device exchanges between nodes.
    """

    tflops: float = 312.0
    mfu: float = 0.25
    text_tokens: int = 300
    bandwidth: float = 200.0
    network: float = 25.0


@dataclass(frozen=True)
class Pace:
    """How fast a stage goes.

    Attributes:
        compute: seconds that a device computes a batch.
        exchange: seconds that it exchanges weights and gradients for it, beside that.
        examples: a second, of all devices.
        tokens: likewise, those of pictures included.
    """

    compute: float
    exchange: float
    examples: float
    tokens: float

    @property
    def hours(self) -> float:
        """For a million examples."""
        return 1e6 / self.examples / 3600


def pace(
    system: System,
    stage: Stage,
    step: Step,
    recompute: Mapping[str, int],
    devices: int,
    sharded: bool,
    batch: int,
    assumed: Assumptions,
) -> Pace:
    """The pace of a stage, whose batches take the longer of computing and exchanging: these run side by side.

    Args:
        system: its operations.
        stage: which parts learn.
        step: the bytes of weights and gradients.
        recompute: as `CobraModule` takes it.
        devices: of the run.
        sharded: whether weights are gathered for each batch, or gradients added up.
        batch: examples on a device.
        assumed: see there.
    """
    compute = batch * example_flops(system, stage, recompute, assumed.text_tokens)
    compute /= assumed.tflops * 1e12 * assumed.mfu
    # gathered on the way there and back, and gradients handed out; a ring sends as much and receives it
    moved = 3 * step.alone.weights if sharded else 2 * step.alone.gradients
    link = assumed.bandwidth if devices <= _NODE else assumed.network
    exchange = moved * (devices - 1) / devices / (link * 1e9)
    examples = devices * batch / max(compute, exchange)
    return Pace(compute, exchange, examples, examples * (system.image_tokens + assumed.text_tokens))


def example_flops(system: System, stage: Stage, recompute: Mapping[str, int], text: int) -> float:
    """Operations of one example with a picture, forward and backward.

    The backward pass takes two forward passes' worth of a part that learns, one of a part behind it that is
    frozen, and none before the first that learns. A part that learns in part is counted as one that learns.
    """
    # what an answer's token takes more than a prompt's is the head
    head = text * max(0, system.lm.decode_flops - system.lm.prefill_flops)
    forward = {
        "vision": system.vision_flops,
        "projector": system.projector_flops,
        "lm": system.lm.prefill_flops * (system.image_tokens + text) + head,
    }
    total, learns_before = 0.0, False
    for part, once in forward.items():
        learns = part in stage.parts
        passes = 1.0 + 2 * learns + (learns_before and not learns)
        learns_before = learns_before or learns
        if part in recompute and learns_before:
            passes += 1 / recompute[part]
        total += passes * once
    return total
