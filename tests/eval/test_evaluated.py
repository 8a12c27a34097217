"""Exports that are evaluated: an engine answers as the model that it was made of, one question at a time."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cobra.data.chat import Chat
from cobra.eval.answerer import Answerer, Answering, Asked
from cobra.eval.compare_answers import compare_answers
from cobra.eval.engine_answerer import EngineAnswerer
from cobra.eval.evaluate import evaluate
from cobra.eval.evaluated import evaluated
from cobra.eval.invariance import check_invariance
from cobra.eval.opening import Settings, open_model
from cobra.eval.predictions import read_predictions
from cobra.eval.protocols.protocol import read_protocol
from cobra.eval.tasks import read_tasks
from cobra.export.engine import Floats
from cobra.export.engines.ours import OwnEngine, open_own
from cobra.export.manifest import MANIFEST, Contents, write_manifest
from cobra.export.targets import TARGETS, Target
from tests.eval.test_evaluate import OWN, saved


class Watched(OwnEngine):
    """Remembers which pictures it has read, to the last bit."""

    seen: list[bytes]

    def read_pictures(self, paths: Sequence[Path]) -> list[Floats]:
        for path in paths:
            with Image.open(path) as image:
                self.seen.append(np.asarray(image).tobytes())
        return super().read_pictures(paths)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("model"), 0)


@pytest.fixture
def export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same model as the export of a target whose runtime is this project's own."""
    monkeypatch.setitem(TARGETS, "own", Target(("fp32",), "none:none", {"cpu": "ours"}))
    folder = saved(tmp_path / "exported", 0)
    write_manifest(folder, "own", "fp32", "model", Contents())
    return folder


def questions(tmp_path: Path) -> Iterator[tuple[int, list[Asked]]]:
    """The longest answer, and the questions, for words and for choices."""
    (task,) = read_tasks([OWN], [read_protocol("llava")], tmp_path, None, False)
    for ask in task.asks:
        yield ask.max_new_tokens, [Asked.of(question, ask) for question in task.questions]


def test_an_engine_answers_as_its_model_does_and_reads_no_picture_twice(model: Path, tmp_path: Path) -> None:
    vlm, processor = open_model(model, Settings(), "cpu")
    engine = Watched(vlm.lm, vlm, processor, processor.chat.eos_id)
    for longest, asked in questions(tmp_path):
        engine.seen = []
        others: list[Answering] = [
            Answerer(vlm, processor, longest),
            EngineAnswerer(engine, processor.chat, longest),
        ]
        expected, found = (
            [answerer.answer([each], answerer.prepare([each]))[0] for each in asked] for answerer in others
        )
        assert [answer.text for answer in found] == [answer.text for answer in expected]
        for mine, theirs in zip(found, expected, strict=True):
            assert mine.scores == pytest.approx(theirs.scores, abs=2e-4)
        given = {id(image): image.tobytes() for each in asked for image in each.question.images}  # type: ignore[union-attr]
        assert engine.seen == list(given.values())


def test_an_export_is_evaluated_as_its_model_is(
    model: Path, export: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, folder in (("a", model), ("b", export)):
        evaluate(str(folder), [OWN], ["llava"], tmp_path, tmp_path / name, settings=Settings(), limit=8)

    def said(name: str) -> list[tuple[str, str]]:
        return [(p.question_id, p.prediction) for p in read_predictions(tmp_path / name / "own-words.jsonl")]

    assert said("a") == said("b")
    run = json.loads((tmp_path / "b/run.json").read_text())
    assert (run["target"], run["quant"], run["batch_size"]) == ("own", "fp32", 1)
    capsys.readouterr()
    compare_answers(tmp_path / "a", tmp_path / "b", benchmark=OWN)
    printed = capsys.readouterr().out
    assert f"B: {tmp_path / 'b'} (own fp32)" in printed
    assert "| **own-words** | 8 |" in printed


def test_what_an_export_cannot_be_told_is_refused_by_name(export: Path, tmp_path: Path) -> None:
    for settings, said in (
        (Settings("bf16"), "--dtype bf16"),
        (Settings(quant="int8"), "--quant int8"),
        (Settings(group_size=64), "--group-size 64"),
        (Settings(adapter=tmp_path), f"--adapter {tmp_path}"),
    ):
        with pytest.raises(ValueError, match=f"^{said}: .* is an export"):
            evaluated(str(export), settings)
    with pytest.raises(ValueError, match=r"^nothing here runs an export of target 'own' on --device cuda"):
        evaluated(str(export), Settings(), "cuda")
    with pytest.raises(ValueError, match=r"^--batch-size 16: .* is an export"):
        evaluated(str(export), Settings(), batch_size=16)
    with pytest.raises(ValueError, match=r"^--check-invariance: .* is an export"):
        check_invariance(str(export), [OWN], ["llava"], tmp_path, settings=Settings())


def test_a_damaged_export_and_one_that_nothing_runs_are_refused(export: Path) -> None:
    before = evaluated(str(export), Settings()).fingerprint
    (export / MANIFEST).unlink()
    write_manifest(export, "own", "fp32", "renamed", Contents({"logits": 0.5}))
    assert evaluated(str(export), Settings()).fingerprint == before
    weights = bytearray((export / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (export / "model.safetensors").write_bytes(weights)
    with pytest.raises(ValueError, match=r"model\.safetensors was changed since it was written"):
        evaluated(str(export), Settings())
    (export / MANIFEST).unlink()
    write_manifest(export, "executorch-vulkan", "fp32", "model", Contents())
    with pytest.raises(ValueError, match="nothing here runs an export of target 'executorch-vulkan'"):
        evaluated(str(export), Settings())


def test_an_engine_without_pictures_refuses_them(model: Path, tmp_path: Path) -> None:
    engine = open_own(model)
    blind = OwnEngine(engine.lm)
    _, asked = next(questions(tmp_path))
    with pytest.raises(ValueError, match="reads no pictures: a language model alone"):
        EngineAnswerer(blind, Chat(str(model)), 4).prepare(asked[:1])


def test_logits_that_are_no_numbers_are_refused(tmp_path: Path, model: Path) -> None:
    vlm, processor = open_model(model, Settings(), "cpu")
    with torch.no_grad():
        next(vlm.lm.parameters()).fill_(float("nan"))
    answerer = EngineAnswerer(OwnEngine(vlm.lm, vlm, processor), processor.chat, 4)
    for _, asked in questions(tmp_path):
        with pytest.raises(ValueError, match="not finite: the export is damaged"):
            answerer.answer(asked[:1], answerer.prepare(asked[:1]))
