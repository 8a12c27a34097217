"""Byte-level BPE, trained on texts: the tokenizer of a language model that starts from nothing."""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from cobra.data.text.documents import TextTable, is_held_out, is_table, read_document

# Ids 0 to 4, in this order. Those of a chat and its pictures are there for what the model goes on to learn.
SPECIAL_TOKENS = ("<|endoftext|>", "<|pad|>", "<|user|>", "<|assistant|>", "<image>")
# The chat that these write.
_TEMPLATE = Path(__file__).parents[1] / "shapes/tokenizer/chat_template.jinja"


def train_bpe(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """A GPT-2 style tokenizer, the same for the same texts; smaller where no pairs are left to merge."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def save_bpe(tokenizer: Tokenizer, folder: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json and the chat template, as `Chat` reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    end, pad, *others = SPECIAL_TOKENS
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": end,
        "pad_token": pad,
        "additional_special_tokens": others,
        "clean_up_tokenization_spaces": False,
        "padding_side": "left",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    target = folder / _TEMPLATE.name
    if target != _TEMPLATE:
        shutil.copyfile(_TEMPLATE, target)


def make_tokenizer(files: list[Path], vocab_size: int, out: Path, held_out: float) -> None:
    """Train a tokenizer on files and write it to `out`.

    Args:
        files: tables with a column `text` (JSON Lines, parquet), and plain text.
        vocab_size: tokens, special ones included.
        out: folder.
        held_out: share of the documents that it does not see: those that `TextRows` holds out by the same.
    """
    texts = (
        text for file in files for text in (TextTable(str(file)) if is_table(file) else [read_document(file)])
    )
    tokenizer = train_bpe((text for text in texts if not is_held_out(text, held_out)), vocab_size)
    save_bpe(tokenizer, out)
    print(f"{out}: {tokenizer.get_vocab_size()} tokens")
