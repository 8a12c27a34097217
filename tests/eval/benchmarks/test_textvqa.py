import json
from pathlib import Path

import pytest

from cobra.eval.benchmarks.textvqa import TextVqa
from cobra.eval.protocols.protocol import Ask, read_protocol
from tests.eval.benchmarks.predictions import answered
from tests.eval.benchmarks.small_files import allow_any_size, write_small

WORD = "\nAnswer the question using a single word or phrase."
ROSETTA = "textvqa/TextVQA_Rosetta_OCR_v0.2_val.json"
LLAVA = "textvqa/llava_textvqa_val_v051_ocr.jsonl"
# Two questions on one picture, which LLaVA's file gives one id.
QUESTIONS = [
    (34602, "003a8ae2ef43b901", "what is the brand of this camera?", ["dakota"] * 8 + ["dakota digital"] * 2),
    (34603, "003a8ae2ef43b901", "What does it say?", ["50's"] * 3 + ["fifties"] * 7),
]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    allow_any_size(monkeypatch, TextVqa)
    data = [
        {"question_id": i, "image_id": image, "question": question, "answers": people, "set_name": "val"}
        for i, image, question, people in QUESTIONS
    ]
    write_small(tmp_path, "textvqa/TextVQA_0.5.1_val.json", {"dataset_type": "val", "data": data})
    return tmp_path


def write_tokens(root: Path, *texts: str) -> None:
    lines = [{"question_id": QUESTIONS[0][1], "image": "x.jpg", "text": text} for text in texts]
    (root / LLAVA).write_text("\n".join(map(json.dumps, lines)))


def ask(protocol: str, name: str) -> Ask:
    return next(each for each in read_protocol(protocol).asks["textvqa"] if each.name == name)


def test_ids_are_the_questions_own_and_tokens_are_found_by_picture_and_question(root: Path) -> None:
    write_tokens(
        root,
        f"What does it SAY?\nReference OCR token: 50's, 1,000{WORD}",
        f"{QUESTIONS[0][2]}\nReference OCR token: {WORD}",
    )
    first, second = TextVqa(root).questions()
    assert (first.id, second.id) == ("34602", "34603")
    assert first.images == [root / "textvqa/train_images/003a8ae2ef43b901.jpg"]
    assert first.fields["ocr_tokens"] == []
    assert second.fields["ocr_tokens"] == ["50's", "1,000"]


def test_prompts_are_those_of_each_family(root: Path) -> None:
    rosetta = [{"image_id": QUESTIONS[0][1], "ocr_tokens": ["DAKOTA", "DIGITAL"], "ocr_info": []}]
    write_small(root, ROSETTA, {"data": rosetta})
    fields = next(TextVqa(root).questions()).fields
    tokens = "Reference OCR token: DAKOTA, DIGITAL"
    question = QUESTIONS[0][2]
    assert ask("llava", "ocr_last").render(fields) == f"{question}\n{tokens}{WORD}"
    assert ask("llava", "short").render(fields) == ask("prismatic", "short").render(fields) == question + WORD
    assert ask("prismatic", "ocr_first").render(fields) == f"{tokens}\n{question}{WORD}"
    assert ask("lmms-eval", "capital_short").render(fields) == f"What{question[4:]}{WORD}"


def test_questions_are_spelled_as_llavas_file_spells_them(root: Path) -> None:
    """The first line of the published file; TextVQA's own begins with a small letter."""
    asked = f"What is the brand of this camera?\nReference OCR token: DAKOTA, DIGITAL{WORD}"
    write_tokens(root, asked, f"{QUESTIONS[1][2]}\nReference OCR token: {WORD}")
    fields = next(TextVqa(root).questions()).fields
    assert ask("llava", "ocr_last").render(fields) == asked
    assert ask("prismatic", "ocr_first").render(fields).splitlines()[1] == asked.splitlines()[0]
    assert ask("llava", "short").render(fields) == f"What is the brand of this camera?{WORD}"


def test_without_tokens_only_what_names_them_cannot_be_asked(root: Path) -> None:
    fields = next(TextVqa(root).questions()).fields
    assert ask("llava", "short").render(fields).startswith("what is")
    with pytest.raises(ValueError, match="'ocr_tokens' is undefined; is an optional file missing"):
        ask("llava", "ocr_last").render(fields)


def test_a_file_of_other_tokens_is_refused(root: Path) -> None:
    write_tokens(root, f"Another?\nReference OCR token: a{WORD}")
    with pytest.raises(ValueError, match=r"no OCR tokens for .*fetch their file again"):
        list(TextVqa(root).questions())


@pytest.mark.parametrize(
    ("said", "credits"),
    [
        ("Dakota", (1, 0)),
        ("dakota digital.", (0.6, 0)),
        ("the Dakota Digital", (0.6, 0)),
        ("50's", (0, 0.9)),
        # The possessive is a word of its own, before the comma and the period go.
        ("50 's", (0, 0.9)),
        ("50s", (0, 0)),
        ("fifties?", (0, 1)),
        ("fifties\n", (0, 1)),
        ("", (0, 0)),
        ("dakota, digital", (0.6, 0)),
    ],
)
def test_credit_is_that_of_m4c(root: Path, said: str, credits: tuple[float, float]) -> None:
    benchmark = TextVqa(root)
    given = answered(benchmark, [said, said])
    assert [benchmark.credit(each) for each in given] == pytest.approx(list(credits))
    assert benchmark.score(given) == pytest.approx({"accuracy": 50 * sum(credits)})
