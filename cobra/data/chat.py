"""Text and tokens: a tokenizer of transformers with its chat template."""

import json
import os
import re
from pathlib import Path
from typing import Any

import cobra.torchvision_shim  # noqa: F401  (before transformers)

import torch  # isort: skip
from torch import Tensor  # isort: skip
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast  # isort: skip

from cobra.config.limits import MAX_TOKEN_ID
from cobra.config.text_file import read_text
from cobra.data.plain_chat import PlainChat
from cobra.data.plain_tokenizer import panic_told


class Chat(PlainChat):
    """A tokenizer and a chat template, both read from files.

    Args:
        path: directory with the tokenizer's files, or its name on the hub.
        template: Jinja chat template; the tokenizer's own when left out. Assistant turns stand between
            `{% generation %}` and `{% endgeneration %}`, pictures are written as `<image>`.
    """

    tokenizer: PreTrainedTokenizerBase

    def __init__(self, path: str, template: str | None = None) -> None:
        path = _resolve(path)
        tokenizer = load_tokenizer(path)
        if template is not None:
            tokenizer.chat_template = _read_template(Path(_resolve(template)))
        super().__init__(path, tokenizer)

    def unknown_ids(self, size: int) -> Tensor:
        """See `unknown`."""
        return torch.from_numpy(self.unknown(size))

    def save(self, directory: Path) -> None:
        """Write the tokenizer's files and the template, for `Chat(directory)`."""
        self.tokenizer.save_pretrained(directory)


def load_tokenizer(path: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder or a hub name; a file in it may describe a tokenizer, never run as code."""
    # the file is the whole tokenizer: nothing has to be guessed from a model's configuration
    whole = (Path(path) / "tokenizer.json").is_file()
    if not Path(path).is_dir() and not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", path):
        raise FileNotFoundError(
            f"there is no folder {path!r} with a tokenizer, and no hub repository has such a name"
        )
    try:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(path) if whole else _joined(Path(path))
        if not tokenizer.is_fast:
            raise ValueError("it has no tokenizer.json, nor parts that make one")
        # some settings are only looked at here
        with panic_told(path):
            tokenizer.encode("a", add_special_tokens=False)
        return tokenizer
    except OSError as error:
        reason = str(error).strip().partition("\n")[0]
        raise OSError(
            f"{path!r} is no folder with a tokenizer, and cannot be fetched from the hub ({reason}): name a "
            "folder with its tokenizer.json and tokenizer_config.json"
        ) from error
    # its parts are read by several libraries, which fail in their own ways on damaged files
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"tokenizer {path!r} cannot be read ({type(error).__name__}: {reason}): restore its "
            "tokenizer.json and tokenizer_config.json"
        ) from error


def _joined(folder: Path) -> PreTrainedTokenizerBase:
    """A tokenizer in parts, or on the hub; its added tokens have the ids that its files give them."""
    said, added = (_read(folder / name) for name in ("tokenizer_config.json", "added_tokens.json"))
    ids = {token["content"]: int(number) for number, token in said.get("added_tokens_decoder", {}).items()}
    ids |= added
    if max(ids.values(), default=0) > MAX_TOKEN_ID:
        raise ValueError(f"a token has the id {max(ids.values())}, more than {MAX_TOKEN_ID}")
    # LLaMA's was true by default when the models here were published
    is_old = (folder / "tokenizer.model").is_file() and said.get("legacy") is None
    options = {"legacy": True} if is_old else {}
    tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False, **options)
    for token, number in ids.items():
        if tokenizer.convert_tokens_to_ids(token) != number:
            raise ValueError(f"{token} would not have its id {number}: ids before it are missing")
    return tokenizer


def _read_template(file: Path) -> str:
    if not file.is_file():
        raise FileNotFoundError(f"there is no chat template {str(file)!r}: check `template`")
    return read_text(file)


def _read(file: Path) -> dict[str, Any]:
    return json.loads(read_text(file)) if file.is_file() else {}


def _resolve(path: str) -> str:
    """A path inside the package, written `cobra:data/...`, or any other; `~` is the user's home."""
    package, _, inside = path.partition("cobra:")
    return str(Path(__file__).parents[1] / inside) if inside and not package else os.path.expanduser(path)
