"""Save and load a model as a folder: config.json, model.safetensors, tokenizer files."""

import importlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cobra.torchvision_shim  # noqa: F401  (before transformers)

import torch  # isort: skip
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers.initialization import no_init_weights

from cobra.class_paths import MODELS, check_class_paths
from cobra.data.chat import Chat
from cobra.data.processor import Processor
from cobra.models.component import Component
from cobra.models.vlm import CobraVLM

CONFIG, WEIGHTS = "config.json", "model.safetensors"
# Largest config.json that is read: real ones have a few kilobytes.
_MAX_CONFIG_BYTES = 1 << 20


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
    config = {"model_type": "cobra_vlm", "architectures": ["CobraVLM"], "model": model.config()}
    with _replacing(directory) as temporary:
        chat.save(temporary)
        save_file(_without_copies(state), temporary / WEIGHTS, metadata={"format": "pt"})
        (temporary / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


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
        ValueError: where config.json names a foreign class, or the weights do not fit it.
    """
    for name in (CONFIG, WEIGHTS):
        if not (directory / name).is_file():
            raise FileNotFoundError(
                f"{directory / name} is missing: expected a folder that save_pretrained wrote"
            )
    factory = build(_read_config(directory / CONFIG))
    # not on the meta device: buffers that are computed and not saved would stay there
    try:
        with no_init_weights():
            model = factory()
    except TypeError as error:
        raise ValueError(f"{directory / CONFIG} has arguments that do not fit: {error}") from error
    weights = load_file(directory / WEIGHTS)
    _check_fit(model, weights, directory / WEIGHTS)
    model.load_state_dict(weights, strict=False)
    if dtype is not None:
        _cast(model, dtype)
    chat = Chat(str(directory))
    processor = Processor(chat, model.vision.transform, model.num_image_tokens)
    return model.to(device).eval(), processor


def build(tree: dict) -> Callable[..., CobraVLM]:
    """The model factory that a class_path tree describes; the whole tree is checked before any import.

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


def _cast(model: CobraVLM, dtype: torch.dtype) -> None:
    for parameter in model.parameters():
        if parameter.is_floating_point() and not getattr(parameter, "_no_weight_decay", False):
            parameter.data = parameter.data.to(dtype)


def _read_config(path: Path) -> dict:
    if path.stat().st_size > _MAX_CONFIG_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size} bytes, too many for a configuration")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{path} is not valid JSON ({error}): restore it from the run that wrote it"
        ) from error
    if not isinstance(config, dict) or config.get("model_type") != "cobra_vlm" or "model" not in config:
        raise ValueError(f"{path} does not describe a cobra_vlm model: another project's checkpoint?")
    return config["model"]


def _check_fit(model: CobraVLM, weights: dict[str, Tensor], path: Path) -> None:
    expected = model.state_dict()
    missing = sorted(set(_without_copies(expected)) - set(weights))
    unexpected = sorted(set(weights) - set(expected))
    shapes = [
        f"{name}: {tuple(tensor.shape)} instead of {tuple(expected[name].shape)}"
        for name, tensor in sorted(weights.items())
        if name in expected and tensor.shape != expected[name].shape
    ]
    if missing or unexpected or shapes:
        raise ValueError(
            f"{path} does not fit its config.json: missing {missing[:5]}, unexpected {unexpected[:5]}, "
            f"mis-shaped {shapes[:5]}"
        )


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
def _replacing(directory: Path) -> Iterator[Path]:
    """A temporary folder whose files are moved into `directory` when the block ends without an error."""
    with TemporaryDirectory(dir=directory, prefix=".saving-") as name:
        temporary = Path(name)
        yield temporary
        # the configuration comes last: where it is, the weights it describes are
        for path in sorted(temporary.iterdir(), key=lambda path: path.name == CONFIG):
            with path.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(path, directory / path.name)
