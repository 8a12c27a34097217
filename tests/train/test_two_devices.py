"""Two processes train, validate and answer what one does: DDP over gloo on the CPU."""

import json
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from cobra.data.batch import Batch
from cobra.data.record import Record, assistant, user
from cobra.data.shapes.dataset import ShapesEval
from cobra.data.source import Source
from cobra.eval.predictions import Prediction, read_predictions
from cobra.models.lm.mamba2 import Mamba2LM
from cobra.models.vlm import CobraVLM
from cobra.train.data import DataModule, SourceFactory
from cobra.train.module import CobraModule
from cobra.train.schedule import StageSampler, Supply, make_plan
from cobra.train.write_answers import WriteAnswers
from tests.models.builders import PROJECTORS, VOCAB, small_vit
from tests.test_cli import ON_CPU, run
from tests.train.test_module import Noise, stage

TOKENIZER = "cobra:data/shapes/tokenizer"
# it forgets little, so that the answers of random weights differ
MODEL = partial(
    CobraVLM,
    small_vit,
    PROJECTORS["linear"],
    partial(Mamba2LM, VOCAB, 32, 2, d_state=16, head_dim=16, dt_range=(1.0, 2.0), A_range=(0.01, 0.1)),
)


@pytest.fixture(autouse=True)
def _single_thread() -> Iterator[None]:
    """A forked process has none of its parent's threads, and would wait for them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    # Lightning writes its own settings there
    with mock.patch.dict(os.environ, OMP_NUM_THREADS="1"):
        yield
    torch.set_num_threads(threads)


def trainer_of(devices: int, tmp_path: Path, *callbacks: L.Callback, **options: Any) -> L.Trainer:
    """A trainer in fp64: sums in another order then differ by less than Adam sees."""
    if "RANK" not in os.environ:
        # the port of the processes before
        os.environ.pop("MASTER_PORT", None)
    # the strategy that the command chooses, but for how its processes start: importing takes seconds
    strategy = "ddp_fork_find_unused_parameters_true" if devices > 1 else "auto"
    return L.Trainer(
        default_root_dir=tmp_path, max_epochs=1, accelerator="cpu", devices=devices,
        strategy=options.pop("strategy", strategy), enable_progress_bar=False, enable_model_summary=False,
        use_distributed_sampler=False, num_sanity_val_steps=0, enable_checkpointing=False,
        callbacks=list(callbacks), **{"precision": "64-true", "logger": False, **options},
    )  # fmt: skip


class Text(Noise):
    """The same records without their pictures."""

    def __getitem__(self, index: int) -> Record:
        return super().__getitem__(index - index % 2)


class SaveWeights(L.Callback):
    """Writes the weights that each process ends with."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        torch.save(pl_module.state_dict(), self.folder / f"{trainer.world_size}-{trainer.global_rank}.pt")


def trained(devices: int, tmp_path: Path) -> list[dict[str, Tensor]]:
    """The weights on each device after stages of 2 examples a step, whatever the devices."""
    size = 2 // devices
    stages = [
        stage("text", ["projector"], data={"text": 1.0}, batch_size=size),
        stage("mixed", ["projector"], batch_size=size, steps=4),
        stage("lm", ["projector", "lm"], batch_size=size, weight_decay=0.1, steps=3),
    ]
    data = DataModule(stages, TOKENIZER, train={"noise": Noise, "text": Text})
    L.seed_everything(0)
    trainer_of(devices, tmp_path, SaveWeights(tmp_path), limit_val_batches=0).fit(
        # one device keeps all activations, two compute them again
        CobraModule(stages, MODEL, recompute={"lm": 1} if devices > 1 else {}),
        data,
    )
    return [torch.load(tmp_path / f"{devices}-{rank}.pt", weights_only=True) for rank in range(devices)]


def test_two_devices_train_what_one_device_trains(tmp_path: Path) -> None:
    """Through frozen parts, batches of text alone, and batches of text on one of the devices."""
    (alone,), both = trained(1, tmp_path), trained(2, tmp_path)
    for weights in both:
        torch.testing.assert_close(weights, alone, rtol=1e-6, atol=1e-6)


def test_some_steps_of_that_run_show_a_picture_to_one_device_alone() -> None:
    held = Supply({"noise": Noise()}, world=2)
    plan = make_plan([stage("mixed", ["projector"], batch_size=1, steps=4)], held)
    ranks = [list(StageSampler(plan, held, rank=rank)) for rank in (0, 1)]
    pictures = [(ours[0][0][1] % 2, theirs[0][0][1] % 2) for ours, theirs in zip(*ranks, strict=True)]
    assert {(0, 1), (1, 0)} & set(pictures)


