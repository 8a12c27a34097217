"""Adapters (LoRA, arXiv 2106.09685): low-rank products beside frozen weights, which learn in their place."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import cobra.torchvision_shim  # noqa: F401  (before peft)

import torch  # isort: skip
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn

from cobra.models.lm.base import LanguageModel
from cobra.models.lm.mixer import Mixer
from cobra.models.packed import PackedLinear
from cobra.models.vlm import CobraVLM
from cobra.weights.tensors import Stored

# what peft puts into the names of weights
_BASE, _A, _B = ".base_layer.", ".lora_A.default.weight", ".lora_B.default.weight"
_ADAPTERS = (_A, _B)


@dataclass
class Lora:
    """Adapters of the linears of a part: alpha / r B A is added to each weight.

    Args:
        r: rank, columns of B and rows of A.
        alpha: scale of the product, times r.
        dropout: of an adapter's input in training.
        targets: linears that are adapted, by the ends of their names, e.g. `in_proj`; left out, all in the
            blocks of a language model (LLaVA's rule: not the head), less what these leave out (Mamba's
            dt_proj, whose rank is low already).
        also: other parameters of the part that learn, whole, by the ends of their names or of what holds
            them, e.g. `conv1d`, `A_log`.
    """

    r: int
    alpha: float
    dropout: float = 0.0
    targets: list[str] = field(default_factory=list)
    also: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.r < 1 or self.alpha <= 0 or not 0 <= self.dropout < 1:
            raise ValueError(
                f"adapters: r {self.r} must be 1 or more, alpha {self.alpha} above 0 and dropout "
                f"{self.dropout} from 0 to below 1"
            )

    @property
    def scaling(self) -> float:
        """What B A is multiplied by."""
        return self.alpha / self.r


def adapt(model: CobraVLM, adapters: Mapping[str, Lora]) -> None:
    """Freeze parts of a model and give their linears adapters, which change nothing yet, in place.

    The model remembers them, which a saved one's config.json says. Weights may be packed, and on any device.

    Raises:
        ValueError: where a part or a target is unknown, or cannot have an adapter, naming it; where parts
            differ in rank or alpha, of which peft's format of files has one.
    """
    if adapters and model.adapters:
        raise ValueError(f"the {', '.join(model.adapters)} has adapters already: merge them first")
    if len({(lora.r, lora.alpha) for lora in adapters.values()}) > 1:
        raise ValueError(
            f"adapters: {' and '.join(adapters)} must have the same r and alpha: an adapter's file has one"
        )
    for part, lora in adapters.items():
        module = model.parts().get(part)
        if module is None:
            raise ValueError(
                f"adapters name an unknown part {part!r}: name one of {', '.join(model.parts())}"
            )
        _adapt(module, part, lora)
    model.adapters = dict(adapters)


def _adapt(module: nn.Module, part: str, lora: Lora) -> None:
    module.requires_grad_(False)
    targets = _targets(module, part, lora)
    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets,
    )
    config._register_custom_module({PackedLinear: _PackedLora})
    # small linears of a packed model are in bf16, in which nothing should learn
    weight = next(module.parameters())
    inject_adapter_in_model(config, module)
    for name, parameter in module.named_parameters():
        if name.endswith(_ADAPTERS):
            parameter.data = parameter.data.to(weight.dtype)
    for end in lora.also:
        names = [name for name, _ in module.named_parameters() if _is_named(name, end)]
        if not names:
            raise ValueError(
                f"adapters of {part}: `also` {end!r} is the name of no parameter that is not packed"
            )
        for name in names:
            module.get_parameter(name).requires_grad_(True)


class _PackedLora(LoraLinear):
    """peft's, on a packed base."""

    def _get_in_out_features(self, module: nn.Module) -> tuple[int, int]:
        assert isinstance(module, PackedLinear)
        return module.in_features, module.out_features


def _is_named(name: str, end: str) -> bool:
    """Whether `end` is the end of a parameter's name, or of that of the module that holds it."""
    return not name.endswith(_ADAPTERS) and any(
        f".{known}".endswith(f".{end}") for known in (name, name.rpartition(".")[0])
    )


