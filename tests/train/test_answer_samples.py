"""Pictures of what a model answers while it trains."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from PIL import Image

from cobra.eval.predictions import Prediction
from cobra.train import answer_samples
from cobra.train.answer_samples import AnswerSamples
from tests.train.test_module import Noise, run, stage


def test_the_same_records_are_answered_and_training_goes_on_as_if_they_were_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stages = [stage("a", ["projector"], steps=3), stage("b", ["vision", "lm"], steps=4)]
    options: dict[str, Any] = {"limit_val_batches": 0, "accumulate_grad_batches": 2}
    alone = run(stages, tmp_path, **options).state_dict()
    seen: list[tuple[list[Prediction], Path]] = []

    def draw(answered: Any, path: Path) -> None:
        seen.append(([prediction for _, prediction in answered], path))
        path.touch()

    monkeypatch.setattr(answer_samples, "draw_contact_sheet", draw)
    watched = run(stages, tmp_path, [AnswerSamples(every=3, count=4)], **options).state_dict()
    assert all(torch.equal(tensor, watched[name]) for name, tensor in alone.items())
    assert [path.relative_to(tmp_path) for _, path in seen] == [
        Path("samples/step-000003.png"), Path("samples/step-000006.png"),
    ]  # fmt: skip
    for predictions, _ in seen:
        assert [(p.split, p.question_id) for p in predictions] == [("noise", n) for n in "0369"]


def test_a_record_that_cannot_be_read_is_left_out_of_the_picture(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    read = Noise.__getitem__

    def broken(self: Noise, index: int) -> Any:
        if index == 9:
            raise OSError("no such picture")
        return read(self, index)

    monkeypatch.setattr(Noise, "__getitem__", broken)
    samples = AnswerSamples(every=2, count=2, split="train")
    run([stage("a", ["projector"], steps=2)], tmp_path, [samples], limit_val_batches=0)
    assert [example.record.id for _, example in samples.examples] == ["0"]
    with Image.open(tmp_path / "samples/step-000002.png") as picture:
        assert picture.width > picture.height


def test_modes_of_modules_are_what_they_were(tmp_path: Path) -> None:
    modes: list[set[str]] = []

    class Modes(L.Callback):
        def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, *_: Any) -> None:
            modes.append({name for name, child in module.named_modules() if child.training})

    callbacks = [AnswerSamples(every=1, count=1), Modes()]
    run([stage("a", ["lm"], steps=3)], tmp_path, callbacks, limit_val_batches=0)
    assert modes[0] == modes[1] == modes[2]
