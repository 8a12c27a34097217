"""A model as a folder: config.json, model.safetensors, tokenizer files."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cobra.torchvision_shim  # noqa: F401  (before transformers)

import torch  # isort: skip
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers.initialization import no_init_weights

from cobra.config.build import build, build_on_meta
from cobra.config.config_json import CONFIG, LM, VLM, read_tree, write_config
from cobra.data.chat import Chat
from cobra.data.processor import Processor
from cobra.models.lm.base import LanguageModel
from cobra.models.vision.base import VisionEncoder
from cobra.models.vlm import CobraVLM
from cobra.weights.check_fit import check_fit
from cobra.weights.is_finite import is_finite
from cobra.weights.run_checkpoint import ModelFiles, model_files, pack, refuse_shares
from cobra.weights.saving import put, saving, sync
from cobra.weights.tensors import Stored, open_safetensors, open_tensors

WEIGHTS = "model.safetensors"
# Parameters made for one that is saved: towers make some that their features do not use.
_MAX_TENSORS_EACH = 4


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
        _describe(model, chat, temporary)
        save_file(_without_copies(state), temporary / WEIGHTS, metadata={"format": "pt"})


def described(model: CobraVLM, chat: Chat) -> dict[str, Tensor]:
    """The files of a model folder besides the weights, for a checkpoint of a training run to hold."""
    with TemporaryDirectory() as folder:
        _describe(model, chat, Path(folder))
        return pack(Path(folder))


def _describe(model: CobraVLM, chat: Chat, directory: Path) -> None:
    chat.save(directory)
    write_config(directory, VLM, model.config())


def from_pretrained(
    directory: Path, device: str = "cpu", dtype: torch.dtype | None = None
) -> tuple[CobraVLM, Processor]:
    """The model, in evaluation mode, and the processor that feeds it.

    Args:
        directory: what `save_pretrained` wrote, or a training run's checkpoint (a .ckpt file).
        device: where the model goes.
        dtype: of its weights, but for A_log, D and the time steps' biases, which stay fp32; None keeps all
            in fp32.

    Raises:
        FileNotFoundError: where the folder or one of its files is missing.
        ValueError: where config.json names a foreign class, or weights or tokenizer are damaged or do not
            fit it.
    """
    tree, files = _open(directory, VLM)
    model = _load(tree, files, CobraVLM, dtype)
    return model.to(device).eval(), Processor.of(model, Chat(str(files.folder)))


def lm_from_pretrained(
    directory: Path, device: str = "cpu", dtype: torch.dtype | None = None
) -> LanguageModel:
    """A language model alone, in evaluation mode; arguments and errors as for `from_pretrained`."""
    model = _load(*_open(directory, LM), LanguageModel, dtype)
    return model.to(device).eval()


def _open(path: Path, kind: str) -> tuple[dict, ModelFiles]:
    """The class_path tree and the weights of a folder or a checkpoint; none is read."""
    refuse_shares(path)
    if path.is_file():
        files = model_files(path, open_tensors(path))
        return read_tree(files.folder / CONFIG, kind), files
    for name in (CONFIG, WEIGHTS):
        if not (path / name).is_file():
            raise FileNotFoundError(
                f"{path / name} is missing: expected a folder that save_pretrained wrote, or a run's "
                "checkpoints/last.ckpt"
            )
    tree = read_tree(path / CONFIG, kind)
    return tree, ModelFiles(path, path / WEIGHTS, open_safetensors(path / WEIGHTS))


def _load(tree: dict, files: ModelFiles, contract: type[nn.Module], dtype: torch.dtype | None) -> Any:
    config = files.folder / CONFIG
    try:
        planned = build_on_meta(tree, _MAX_TENSORS_EACH * len(files.weights))
    except ValueError as error:
        raise ValueError(f"{config}: {error}; restore it from the run that wrote it") from error
    if not isinstance(planned, contract):
        raise ValueError(f"{config} makes a {type(planned).__name__}, not a {contract.__name__}")
    repeated = copies(planned) if files.unpacked else {}
    weights = {name: stored for name, stored in files.weights.items() if name not in repeated}
    found = {name: tensor.shape for name, tensor in weights.items()}
    check_fit(expected_shapes(planned), found, f"{files.path} does not fit its config.json")
    # a second time, now with memory: buffers that are computed and not saved would stay on the meta device
    with no_init_weights():
        model = build(tree)()
    _fill(model, weights, files.path)
    if dtype is not None:
        cast_weights(model, dtype)
    return model


def expected_shapes(model: nn.Module) -> dict[str, torch.Size]:
    """The shape of every weight that a file must hold, of a model on any device.

    Without those of an encoder that its features do not use, and a tied head only once: it is the embedding
    under a second name.
    """
    unused = {
        f"{path}.{name}" if path else name
        for path, module in model.named_modules()
        if isinstance(module, VisionEncoder)
        for name in module.unused_parameters()
    }
    left_out = unused | set(copies(model))
    return {name: tensor.shape for name, tensor in model.state_dict().items() if name not in left_out}


def copies(model: nn.Module) -> dict[str, str]:
    """Second names of weights, e.g. a tied head's, and the first ones."""
    first: dict[int, str] = {}
    return {
        name: original
        for name, tensor in model.state_dict(keep_vars=True).items()
        if (original := first.setdefault(id(tensor), name)) != name
    }


def _fill(model: nn.Module, weights: dict[str, Stored], path: Path) -> None:
    """Copy tensors from a file into a model, one at a time."""
    state = model.state_dict()
    for name, stored in weights.items():
        if stored.dtype.is_floating_point != state[name].dtype.is_floating_point:
            raise ValueError(
                f"{path} holds {name} in {stored.dtype}, which cannot stand for {state[name].dtype}: "
                "get the file again"
            )
        state[name].copy_(stored.read())
        if not is_finite(state[name]):
            raise ValueError(
                f"{path} holds values in {name} that are not finite: training diverged, or the file is "
                "damaged; take an earlier checkpoint"
            )


def cast_weights(model: nn.Module, dtype: torch.dtype) -> None:
    """Cast in place, but for what must stay fp32 (A_log, D and the time steps' biases)."""
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
    with saving(directory) as temporary:
        yield temporary
        # as the system has it for new files: safetensors' can be read by their owner alone
        mode = (temporary / CONFIG).stat().st_mode
        # the configuration comes last: where it is, the weights it describes are
        files = sorted(temporary.iterdir(), key=lambda path: path.name == CONFIG)
        for path in files:
            if path.is_file():
                path.chmod(mode)
            sync(path)
        for path in files:
            put(path, directory / path.name)
