"""Turns in pieces, which a program without chat templates joins: ids are those of the conversation."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

import cobra.torchvision_shim  # noqa: F401  (before transformers)
from cobra.data.chat import Chat
from cobra.data.record import Message, Record, assistant, user
from cobra.data.turn_ids import rendered_question, token_ids
from cobra.export.turns import CannotCut, turn_ids, turns_of
from tests.data.sentencepiece_model import write_model

from transformers import PreTrainedTokenizerFast  # isort: skip

SPECIAL = ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|im_start|>", "<|im_end|>"]
# templates with the tokens that begin and end their texts
TEMPLATES = {
    "zephyr": ("<|endoftext|>", "<|endoftext|>"),
    "mamba_base": ("<|endoftext|>", "<|endoftext|>"),
    "vicuna_v1": ("<|endoftext|>", "<|endoftext|>"),
    "imp_qwen2": ("<|endoftext|>", "<|endoftext|>"),
    "imp_phi3": ("<s>", "</s>"),
    "phiva": ("<s>", "</s>"),
}
TALKS = [
    [user("Which one?")],
    [user("  What is\n\nit?\t", 1)],
    [user("a", 1), assistant("A circle, and\nmore. "), user("USER: é🙂?")],
    [user("a"), assistant("b"), user("c"), assistant("d"), user("Out: e")],
]


def load(folder: Path, template: str) -> Chat:
    """A tokenizer on bytes whose words meet the borders of the template's text."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    bos, eos = TEMPLATES[template]
    trainer = trainers.BpeTrainer(
        vocab_size=340, special_tokens=[*dict.fromkeys((bos, eos))], show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )  # fmt: skip
    texts = ["USER: What is it? ASSISTANT:", "\nIn: What is it?\nOut:", " Which one"]
    bpe.train_from_iterator(texts * 9, trainer)
    bpe.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token=bos, eos_token=eos).save_pretrained(folder)
    return Chat(str(folder), f"cobra:data/templates/{template}.jinja")


def cut_of(chat: Chat) -> Callable[[str], list[int]]:
    return lambda text: chat._ids._text.encode(text, add_special_tokens=False).ids


def ids(chat: Chat, messages: list[Message]) -> list[int]:
    images = sum(part["type"] == "image" for message in messages for part in message.content)
    record = Record("chat", messages, [b""] * images)
    shown = sum(part["type"] == "image" for part in messages[-1].content)
    return token_ids(chat, rendered_question(chat, record), "chat", [1] * shown)[0]


def check(chat: Chat) -> None:
    cut = cut_of(chat)
    turns = turns_of(chat, cut)
    for messages in TALKS:
        is_later, sees = len(messages) > 1, len(messages[-1].content) > 1
        question = messages[-1].text.strip()
        found = turn_ids(turns["later" if is_later else "picture" if sees else "first"], question, cut)
        assert found == ids(chat, messages)


@pytest.mark.parametrize("template", TEMPLATES)
def test_pieces_make_the_tokens_of_the_conversation(template: str, tmp_path: Path) -> None:
    check(load(tmp_path, template))


def test_a_tiny_models_template_is_cut_too() -> None:
    check(Chat("cobra:data/shapes/tokenizer"))


@pytest.mark.parametrize("legacy", [False, True])
def test_spaces_of_sentencepiece_are_in_the_pieces(legacy: bool, tmp_path: Path) -> None:
    check(Chat(str(write_model(tmp_path, legacy=legacy)), "cobra:data/templates/vicuna_v1.jinja"))


@pytest.mark.parametrize(
    ("turn", "reason"),
    [
        ("{{ m.content[-1].text ~ m.content[-1].text }}", "does not write a question as it is, once"),
        ("{{ m.content[-1].text ~ messages | length }}", "writes later turns in more than one way"),
        ("{{ m.content[-1].text | upper }}", r"makes other tokens of 'What is it\?'"),
    ],
)
def test_a_template_that_cannot_be_cut_is_refused(turn: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "t.jinja").write_text(
        "{% for m in messages %}{% if m.role == 'user' %}{{ '<image>' * (m.content | length - 1) }}"
        f"{turn}{{% else %}}{{% generation %}}{{{{ m.content[0].text }}}}<|endoftext|>{{% endgeneration %}}"
        "{% endif %}{% endfor %}"
    )
    chat = Chat("cobra:data/shapes/tokenizer", str(tmp_path / "t.jinja"))
    with pytest.raises(CannotCut, match=reason):
        turns_of(chat, cut_of(chat))
