"""What each protocol asks of benchmarks with choices, letter for letter."""

from typing import Any

import pytest

from cobra.eval.protocols.protocol import Ask, read_protocol

WORD = "\nAnswer the question using a single word or phrase."
TRUE = (
    'Based on the image, is this statement "True" or "False"? The cat is on the mat.\n'
    'Respond with "True" or "False" directly.'
)

CHOICES = {"question": "What is it?", "hint": "", "options": "A. cat\nB. dog", "letters": ["A", "B"]}
HINTED = {**CHOICES, "hint": "Look."}
LETTER = "What is it?\nA. cat\nB. dog\nAnswer with the option's letter from the given choices directly."
CHINESE = "What is it?\nA. cat\nB. dog\n请直接回答选项字母。"
SEVERAL = (
    "Look. What is it? There are several options:\nA. cat\nB. dog\n\n"
    "Answer with the option's letter from the given choices directly."
)
BOX = "Please provide the bounding box coordinate of the region this sentence describes"


def ask(protocol: str, benchmark: str, name: str) -> Ask:
    (found,) = (each for each in read_protocol(protocol).asks[benchmark] if each.name == name)
    return found


@pytest.mark.parametrize(
    ("protocol", "benchmark", "name", "fields", "prompt", "choices"),
    [
        ("llava", "mme", "short", {"question": "Is it? Please answer yes or no."}, f"Is it?{WORD}", []),
        ("lmms-eval", "mme", "short", {"question": "Is it? Please answer yes or no."}, f"Is it?{WORD}", []),
        (
            "prismatic",
            "vsr",
            "true_false_likelihood",
            {"caption": "The cat is on the mat."},
            TRUE,
            ["True", "False"],
        ),
        ("prismatic", "vsr_random", "true_false", {"caption": "The cat is on the mat."}, TRUE, []),
        ("llava", "mmbench", "letter", CHOICES, LETTER, []),
        ("llava", "mmbench", "letter", HINTED, f"Look.\n{LETTER}", []),
        ("llava", "mmbench_cn", "letter", CHOICES, CHINESE, []),
        ("prismatic", "mmbench", "letter_likelihood", HINTED, f"Look.\n{LETTER}", ["A", "B"]),
        ("lmms-eval", "mmbench", "several_options", HINTED, SEVERAL, []),
        ("llava", "refcoco", "box", {"expression": "a dog"}, f"{BOX}: a dog", []),
        ("prismatic", "refcocog", "quoted_box", {"expression": "a dog"}, f'{BOX}: "a dog"', []),
    ],
)
def test_prompts_are_those_of_the_family(
    protocol: str, benchmark: str, name: str, fields: dict[str, Any], prompt: str, choices: list[str]
) -> None:
    asked = ask(protocol, benchmark, name)
    assert (asked.render(fields), asked.choices_of(fields)) == (prompt, choices)
