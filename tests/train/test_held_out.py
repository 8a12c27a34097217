"""The loss of what is held out: that of transformers' own model, over all devices, whatever the batches."""

import math
from functools import partial
from pathlib import Path
from typing import Any

import cobra.torchvision_shim  # noqa: F401  (before lightning)

import lightning as L  # isort: skip
import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from cobra.data.text.rows import TextRows
from cobra.models.lm.transformer import TransformerLM
from cobra.models.vlm import CobraVLM
from cobra.train.data import DataModule, SourceFactory
from cobra.train.module import CobraModule
from tests.data.text.test_text import Texts
from tests.models.builders import PROJECTORS, VOCAB, small_vit
from tests.train.test_module import Noise, stage
from tests.train.test_two_devices import _single_thread, trainer_of  # noqa: F401  (a fixture)

TOKENIZER = "cobra:data/shapes/tokenizer"
OPTIONS = {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 64}
MODEL = partial(
    CobraVLM, small_vit, PROJECTORS["linear"], partial(TransformerLM, VOCAB, 32, 2, options=OPTIONS)
)


def text(tmp_path: Path, **options: Any) -> TextRows:
    return TextRows(Texts, cache_dir=str(tmp_path), **options)


def validated(
    devices: int, tmp_path: Path, **options: Any
) -> tuple[CobraModule, DataModule, dict[str, float]]:
    """What validation says, with the module and the data."""
    held_out: dict[str, SourceFactory] = {"text": partial(text, tmp_path, **options), "chats": Noise}
    data = DataModule([], TOKENIZER, held_out=held_out, eval_batch_size=4, max_length=24)
    L.seed_everything(0)
    module = CobraModule([], MODEL)
    losses, *_ = trainer_of(devices, tmp_path).validate(module, data, verbose=False)
    return module, data, dict(losses)


def test_the_loss_of_text_is_that_of_transformers_own_model(tmp_path: Path) -> None:
    module, data, losses = validated(1, tmp_path)
    assert module.model is not None
    theirs = LlamaForCausalLM(
        LlamaConfig(vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2, **OPTIONS)
    ).double()
    theirs.load_state_dict({k.removeprefix("causal_lm."): v for k, v in module.model.lm.state_dict().items()})
    source = data.datasets["held_out"]["text"]
    ids = torch.stack([torch.from_numpy(source[index].tokens) for index in range(len(source))])
    with torch.no_grad():
        loss = float(theirs(input_ids=ids, labels=ids).loss)
    assert losses["held_out/text"] == pytest.approx(loss, rel=1e-6)
    assert source.bytes_per_token is not None
    bits = loss / math.log(2) / source.bytes_per_token
    assert losses["held_out/text_bits_per_byte"] == pytest.approx(bits, rel=1e-6)
    assert "held_out/chats" in losses
    assert "held_out/chats_bits_per_byte" not in losses


@pytest.mark.parametrize("reset", [False, True])
def test_two_devices_measure_what_one_does(reset: bool, tmp_path: Path) -> None:
    (_, _, alone), (_, _, both) = (validated(devices, tmp_path, reset=reset) for devices in (1, 2))
    assert both == pytest.approx(alone, rel=1e-9)
    assert len(both) == 3


def test_a_run_on_text_never_runs_the_encoder_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """Batches are a function of their number; only the language model moves."""

    class Stop(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *rest: Any) -> None:
            if trainer.global_step == 2:
                trainer.save_checkpoint(tmp_path / "stopped.ckpt")

    def fitted(resume: Path | None = None) -> tuple[dict[str, Tensor], float]:
        train, held_out = (partial(text, tmp_path, part=part, held_out=0.3) for part in ("train", "held_out"))
        stages = [stage("text", ["lm"], data={"text": 1.0}, steps=4, validate=False)]
        data = DataModule(
            stages, TOKENIZER, train={"text": train}, held_out={"text": held_out}, max_length=24
        )
        module = CobraModule(stages, MODEL)
        L.seed_everything(0)
        trainer = trainer_of(1, tmp_path, *([] if resume else [Stop()]))
        trainer.fit(module, data, ckpt_path=resume, weights_only=True)
        return module.state_dict(), float(trainer.callback_metrics["held_out/text"])

    whole, loss = fitted()
    resumed, again = fitted(tmp_path / "stopped.ckpt")
    torch.testing.assert_close(resumed, whole, rtol=0, atol=0)
    assert again == loss
