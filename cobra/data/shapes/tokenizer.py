"""The tokenizer of the tiny models: byte-level BPE in which every word of ShapesVQA is one token."""

from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer

from cobra.data.shapes.dataset import DESCRIBE
from cobra.data.shapes.questions import ANSWERS, plural
from cobra.data.shapes.scene import CELL_NAMES, COLORS, NUMBERS, SHAPES
from cobra.data.text.tokenizer import save_bpe, train_bpe

# A round size for a model's embedding; there are fewer tokens where the corpus has no more pairs to merge.
VOCAB_SIZE = 512
# Committed files; chat_template.jinja is written by hand.
FOLDER = Path(__file__).parent / "tokenizer"


def train_tokenizer() -> Tokenizer:
    """A GPT-2 style tokenizer, always the same: its corpus is a list of phrases, no drawn scenes."""
    # the chat template puts a space before every text, so that a word is the same token wherever it stands
    return train_bpe((f" {phrase}" for phrase in corpus()), VOCAB_SIZE)


def corpus() -> Iterator[str]:
    """Phrases that hold every word of the task."""
    yield DESCRIBE
    yield from CELL_NAMES
    for shape in SHAPES:
        yield f"what color is the {shape}?"
        yield f"how many {plural(shape)} are there?"
        for color in COLORS:
            yield f"is there a {color} {shape}? is there an {color} {shape}? where is the {color} {shape}?"
            yield f"find the {color} {shape}. find the digit."
            for relation in ("left of", "right of", "above", "below"):
                yield f"is the {color} {shape} {relation} the {color} {shape}?"
    for color in COLORS:
        yield f"how many {color} objects are there? what shape is the {color} object?"
    yield "what digit is written?"
    yield from (f"{number} digit, {number} digit" for number in NUMBERS)
    yield from (answer for answers in ANSWERS["train"].values() for answer in answers)


def save_tokenizer(folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json, for `AutoTokenizer` beside a chat template."""
    save_bpe(train_tokenizer(), folder)
