"""An adapter as a folder: peft's two files, what else was trained, and samples of what it belongs to."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cobra.torchvision_shim  # noqa: F401  (before peft)

import torch  # isort: skip
from peft import LoraConfig
from safetensors.torch import save_file
from torch import Tensor, nn

from cobra.config.config_json import BASE, CONFIG, read_config
from cobra.models.adapters import Lora, adapt, adapter_names, is_adapter, learns_beside, without_adapters
from cobra.models.packed import PackedLinear
from cobra.models.vlm import CobraVLM
from cobra.weights.check_fit import check_fit
from cobra.weights.is_finite import is_finite
from cobra.weights.tensors import Stored, open_tensors

# peft's and LLaVA's names of files; whatever they end in, their contents decide
ADAPTER_CONFIG, _WEIGHTS, _OTHERS = "adapter_config.json", "adapter_model", "non_lora_trainables"
_SAMPLES, _SUFFIXES = "base_samples.safetensors", (".safetensors", ".bin")
_PREFIX = "base_model.model."
_NAME = re.compile(rf"{re.escape(_PREFIX)}(.+)\.lora_([AB])\.(?:default\.)?weight")
# what of peft's settings changes what is computed, and the values that this project builds
_BUILT: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",), "use_dora": (False, None), "bias": ("none", None), "lora_bias": (False, None),
    "fan_in_fan_out": (False, None), "modules_to_save": (None, []), "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None), "layer_replication": (None,), "trainable_token_indices": (None,),
}  # fmt: skip
# no adapter has a scale of that
_MOST = 2**31
# values of each weight that are kept of it, and how far they may be off: bf16's rounding
_SAMPLED, _ROUNDING = 16, 2**-7


@dataclass(frozen=True)
class Adapter:
    """What a folder holds.

    Attributes:
        path: of the adapters' weights.
        scaling: of the products.
        products: A and B by the name of the linear, as transformers has it.
        others: weights that were trained whole, by the names in the file.
        samples: the first values of the weights that the folder lacks, by this project's names.
        config: config.json; that of the whole model where this project wrote it.
    """

    path: Path
    scaling: float
    products: dict[str, tuple[Stored, Stored]]
    others: dict[str, Stored]
    samples: dict[str, Stored]
    config: dict[str, Any]

    def named_base(self) -> str:
        """What its description says that it belongs to, for messages."""
        base = read_config(self.path.parent / ADAPTER_CONFIG).get("base_model_name_or_path")
        return f" of {base}" if base else ""

    @property
    def sources(self) -> dict[str, str]:
        """Where config.json says that parts of the base were read, by their names."""
        said = self.config.get(BASE)
        named = said.items() if isinstance(said, dict) else ()
        return {part: source for part, source in named if isinstance(source, str)}

    def by_our_names(self, model: CobraVLM) -> dict[str, tuple[Stored, Stored]]:
        """A and B by the names of the linears in a model on any device.

        Raises:
            ValueError: where it has no such linear, or the shapes do not fit.
        """
        ours = {theirs: (name, linear) for name, theirs, linear in _linears(model)}
        if unknown := sorted(set(self.products) - set(ours)):
            raise ValueError(
                f"{self.path} adapts {unknown[0]}, which the model has not: that has {sorted(ours)[:3]}"
            )
        for theirs, (a, b) in self.products.items():
            linear = ours[theirs][1]
            found, fits = (b.shape[0], a.shape[1]), (linear.out_features, linear.in_features)
            if found != fits:
                raise ValueError(f"{self.path} is of another base: {theirs} is {found} there and {fits} here")
        return {ours[theirs][0]: pair for theirs, pair in self.products.items()}

    def check_base(self, found: Mapping[str, Stored]) -> None:
        """Refuse weights that are not those beside which it was trained, as far as samples tell.

        Raises:
            ValueError: naming the first that differs.
        """
        for name in sorted(set(self.samples) & set(found)):
            mine, other = self.samples[name].read(), _sample(found[name].read())
            if mine.shape != other.shape or not torch.allclose(mine, other, rtol=_ROUNDING, atol=1e-6):
                raise ValueError(
                    f"{self.path.parent} belongs to other weights: {name} differs, e.g. {mine[:1].tolist()} "
                    f"there and {other[:1].tolist()} here: name the base that it was trained on"
                )


def is_adapter_folder(path: Path) -> bool:
    """Whether a folder holds an adapter and no model."""
    return (path / ADAPTER_CONFIG).is_file() and _file(path, _WEIGHTS) is not None


def open_adapter(folder: Path) -> Adapter:
    """The adapter in a folder that a run, peft or LLaVA's programs wrote; no weight is read.

    Raises:
        FileNotFoundError: where there is none.
        ValueError: where it is damaged, or computes what this project does not build.
    """
    weights = _file(folder, _WEIGHTS)
    if weights is None or not (folder / ADAPTER_CONFIG).is_file():
        raise FileNotFoundError(f"{folder} holds no adapter: expected {ADAPTER_CONFIG} and {_WEIGHTS}.*")
    described = folder / ADAPTER_CONFIG
    said = read_config(described)
    for name, values in _BUILT.items():
        if said.get(name) not in values:
            raise ValueError(f"{described}: {name} {said[name]!r} cannot be read, only {values[0]!r}")
    rank, alpha = said.get("r"), said.get("lora_alpha")
    if not (isinstance(rank, int) and isinstance(alpha, int | float) and rank > 0 and 0 < alpha < _MOST):
        raise ValueError(f"{described}: r {rank!r} and lora_alpha {alpha!r} must be positive numbers")
    others, config, samples = _file(folder, _OTHERS), folder / CONFIG, folder / _SAMPLES
    return Adapter(
        weights,
        alpha / (rank**0.5 if said.get("use_rslora") else rank),
        _products(weights, rank),
        {} if others is None else open_tensors(others),
        open_tensors(samples) if samples.is_file() else {},
        read_config(config) if config.is_file() else {},
    )


def _file(folder: Path, stem: str) -> Path | None:
    return next((path for end in _SUFFIXES if (path := folder / f"{stem}{end}").is_file()), None)


def _products(weights: Path, rank: int) -> dict[str, tuple[Stored, Stored]]:
    halves: dict[str, dict[str, Stored]] = {}
    for name, tensor in open_tensors(weights).items():
        if (found := _NAME.fullmatch(name)) is None:
            raise ValueError(f"{weights} holds {name}, which is no adapter of a linear")
        halves.setdefault(found[1], {})[found[2]] = tensor
    if not halves:
        raise ValueError(f"{weights} holds no adapter: get it again")
    for name, half in halves.items():
        fits = {which: len(t.shape) == 2 and t.dtype.is_floating_point for which, t in half.items()}
        if fits != {"A": True, "B": True} or not half["A"].shape[0] == half["B"].shape[1] == rank:
            shapes = {which: tuple(tensor.shape) for which, tensor in half.items()}
            raise ValueError(f"{weights}: {name} has {shapes}, not A and B of rank {rank}: get it again")
    return {name: (half["A"], half["B"]) for name, half in halves.items()}


def load_adapter(model: CobraVLM, folder: Path) -> None:
    """Put the adapter in a folder beside the weights of a model, which may be packed, and what else it holds.

    Raises:
        FileNotFoundError: where there is none.
        ValueError: where it does not fit the model, or belongs to other weights.
    """
    adapter = open_adapter(folder)
    products, state = adapter.by_our_names(model), model.state_dict()
    if unknown := sorted(set(adapter.others) - set(state)):
        raise ValueError(
            f"{folder}: {unknown[0]}, trained beside the adapters, is no name of this project: merge with "
            "`cobra convert FOLDER OUT --base BASE`"
        )
    check_fit(
        {name: state[name].shape for name in adapter.others},
        {name: tensor.shape for name, tensor in adapter.others.items()},
        f"{folder} does not fit the model",
    )
    # a packed embedding has no rows under this name
    held = {name: tensor for name, tensor in state.items() if tensor.numel()}
    adapter.check_base({name: Stored(t.shape, t.dtype, partial(_sample, t)) for name, t in held.items()})
    read = dict(adapter.others)
    for name, pair in products.items():
        read |= dict(zip(adapter_names(name), pair, strict=True))
    targets: dict[str, list[str]] = {}
    for name in products:
        part, _, linear = name.partition(".")
        targets.setdefault(part, []).append(linear)
    # all have one rank
    rank = next(iter(products.values()))[0].shape[0]
    adapt(model, {part: Lora(rank, adapter.scaling * rank, targets=names) for part, names in targets.items()})
    state = model.state_dict()
    with torch.no_grad():
        for name, tensor in read.items():
            values = tensor.read()
            if not is_finite(values):
                raise ValueError(f"{folder}: {name} is not finite: training diverged, or a file is damaged")
            state[name if name in state else _wrapped(name, state)].copy_(values)
    model.eval()


def _wrapped(name: str, state: Mapping[str, Tensor]) -> str:
    return next(known for known in state if without_adapters(known) == name)


def write_adapter(
    folder: Path,
    model: CobraVLM,
    state: Mapping[str, Tensor],
    trained: Collection[str],
    sources: Mapping[str, str],
) -> None:
    """Write the adapters of a model into a folder, and what a run has trained besides.

    Args:
        folder: is there.
        model: with adapters.
        state: its weights, which it may hold only a share of.
        trained: names of the parts, and of modules in them, that the run trains.
        sources: where parts were read before it, by their names.
    """
    lora = next(iter(model.adapters.values()))
    names = {name: theirs for name, theirs, _ in _linears(model)}
    held = {without_adapters(name): tensor for name, tensor in state.items() if not is_adapter(name)}
    products = {
        f"{_PREFIX}{theirs}.lora_{which}.weight": state[adapter]
        for name, theirs in names.items()
        for which, adapter in zip("AB", adapter_names(name), strict=True)
        if adapter in state
    }
    others = {name: tensor for name, tensor in held.items() if _is_trained(model, name, trained)}
    samples = {
        name: _sample(tensor)
        for name, tensor in held.items()
        if name not in others and tensor.is_floating_point() and tensor.numel() and ".matrix." not in name
    }
    LoraConfig(
        r=lora.r, lora_alpha=lora.alpha, lora_dropout=lora.dropout, task_type="CAUSAL_LM",
        target_modules=sorted({_PREFIXED.sub("", n.removeprefix(_PREFIX)) for n in products}),
        base_model_name_or_path=sources.get("lm"), inference_mode=True,
    ).save_pretrained(str(folder))  # fmt: skip
    files = {f"{_WEIGHTS}.safetensors": products, f"{_OTHERS}.safetensors": others, _SAMPLES: samples}
    for file, tensors in files.items():
        whole = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
        save_file(whole, folder / file, metadata={"format": "pt"})


_PREFIXED = re.compile(r"\.lora_[AB]\.weight$")


def _is_trained(model: CobraVLM, name: str, trained: Collection[str]) -> bool:
    part, _, inside = name.partition(".")
    named = any(name.startswith(f"{module}.") for module in trained)
    return named and (part not in model.adapters or learns_beside(inside, model.adapters[part]))


def _sample(tensor: Tensor) -> Tensor:
    return tensor.flatten()[:_SAMPLED].detach().cpu().float().clone()


def _linears(model: CobraVLM) -> list[tuple[str, str, nn.Linear | PackedLinear]]:
    """Each linear with its name in a model without adapters, and transformers' in a language model's."""
    found = []
    for part, module in model.parts().items():
        for name, child in module.named_modules():
            plain = without_adapters(f"{name}.").removesuffix(".")
            if isinstance(child, nn.Linear | PackedLinear) and not is_adapter(f"{name}.weight"):
                theirs = model.lm.name_in_transformers(plain) if part == "lm" else f"{part}.{plain}"
                found.append((f"{part}.{plain}", theirs, child))
    return found
