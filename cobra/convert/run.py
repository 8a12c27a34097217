"""`cobra convert`: from any layout to this project's folder, or to transformers'."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from cobra.adapter_folder import is_adapter_folder
from cobra.config.build import build_on_meta
from cobra.config.config_json import CONFIG, LM, VLM, write_config
from cobra.convert.checkpoint import Checkpoint, open_checkpoint
from cobra.convert.hub import fetch
from cobra.convert.layouts.hugging_face import to_hugging_face, to_hugging_face_name
from cobra.convert.vision import tower_tensors
from cobra.data.chat import Chat
from cobra.models.vlm import CobraVLM
from cobra.pretrained import WEIGHTS, replacing
from cobra.weights.tensors import Stored
from cobra.weights.writer import write_tensors

_TOKENIZER_FILES = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)


def convert(
    source: str,
    out: Path,
    to: str = "cobra",
    towers: list[Path] | None = None,
    tokenizer: str | None = None,
    base: str | None = None,
) -> None:
    """Convert a checkpoint; each file of the result appears whole or not at all.

    Args:
        source: folder, file of weights or hub repository, in any layout of `cobra.convert.layouts`.
        out: folder to write, in which there is no model yet.
        to: `cobra` for `from_pretrained` or `lm_from_pretrained`, `hf` for transformers (the language model).
        towers: weights of the vision towers, where the checkpoint has none and timm's are not wanted.
        tokenizer: folder or hub name of the tokenizer, where the layout's is not wanted.
        base: of an adapter, what it is merged into; left out, what it names.

    Raises:
        OSError: where something is missing, or the disk is full.
        ValueError: where the checkpoint is not whole or cannot be written this way, or `out` holds a model.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file: name a folder to write to")
    checkpoint = open_checkpoint(source, base)
    if out.resolve() in (checkpoint.source.path.parent.resolve(), Path(source).resolve()):
        raise ValueError(f"{out} holds the source: name another folder to write to")
    # written last: without it there is no model, but what a conversion that was killed has left
    if (out / CONFIG).exists():
        raise ValueError(f"{out} holds a model already: name another folder, or remove that one first")
    if to == "hf":
        _write_hugging_face(checkpoint, out)
    elif set(checkpoint.parts) == {"lm"}:
        _write_lm(checkpoint, out)
    else:
        _write_vlm(checkpoint, out, towers or [], tokenizer)
    print(f"{checkpoint.layout.title} checkpoint {checkpoint.source.path} -> {out}")


def merge(adapter: str, out: Path, base: str | None = None) -> None:
    """Convert an adapter (folder or hub repository) and its base, as `convert` does.

    Raises:
        OSError: likewise.
        ValueError: likewise, and where it is no adapter: a model would be copied as it is.
    """
    if not is_adapter_folder(fetch(adapter)):
        raise ValueError(f"{adapter} is no folder of an adapter (adapter_config.json and its weights)")
    convert(adapter, out, base=base)


def _write_vlm(checkpoint: Checkpoint, out: Path, towers: list[Path], tokenizer: str | None) -> None:
    for part in ("projector", "lm"):
        if not checkpoint.part(part):
            raise ValueError(
                f"{checkpoint.source.path} holds no weights of the {part} (an align stage's?): it is not a "
                f"whole model, but training can start from its parts with `model.weights`"
            )
    tensors = dict(checkpoint.tensors)
    if towers or not checkpoint.part("vision"):
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("vision.")}
        vision = tower_tensors(checkpoint.parts["vision"], towers)
        # first, so that the towers have left memory when the rest of the file is read
        tensors = {**{f"vision.{name}": tensor for name, tensor in vision.items()}, **tensors}
    chat = _chat(checkpoint, tokenizer)
    model = build_on_meta(checkpoint.tree)
    assert isinstance(model, CobraVLM)
    chat.check_vocabulary(model.lm.vocab_size)
    with _writing(checkpoint, out, tensors) as folder:
        chat.save(folder)
        write_config(folder, VLM, model.config())


def _write_lm(checkpoint: Checkpoint, out: Path) -> None:
    with _writing(checkpoint, out, checkpoint.part("lm")) as folder:
        _copy_tokenizer(checkpoint, folder)
        write_config(folder, LM, build_on_meta(checkpoint.tree).config())


def _write_hugging_face(checkpoint: Checkpoint, out: Path) -> None:
    # with the defaults that the model is built with
    tree = build_on_meta(checkpoint.parts["lm"]).config()
    config = to_hugging_face(tree, checkpoint.source.config)
    tensors = {to_hugging_face_name(name): tensor for name, tensor in checkpoint.part("lm").items()}
    if not tensors:
        raise ValueError(f"{checkpoint.source.path} holds no language model to write")
    with _writing(checkpoint, out, tensors) as folder:
        _copy_tokenizer(checkpoint, folder)
        (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _chat(checkpoint: Checkpoint, tokenizer: str | None) -> Chat:
    known = checkpoint.layout.chat(checkpoint.source)
    beside = checkpoint.source.tokenizer
    path, template = known or (None, None)
    path = tokenizer or (str(beside) if beside else path)
    if path is None:
        raise ValueError(f"{checkpoint.source.path}: no tokenizer is known for it: name one with --tokenizer")
    try:
        return Chat(path, template)
    except OSError as error:
        raise FileNotFoundError(
            f"tokenizer {path} is not here and cannot be fetched: put its tokenizer.json and "
            f"tokenizer_config.json into a folder and name that with --tokenizer"
        ) from error


def _copy_tokenizer(checkpoint: Checkpoint, folder: Path) -> None:
    beside = checkpoint.source.tokenizer
    files = [file for pattern in _TOKENIZER_FILES for file in beside.glob(pattern)] if beside else []
    for file in files:
        shutil.copyfile(file, folder / file.name)


@contextmanager
def _writing(checkpoint: Checkpoint, out: Path, tensors: dict[str, Stored]) -> Iterator[Path]:
    """A temporary folder that becomes `out`; the weights are in it when the block starts."""
    size = sum(tensor.nbytes for tensor in tensors.values())
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with _made(out), replacing(out) as folder, Progress(*columns, console=Console(stderr=True)) as bar:
        free = shutil.disk_usage(out).free
        if size > free:
            raise OSError(f"{out} needs {size / 1e9:.1f} GB, {free / 1e9:.1f} GB are free: make room")
        task = bar.add_task("weights", total=size)
        try:
            write_tensors(folder / WEIGHTS, tensors, lambda written: bar.advance(task, written))
        except ValueError as error:
            raise ValueError(f"{checkpoint.source.path}: {error}") from error
        yield folder


@contextmanager
def _made(out: Path) -> Iterator[None]:
    """The folder, which is gone again after an error, unless it was there before."""
    was_there = out.exists()
    out.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        if not was_there:
            out.rmdir()
        raise
