"""Save and load a model as a folder: config.json, model.safetensors, tokenizer files."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import cobra.torchvision_shim  # noqa: F401  (before transformers)

import torch  # isort: skip
from jsonargparse import ArgumentError, ArgumentParser
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers.initialization import no_init_weights

from cobra.class_paths import check_class_paths, restrict_imports
from cobra.data.chat import Chat
from cobra.data.processor import Processor
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
        dtype: of its floating-point weights; as built (fp32) when left out.

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
    with no_init_weights():
        model = factory()
    weights = load_file(directory / WEIGHTS)
    _check_fit(model, weights, directory / WEIGHTS)
    model.load_state_dict(weights, strict=False)
    chat = Chat(str(directory))
    processor = Processor(chat, model.vision.transform, model.num_image_tokens)
    return model.to(device=device, dtype=dtype).eval(), processor


def build(tree: dict) -> Callable[[], CobraVLM]:
    """The model factory that a class_path tree describes; checked before anything is imported."""
    check_class_paths(tree)
    restrict_imports()
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--model", type=Callable[[], CobraVLM])
    try:
        return parser.instantiate(parser.parse_object({"model": tree})).model
    except ArgumentError as error:
        raise ValueError(f"the model's configuration does not fit: {error}") from error


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
        for path in sorted(temporary.iterdir()):
            with path.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(path, directory / path.name)