class Questions(Source):
    """Five questions of two types, with the answers that are said to be right."""

    def __init__(self, right: dict[str, str]) -> None:
        self.right = right

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> Record:
        pixels = np.random.default_rng(index).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        truth = self.right.get(str(index), "nothing of the kind")
        turns = [user("which digit is it? " * (index + 1), images=1), assistant(truth)]
        return Record(str(index), turns, [pixels], meta={"type": "ab"[index // 3]})


class NoteQuestions(L.Callback):
    """Writes which questions each process was given."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.given: list[str] = []

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Batch, *rest: Any
    ) -> None:
        self.given += [record.id for record in batch.records]
        (self.folder / f"given-{trainer.global_rank}.json").write_text(json.dumps(self.given))


def answering(verb: str, devices: int, tmp_path: Path, right: dict[str, str]) -> Any:
    """What the trainer returns; answers go to a folder of the verb and the devices."""
    folder = tmp_path / f"{verb}-{devices}"
    folder.mkdir()
    source: dict[str, SourceFactory] = {"questions": partial(Questions, right)}
    data = DataModule([], TOKENIZER, val=source, test=source, eval_batch_size=2)
    trainer = trainer_of(devices, folder, WriteAnswers(folder), NoteQuestions(folder))
    L.seed_everything(2)
    return getattr(trainer, verb)(CobraModule([], MODEL, max_new_tokens=3), data)


def answers(verb: str, devices: int, tmp_path: Path) -> list[Prediction]:
    path = tmp_path / f"{verb}-{devices}" / "predictions-questions.jsonl"
    return sorted(read_predictions(path), key=lambda prediction: prediction.question_id)


@pytest.mark.parametrize("verb", ["test", "predict"])
def test_two_devices_write_each_answer_of_one_device_once(verb: str, tmp_path: Path) -> None:
    for devices in (1, 2):
        answering(verb, devices, tmp_path, {})
    alone, both = answers(verb, 1, tmp_path), answers(verb, 2, tmp_path)
    assert both == alone
    assert [prediction.question_id for prediction in both] == ["0", "1", "2", "3", "4"]
    assert len({prediction.prediction for prediction in both}) > 1


def test_two_devices_share_the_questions_and_count_all_answers(tmp_path: Path) -> None:
    answering("predict", 1, tmp_path, {})
    said = {prediction.question_id: prediction.prediction for prediction in answers("predict", 1, tmp_path)}
    # 0, 2 and 4 are asked on the first device
    right = {question: said[question] for question in ("0", "2", "3")}
    expected = {"val/a": 2 / 3, "val/b": 1 / 2, "val/macro": 7 / 12}
    for devices in (1, 2):
        assert answering("validate", devices, tmp_path, right) == [pytest.approx(expected)]
    given = [json.loads(path.read_text()) for path in sorted((tmp_path / "validate-2").glob("given-*"))]
    assert given == [["0", "2", "4"], ["1", "3"]]


STAGES = """[
{{name: tower, train: [vision], data: {{cells: 1.0}}, batch_size: {size}, steps: 2, lr: 1.0e-3,
 objective: {{class_path: cobra.train.objectives.cell_attributes.CellAttributes}}}},
{{name: mixed, train: [projector, lm], data: {{mixed: 1.0}}, batch_size: {size}, steps: 3, lr: 1.0e-3}}]
"""


def command(verb: str, devices: int, tmp_path: Path, *options: str) -> None:
    """Run the tiny config on records that all have answers of one length, the losses of which weigh alike."""
    mixed = {"json": str(tmp_path / "mixed.json"), "image_root": str(tmp_path), "cache_dir": str(tmp_path)}
    sources = {"mixed": {"class_path": "cobra.data.llava.LlavaJson", "init_args": mixed}}
    sources["cells"] = {"class_path": "cobra.data.shapes.dataset.ShapesCells", "init_args": {"size": 8}}
    done = run(
        "-m", "cobra", verb, "-c", "configs/cobra_tiny.yaml", "--stages", STAGES.format(size=2 // devices),
        "--data.train", json.dumps(sources), "--data.test.test.init_args.size", "6", "--model.muon", "[]",
        "--data.test.composition.init_args.size", "3", "--data.val.val.init_args.size", "3", *ON_CPU,
        "--trainer.devices", str(devices), "--trainer.precision", "64-true", "--trainer.default_root_dir",
        str(tmp_path / str(devices)), *options, COBRA_CACHE=str(tmp_path / "cache"),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_the_command_trains_and_answers_on_two_devices_as_on_one(tmp_path: Path) -> None:
    chats = []
    for number in range(6):
        Image.fromarray(np.full((64, 64, 3), 40 * number, np.uint8)).save(tmp_path / f"{number}.png")
        asked = {"from": "human", "value": "<image>\nwhat is it?" if number % 2 else "what is it?"}
        chat = {"id": str(number), "conversations": [asked, {"from": "gpt", "value": "seven"}]}
        chats.append({**chat, "image": f"{number}.png"} if number % 2 else chat)
    (tmp_path / "mixed.json").write_text(json.dumps(chats))
    for devices in (1, 2):
        command("fit", devices, tmp_path)
    alone, both = (load_file(tmp_path / f"{devices}/model/model.safetensors") for devices in (1, 2))
    torch.testing.assert_close(both, alone, rtol=1e-6, atol=1e-6)
    command("test", 2, tmp_path, "--ckpt_path", "last")
    for questions in (ShapesEval("test", 6, 2), ShapesEval("composition", 3, 3)):
        ids = [questions[number].id for number in range(len(questions))]
        answered = read_predictions(tmp_path / f"2/predictions-{questions.split}.jsonl")
        assert sorted(prediction.question_id for prediction in answered) == sorted(ids)
