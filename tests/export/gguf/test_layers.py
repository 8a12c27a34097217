"""What is lost behind each layer: llama.cpp's hidden states are the model's."""

from pathlib import Path

import numpy as np
import pytest
import torch

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
