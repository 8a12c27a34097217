"""What is lost behind each layer: llama.cpp's hidden states are the model's."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from cobra.export import layer_loss
from cobra.export.engines.gguf import LANGUAGE_MODEL
from cobra.export.executorch.layers import stack_layers
from cobra.export.executorch.stack import Stack
from cobra.export.gguf.layers import layer_outputs
from cobra.export.layer_loss import print_layer_losses
from cobra.export.manifest import Contents, write_manifest
from tests.export.gguf.exported import NO_LLAMA, export, model


@pytest.mark.export
@pytest.mark.skipif(bool(NO_LLAMA), reason=NO_LLAMA or "is there")
def test_hidden_states_are_those_of_the_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made, ids = model(), np.arange(3, 40)
    with torch.no_grad():
        embeds = made.lm.embed(torch.from_numpy(ids)[None])[0]
        *expected, logits = stack_layers(Stack(made.lm, len(ids), len(ids)), embeds)
    folder = export(made, tmp_path)
    layers, found = layer_outputs(folder / LANGUAGE_MODEL, ids)
    assert [layer.shape for layer in layers] == [layer.shape for layer in expected]
    for mine, theirs in zip([*layers, found], [*expected, logits[0]], strict=True):
        assert np.linalg.norm(mine - theirs.numpy()) < 1e-5 * np.linalg.norm(mine)
    capsys.readouterr()
    print_layer_losses(folder, [folder], None)
    assert capsys.readouterr().out.splitlines()[-1] == "| logits | 0.0e+00 |"


def test_an_export_for_another_runtime_is_refused(tmp_path: Path) -> None:
    write_manifest(tmp_path, "executorch-cpu", "fp32", "model", Contents())
    with pytest.raises(ValueError, match="of target executorch-cpu, whose layers cannot be looked at"):
        print_layer_losses(tmp_path, [tmp_path], None)


def test_folders_of_one_quant_have_a_column_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("exact", "plain", "tuned"):
        (tmp_path / name).mkdir()
        settings = {"vocab_size": 9}
        write_manifest(tmp_path / name, "gguf", "q4_0", "model", Contents(settings=settings))
    size = {"exact": 1.0, "plain": 2.0, "tuned": 3.0}
    monkeypatch.setattr(layer_loss, "_outputs", lambda folder, *_: [np.full(4, size[folder.name])])
    print_layer_losses(tmp_path / "exact", [tmp_path / "plain", tmp_path / "tuned"], None)
    head, _, logits = capsys.readouterr().out.splitlines()
    assert head == "| layer | plain q4_0 | tuned q4_0 |"
    assert logits == "| logits | 1.0e+00 | 2.0e+00 |"


def test_8da4w_without_torchao_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    with pytest.raises(ValueError, match=r"torchao is missing .*: pip install 'cobra-vlm\[export\]'"):
        print_layer_losses(tmp_path / "none", [], tmp_path)
