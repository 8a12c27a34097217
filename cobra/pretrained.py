"""A model as a folder: config.json, model.safetensors, tokenizer files."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cobra.torchvision_shim  # noqa: F401  (before transformers)

import torch  # isort: skip
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers.initialization import no_init_weights

from cobra.adapter_folder import is_adapter_folder, load_adapter, write_adapter
from cobra.config.build import build, build_on_meta
from cobra.config.config_json import (
    ADAPTERS,
    CONFIG,
    LM,
    VLM,
    read_config,
    read_quantized,
    read_tree,
    write_config,
)
from cobra.data.chat import Chat
from cobra.data.processor import Processor
from cobra.models import adapters
from cobra.models.adapters import Lora, adapt
from cobra.models.component import Component
from cobra.models.fill import Filling
from cobra.models.lm.base import LanguageModel
from cobra.models.quantize import Quantization, parameters_on_meta, quantize_
from cobra.models.vision.base import VisionEncoder
from cobra.models.vlm import CobraVLM
from cobra.weights.check_fit import check_fit
from cobra.weights.run_checkpoint import ModelFiles, model_files, pack, refuse_shares
from cobra.weights.saving import put, saving, sync
from cobra.weights.tensors import in_memory, open_safetensors, open_tensors

WEIGHTS = "model.safetensors"
# Parameters made for one that is saved: towers make some that their features do not use.
_MAX_TENSORS_EACH = 4


def save_pretrained(
    model: CobraVLM, chat: Chat, directory: str | Path, weights: dict[str, Tensor] | None = None
) -> None:
    """Write a model and its tokenizer; each file appears whole or not at all.

    Adapters are merged into the weights, and kept beside those of a quantized model, which cannot take them.

    Args:
        model: the model; its language model may be quantized, and parts may be adapted.
        chat: tokenizer and chat template.
        directory: made if missing; an earlier model there is replaced file by file.
        weights: the model's state, where the model itself holds only a part of it (sharded training).

    Raises:
        ValueError: where the weights are not those of the model that config.json describes, e.g. because of
            adapters, so that they could not be read back; nothing is written then.
    """
    directory = Path(directory)
    state = model.state_dict() if weights is None else weights
    kept: dict[str, Lora] = model.adapters if model.lm.quantized else {}
    if model.adapters and not kept:
        state = {
            name: stored.read() for name, stored in adapters.merged(in_memory(state), model.adapters).items()
        }
    state = _readable(model, state, kept)
    directory.mkdir(parents=True, exist_ok=True)
    with replacing(directory) as temporary:
        _describe(model, chat, temporary, kept)
        save_file(state, temporary / WEIGHTS, metadata={"format": "pt"})


def save_adapter(
    model: CobraVLM,
    chat: Chat,
    directory: str | Path,
    trained: Collection[str],
    sources: Mapping[str, str],
    weights: dict[str, Tensor] | None = None,
) -> None:
    """Write the adapters of a model in peft's format, and what belongs to them, whole or not at all.

    Beside them lie the weights of what else was trained, the tokenizer, and a config.json that describes the
    model and says where the rest of it was read.

    Args:
        model: with adapters.
        chat: tokenizer and chat template.
        directory: made if missing.
        trained: names of the parts, and of modules in them, that were trained.
        sources: where parts were read before they were trained, by their names.
        weights: the model's state, where the model itself holds only a part of it (sharded training).
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    with replacing(directory) as temporary:
        chat.save(temporary)
        write_config(temporary, VLM, model.config(), None, adapters.described(model.adapters), dict(sources))
        write_adapter(temporary, model, model.state_dict() if weights is None else weights, trained, sources)


def described(model: CobraVLM, chat: Chat) -> dict[str, Tensor]:
    """The files of a model folder besides the weights, for a checkpoint of a training run to hold."""
    with TemporaryDirectory() as folder:
        _describe(model, chat, Path(folder), model.adapters)
        return pack(Path(folder))


def _describe(model: CobraVLM, chat: Chat, directory: Path, kept: dict[str, Lora]) -> None:
    chat.save(directory)
    write_config(directory, VLM, model.config(), model.lm.quantized, adapters.described(kept))


def from_pretrained(
    directory: str | Path,
    device: str = "cpu",
    dtype: torch.dtype | None = None,
    quantization: Quantization = "none",
    group_size: int = 32,
    adapter: str | Path | None = None,
) -> tuple[CobraVLM, Processor]:
    """The model, in evaluation mode, and the processor that feeds it.

    Weights are read one by one and at once get their device, dtype and packing: this takes the memory of the
    model and of its largest tensor.

    Args:
        directory: what `save_pretrained` wrote, or a training run's checkpoint (a .ckpt file).
        device: where the model goes.
        dtype: of its weights, but for A_log, D and the time steps' biases, which stay fp32; None keeps all
            in fp32.
        quantization: of its language model; see `quantize_`.
        group_size: see `quantize_`.
        adapter: folder of an adapter of this model (a run's `adapter`, or peft's of its language model),
            which then computes beside the weights.

    Raises:
        FileNotFoundError: where the folder or one of its files is missing.
        ValueError: where config.json names a foreign class, or weights or tokenizer are damaged or do not
            fit it.
    """
    tree, files = open_model(Path(directory), VLM)
    model = _load(tree, files, CobraVLM, device, dtype, quantization, group_size)
    if adapter is not None:
        load_adapter(model, Path(adapter))
    return model, Processor.of(model, Chat(str(files.folder)))


