"""Answers of a run: where they end, whose they are, and how they are counted."""

from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from cobra.data.record import Record, assistant, user
from cobra.data.source import Source
from cobra.eval.predictions import Prediction, read_predictions
from cobra.models.vlm import CobraVLM
from cobra.train.data import DataModule
from cobra.train.module import CobraModule
from cobra.train.write_answers import WriteAnswers
from tests.models.builders import LMS, PROJECTORS, small_vit


class Asked(Source):
    """Questions without pictures, of a type and with a right answer each."""

    def __init__(self, kinds: str, right: list[str] | None = None) -> None:
        self.kinds, self.right = kinds, right or [""] * len(kinds)

    def __len__(self) -> int:
        return len(self.kinds)

    def __getitem__(self, index: int) -> Record:
        turns = [user("which digit? " * (index + 1)), assistant(self.right[index])]
        return Record(str(index), turns, meta={"type": self.kinds[index]})


def set_up(tmp_path: Path, **sources: Asked) -> tuple[L.Trainer, CobraModule, DataModule]:
    """A trainer that writes answers, a model of random weights, and sources to answer."""
    made: dict[str, Any] = {name: partial(lambda source: source, source) for name, source in sources.items()}
    data = DataModule([], "cobra:data/shapes/tokenizer", val=made, test=made, eval_batch_size=3)
    model = partial(CobraVLM, small_vit, PROJECTORS["linear"], LMS["llama"])
    trainer = L.Trainer(
        default_root_dir=tmp_path, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[WriteAnswers(tmp_path)],
    )  # fmt: skip
    L.seed_everything(0)
    return trainer, CobraModule([], model, max_new_tokens=4), data


def test_an_answer_ends_with_its_end_or_after_the_tokens_that_it_may_have(tmp_path: Path) -> None:
    trainer, module, data = set_up(tmp_path, one=Asked("aaa"))
    trainer.predict(module, data)
    (batch,) = data.test_dataloader()[0]
    assert module.model is not None
    ids = module.model.generate(batch.ids, None, batch.mask, max_new_tokens=4)
    longest = [prediction.prediction for prediction in module.answer(batch, "one")]
    assert longest == [data.chat.decode(row) for row in ids.tolist()]
    data.chat.eos_id = int(ids[0, 1])
    assert module.answer(batch, "one")[0].prediction == data.chat.decode(ids[0, :2].tolist()) != longest[0]


def test_ids_that_the_tokenizer_lacks_are_never_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, module, data = set_up(tmp_path, one=Asked("a"))
    trainer.predict(module, data)
    (batch,) = data.test_dataloader()[0]
    assert module.model is not None
    lm: Any = module.model.lm
    # the head answers with a row that only fills the vocabulary up
    fills_up = torch.arange(lm.vocab_size) == len(data.chat)
    lm.causal_lm.lm_head.bias = torch.nn.Parameter(100.0 * fills_up)
    ids: list[int] = []
    monkeypatch.setattr(data.chat, "decode", ids.extend)
    module.answer(batch, "one")
    assert ids
    assert max(ids) < len(data.chat)


def said(folder: Path, name: str) -> list[Prediction]:
    return list(read_predictions(folder / f"predictions-{name}.jsonl"))


@pytest.mark.parametrize("verb", ["test", "predict"])
def test_each_source_gets_its_answers_every_time(verb: str, tmp_path: Path) -> None:
    trainer, module, data = set_up(tmp_path, one=Asked("aaaa"), two=Asked("bb"))
    for _ in range(2):
        getattr(trainer, verb)(module, data)
        for name, kind, count in (("one", "a", 4), ("two", "b", 2)):
            answers = said(tmp_path, name)
            assert [(a.split, a.kind, a.question_id) for a in answers] == [
                (name, kind, str(number)) for number in range(count)
            ]


def test_types_weigh_alike_in_every_validation(tmp_path: Path) -> None:
    trainer, module, data = set_up(tmp_path, one=Asked("aaab"))
    trainer.predict(module, data)
    right = [prediction.prediction for prediction in said(tmp_path, "one")]
    none = ["wrong"] * 4
    trainer, module, _ = set_up(tmp_path)
    for answers, expected in (
        (
            [*right[:1], *none[:2], *right[3:]],
            {"val/a": 1 / 3, "val/b": 1.0, "val/c": 0.0, "val/macro": 4 / 9},
        ),
        (none, {"val/a": 0.0, "val/b": 0.0, "val/c": 0.0, "val/macro": 0.0}),
    ):
        _, _, data = set_up(tmp_path, one=Asked("aaab", answers), two=Asked("c", ["wrong"]))
        scores: dict[str, float] = {}
        for logged in trainer.validate(module, data, verbose=False):
            scores |= logged
        assert scores == pytest.approx(expected)


def test_weights_that_a_run_starts_from_are_not_read_to_answer(tmp_path: Path) -> None:
    trainer, module, data = set_up(tmp_path, one=Asked("a"))
    module.weights = {"lm": str(tmp_path / "gone")}
    trainer.predict(module, data)
    assert len(said(tmp_path, "one")) == 1


def test_a_checkpoint_of_another_model_is_refused_by_name(tmp_path: Path) -> None:
    trainer, module, data = set_up(tmp_path, one=Asked("a"))
    trainer.predict(module, data)
    saved = {"state_dict": module.state_dict(), "pytorch-lightning_version": L.__version__}
    torch.save(saved, tmp_path / "a.ckpt")
    trainer, module, data = set_up(tmp_path, one=Asked("a"))
    module.build = partial(CobraVLM, small_vit, PROJECTORS["mlp"], LMS["llama"])
    with pytest.raises(ValueError, match=r"a\.ckpt is of another model than this yaml.*projector"):
        trainer.predict(module, data, ckpt_path=tmp_path / "a.ckpt", weights_only=True)
