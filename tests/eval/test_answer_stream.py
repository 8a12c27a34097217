"""The picture of a scene and the answers to it."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from cobra.data.chat import Chat
from cobra.data.processor import Processor
from cobra.data.record import Record, user
from cobra.eval.answer_stream import answer_stream, draw_answer_stream, first_scene
from cobra.eval.predictions import Prediction
from cobra.models.vlm import CobraVLM
from tests.models.builders import ENCODERS, LMS, PROJECTORS

QUESTION = "what digit is written?"


@pytest.fixture
def answering(tmp_path: Path) -> tuple[CobraVLM, Processor, Path]:
    torch.manual_seed(0)
    lm = partial(LMS["mamba2"].func, 512, 32, 2, d_state=16, head_dim=16)  # type: ignore[attr-defined]
    model = CobraVLM(ENCODERS["small_vit"], PROJECTORS["pixel_unshuffle"], lm).eval()
    Image.effect_noise((32, 32), 80).convert("RGB").save(tmp_path / "picture.png")
    return model, Processor.of(model, Chat("cobra:data/shapes/tokenizer")), tmp_path / "picture.png"


def test_its_probabilities_are_those_of_the_answer_read_in_one_go(
    answering: tuple[CobraVLM, Processor, Path],
) -> None:
    model, processor, picture = answering
    answer, tokens = answer_stream(model, processor, picture, QUESTION)
    record = Record("a", [user(QUESTION, images=1)], [picture])
    batch = processor.collate([processor.encode_question(record)], left=True)
    unknown = processor.chat.unknown_ids(model.lm.vocab_size)
    options: dict[str, Any] = {"max_new_tokens": 4, "eos_id": processor.chat.eos_id, "suppress": unknown}
    new = model.generate(batch.ids, batch.pictures, **options)
    assert answer == processor.chat.decode(new[0].tolist())
    with torch.no_grad():
        whole = model(torch.cat([batch.ids, new], dim=1), batch.pictures)[:, batch.ids.shape[1] - 1 : -1]
    expected = model.lm.head(whole).index_fill(-1, unknown, -torch.inf).softmax(-1)[0].topk(3).values
    found = torch.tensor([token.probabilities for token in tokens])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_the_questions_about_the_first_picture_are_drawn(
    answering: tuple[CobraVLM, Processor, Path], tmp_path: Path
) -> None:
    model, processor, picture = answering
    ids = ["test-2-0-0", "test-2-0-1", "test-2-01-0", "test-2-1-0"]
    asked = first_scene([Prediction("test", each, "digit", QUESTION, "", ["six"]) for each in ids])
    assert [prediction.question_id for prediction in asked] == ids[:2]
    draw_answer_stream(model, processor, picture, asked, tmp_path / "stream.png")
    with Image.open(tmp_path / "stream.png") as drawn:
        colors = drawn.convert("RGB").getcolors(1 << 24) or []
    # red: neither answer of an untrained model is right
    assert (0xCF, 0x22, 0x2E) in {color for _, color in colors}
