"""Save and load a model as a folder: config.json, model.safetensors, tokenizer files."""

import importlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cobra.torchvision_shim  # noqa: F401  (before transformers)

import torch  # isort: skip
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers.initialization import no_init_weights

from cobra.class_paths import MODELS, check_class_paths
from cobra.config_json import CONFIG, LM, VLM, read_tree, write_config
from cobra.convert.tensors import open_tensors
from cobra.data.chat import Chat
from cobra.data.processor import Processor
from cobra.fit import check_fit, expected_shapes
from cobra.models.component import Component
from cobra.models.lm.base import LanguageModel
from cobra.models.vlm import CobraVLM

WEIGHTS = "model.safetensors"


def save_pretrained(
    model: CobraVLM, chat: Chat, directory: Path, weights: dict[str, Tensor] | None = None
) -> None:
    """Write a model and its tokenizer; each file appears whole or not at all.

    Args:
        model: the model.
        chat: tokenizer and chat template.
        directory: made if missing; an earlier model there is replaced file by file.
        weights: the model's state, where the model itself holds only a part of it (sharded training).
    """
    directory.mkdir(parents=True, exist_ok=True)
    state = model.state_dict() if weights is None else weights
    with replacing(directory) as temporary:
        chat.save(temporary)
        save_file(_without_copies(state), temporary / WEIGHTS, metadata={"format": "pt"})
        write_config(temporary, VLM, model.config())


def from_pretrained(
    directory: Path, device: str = "cpu", dtype: torch.dtype | None = None
) -> tuple[CobraVLM, Processor]:
    """The model, in evaluation mode, and the processor that feeds it.

    Args:
        directory: what `save_pretrained` wrote.
        device: where the model goes.
        dtype: of its weights, but for A_log, D and the time steps' biases, which stay fp32; None keeps all
            in fp32.

    Raises:
        FileNotFoundError: where the folder or one of its files is missing.
        ValueError: where config.json names a foreign class, or the weights are damaged or do not fit it.
    """
    model = _load(directory, VLM, CobraVLM, dtype)
    chat = Chat(str(directory))
    processor = Processor(chat, model.vision.transform, model.num_image_tokens)
    return model.to(device).eval(), processor


def lm_from_pretrained(
    directory: Path, device: str = "cpu", dtype: torch.dtype | None = None
) -> LanguageModel:
    """A language model alone, in evaluation mode; arguments and errors as for `from_pretrained`."""
    model = _load(directory, LM, LanguageModel, dtype)
    return model.to(device).eval()


def _load(directory: Path, kind: str, contract: type[nn.Module], dtype: torch.dtype | None) -> Any:
    for name in (CONFIG, WEIGHTS):
        if not (directory / name).is_file():
            raise FileNotFoundError(
                f"{directory / name} is missing: expected a folder that save_pretrained wrote"
            )
    factory = build(read_tree(directory / CONFIG, kind))
    # not on the meta device: buffers that are computed and not saved would stay there
    try:
        with no_init_weights():
            model = factory()
    except TypeError as error:
        raise ValueError(f"{directory / CONFIG} has arguments that do not fit: {error}") from error
    if not isinstance(model, contract):
        raise ValueError(f"{directory / CONFIG} makes a {type(model).__name__}, not a {contract.__name__}")
    weights = {name: stored.read() for name, stored in open_tensors(directory / WEIGHTS).items()}
    found = {name: tensor.shape for name, tensor in weights.items()}
    check_fit(expected_shapes(model), found, f"{directory / WEIGHTS} does not fit its config.json")
    model.load_state_dict(weights, strict=False)
    if dtype is not None:
        _cast(model, dtype)
    return model


def build_on_meta(tree: dict) -> Component:
    """The component that a class_path tree describes, without weights.

    Raises:
        ValueError: where a class is foreign, unknown or no component, or its arguments do not fit.
    """
    factory = build(tree)
    try:
        with torch.device("meta"):
            return factory()
    except (TypeError, ArithmeticError, RuntimeError, StrictDataclassError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{tree['class_path']} has arguments that do not fit: {reason}") from error


def build(tree: dict) -> Callable[..., Any]:
    """The factory of a component that a class_path tree describes; all of it is checked before any import.

    Raises:
        ValueError: where a class is foreign, unknown or no component.
    """
    check_class_paths(tree, (MODELS,))
    return _factory(tree)


def _factory(tree: dict) -> Callable[..., Any]:
    """A component's constructor with its arguments; nested components are factories in turn."""
    module, _, name = str(tree.get("class_path")).rpartition(".")
    try:
        made = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{tree.get('class_path')!r} cannot be found ({error}): a newer version's?"
        ) from error
    if not (isinstance(made, type) and issubclass(made, Component)):
        raise ValueError(f"{module}.{name} is not allowed: it is no component of a model")
    return partial(made, **{key: _argument(value) for key, value in tree.get("init_args", {}).items()})


def _argument(value: Any) -> Any:
    if isinstance(value, dict) and "class_path" in value:
        return _factory(value)
    return [_argument(item) for item in value] if isinstance(value, list) else value


def _cast(model: nn.Module, dtype: torch.dtype) -> None:
    for parameter in model.parameters():
        if parameter.is_floating_point() and not getattr(parameter, "_no_weight_decay", False):
            parameter.data = parameter.data.to(dtype)


def _without_copies(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Each tensor once: a tied head is the embedding under a second name."""
    seen: set[int] = set()
    unique = {}
    for name, tensor in state.items():
        if tensor.data_ptr() not in seen or tensor.numel() == 0:
            unique[name] = tensor.detach().cpu().contiguous()
            seen.add(tensor.data_ptr())
    return unique


@contextmanager
def replacing(directory: Path) -> Iterator[Path]:
    """A temporary folder whose files are moved into `directory` when the block ends without an error."""
    with TemporaryDirectory(dir=directory, prefix=".saving-") as name:
        temporary = Path(name)
        yield temporary
        # the configuration comes last: where it is, the weights it describes are
        for path in sorted(temporary.iterdir(), key=lambda path: path.name == CONFIG):
            with path.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(path, directory / path.name)
