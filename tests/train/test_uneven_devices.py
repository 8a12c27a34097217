"""Two devices of which one has nothing to answer: neither waits for the other for ever."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import cobra.torchvision_shim  # noqa: F401  (before lightning)

import lightning as L  # isort: skip
import pytest
from lightning.pytorch.strategies import DDPStrategy

from cobra.models.vlm import CobraVLM
from cobra.train.answer_samples import AnswerSamples
from cobra.train.data import DataModule
from cobra.train.fully_sharded import FullySharded
from cobra.train.module import CobraModule
from cobra.train.write_answers import WriteAnswers
from tests.models.builders import LMS, PROJECTORS, small_vit
from tests.train.test_data import TOKENIZER, data_of
from tests.train.test_module import Noise, stage
from tests.train.two_devices import on_two_devices


class One(Noise):
    """One record, which the first device has."""

    def __len__(self) -> int:
        return 1


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_device_without_a_question_has_a_batch_of_none(split: str) -> None:
    held: dict[str, Any] = {split: {"one": One}}
    loaders = [getattr(data_of(rank, 2, **held), f"{split}_dataloader")() for rank in (0, 1)]
    batches = [[len(batch.records) for batch in loader] for (loader,) in loaders]
    assert batches == [[1], [0]]


def fit_and_test(sharded: bool, folder: Path) -> None:
    stages = [stage("a", ["projector"], batch_size=1), stage("b", ["vision", "lm"], batch_size=1, steps=4)]
    data = DataModule(
        stages, TOKENIZER, train={"noise": Noise}, val={"one": One}, held_out={"text": One}, test={"one": One}
    )
    strategy = FullySharded() if sharded else DDPStrategy(find_unused_parameters=True)
    L.seed_everything(0)
    trainer = L.Trainer(
        default_root_dir=folder, max_epochs=1, accelerator="cpu", devices=2, strategy=strategy,
        enable_progress_bar=False, enable_model_summary=False, logger=False, use_distributed_sampler=False,
        num_sanity_val_steps=0, val_check_interval=1, check_val_every_n_epoch=None,
        enable_checkpointing=False, callbacks=[AnswerSamples(every=2, count=3), WriteAnswers(folder)],
    )  # fmt: skip
    model = partial(CobraVLM, small_vit, PROJECTORS["linear"], LMS["mamba2"])
    module = CobraModule(stages, model, max_new_tokens=4)
    trainer.fit(module, data)
    logged = {name: float(value) for name, value in trainer.callback_metrics.items() if "/" in name}
    (folder / f"logged-{trainer.global_rank}.json").write_text(json.dumps(logged))
    trainer.test(module, data)


@pytest.mark.slow
@pytest.mark.parametrize("sharded", [False, True])
def test_a_run_in_which_one_device_alone_is_asked_validates_and_goes_on(
    sharded: bool, tmp_path: Path
) -> None:
    on_two_devices(fit_and_test, sharded, tmp_path, seconds=150)
    first, second = (json.loads((tmp_path / f"logged-{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    assert set(first) == {"val/0", "val/macro", "held_out/text"}
    assert len((tmp_path / "predictions-one.jsonl").read_text().splitlines()) == 1
