"""The gguf target: language model, picture's program, tokenizer, as llama.cpp and ggml run them."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from cobra.config.config_json import CONFIG
from cobra.data.chat import Chat
from cobra.export.engines.gguf import LANGUAGE_MODEL, PICTURES, UNQUANTISED
from cobra.export.gguf.file import Value, Weight, write_gguf
from cobra.export.gguf.kernels import CannotExpress as NoProgram
from cobra.export.gguf.language_model import Opened, open_language_model, write_language_model
from cobra.export.gguf.llama import VERSION
from cobra.export.gguf.mmproj import MMPROJ, write_mmproj
from cobra.export.gguf.native_library import library
from cobra.export.gguf.packed import PackedWeight
from cobra.export.gguf.parity import oracle, parity
from cobra.export.gguf.picture import PROGRAM
from cobra.export.gguf.program import traced
from cobra.export.gguf.progress import write_shown
from cobra.export.gguf.seen import CannotExpress as NoStock
from cobra.export.gguf.sentencepiece import CannotExpress
from cobra.export.gguf.tokenizer import check_tokens, tokenizer_metadata, without_tokenizer
from cobra.export.gguf.vocabulary import vocabulary
from cobra.export.manifest import BLIND, Contents
from cobra.export.oracle import ORACLE
from cobra.export.pixels import PIXELS, pixel_settings
from cobra.export.turns import TURNS, CannotCut, Turn, turns_of
from cobra.models.vision.fused import planes_of
from cobra.models.vision.square import Plane
from cobra.models.vlm import CobraVLM
from cobra.weights.tensors import in_memory


def write_gguf_target(model: Path, quant: str, folder: Path) -> Contents:
    """Fill a folder with `lm.gguf`, `pictures.gguf`, `mmproj.gguf` and the tokenizer's files.

    What llama.cpp cannot be told is left out, and said: a tokenizer that it does not have, an encoder or a
    projector whose operations ggml lacks. A language model that it does not have is refused.

    Args:
        model: folder or checkpoint.
        quant: f32, f16, q8_0, q4_0 or q4_k_m, of the language model's matrices. Those of the encoder are fp32
            in f32, fp16 in f16 and else q8_0.
        folder: to fill.

    Raises:
        LackingError: where llama.cpp is not here.
        ValueError: where the language model cannot be expressed, saying which part.
        OSError: where something is missing, or the disk is full.
    """
    library()
    return write_opened(open_language_model(model), quant, folder, model)


def write_opened(opened: Opened, quant: str, folder: Path, source: Path | None) -> Contents:
    """As `write_gguf_target`, of a model whose weights may be made when they are read.

    Args:
        opened: the model.
        quant: see `write_gguf_target`.
        folder: to fill.
        source: where it was opened, for the measured differences from it; None, of random weights, measures
            none and writes no `mmproj.gguf`, which repeats the encoder.
    """
    missing: list[str] = []
    settings: dict[str, object] = {"vocab_size": opened.lm.vocab_size, "d_model": opened.lm.d_model}
    chat = _chat(opened, folder)
    metadata: Mapping[str, Value] = without_tokenizer()
    if chat is None:
        missing.append("a tokenizer: the model has none")
    else:
        settings["eos_id"] = chat.eos_id
        try:
            metadata, seams = _checked(chat, opened.lm.vocab_size, folder)
            missing += seams
            settings[TURNS] = _turns(chat, metadata, folder)
        except CannotCut as error:
            missing.append(f"turns for cobra-run: {error}")
        except CannotExpress as error:
            missing.append(
                f"a tokenizer that llama.cpp's own programs could use: {error}; its files are here"
            )
    description = write_language_model(opened, quant, folder / LANGUAGE_MODEL, metadata, os.cpu_count() or 1)
    missing += description.lacks
    shutil.copyfile(opened.files.folder / CONFIG, folder / CONFIG)
    planes: list[Plane] = []
    try:
        planes = _write_pictures(opened, quant, folder / PICTURES)
        settings[PIXELS] = pixel_settings(planes)
    except NoProgram as error:
        missing.append(f"{BLIND}: {error}")
    missing += _write_mmproj(opened, quant, folder / MMPROJ) if source else []
    exact = oracle(opened, source) if source else None
    measured: dict[str, float] = {}
    if exact is None:
        missing.append("parity with the model: its weights are too many to be read as a whole")
    else:
        measured = parity(exact, folder / LANGUAGE_MODEL, planes, quant == "f32")
        if quant in UNQUANTISED:
            exact.write(folder / ORACLE)
    return Contents(measured, versions={"llama-cpp-python": VERSION}, missing=missing, settings=settings)


def _chat(opened: Opened, folder: Path) -> Chat | None:
    """The tokenizer, whose files are copied; a language model alone need not have one."""
    if not (opened.files.folder / "tokenizer_config.json").is_file():
        return None
    chat = Chat(str(opened.files.folder))
    chat.check_vocabulary(opened.lm.vocab_size)
    chat.save(folder)
    return chat


def _checked(chat: Chat, vocab_size: int, folder: Path) -> tuple[Mapping[str, Value], list[str]]:
    """The tokenizer's metadata, with which llama.cpp cuts texts as the tokenizer does; where it does not."""
    metadata = tokenizer_metadata(chat, vocab_size)
    probe = folder / "tokenizer.gguf"
    write_gguf(probe, {**NO_MODEL, **metadata}, {})
    try:
        seams = check_tokens(probe, chat.encode, list(chat.tokenizer.all_special_tokens))
    finally:
        probe.unlink()
    after = f"in {LANGUAGE_MODEL}, text behind {' or '.join(seams)} without a space: llama.cpp puts one"
    return metadata, [after] if seams else []


