"""Memory that a device needs in training, counted in a step on tensors without data."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from cobra.config.build import build_on_meta
from cobra.data.batch import Batch
from cobra.kernels.dispatch import use_backend
from cobra.models.adapters import Lora, adapt
from cobra.models.quantize import Quantization, quantize_
from cobra.models.vision.pictures import Pictures
from cobra.models.vlm import IMAGE_ID, CobraVLM
from cobra.train.live_bytes import LiveBytes, on_cpu_without_data, without_data
from cobra.train.module import CobraModule
from cobra.train.param_groups import group_parameters
from cobra.train.stages import Stage

# those whose operators have gradients of their own, as the kernels for GPUs do: what is kept is alike
_BACKENDS = "cpu,torch"
# of the weights, and of what autocast computes in
_PRECISIONS: dict[str, tuple[torch.dtype, torch.dtype | None]] = {
    "32-true": (torch.float32, None),
    "bf16-mixed": (torch.float32, torch.bfloat16),
    "16-mixed": (torch.float32, torch.float16),
}


@dataclass(frozen=True)
class Memory:
    """Bytes on one device in a step of training.

    Attributes:
        weights: parameters and buffers.
        gradients: of what learns.
        optimizer: its moments.
        activations: kept between the forward and the backward pass, with the batch.
        work: what exists at the peak besides: logits, a block that runs again, copies of weights in another
            precision, weights and gradients that are gathered from other devices.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    work: int

    @property
    def total(self) -> int:
        """The most that exists at a time."""
        # in its step, behind the rest, the optimizer makes one more number for each that learns
        passing = max(self.activations + self.work, self.gradients)
        return self.weights + self.gradients + self.optimizer + passing


