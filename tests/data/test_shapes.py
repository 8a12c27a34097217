import re
import subprocess
import sys
from collections import Counter, defaultdict

import numpy as np
import pytest

from cobra.data.shapes.build import Scenes, build_scenes
from cobra.data.shapes.questions import ANSWERS, TYPES
from cobra.data.shapes.render import load_digits, render
from cobra.data.shapes.scene import (
    COLORS,
    HELD_OUT,
    NUMBERS,
    SHAPES,
    TEST_DIGITS,
    TRAIN_DIGITS,
    Object,
    Scene,
    Split,
)
from cobra.data.shapes.scene import caption as write_caption

SPLITS: tuple[Split, ...] = ("train", "test", "composition")


@pytest.fixture(scope="module")
def scenes() -> dict[Split, Scenes]:
    return {split: build_scenes(800, 3, split) for split in SPLITS}


def objects_of(labels: np.ndarray) -> list[tuple[str, str, int, int]]:
    """Colour, shape, row and column of what stands in the cells, read back from their classes."""
    colors = list(COLORS)
    return [
        (colors[c - 1], SHAPES[s - 1], cell // 4, cell % 4)
        for cell, (c, s, _) in enumerate(labels.tolist())
        if c > 0
    ]


def test_split_is_the_same_in_every_process() -> None:
    code = (
        "import zlib, json; from cobra.data.shapes.build import build_scenes\n"
        "for split in ('train', 'test', 'composition'):\n"
        "    s = build_scenes(60, 5, split)\n"
        "    for part in (s.images.data, s.labels.data, json.dumps(s.questions).encode()):\n"
        "        print(zlib.crc32(part))"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in ("1", "2")
    ]
    runs = [process.communicate()[0] for process in processes]
    assert runs[0] == runs[1]
    assert len(set(runs[0].split())) == 9


def test_seeds_and_splits_differ() -> None:
    pictures = [build_scenes(1, seed, split).images.tobytes() for seed in (0, 1) for split in SPLITS]
    assert len(set(pictures)) == len(pictures)


@pytest.mark.parametrize("split", ["train", "test"])
def test_held_out_pairs_are_not_drawn(split: Split, scenes: dict[Split, Scenes]) -> None:
    drawn = {(color, shape) for labels in scenes[split].labels for color, shape, *_ in objects_of(labels)}
    assert not drawn & set(HELD_OUT)
    assert len(drawn) == 42
    assert {color for color, _ in drawn} == set(COLORS)
    assert {shape for _, shape in drawn} == set(SHAPES)


def test_held_out_pairs_are_not_mentioned_in_train(scenes: dict[Split, Scenes]) -> None:
    texts = {question.text for questions in scenes["train"].questions for question in questions}
    assert not [text for text in texts if any(" ".join(pair) in text for pair in HELD_OUT)]


def test_composition_asks_about_held_out_pairs_only(scenes: dict[Split, Scenes]) -> None:
    held_out = set(HELD_OUT)
    for labels, questions in zip(scenes["composition"].labels, scenes["composition"].questions, strict=True):
        there = {(color, shape) for color, shape, *_ in objects_of(labels)} & held_out
        assert there
        for question in questions:
            named = {pair for pair in held_out if re.search(" ".join(pair) + r"\b", question.text)}
            mentioned = re.findall(rf"({'|'.join(COLORS)}) ({'|'.join(SHAPES)})\b", question.text)
            assert set(mentioned) == named
            if not mentioned:
                words = question.text.replace("crosses", "cross").replace("?", "").split()
                about = {word.rstrip("s") if word.rstrip("s") in SHAPES else word for word in words}
                assert any({*pair} & about for pair in there), question


def test_digits_of_the_splits_are_disjoint(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[Split, set[int]] = {}

    def spy(chosen: list[Scene], seed: list[int], varied: bool) -> np.ndarray:
        drawn[split].update(scene.glyph for scene in chosen)
        return np.zeros((len(chosen), 64, 64, 3), np.uint8)

    monkeypatch.setattr("cobra.data.shapes.build.render", spy)
    for split in SPLITS:
        drawn[split] = set()
        build_scenes(500, 0, split)
    assert drawn["train"] <= set(TRAIN_DIGITS)
    assert drawn["test"] | drawn["composition"] <= set(TEST_DIGITS)
    assert not set(TRAIN_DIGITS) & set(TEST_DIGITS)
    assert set(TRAIN_DIGITS) | set(TEST_DIGITS) == set(range(len(load_digits()[1]))) == set(range(1797))


@pytest.mark.parametrize("split", SPLITS)
def test_answers_are_balanced(split: Split, scenes: dict[Split, Scenes]) -> None:
    counts = {kind: Counter(dict.fromkeys(answers, 0)) for kind, answers in ANSWERS[split].items()}
    for questions in scenes[split].questions:
        assert 3 <= len(questions) <= 6
        assert len({question.text for question in questions}) == len(questions)
        for question in questions:
            counts[question.kind][question.answer] += 1
    for kind, answers in counts.items():
        assert set(answers) == set(ANSWERS[split][kind])
        # rare answers may lag by what the common ones run ahead, at most 3 each
        assert max(answers.values()) - min(answers.values()) <= 3 * len(answers), (kind, answers)
        assert max(answers.values()) <= sum(answers.values()) / len(answers) + 3


@pytest.mark.parametrize(("split", "share"), [("train", 2), ("test", 1)])
def test_relations_are_asked_about_more_in_training(
    split: Split, share: int, scenes: dict[Split, Scenes]
) -> None:
    counts = Counter(question.kind for questions in scenes[split].questions for question in questions)
    assert counts["relation"] / counts["exist"] == pytest.approx(share, rel=0.1)


def test_majority_answer_of_each_question_scores_like_chance(scenes: dict[Split, Scenes]) -> None:
    seen: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for questions in build_scenes(3000, 0, "train").questions:
        for question in questions:
            seen[question.text][question.answer] += 1
    right: defaultdict[str, list[bool]] = defaultdict(list)
    for questions in scenes["test"].questions:
        for question in questions:
            guess = seen[question.text].most_common(1)[0][0] if seen[question.text] else ""
            right[question.kind].append(guess == question.answer)
    assert np.mean([np.mean(right[kind]) for kind in TYPES]) <= 0.28


def test_chance_is_the_mean_of_the_answer_counts() -> None:
    assert np.mean([1 / len(ANSWERS["test"][kind]) for kind in TYPES]) == pytest.approx(0.255, abs=5e-4)


@pytest.mark.parametrize("split", SPLITS)
def test_answers_are_true(split: Split, scenes: dict[Split, Scenes]) -> None:
    for labels, questions in zip(scenes[split].labels, scenes[split].questions, strict=True):
        for question in questions:
            assert answer(question.text, labels) == question.answer, (question, write_caption(labels))


def answer(text: str, labels: np.ndarray) -> str:
    """The answer worked out from the words of the question, apart from the code that asks."""
    objects = objects_of(labels)

    def find(phrase: str) -> tuple[str, str, int, int]:
        (match,) = [obj for obj in objects if phrase in (f"{obj[0]} {obj[1]}", f"{obj[0]} object", obj[1])]
        return match

    if match := re.fullmatch(r"is there an? (\w+ \w+)\?", text):
        return "yes" if match[1] in [f"{obj[0]} {obj[1]}" for obj in objects] else "no"
    if match := re.fullmatch(r"how many (\w+) objects are there\?", text):
        return NUMBERS[sum(obj[0] == match[1] for obj in objects)]
    if match := re.fullmatch(r"how many (circle|square|triangle|cross|ring|diamond)e?s are there\?", text):
        return NUMBERS[sum(obj[1] == match[1] for obj in objects)]
    if match := re.fullmatch(r"what color is the (\w+)\?", text):
        return find(match[1])[0]
    if match := re.fullmatch(r"what shape is the (\w+ object)\?", text):
        return find(match[1])[1]
    if match := re.fullmatch(r"where is the (\w+ \w+)\?", text):
        _, _, row, column = find(match[1])
        return f"{'top' if row < 2 else 'bottom'} {'left' if column < 2 else 'right'}"
    if match := re.fullmatch(r"is the (\w+ \w+) (left of|right of|above|below) the (\w+ \w+)\?", text):
        (*_, row, column), (*_, other_row, other_column) = find(match[1]), find(match[3])
        leads = {"left of": other_column - column, "right of": column - other_column}
        leads |= {"above": other_row - row, "below": row - other_row}
        assert leads[match[2]] != 0
        return "yes" if leads[match[2]] > 0 else "no"
    assert text == "what digit is written?"
    (cell,) = np.flatnonzero(labels[:, 2])
    return NUMBERS[labels[cell, 2] - 1]


def test_caption_lists_the_cells_in_reading_order() -> None:
    labels = np.zeros((16, 3), np.int8)
    labels[0], labels[10] = (1, 1, 0), (0, 7, 8)
    assert write_caption(labels) == "a red circle, k seven digit"


def test_objects_are_drawn_in_their_cells_in_their_colours() -> None:
    objects = [Object(color, "circle", 2 * number) for number, color in enumerate(COLORS)]
    picture = render([Scene(objects, 0, 15, 0)], [0])[0].astype(int)
    for color, _, cell in objects:
        y, x = (16 * i for i in divmod(cell, 4))
        pixels = picture[y : y + 16, x : x + 16].reshape(-1, 3)
        bright = pixels[pixels.sum(1).argsort()[-20:]].mean(0)
        near = {
            name: np.abs(bright / bright.sum() - np.array(rgb) / sum(rgb)).sum()
            for name, rgb in COLORS.items()
        }
        assert min(near, key=near.__getitem__) == color
    assert picture[16:28, 20:28].mean() < 100, "an empty cell is dark"
    assert picture[49:63, 49:63].max() > 200, "the digit is bright"


def test_training_digits_vary_within_their_cells() -> None:
    moved = {}
    for varied in (True, False):
        pictures = render([Scene([], 0, 5, 0)] * 40, [0], varied)[..., 0].astype(float)
        ink = np.clip(pictures - 120, 0, None)
        rows = (ink.sum(2) * np.arange(64)).sum(1) / ink.sum((1, 2))
        moved[varied] = rows.std()
        ink[:, 16:32, 16:32] = 0
        assert not ink.any()
    assert moved[True] > 0.5
    assert moved[False] < 0.2
