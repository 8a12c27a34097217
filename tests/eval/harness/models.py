"""Small models of random weights in folders, and what they say of a question when each is asked alone."""

from pathlib import Path

import torch

from cobra.data.chat import Chat
from cobra.data.record import Record
from cobra.inference.conversation import Conversation
from cobra.models.vlm import CobraVLM
from cobra.pretrained import from_pretrained, save_pretrained
from tests.models.builders import ENCODERS, LMS, PROJECTORS


def write_model(folder: Path, lm: str = "mamba2") -> Path:
    """Of weights large enough for answers that differ."""
    torch.manual_seed(0)
    model = CobraVLM(ENCODERS["small_vit"], PROJECTORS["pixel_unshuffle"], LMS[lm])
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(4 if weight.ndim == 2 else 1)
    save_pretrained(model, Chat("cobra:data/shapes/tokenizer"), folder)
    return folder


def said_alone(folder: Path, records: list[Record], max_new_tokens: int) -> list[str]:
    """The answer to the first turn of each record, in a conversation of its own."""
    talk = Conversation(*from_pretrained(folder), max_new_tokens=max_new_tokens)
    answers = []
    for record in records:
        talk.reset()
        answers.append("".join(talk.ask(record.messages[0].text, record.images)))
    return answers
