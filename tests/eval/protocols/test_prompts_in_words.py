"""What each protocol asks of benchmarks that are answered in words, letter for letter."""

import pytest

from cobra.eval.asks import asks_of
from cobra.eval.benchmarks.find import benchmark_names, find_benchmark
from cobra.eval.protocols.protocol import Ask, protocol_names, read_protocol

WORD = "\nAnswer the question using a single word or phrase."
UNANSWERABLE = "\nWhen the provided information is insufficient, respond with 'Unanswerable'."
TOKENS = "Reference OCR token: 50's, a"
STEPS = (
    "First please perform reasoning, and think step by step to provide best answer to the following "
    "question: \n\nwhat is THIS?"
)
QUESTION = "what is THIS?"
CAPITAL = "What is this?"


def ask(protocol: str, benchmark: str, name: str) -> Ask:
    (found,) = (each for each in read_protocol(protocol).asks[benchmark] if each.name == name)
    return found


@pytest.mark.parametrize(
    ("protocol", "benchmark", "name", "prompt", "longest"),
    [
        ("llava", "vqav2", "short", QUESTION + WORD, 128),
        ("llava", "vqav2_test", "short", QUESTION + WORD, 128),
        ("llava", "gqa", "short", QUESTION + WORD, 128),
        ("llava", "vizwiz", "short_or_unanswerable", QUESTION + UNANSWERABLE + WORD, 128),
        ("llava", "vizwiz_test", "short_or_unanswerable", QUESTION + UNANSWERABLE + WORD, 128),
        ("llava", "textvqa", "ocr_last", f"{QUESTION}\n{TOKENS}{WORD}", 128),
        ("llava", "textvqa", "short", QUESTION + WORD, 128),
        ("llava", "mmvet", "question_at_length", QUESTION, 1024),
        ("prismatic", "vqav2", "short", QUESTION + WORD, 128),
        ("prismatic", "gqa", "short", QUESTION + WORD, 128),
        ("prismatic", "vizwiz", "short_or_unanswerable", QUESTION + UNANSWERABLE + WORD, 128),
        ("prismatic", "textvqa", "ocr_first", f"{TOKENS}\n{QUESTION}{WORD}", 128),
        ("prismatic", "textvqa", "ocr_last", f"{QUESTION}\n{TOKENS}{WORD}", 128),
        ("prismatic", "textvqa", "short", QUESTION + WORD, 128),
        ("lmms-eval", "vqav2", "short", QUESTION + WORD, 128),
        ("lmms-eval", "gqa", "short", QUESTION + WORD, 128),
        ("lmms-eval", "vizwiz", "capital_short_or_unanswerable", CAPITAL + UNANSWERABLE + WORD, 128),
        ("lmms-eval", "textvqa", "capital_short", CAPITAL + WORD, 128),
        ("lmms-eval", "ocrbench", "question", QUESTION, 128),
        ("lmms-eval", "mmvet", "step_by_step", STEPS, 1024),
    ],
)
def test_prompts_are_those_of_the_family(
    protocol: str, benchmark: str, name: str, prompt: str, longest: int
) -> None:
    asked = ask(protocol, benchmark, name)
    assert asked.render({"question": QUESTION, "ocr_tokens": ["50's", "a"]}) == prompt
    assert (asked.chooses, asked.max_new_tokens) == (False, longest)


@pytest.mark.parametrize("name", benchmark_names())
def test_every_benchmark_can_be_asked_by_some_protocol(name: str) -> None:
    benchmark = find_benchmark(name)
    assert any(
        asks_of(benchmark, [each])
        for each in map(read_protocol, protocol_names())
        if name in each.asks or benchmark.asks
    )


@pytest.mark.parametrize("protocol", protocol_names())
def test_stanzas_are_of_benchmarks_that_there_are(protocol: str) -> None:
    for benchmark in read_protocol(protocol).asks:
        find_benchmark(benchmark)


def test_an_ask_of_a_benchmark_has_one_content_over_all_protocols() -> None:
    contents: dict[tuple[str, str], Ask] = {}
    for protocol in map(read_protocol, protocol_names()):
        for benchmark, asks in protocol.asks.items():
            for each in (*asks, *find_benchmark(benchmark).asks):
                assert contents.setdefault((benchmark, each.name), each) == each
