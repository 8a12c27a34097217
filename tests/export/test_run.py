"""Conversations with an engine: what they say is what the model says, and nothing is read twice."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cobra.data.chat import Chat
from cobra.data.processor import Processor
from cobra.eval.evaluated import EvaluatedExport
from cobra.export.engines.ours import OwnEngine
from cobra.export.manifest import Contents, write_manifest
from cobra.export.run import Talk, run_export
from cobra.export.targets import TARGETS, Target
from cobra.inference.conversation import Conversation
from cobra.models.vlm import CobraVLM
from cobra.pretrained import save_pretrained
from tests.models.builders import LMS, PROJECTORS, small_vit


@pytest.fixture
def model() -> CobraVLM:
    torch.manual_seed(0)
    made = CobraVLM(small_vit, PROJECTORS["mlp"], LMS["mamba2"]).eval()
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.1)
    return made


def test_several_turns_are_those_of_the_model(model: CobraVLM, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)
    Image.fromarray(noise).save(picture := tmp_path / "p.png")
    chat = Chat("cobra:data/shapes/tokenizer")
    processor = Processor.of(model, chat)
    talk = Talk(OwnEngine(model.lm, model, processor, chat.eos_id), chat, max_new_tokens=6)
    conversation = Conversation(model, processor, max_new_tokens=6)
    for question, images in (
        ("how many circles?", [picture]),
        ("which colour?", []),
        ("and these?", [picture]),
    ):
        assert "".join(talk.ask(question, images)) == "".join(conversation.ask(question, images))
    tokens = int(conversation._allocated().lengths.sum())
    assert talk.spent.read + talk.spent.written == tokens
    # the first of an answer comes with its prompt
    written = talk.spent.written
    talk.max_new_tokens = 1
    "".join(talk.ask("how many?"))
    assert talk.spent.written == written


@pytest.fixture
def export(model: CobraVLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a target that is this project's own format."""
    monkeypatch.setitem(TARGETS, "own", Target(("fp32",), "", {"cpu": "ours"}))
    save_pretrained(model, Chat("cobra:data/shapes/tokenizer"), tmp_path / "export")
    write_manifest(tmp_path / "export", "own", "fp32", "model", Contents())
    return tmp_path / "export"


def test_an_answer_ends_before_the_times_where_both_go_to_one_file(
    export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    with log.open("a") as out, log.open("a", buffering=1) as error:
        monkeypatch.setattr("sys.stdout", out)
        monkeypatch.setattr("sys.stderr", error)
        run_export(export, [], ["what?"], 2)
    assert re.fullmatch(r"(?s).*\nT_VE [^\n]* MB\n", log.read_text())


def test_an_export_without_a_tokenizer_is_not_asked(export: Path) -> None:
    for name in ("tokenizer.json", "manifest.json"):
        (export / name).unlink()
    write_manifest(export, "own", "fp32", "model", Contents())
    asked = "the export of model has no tokenizer.json, as the model had none, and cannot be asked: give"
    with pytest.raises(ValueError, match=asked):
        run_export(export, [], ["what?"], 2)
    with pytest.raises(ValueError, match=asked):
        EvaluatedExport(export, "cpu")


def test_pictures_that_an_engine_cannot_read_are_refused(model: CobraVLM, tmp_path: Path) -> None:
    talk = Talk(OwnEngine(model.lm), Chat("cobra:data/shapes/tokenizer"))
    with pytest.raises(ValueError, match="this export reads no pictures: a language model alone"):
        next(talk.ask("what?", [tmp_path / "none.png"]))


def test_logits_that_are_no_numbers_are_no_answer(model: CobraVLM) -> None:
    with torch.no_grad():
        next(model.lm.parameters())[5] = np.nan
    talk = Talk(OwnEngine(model.lm), Chat("cobra:data/shapes/tokenizer"))
    with pytest.raises(ValueError, match="its logits are no numbers: see `cobra export verify`"):
        list(talk.ask("what?"))


def test_an_empty_question_is_refused_before_anything_is_opened(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a question is empty: ask something"):
        run_export(tmp_path / "none", [], ["what?", " \n"], 8)
