"""The model that a run starts from: built, loaded, packed, adapted, and checked against the run's stages."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from cobra.convert.parts import Loaded, load_parts
from cobra.models.adapters import Lora, adapt
from cobra.models.lm.init import is_time_scale
from cobra.models.quantize import Quantization, lms_on_meta, quantize_
from cobra.models.vlm import CobraVLM
from cobra.train.learning import frozen_modules
from cobra.train.objectives.base import Objective
from cobra.train.selection import named_modules
from cobra.train.stages import Stage


@dataclass
class Start:
    """What a model is made of; see `CobraModule` for what is not here.

    Attributes:
        origin: in the place of `weights`, where a checkpoint will follow: for copies that it does not hold.
        opened: a model folder to answer with, in the place of a checkpoint.
    """

    build: Callable[[], CobraVLM]
    stages: Sequence[Stage]
    muon: Sequence[str]
    weights: Mapping[str, str]
    origin: Mapping[str, str]
    opened: str | None
    adapters: Mapping[str, Lora]
    quantization: Quantization
    group_size: int

    def make(self, fits: bool) -> tuple[CobraVLM, list[Objective], list[Loaded]]:
        """The model, the objectives of its stages, and what its parts were loaded from.

        Args:
            fits: whether it will be trained; else a checkpoint brings all weights.

        Raises:
            OSError: where weights are not there.
            ValueError: saying what does not fit.
        """
        sources = {**self.weights, **self.origin} if fits else {}
        # nothing is kept that is not packed, where something to pack follows, or a checkpoint
        on_meta = self.quantization != "none" and (not fits or "lm" in sources)
        with lms_on_meta() if on_meta else nullcontext():
            model = self.build()
        self._check_parts(model)
        loaded = []
        if fits:
            first = self.weights if self._is_first(model) else self.origin
            loaded = load_parts(model, first, self.quantization, self.group_size)
        elif self.opened is not None:
            load_parts(model, dict.fromkeys(model.parts(), self.opened), self.quantization, self.group_size)
        if self.quantization != "none" and model.lm.quantized is None:
            quantize_(model.lm, self.quantization, self.group_size, _empty)
        if not model.adapters:
            adapt(model, self.adapters)
        return model, [stage.objective(model) for stage in self.stages], loaded

    def _is_first(self, model: CobraVLM) -> bool:
        """Whether no checkpoint follows, or all is in it.

        What a checkpoint leaves out, the frozen modules of objectives, may be a copy of the model as the run
        started.
        """
        if not self.origin:
            return True
        # what is drawn after it stays the same
        with torch.random.fork_rng(devices=[]):
            return not any(any(frozen_modules(stage.objective(model))) for stage in self.stages)

    def _check_parts(self, model: CobraVLM) -> None:
        if unknown := sorted(set(self.muon) - set(model.parts())):
            raise ValueError(f"muon steps unknown parts {unknown}: {list(model.parts())}")
        if both := sorted(set(self.muon) & set(self.adapters)):
            raise ValueError(f"muon steps {both}, which have adapters: leave them to AdamW")
        whole = [stage.name for stage in self.stages if "lm" in stage.parts and "lm" not in self.adapters]
        if whole and self.quantization != "none":
            raise ValueError(
                f"stage {whole[0]!r} trains the lm, whose weights are packed ({self.quantization}): give it "
                "adapters, or leave model.quantization out"
            )
        for stage in self.stages:
            for name in stage.train:
                try:
                    named_modules(model, name)
                except ValueError as error:
                    raise ValueError(f"stage {stage.name!r} trains {name!r}, but {error}") from error


def check_precision(model: CobraVLM, stages: Sequence[Stage], precision: str) -> None:
    """Refuse to train the time scales of a state in half precision.

    bf16 has 8 bits, so updates of less than 0.4 % of a weight are lost. Mamba's authors keep weights in
    fp32 (state-spaces/mamba, README, "Precision"), and so do Cobra's.
    """
    trained = dict.fromkeys(name for stage in stages for name in stage.train)
    modules = [(name, module) for name in trained for module in named_modules(model, name).values()]
    for name, module in modules:
        marked = [n for n, p in module.named_parameters() if is_time_scale(p) and p.requires_grad]
        if marked and precision in ("bf16-true", "16-true"):
            mixed = precision.replace("true", "mixed")
            raise ValueError(
                f"trainer.precision {precision} would lose most updates of {name}.{marked[0]} and its "
                f"like, which need fp32: use {mixed}; trainer.strategy sharded saves memory"
            )


def _empty(weight: Tensor) -> Tensor:
    """What stands for a weight on the meta device that a checkpoint will bring; there it stays."""
    return weight if torch.get_default_device().type == "meta" else torch.zeros_like(weight, device="cpu")
