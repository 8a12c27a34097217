"""The prompts of LLaVA's family to the letter, and how they become tokens."""

import json
from pathlib import Path

import pytest
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

import cobra.torchvision_shim  # noqa: F401  (before transformers)
from cobra.data.chat import Chat
from cobra.data.llava import LlavaJson
from cobra.data.record import Message, assistant, user

from transformers import PreTrainedTokenizerFast  # isort: skip

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
# template, end of text: what is written for a picture with " Hi?\n", "Yes ", "More", "No"
TURNS = {
    ("vicuna_v1", "</s>"): [
        f"<s>{SYSTEM} USER: <image>\nHi? ASSISTANT:", " Yes</s>", "USER: More ASSISTANT:", " No</s>",
    ],
    ("vicuna_v1", "<|endoftext|>"): [
        f"{SYSTEM} USER: <image>\nHi? ASSISTANT:", " Yes<|endoftext|>", "USER: More ASSISTANT:",
        " No<|endoftext|>",
    ],
    ("imp_qwen2", "<|endoftext|>"): [
        f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n<image>\nHi?<|im_end|>\n"
        "<|im_start|>assistant\n",
        "Yes<|im_end|>",
        "\n<|im_start|>user\nMore<|im_end|>\n<|im_start|>assistant\n",
        "No<|im_end|>",
    ],
    ("imp_phi3", "</s>"): [
        f"<s><|system|>\n{SYSTEM}<|end|>\n<|user|>\n<image>\nHi?<|end|>\n<|assistant|>\n",
        "Yes<|end|>",
        "\n<|user|>\nMore<|end|>\n<|assistant|>\n",
        "No<|end|>",
    ],
    ("phiva", "</s>"): ["USER: <image>\nHi? ASSISTANT:", " Yes</s>", "USER: More ASSISTANT:", " No</s>"],
}  # fmt: skip
MESSAGES = [user(" Hi?\n", images=1), assistant("Yes "), user("More"), assistant("No")]
SPECIAL = ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|im_start|>", "<|im_end|>"]


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By their end of text: one built like LLaMA's, with SentencePiece's spaces, and one like Phi-2's."""
    folders = {}
    for end, start in (("</s>", "<s>"), ("<|endoftext|>", "<|endoftext|>")):
        bpe = Tokenizer(models.BPE(byte_fallback=True))
        if start != end:
            bpe.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
            bpe.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()])
            alphabet = [chr(code) for code in range(32, 127)] + ["▁", "\n"]
        else:
            bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
            bpe.decoder = decoders.ByteLevel()
            alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        trainer = trainers.BpeTrainer(
            vocab_size=300, special_tokens=[*{start: 0, end: 0}], initial_alphabet=alphabet,
            show_progress=False,
        )  # fmt: skip
        # word by word, so that no token spans two of them
        bpe.train_from_iterator(f"{SYSTEM} USER: Hi? ASSISTANT: Yes".split() * 9, trainer)
        bpe.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
        if start != end:
            bpe.post_processor = processors.TemplateProcessing(
                single="<s> $A", special_tokens=[("<s>", bpe.token_to_id("<s>"))]
            )
        folders[end] = tmp_path_factory.mktemp("tokenizer")
        fast = PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token=start, eos_token=end)
        fast.save_pretrained(folders[end])
    return folders


def load(tokenizers: dict[str, Path], name: str, end: str) -> Chat:
    return Chat(str(tokenizers[end]), f"cobra:data/templates/{name}.jinja")


@pytest.mark.parametrize(("name", "end"), TURNS)
def test_turns_are_written_to_the_letter(tokenizers: dict[str, Path], name: str, end: str) -> None:
    chat = load(tokenizers, name, end)
    segments = chat.segments([m.as_dict() for m in MESSAGES])
    assert [s.text for s in segments] == TURNS[name, end]
    assert [s.is_answer for s in segments] == [False, True, False, True]
    # a prompt is the training text up to the answer
    prompt = chat.segments([m.as_dict() for m in MESSAGES[:3]], prompt=True)
    assert [s.text for s in prompt] == TURNS[name, end][:3]


@pytest.mark.parametrize(("name", "end"), [key for key in TURNS if key[0] != "phiva"])
def test_alignment_is_a_picture_a_caption_and_a_newline(
    tokenizers: dict[str, Path], name: str, end: str
) -> None:
    messages = [Message("user", [{"type": "image"}]), assistant(" A cat. ")]
    segments = load(tokenizers, name, end).segments([m.as_dict() for m in messages])
    start = "<s>" if (name, end) in [("vicuna_v1", "</s>"), ("imp_phi3", "</s>")] else ""
    assert [(s.text, s.is_answer) for s in segments] == [(f"{start}<image>", False), ("A cat.\n", True)]


@pytest.mark.parametrize(("name", "end"), TURNS)
def test_a_question_of_a_picture_alone_is_a_turn(
    tokenizers: dict[str, Path], name: str, end: str, tmp_path: Path
) -> None:
    """LLaVA strips what is around it: no newline is left."""
    turns = [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": "Yes"}]
    (tmp_path / "a.json").write_text(json.dumps([{"id": 0, "image": "a.jpg", "conversations": turns}]))
    record = LlavaJson(tmp_path / "a.json", tmp_path, tmp_path)[0]
    said = [s.text for s in load(tokenizers, name, end).segments([m.as_dict() for m in record.messages])]
    assert said == [TURNS[name, end][0].replace("\nHi?", ""), TURNS[name, end][1]]


@pytest.mark.parametrize(
    ("name", "end", "stop"),
    [
        ("vicuna_v1", "</s>", "</s>"),
        ("vicuna_v1", "<|endoftext|>", "<|endoftext|>"),
        ("imp_qwen2", "<|endoftext|>", "<|im_end|>"),
        ("imp_phi3", "</s>", "<|end|>"),
        # `</s>` is no special token of this tokenizer, so its own end stops an answer
        ("phiva", "<|endoftext|>", "<|endoftext|>"),
    ],
)
def test_an_answer_stops_at_what_the_template_ends_it_with(
    tokenizers: dict[str, Path], name: str, end: str, stop: str
) -> None:
    chat = load(tokenizers, name, end)
    assert chat.tokenizer.convert_ids_to_tokens(chat.eos_id) == stop


@pytest.mark.parametrize("end", ["</s>", "<|endoftext|>"])
def test_turns_that_are_tokenised_apart_are_the_tokens_of_the_whole(
    tokenizers: dict[str, Path], end: str
) -> None:
    """As LLaVA trains: where SentencePiece adds a space, an answer does not get a second one."""
    chat = load(tokenizers, "vicuna_v1", end)
    asked, said = user("Hi?"), assistant("Yes")
    prompt, answer = chat.segments([asked.as_dict(), said.as_dict()])
    whole = chat.tokenizer.encode(prompt.text.removeprefix("<s>") + answer.text)
    assert chat.encode(prompt.text) + chat.encode(answer.text, answer.before) == whole
    assert chat.decode(chat.encode(answer.text, answer.before)) == "Yes"