def _turns(chat: Chat, metadata: Mapping[str, Value], folder: Path) -> Mapping[str, Turn]:
    """What cobra-run writes around a question; the spaces that SentencePiece puts are in it."""
    probe = folder / "turns.gguf"
    write_gguf(probe, {**NO_MODEL, **metadata, "tokenizer.ggml.add_space_prefix": False}, {})
    try:
        with vocabulary(probe) as cut:
            return turns_of(chat, cut)
    finally:
        probe.unlink()


# what llama.cpp reads of any model before its tokens
NO_MODEL: Mapping[str, Value] = {
    "general.architecture": "llama",
    "llama.context_length": 1,
    "llama.embedding_length": 1,
    "llama.feed_forward_length": 1,
    "llama.attention.head_count": 1,
    "llama.block_count": 1,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
}


def _write_pictures(opened: Opened, quant: str, path: Path) -> list[Plane]:
    """The encoder and the projector with the program that runs them; how it wants its pixels."""
    model = opened.model
    if not isinstance(model, CobraVLM):
        raise NoProgram("a language model alone sees nothing")
    try:
        planes = planes_of(model.vision.transform)
    except ValueError as error:
        raise NoProgram(f"{error}, and a program is of one tile") from error
    blank = Image.fromarray(np.zeros((64, 64, 3), np.uint8))
    program = traced(model.vision, model.projector, model.vision.transform(blank).tiles[0])
    matrices = {o.inputs[1] for o in program.operations if o.kind == "linear"}
    weights, places = {}, {}
    stored_by_name = {name: opened.files.weights[place] for name, place in program.weights.items()}
    for number, (name, stored) in enumerate({**stored_by_name, **in_memory(program.constants)}.items()):
        # ggml has 63 characters for a name
        places[name] = (f"w{number}", list(stored.shape))
        if name not in matrices or quant == "f32":
            weight = Weight(stored)
        # cells of a pool share their weights: packed, those of other sizes in a block would lose theirs
        elif quant == "f16" or name in program.constants:
            weight = Weight(stored, torch.float16)
        else:
            weight = PackedWeight(stored)
        weights[places[name][0]] = weight
    said = json.dumps({**program.as_dict(), "weights": places})
    write_shown(path, {"general.architecture": "cobra-pictures", PROGRAM: said}, weights, "pictures")
    return planes


def _write_mmproj(opened: Opened, quant: str, path: Path) -> list[str]:
    """The same for llama.cpp's own programs, where they have it; what they do otherwise."""
    if not isinstance(opened.model, CobraVLM):
        return []
    try:
        differs = write_mmproj(opened.model, opened.files.weights, quant, path)
    except NoStock as error:
        return [f"{path.name}, for pictures in llama.cpp's own programs: {error}"]
    return [f"in {path.name}, {sentence}" for sentence in differs]
