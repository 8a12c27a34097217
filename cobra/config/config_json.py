"""config.json: what a saved model is made of.

"model" holds the class_path tree; "model_type" says what the tree makes: a whole vision-language model, or a
language model alone, whose weights then bear its own names. "quantized", where it is, says how the weights of
the language model are packed: the arguments of `quantize_`. "adapters", where it is, says which parts have
adapters beside their weights: the arguments of `Lora` by part.
"""

import json
from pathlib import Path
from typing import Any

from cobra.config.text_file import read_text

CONFIG = "config.json"
VLM, LM = "cobra_vlm", "cobra_lm"
QUANTIZED = "quantized"
ADAPTERS = "adapters"
BASE = "base"
# Largest config.json that is read: real ones have a few kilobytes.
_MAX_BYTES = 1 << 20


def write_config(
    directory: Path,
    kind: str,
    tree: dict,
    quantized: dict[str, Any] | None = None,
    adapters: dict[str, Any] | None = None,
    base: dict[str, str] | None = None,
) -> None:
    """Write config.json for a class_path tree that makes a VLM or an LM, how its weights are packed, what
    adapters there are beside them, and where the weights are, if not in the folder.
    """
    config = {"model_type": kind, "architectures": [tree["class_path"].rpartition(".")[2]], "model": tree}
    config |= {} if quantized is None else {QUANTIZED: quantized}
    config |= {ADAPTERS: adapters} if adapters else {}
    config |= {} if base is None else {BASE: base}
    (directory / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def read_tree(path: Path, kind: str) -> dict:
    """The class_path tree in a config.json of this project, as plain data that is not checked yet.

    Raises:
        ValueError: where the file is no such configuration, or describes another kind of model.
    """
    config = read_config(path)
    found = config.get("model_type")
    if found == kind and isinstance(config.get("model"), dict):
        return config["model"]
    if {found, kind} == {VLM, LM}:
        what = "a language model alone" if found == LM else "a whole vision-language model"
        raise ValueError(f"{path} describes {what} ({found}), not a {kind}")
    raise ValueError(
        f"{path} does not describe a {kind} model: another project's checkpoint? See cobra convert"
    )


def read_quantized(path: Path) -> dict[str, Any] | None:
    """How a config.json says that weights are packed: arguments of `quantize_`; None where they are not.

    Raises:
        ValueError: where it says it in another way.
    """
    said = read_config(path).get(QUANTIZED)
    if said is not None and (not isinstance(said, dict) or set(said) != {"quantization", "group_size"}):
        raise ValueError(f"{path} has {QUANTIZED} {said!r}, not a quantization and a group_size: restore it")
    return said


def read_config(path: Path) -> dict[str, Any]:
    """What a config.json holds: an object of plain data.

    Raises:
        ValueError: where it is no JSON object, or far too long for one.
    """
    if path.stat().st_size > _MAX_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size} bytes, too many for a configuration")
    try:
        config = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is not valid JSON ({error}): restore it from the run that wrote it"
        ) from error
    if not isinstance(config, dict):
        raise ValueError(f"{path} holds a {type(config).__name__}, not a configuration")
    return config