def _targets(module: nn.Module, part: str, lora: Lora) -> list[str]:
    """Names of the linears that are adapted."""
    linears = {name for name, child in module.named_modules() if isinstance(child, nn.Linear | PackedLinear)}
    if not lora.targets:
        if not isinstance(module, LanguageModel):
            raise ValueError(f"adapters of {part}: name its `targets`, some of {_ends(linears)}")
        inside = {id(child) for unit in module.units() for child in unit.modules()} - set(_left_out(module))
        return [name for name in sorted(linears) if id(module.get_submodule(name)) in inside]
    chosen: set[str] = set()
    for end in lora.targets:
        found = {name for name in linears if f".{name}".endswith(f".{end}")}
        if not found:
            raise ValueError(
                f"adapters of {part}: the target {end!r} is no linear in it: name some of {_ends(linears)}"
            )
        chosen |= found
    _refuse_shared(module, part, chosen)
    return sorted(chosen)


def _left_out(lm: nn.Module) -> Iterator[int]:
    for mixer in lm.modules():
        if isinstance(mixer, Mixer):
            yield from (id(mixer.get_submodule(name)) for name in mixer.unadapted)


def _refuse_shared(module: nn.Module, part: str, names: set[str]) -> None:
    """Refuse a linear whose weight is another's, too, e.g. a tied head: merging would change both."""
    shared: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        shared.setdefault(id(parameter), []).append(name)
    for names_of_one in shared.values():
        held = [name for name in names_of_one if name.rpartition(".")[0] in names]
        if held and len(names_of_one) > 1:
            raise ValueError(f"adapters of {part}: {names_of_one} are one weight, so none can be a target")


def _ends(names: set[str]) -> str:
    return ", ".join(sorted({name.rpartition(".")[2] for name in names}))


def learns_beside(name: str, lora: Lora) -> bool:
    """Whether a weight of an adapted part learns whole."""
    return any(_is_named(name, end) for end in lora.also)


def is_adapter(name: str) -> bool:
    """Whether a weight of that name is an adapter's."""
    return name.endswith(_ADAPTERS)


def adapter_names(weight: str) -> tuple[str, str]:
    """The names of A and B beside the linear whose weight had a name before it was adapted."""
    linear = weight.removesuffix(".weight")
    return f"{linear}{_A}", f"{linear}{_B}"


def adapted_weight(name: str) -> str:
    """The name that the weight beside an adapter of some name had before it was adapted."""
    return f"{name.removesuffix(_A).removesuffix(_B)}.weight"


def without_adapters(name: str) -> str:
    """The name that a weight had before its part was adapted."""
    return name.replace(_BASE, ".")


def merged(state: Mapping[str, Stored], adapters: Mapping[str, Lora]) -> dict[str, Stored]:
    """The weights of an adapted model as those of a plain one, by its names; joined as they are read.

    Args:
        state: by the names of an adapted `CobraVLM`.
        adapters: of its parts.
    """
    plain = {without_adapters(name): stored for name, stored in state.items() if not is_adapter(name)}
    for name in state:
        if name.endswith(_A):
            weight = adapted_weight(name)
            scaling = adapters[name.partition(".")[0]].scaling
            a, b = (state[held] for held in adapter_names(weight))
            plain[weight] = add_product(plain[weight], a, b, scaling)
    return plain


def add_product(weight: Stored, a: Stored, b: Stored, scaling: float) -> Stored:
    """weight + scaling B A, computed in fp32 when it is read, in the weight's dtype."""
    return Stored(weight.shape, weight.dtype, partial(_sum, weight, a, b, scaling))


def _sum(weight: Stored, a: Stored, b: Stored, scaling: float) -> Tensor:
    base = weight.read()
    low_rank = (x.read().to(base.device, torch.float32) for x in (b, a))
    return torch.addmm(base.float(), *low_rank, alpha=scaling).to(base.dtype)


def described(adapters: Mapping[str, Lora]) -> dict[str, Any]:
    """Adapters as plain data, for a config.json."""
    return {part: dict(vars(lora)) for part, lora in adapters.items()}


def read(said: Any) -> dict[str, Lora]:
    """Adapters of what `described` gave, which need not be trusted.

    Raises:
        ValueError: where it is anything else.
    """
    try:
        if not (isinstance(said, dict) and all(isinstance(x, dict) and _is_plain(x) for x in said.values())):
            raise TypeError("no numbers and lists of names")
        return {part: Lora(**arguments) for part, arguments in said.items()}
    except TypeError as error:
        raise ValueError(f"adapters {said!r} are not those of parts of a model ({error})") from error


def _is_plain(arguments: Any) -> bool:
    numbers = [arguments.get(name) for name in ("r", "alpha", "dropout")]
    lists = [arguments.get(name, []) for name in ("targets", "also")]
    return all(type(x) in (int, float) for x in numbers) and all(
        isinstance(names, list) and all(isinstance(name, str) for name in names) for names in lists
    )