@dataclass(frozen=True)
class Step:
    """One step of a stage.

    Attributes:
        alone: memory on one device.
        trained: bytes of the weights that any stage trains, and of all their moments.
        blocks: of each block of the language model, the bytes of its weights, and of those that learn.
    """

    alone: Memory
    trained: tuple[int, int]
    blocks: Sequence[tuple[int, int]]

    def replicated(self, devices: int) -> Memory:
        """Memory on each of some devices that have whole weights (DDP)."""
        # its buckets hold the gradients, of all that any stage trains
        return self.alone if devices == 1 else replace(self.alone, gradients=self.trained[0])

    def sharded(self, devices: int) -> Memory:
        """Memory on each of some devices that have shares of weights, gradients and moments (FSDP2).

        Besides its shares one holds what is outside of blocks whole for all of the step, with its gradients,
        and of blocks the weights of three (one runs, the next is gathered into a buffer and copied out of it)
        and the gradients of two (one is computed, the one before is added up).
        """
        if devices == 1:
            return self.alone
        alone, sizes = self.alone, list(zip(*self.blocks, strict=True)) or [(0,), (0,)]
        gathered = alone.weights - sum(sizes[0]) + 3 * max(sizes[0])
        added_up = alone.gradients - sum(sizes[1]) + 2 * max(sizes[1])
        weights, gradients, moments = (
            -(-size // devices) for size in (alone.weights, alone.gradients, self.trained[1])
        )
        return Memory(weights, gradients, moments, alone.activations, alone.work + gathered + added_up)


def steps(
    tree: dict[str, Any],
    stages: Sequence[Stage],
    recompute: Mapping[str, int],
    muon: Sequence[str],
    precision: str,
    max_length: int,
    batch_size: int | None = None,
    adapters: Mapping[str, Lora] | None = None,
    quantization: Quantization = "none",
    group_size: int = 32,
) -> Iterator[tuple[Stage, Step]]:
    """A step of each stage whose objective reads answers: pictures, and text up to the longest sequence.

    Args:
        tree: of the `CobraVLM`.
        stages: of the run.
        recompute: as `CobraModule` takes it.
        muon: likewise.
        precision: the trainer's.
        max_length: tokens of each sequence, those of one picture included; all others are answers.
        batch_size: sequences; those of each stage if left out.
        adapters: as `CobraModule` takes them.
        quantization: likewise.
        group_size: likewise.

    Raises:
        ValueError: where the precision is unknown, or a sequence has no room for a picture.
    """
    if precision not in _PRECISIONS:
        raise ValueError(f"precision {precision!r} cannot be estimated: name one of {', '.join(_PRECISIONS)}")
    model = _model(tree)
    if quantization != "none":
        quantize_(model.lm, quantization, group_size, lambda weight: weight)
    with torch.device("meta"):
        adapt(model, adapters or {})
    with use_backend(_BACKENDS), without_data():
        on_cpu_without_data(model)
        module = CobraModule(
            stages, lambda: model, muon=list(muon), recompute=dict(recompute),
            adapters=dict(adapters or {}), quantization=quantization, group_size=group_size,
        )  # fmt: skip
        module.configure_model()
        groups = group_parameters(module, module.decayed, module.hidden)
        learnt: set[int] = set()
        for index, stage in enumerate(stages):
            module.learning.thaw(stage.train, [index])
            learnt |= {id(p) for p in module.parameters() if p.requires_grad}
            if module.objectives[index].reads_answers:
                size = batch_size or stage.batch_size, max_length
                yield stage, _step(module, model, index, groups, learnt, size, precision)


def _model(tree: dict[str, Any]) -> CobraVLM:
    model = build_on_meta(tree)
    assert isinstance(model, CobraVLM)
    # on another device these are left out
    for name in model.vision.unused_parameters():
        owner, _, last = name.rpartition(".")
        model.vision.get_submodule(owner)._parameters[last] = None
    # there are no ids to count
    vars(model)["_check"] = lambda *_: None
    return model


def _batch(model: CobraVLM, size: int, length: int) -> Batch:
    picture = model.vision.transform(Image.new("RGB", (64, 64)))
    image_tokens = model.num_image_tokens(picture.layout)
    if length <= image_tokens:
        raise ValueError(f"max_length {length} has no room for a picture's {image_tokens} tokens: raise it")
    pictures = Pictures.stack([picture], checked=True).map(
        lambda p: torch.empty(size * len(p), *p.shape[1:], dtype=p.dtype)
    )
    pictures = replace(pictures, layouts=(picture.layout,) * size)
    ids = torch.full((size, length), IMAGE_ID)
    places = torch.empty(size * (length - image_tokens), dtype=torch.long)
    return Batch(ids, pictures, ids.bool(), ids, places=places)


def _step(
    module: CobraModule,
    model: CobraVLM,
    index: int,
    groups: list[dict[str, Any]],
    learnt: set[int],
    size: tuple[int, int],
    precision: str,
) -> Step:
    _, autocast = _PRECISIONS[precision]
    held = [*module.parameters(), *module.buffers()]
    with LiveBytes() as live:
        for tensor in held:
            live.leave_out(tensor)
        learning = [p for p in module.parameters() if p.requires_grad]
        hooks = [p.register_post_accumulate_grad_hook(lambda p: live.leave_out(p.grad)) for p in learning]
        batch = _batch(model, *size)
        with torch.autocast("cpu", autocast, enabled=autocast is not None):
            loss, _ = module.objectives[index](model, batch)
        kept = live.now
        loss.backward()
    for hook in hooks:
        hook.remove()
    gradients = _bytes(p.grad for p in module.parameters() if p.grad is not None)
    module.zero_grad()
    optimizer = sum(_moments(group, learnt) for group in groups)
    blocks = [[*block.parameters()] for block in model.lm.units()]
    return Step(
        Memory(_bytes(held), gradients, optimizer, kept, live.peak - kept),
        (_bytes(p for group in groups for p in group["params"]), sum(_moments(group) for group in groups)),
        [(_bytes(block), _bytes(p for p in block if p.requires_grad)) for block in blocks],
    )


def _moments(group: dict[str, Any], learnt: set[int] | None = None) -> int:
    """Bytes that an optimizer keeps of a group's parameters that have learnt: one moment for Muon, two and a
    count for AdamW."""
    moments, count = (1, 0) if group["muon"] else (2, 4)
    return sum(moments * p.nbytes + count for p in group["params"] if learnt is None or id(p) in learnt)


def _bytes(tensors: Iterable[Tensor]) -> int:
    storages = [tensor.untyped_storage() for tensor in tensors]
    return sum({storage._cdata: storage.nbytes() for storage in storages}.values())