def lm_from_pretrained(
    directory: str | Path,
    device: str = "cpu",
    dtype: torch.dtype | None = None,
    quantization: Quantization = "none",
    group_size: int = 32,
) -> LanguageModel:
    """A language model alone, in evaluation mode; arguments and errors as for `from_pretrained`."""
    tree, files = open_model(Path(directory), LM)
    return _load(tree, files, LanguageModel, device, dtype, quantization, group_size)


def open_model(path: Path, kind: str) -> tuple[dict, ModelFiles]:
    """The class_path tree and the weights of a folder or a checkpoint; none is read.

    Args:
        path: of the folder or the checkpoint.
        kind: VLM or LM, what it has to hold.

    Raises:
        FileNotFoundError: where the folder or one of its files is missing.
        ValueError: where it holds something else.
    """
    refuse_shares(path)
    if path.is_file():
        files = model_files(path, open_tensors(path))
        return read_tree(files.folder / CONFIG, kind), files
    if is_adapter_folder(path):
        raise ValueError(
            f"{path} is an adapter, not a whole model: name its base and give this as the adapter, or join "
            f"the two with `cobra merge {path} OUT`"
        )
    for name in (CONFIG, WEIGHTS):
        if not (path / name).is_file():
            raise FileNotFoundError(
                f"{path / name} is missing: expected a folder that save_pretrained wrote, or a run's "
                "checkpoints/last.ckpt"
            )
    tree = read_tree(path / CONFIG, kind)
    return tree, ModelFiles(path, path / WEIGHTS, open_safetensors(path / WEIGHTS))


def _load(
    tree: dict,
    files: ModelFiles,
    contract: type[nn.Module],
    device: str,
    dtype: torch.dtype | None,
    quantization: Quantization,
    group_size: int,
) -> Any:
    config = files.folder / CONFIG
    quantized = read_quantized(config)
    try:
        adapted = adapters.read(read_config(config).get(ADAPTERS, {}))
        most = _MAX_TENSORS_EACH * len(files.weights)
        planned = _planned(tree, contract, quantized, adapted, max_tensors=most)
    except ValueError as error:
        raise ValueError(f"{config}: {error}; restore it from the run that wrote it") from error
    repeated = copies(planned) if files.unpacked else {}
    weights = {name: stored for name, stored in files.weights.items() if name not in repeated}
    found = {name: tensor.shape for name, tensor in weights.items()}
    check_fit(expected_shapes(planned), found, f"{files.path} does not fit its config.json")
    # a second time, now with the buffers that are computed and not saved; as it describes itself it asks for
    # no other weights
    with no_init_weights(), parameters_on_meta():
        model = build(planned.config())()
    cast_weights(model, dtype or torch.float32)
    if quantized is not None:
        quantize_(_lm_of(model), **quantized, make=_as_it_is)
    if isinstance(model, CobraVLM):
        with parameters_on_meta():
            adapt(model, adapted)
    filling = Filling(model, weights, files.path, torch.device(device))
    filling.quantize(_lm_of(model), quantization, group_size)
    filling.finish()
    return model.to(device).eval()


def _planned(
    tree: dict,
    contract: type[nn.Module],
    quantized: dict[str, Any] | None,
    adapted: dict[str, Lora],
    **options: Any,
) -> Component:
    """What a configuration describes, on the meta device; options as for `build_on_meta`."""
    planned = build_on_meta(tree, **options)
    if not isinstance(planned, contract):
        raise ValueError(f"it makes a {type(planned).__name__}, not a {contract.__name__}")
    if quantized is not None:
        quantize_(_lm_of(planned), **quantized, make=_as_it_is)
    if isinstance(planned, CobraVLM):
        with torch.device("meta"):
            adapt(planned, adapted)
    return planned


def _lm_of(model: Any) -> LanguageModel:
    return model.lm if isinstance(model, CobraVLM) else model


def _as_it_is(weight: Tensor) -> Tensor:
    return weight


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


def cast_weights(model: nn.Module, dtype: torch.dtype) -> None:
    """Cast in place, but for what must stay fp32 (A_log, D and the time steps' biases)."""
    for parameter in model.parameters():
        if parameter.is_floating_point() and not getattr(parameter, "_no_weight_decay", False):
            parameter.data = parameter.data.to(dtype)


def _readable(model: CobraVLM, state: dict[str, Tensor], adapted: dict[str, Lora]) -> dict[str, Tensor]:
    """A model's state as `from_pretrained` reads it: each tensor once, though a tied head has two names."""
    planned = _planned(model.config(), CobraVLM, model.lm.quantized, adapted, is_ours=True)
    expected, names = expected_shapes(planned), set(planned.state_dict())
    kept = {name: tensor for name, tensor in state.items() if name in expected or name not in names}
    found = {name: tensor.shape for name, tensor in kept.items()}
    check_fit(
        expected,
        found,
        "the model cannot be saved: its weights are not those that its configuration describes (adapters "
        "such as LoRA's have to be merged into the weights first)",
    )
    return {name: tensor.detach().cpu().contiguous() for name, tensor in kept.items()}


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
