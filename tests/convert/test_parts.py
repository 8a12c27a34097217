"""Training starts from published weights, and goes on from its own."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import lightning as L
import pytest
import torch

from cobra.convert.parts import load_parts
from cobra.convert.run import convert
from cobra.data.chat import Chat
from cobra.models.lm.mamba import MambaLM
from cobra.models.lm.mamba2 import Mamba2LM
from cobra.models.projectors.fused_mlp import FusedMLPProjector
from cobra.models.projectors.mamba_scan import MambaScanProjector
from cobra.models.projectors.mlp import MLPProjector
from cobra.models.vlm import CobraVLM
from cobra.pretrained import save_pretrained
from cobra.train.data import DataModule
from cobra.train.module import CobraModule, ModelError
from tests.convert import llava_keys, published_keys
from tests.convert.fakes import COBRA_CONFIG, VOCAB, D, random, shrink, write_cobra, write_run
from tests.convert.test_convert import TOKENIZER, transformers_models
from tests.models.builders import LMS, PROJECTORS, small_vit
from tests.test_cli import ROOT, instantiate
from tests.train.test_module import Noise, stage


def cobra_model() -> CobraVLM:
    """Of the shapes in the fake Cobra run, but for the encoder."""
    torch.manual_seed(1)
    return CobraVLM(partial(small_vit, embed_dim=128), FusedMLPProjector, partial(MambaLM, VOCAB, D, 2))


def test_parts_come_from_any_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shrink(monkeypatch)
    align = random(published_keys.fused_mlp("model/projector/", 128, D))
    write_run(tmp_path / "align", align, COBRA_CONFIG)
    transformers = transformers_models()["mamba"]
    torch.manual_seed(0)
    transformers.save_pretrained(tmp_path / "hf")
    model = cobra_model()
    model.lm = MambaLM(VOCAB, D, 2, d_state=8, dt_rank=3)
    loaded = load_parts(model, {"lm": str(tmp_path / "hf"), "projector": str(tmp_path / "align")})
    lm, projector, vision = loaded
    weights = model.lm.state_dict()
    assert (lm.part, lm.source, lm.dtype, lm.left) == ("lm", str(tmp_path / "hf"), "float32", "")
    assert lm.tensors == len({t.data_ptr() for t in weights.values()})
    assert projector.parameters == sum(p.numel() for p in model.projector.parameters())
    assert (vision.part, vision.source, vision.left) == ("vision", "", "all: as it was built")
    assert torch.equal(model.lm.get_parameter("embedding.weight"), transformers.backbone.embeddings.weight)
    middle = model.projector.state_dict()["projector.2.weight"]
    assert torch.equal(middle, align["model/projector/projector.2.weight"])


def test_ml_mambas_connector_comes_from_its_align_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrink(monkeypatch)
    whole = published_keys.ml_mamba(128, VOCAB, 2 * D, 2)
    align = random({name: shape for name, shape in whole.items() if "llm_backbone" not in name})
    write_run(tmp_path / "align", align, {})
    lm = partial(Mamba2LM, VOCAB, 2 * D, 2)
    model = CobraVLM(partial(small_vit, embed_dim=128), MambaScanProjector, lm)
    load_parts(model, {"projector": str(tmp_path / "align")})
    backward = model.projector.state_dict()["scan.layers.1.mixer.conv1d_b.weight"]
    assert torch.equal(backward, align["model/bidirectional_mamba/layers.1.mixer.conv1d_b.weight"])


def test_parts_come_from_a_model_of_ours(tmp_path: Path) -> None:
    torch.manual_seed(0)
    saved = CobraVLM(small_vit, PROJECTORS["linear"], LMS["mamba2"])
    save_pretrained(saved, Chat(TOKENIZER), tmp_path / "model")
    other = CobraVLM(small_vit, PROJECTORS["linear"], LMS["mamba"])
    load_parts(other, {"vision": str(tmp_path / "model"), "projector": str(tmp_path / "model")})
    for part in ("vision", "projector"):
        for one, two in zip(saved.parts()[part].parameters(), other.parts()[part].parameters(), strict=True):
            assert torch.equal(one, two)


def test_weights_that_do_not_fit_the_part_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shrink(monkeypatch)
    write_cobra(tmp_path / "run")
    source = {"lm": str(tmp_path / "run")}
    model = cobra_model()
    model.lm = MambaLM(VOCAB + 8, D, 2)
    with pytest.raises(ValueError, match=r"embedding\.weight: \(432, 32\) instead of \(440, 32\)"):
        load_parts(model, source)
    model.lm = Mamba2LM(VOCAB, D, 2, head_dim=16)
    with pytest.raises(ValueError, match=r"does not fit the lm .* missing .*dt_bias.* unexpected .*dt_proj"):
        load_parts(model, source)
    with pytest.raises(ValueError, match="holds no weights of vision"):
        load_parts(model, {"vision": str(tmp_path / "run")})
    with pytest.raises(ValueError, match=r"unknown parts \['llm'\]"):
        load_parts(model, {"llm": str(tmp_path / "run")})
    with pytest.raises(ValueError, match="lm is on the meta device"), torch.device("meta"):
        load_parts(cobra_model(), source)


def fit(out: Path, source: Path) -> CobraModule:
    """Train the projector, from the language model in `source`."""
    stages = [stage("a", ["projector"])]
    model = partial(CobraVLM, small_vit, PROJECTORS["linear"], partial(MambaLM, 512, 16, 1))
    module = CobraModule(stages, model, weights={"lm": str(source)})
    data = DataModule(stages, TOKENIZER, train={"noise": Noise})
    trainer = L.Trainer(
        default_root_dir=out, max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False, devices=1,
        limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(module, data)
    return module


def test_a_run_starts_from_published_weights(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    tied = {"lm_head.weight": "backbone.embedding.weight"}
    tensors = random(published_keys.mamba("", 512, 16, 1), tied)
    source = tmp_path / "ssm"
    source.mkdir()
    torch.save(tensors, source / "pytorch_model.bin")
    (source / "config.json").write_text('{"d_model": 16, "n_layer": 1, "vocab_size": 512}')
    module = fit(tmp_path, source)
    assert module.model is not None
    printed = capsys.readouterr().out
    assert [printed.count(f" {part} ") for part in ("lm", "projector", "vision")] == [1, 1, 1]
    # frozen in this stage, so still as published
    assert torch.equal(module.model.state_dict()["lm.embedding.weight"], tensors["backbone.embedding.weight"])
    (source / "pytorch_model.bin").unlink()
    with pytest.raises(ModelError, match="has no weights"):
        fit(tmp_path, source)


def test_a_resumed_run_does_not_need_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    last = tmp_path / "checkpoints/last.ckpt"
    last.parent.mkdir()
    rest: dict = {"optimizer_states": [], "lr_schedulers": [], "loops": {}}
    torch.save({"state_dict": {"a": torch.zeros(1)}, **rest}, last)
    options = ["--model.weights", '{"lm": "owner/gone"}', "--trainer.default_root_dir", str(tmp_path)]
    for resumed, weights in ((["--overwrite"], {"lm": "owner/gone"}), (["--ckpt_path", "last"], {})):
        cli = instantiate(monkeypatch, "fit", "-c", str(ROOT / "configs/cobra_tiny.yaml"), *options, *resumed)
        cli.before_fit()
        assert cli.model.weights == weights


_MEASURED = """
import re, sys
from pathlib import Path
from cobra.convert.run import convert
import cobra.models.lm.mamba2
def peak():
    # not getrusage's, which starts at that of the parent
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
convert(sys.argv[1] + "-small", Path(sys.argv[2] + "-small"))
before = peak()
convert(sys.argv[1], Path(sys.argv[2]))
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_converting_needs_little_more_memory_than_the_file_has_bytes(tmp_path: Path) -> None:
    tied = {"lm_head.weight": "backbone.embedding.weight"}
    for name, layers in (("source-small", 1), ("source", 100)):
        (tmp_path / name).mkdir()
        torch.save(
            random(published_keys.mamba2("", 512, 256, layers), tied), tmp_path / name / "pytorch_model.bin"
        )
        config = (
            f'{{"d_model": 256, "n_layer": {layers}, "vocab_size": 512, "ssm_cfg": {{"layer": "Mamba2"}}}}'
        )
        (tmp_path / name / "config.json").write_text(config)
    size = (tmp_path / "source/pytorch_model.bin").stat().st_size
    assert size > 180e6
    command = [sys.executable, "-c", _MEASURED, str(tmp_path / "source"), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    used = int(done.stdout.split()[-1])
    assert 0.1 * size < used <= 1.3 * size, f"{used / size:.2f} times the file"


def test_a_folder_of_a_projector_alone_starts_the_projector(tmp_path: Path) -> None:
    """LLaVA's and MobileVLM's first stage leaves no other weights, and so do repositories on the hub."""
    held = random(llava_keys.mlp(1024, 32))
    torch.save(held, tmp_path / "mm_projector.bin")
    config = {
        "model_type": "llava", "mm_vision_tower": "openai/clip-vit-large-patch14-336", "vocab_size": 432,
        "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = CobraVLM(partial(small_vit, embed_dim=1024), MLPProjector, LMS["mamba2"])
    load_parts(model, {"projector": str(tmp_path)})
    for name, tensor in model.projector.state_dict().items():
        assert torch.equal(tensor, held[name.replace("projector.", "model.mm_projector.")])
    with pytest.raises(
        ValueError, match=r"no weights of the lm .* start from its parts with `model\.weights`"
    ):
        convert(str(tmp_path), tmp_path / "out")
