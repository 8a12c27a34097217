"""Runs that train adapters: what they leave, and how they go on."""

from pathlib import Path

import pytest
import torch

from cobra.convert.run import convert
from cobra.models.adapters import Lora
from cobra.models.vlm import CobraVLM
from cobra.pretrained import from_pretrained
from cobra.train.module import CobraModule, ModelError
from cobra.train.save_result import SaveResult
from tests.train.test_learning import ADAPTERS, Kill, Killed, checkpoints, resume
from tests.train.test_module import run, stage
from tests.train.test_recompute import vlm

STAGES = [stage("a", ["projector"]), stage("b", ["projector", "lm"], lr={"projector": 0.001, "lm": 0.01})]


def logits(model: CobraVLM) -> torch.Tensor:
    with torch.no_grad():
        return model.lm.head(model.eval()(torch.arange(10)[None]))


def test_a_run_leaves_its_adapter_the_whole_model_and_a_checkpoint_that_answers(tmp_path: Path) -> None:
    last = tmp_path / "checkpoints/last.ckpt"
    save = SaveResult(last, tmp_path / "model")
    module = run(STAGES, tmp_path, [save], adapters=ADAPTERS, limit_val_batches=0)
    assert module.model is not None
    expected = logits(module.model)
    whole, _ = from_pretrained(tmp_path / "model")
    assert not whole.adapters
    torch.testing.assert_close(logits(whole), expected, rtol=1e-4, atol=1e-5)
    unmerged, _ = from_pretrained(last)
    assert unmerged.adapters == ADAPTERS
    torch.testing.assert_close(logits(unmerged), expected)
    packed, _ = from_pretrained(last, quantization="int8")
    assert (logits(packed) - expected).abs().max() < 0.1
    convert(str(last), tmp_path / "converted")
    assert torch.equal(logits(from_pretrained(tmp_path / "converted")[0]), logits(whole))
    # beside the model as it started, which is that of an earlier run
    assert {path.name for path in (tmp_path / "adapter").iterdir()} > {"adapter_config.json", "config.json"}


def test_a_run_with_adapters_is_resumed_bit_for_bit(tmp_path: Path) -> None:
    whole = run(STAGES, tmp_path / "whole", adapters=ADAPTERS, limit_val_batches=0)
    callbacks = [checkpoints(tmp_path), Kill()]
    with pytest.raises(Killed):
        run(STAGES, tmp_path, callbacks, adapters=ADAPTERS, enable_checkpointing=True, limit_val_batches=0)
    resumed = resume(STAGES, tmp_path, adapters=ADAPTERS, limit_val_batches=0)
    for (name, expected), found in zip(whole.named_parameters(), resumed.parameters(), strict=True):
        assert torch.equal(expected, found), name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"adapters": {"llm": Lora(2, 2)}}, "adapters name an unknown part 'llm'"),
        ({"adapters": {"lm": Lora(2, 2)}, "muon": ["lm"]}, r"muon steps \['lm'\], which have adapters"),
    ],
)
def test_settings_that_do_not_fit_are_refused(options: dict, message: str) -> None:
    module = CobraModule(STAGES, vlm, **options)
    with pytest.raises(ModelError, match=message):
        module.configure_model()
