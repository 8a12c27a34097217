"""A small SentencePiece model with LLaMA's settings, and what LLaVA's program makes of a prompt with it."""

import json
import re
from pathlib import Path
from typing import Any

from sentencepiece import SentencePieceProcessor, SentencePieceTrainer, sentencepiece_model_pb2

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
IMAGE = -200


def write_model(folder: Path, **settings: Any) -> Path:
    """tokenizer.model and tokenizer_config.json, and no tokenizer.json, as LLaVA's repositories have them."""
    folder.mkdir(parents=True, exist_ok=True)
    words = f"{SYSTEM} USER: ASSISTANT: What is it? A red cat. US ER Yes No"
    SentencePieceTrainer.train(
        sentence_iterator=iter([words] * 20), model_prefix=str(folder / "tokenizer"), vocab_size=420,
        model_type="bpe", byte_fallback=True, split_digits=True, normalization_rule_name="identity",
        remove_extra_whitespaces=False, allow_whitespace_only_pieces=True, pad_id=-1, minloglevel=2,
        hard_vocab_limit=False,
    )  # fmt: skip
    (folder / "tokenizer.vocab").unlink()
    said = {
        "tokenizer_class": "LlamaTokenizer",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps({**said, **settings}))
    return folder


class Published:
    """Token ids as transformers 4.37 makes them, which LLaVA pins, by LLaMA's tokenizer in Python.

    Args:
        folder: of the model.
        legacy: whether what follows a special token gets a space, too.
        special: added tokens and their ids; they swallow the spaces after them.
    """

    def __init__(self, folder: Path, legacy: bool, special: dict[str, int] | None = None) -> None:
        self.spaced = SentencePieceProcessor(str(folder / "tokenizer.model"))
        proto = sentencepiece_model_pb2.ModelProto.FromString((folder / "tokenizer.model").read_bytes())  # type: ignore[attr-defined]
        proto.normalizer_spec.add_dummy_prefix = False
        self.bare = SentencePieceProcessor(model_proto=proto.SerializeToString())
        self.legacy, self.added = legacy, special or {}
        self.special = {"<unk>": 0, "<s>": 1, "</s>": 2, **self.added}

    def chunk(self, text: str) -> list[int]:
        """Of one stretch, as `tokenizer(text)`: `<s>` and its tokens."""
        ids, first = [1], True
        pieces = re.split("(" + "|".join(map(re.escape, self.special)) + ")", text)
        for number, piece in enumerate(pieces):
            if piece in self.special:
                ids.append(self.special[piece])
            else:
                piece = piece.lstrip() if number and pieces[number - 1] in self.added else piece
                ids += (self.spaced if self.legacy or first else self.bare).encode(piece)
            first = False
        return ids

    def prompt(self, text: str) -> list[int]:
        """Of a whole prompt, as `tokenizer_image_token`: stretches apart, only the first with its `<s>`."""
        first, *others = (self.chunk(stretch) for stretch in text.split("<image>"))
        return first + [i for other in others for i in [IMAGE, *other[1:]]]
