import json
from pathlib import Path

import pytest

import cobra.torchvision_shim  # noqa: F401  (before transformers)
from cobra.data.record import assistant, user
from cobra.data.shapes.build import build_scenes
from cobra.data.shapes.scene import CELL_NAMES, caption
from cobra.data.shapes.tokenizer import FOLDER, VOCAB_SIZE, corpus, save_tokenizer
from cobra.data.text.tokenizer import SPECIAL_TOKENS

from transformers import AutoTokenizer, PreTrainedTokenizerFast  # isort: skip


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(FOLDER)


def test_committed_files_are_what_training_gives(tmp_path: Path) -> None:
    save_tokenizer(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert json.loads((tmp_path / name).read_text()) == json.loads((FOLDER / name).read_text()), name


def test_special_tokens_come_first(tokenizer: PreTrainedTokenizerFast) -> None:
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    assert tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS)) == [0, 1, 2, 3, 4]
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (0, 1)
    assert len(tokenizer) <= VOCAB_SIZE


def test_every_word_is_one_token(tokenizer: PreTrainedTokenizerFast) -> None:
    words = {word.strip("?,.") for phrase in corpus() for word in phrase.split()}
    assert set(CELL_NAMES) <= words
    assert {word: n for word in words if (n := len(tokenizer.encode(f" {word}"))) != 1} == {}


def test_corpus_has_every_word_that_is_asked_or_said(tokenizer: PreTrainedTokenizerFast) -> None:
    scenes = build_scenes(300, 9, "train")
    texts = [text for questions in scenes.questions for _, *pair in questions for text in pair]
    texts += [caption(labels) for labels in scenes.labels]
    for text in texts:
        words = text.replace("?", " ?").replace(",", " ,").split()
        assert len(tokenizer.encode(f" {text}")) == len(words) + sum(word[-1].isdigit() for word in words)


@pytest.mark.parametrize(
    "text",
    ["is there a red circle?", "  two  spaces\n\ttab ", "Grüße, 世界! 🐍 e\u0301 \u202e \x00", "", "ÿ" * 50],
)
def test_any_text_survives(text: str, tokenizer: PreTrainedTokenizerFast) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert all(5 <= token < VOCAB_SIZE for token in ids)


def test_template_writes_turns_and_marks_answers(tokenizer: PreTrainedTokenizerFast) -> None:
    chat = [
        m.as_dict() for m in (user(" red? ", images=1), assistant(" yes\n"), user("sure?"), assistant("no"))
    ]
    assert tokenizer.apply_chat_template(chat, tokenize=False) == (
        "<|user|><image> red?<|assistant|> yes<|endoftext|><|user|> sure?<|assistant|> no<|endoftext|>"
    )
    rendered = tokenizer.apply_chat_template(chat, return_dict=True, return_assistant_tokens_mask=True)
    answers = [i for i, said in zip(rendered["input_ids"], rendered["assistant_masks"], strict=True) if said]
    assert tokenizer.decode(answers) == " yes<|endoftext|> no<|endoftext|>"


def test_prompt_of_plain_strings_ends_where_the_answer_starts(tokenizer: PreTrainedTokenizerFast) -> None:
    chat = [{"role": "user", "content": "red?"}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text == "<|user|> red?<|assistant|>"


def test_unknown_role_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(Exception, match="role system is unknown"):
        tokenizer.apply_chat_template([{"role": "system", "content": "a"}], tokenize=False)
