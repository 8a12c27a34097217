"""Every layout: converted without a changed bit, and what comes out works."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    Mamba2Config,
    Mamba2ForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    PreTrainedModel,
)

from cobra.config.config_json import LM, write_config
from cobra.convert import hub
from cobra.convert.layout import all_layouts
from cobra.convert.run import convert
from cobra.convert.source import open_source
from cobra.data.record import Record, user
from cobra.models.vision.pictures import ONE_TILE
from cobra.models.vlm import IMAGE_ID
from cobra.pretrained import expected_shapes, from_pretrained, lm_from_pretrained
from cobra.weights.tensors import open_tensors
from tests.convert import published_keys
from tests.convert.fakes import TOWER, VOCAB, D, random, shrink, write_cobra, write_ml_mamba, write_tower
from tests.models.builders import LMS

TOKENIZER = str(Path(__file__).parents[2] / "cobra/data/shapes/tokenizer")
SHARED = {"vocab_size": VOCAB, "hidden_size": D, "num_hidden_layers": 2, "tie_word_embeddings": True}


def test_a_cobra_run_becomes_a_model_that_sees_and_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrink(monkeypatch)
    published = write_cobra(tmp_path / "run")
    tower = write_tower(tmp_path / "tower.safetensors")
    towers = [tmp_path / "tower.safetensors"] * 2
    convert(str(tmp_path / "run"), tmp_path / "model", towers=towers, tokenizer=TOKENIZER)

    weights = load_file(tmp_path / "model/model.safetensors")
    groups = {
        "model/projector/projector.": "projector.projector.",
        "model/llm_backbone/llm.backbone.": "lm.",
    }
    unread = {name for name in weights if not name.startswith("vision.")}
    for theirs, ours in groups.items():
        for name in [name for name in published if name.startswith(theirs)]:
            assert torch.equal(weights[ours + name.removeprefix(theirs)], published[name]), name
            unread.remove(ours + name.removeprefix(theirs))
    assert not unread
    kept = [name for name in weights if name.startswith("vision.encoders.1.tower.")]
    assert kept
    for name in kept:
        assert torch.equal(weights[name], tower[name.removeprefix("vision.encoders.1.tower.")])

    model, processor = from_pretrained(tmp_path / "model")
    assert model.vision.config()["init_args"]["encoders"][0]["init_args"]["name"] == TOWER
    ids = torch.tensor([[IMAGE_ID] * model.num_image_tokens(ONE_TILE) + [1, 2]])
    pixels = tuple(torch.zeros(1, 3, 64, 64) for _ in range(2))
    assert model.generate(ids, pixels, max_new_tokens=2).shape == (1, 2)
    text = processor.encode(Record("r", [user("hi")], []), prompt=True)
    assert processor.chat.tokenizer.decode(text.ids) == "<|user|>\nhi<|endoftext|>\n<|assistant|>\n"


def test_ml_mambas_four_groups_become_a_model_that_sees_and_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrink(monkeypatch)
    published = write_ml_mamba(tmp_path / "released/latest-checkpoint.pt")
    towers = [tmp_path / "first.safetensors", tmp_path / "second.safetensors"]
    kept = [write_tower(path, seed) for seed, path in enumerate(towers)]
    convert(str(tmp_path / "released"), tmp_path / "model", towers=towers, tokenizer=TOKENIZER)

    model, processor = from_pretrained(tmp_path / "model")
    state = model.state_dict()
    groups = {
        "model/mlp/0.": "projector.mlp.0.",
        "model/bidirectional_mamba/": "projector.scan.",
        # the part, the connector's projector, and its layers
        "model/projector/projector.": "projector.projector.projector.",
        "model/llm_backbone/backbone.": "lm.",
    }
    unread = {name for name in state if not name.startswith("vision.")}
    for theirs, ours in groups.items():
        for name in [name for name in published if name.startswith(theirs)]:
            ours_name = ours + name.removeprefix(theirs)
            assert torch.equal(state[ours_name], published[name]), name
            unread.remove(ours_name)
    assert not unread
    for number, tower in enumerate(kept):
        prefix = f"vision.encoders.{number}.tower."
        names = [name for name in state if name.startswith(prefix)]
        assert names
        assert all(torch.equal(state[name], tower[name.removeprefix(prefix)]) for name in names)

    ids = torch.tensor([[IMAGE_ID] * model.num_image_tokens(ONE_TILE) + [1, 2]])
    pixels = tuple(torch.zeros(1, 3, 64, 64) for _ in range(2))
    assert model.generate(ids, pixels, max_new_tokens=2).shape == (1, 2)
    text = processor.encode(Record("r", [user("hi")], []), prompt=True)
    assert processor.chat.tokenizer.decode(text.ids) == "<|user|>\nhi<|endoftext|>\n<|assistant|>\n"


def transformers_models() -> dict[str, PreTrainedModel]:
    torch.manual_seed(0)
    two = {"state_size": 16, "head_dim": 16, "num_heads": 4, "n_groups": 2, "chunk_size": 8}
    return {
        "mamba": MambaForCausalLM(MambaConfig(**SHARED, state_size=8, time_step_rank=3)),
        "mamba2": Mamba2ForCausalLM(Mamba2Config(**SHARED, **two)),
    }


def hidden(folder: Path, ids: Tensor) -> Tensor:
    lm = lm_from_pretrained(folder)
    return lm.head(lm.prefill(lm.embed(ids)))


@pytest.mark.parametrize("name", ["mamba", "mamba2"])
def test_transformers_to_ours_and_back_without_a_changed_bit(name: str, tmp_path: Path) -> None:
    theirs = transformers_models()[name].eval()
    theirs.save_pretrained(tmp_path / "hf")
    convert(str(tmp_path / "hf"), tmp_path / "ours")
    convert(str(tmp_path / "ours"), tmp_path / "back", to="hf")

    ids = torch.arange(11)[None] % VOCAB
    with torch.no_grad():
        torch.testing.assert_close(hidden(tmp_path / "ours", ids), theirs(ids).logits, rtol=1e-4, atol=1e-5)
    before = load_file(tmp_path / "hf/model.safetensors")
    after = load_file(tmp_path / "back/model.safetensors")
    assert set(before) == set(after)
    assert all(torch.equal(before[key], after[key]) for key in before)
    back, report = type(theirs).from_pretrained(tmp_path / "back", output_loading_info=True)
    assert not any(report.values()), report
    with torch.no_grad():
        assert torch.equal(back(ids).logits, theirs(ids).logits)
    one, other = theirs.config.to_dict(), back.config.to_dict()
    assert {k for k in one if one[k] != other[k]} <= {"_name_or_path", "dtype", *_TOKEN_IDS}


@pytest.mark.parametrize("kind", ["llama", "phi3_longrope", "qwen2"])
def test_a_transformer_of_ours_is_written_for_transformers(kind: str, tmp_path: Path) -> None:
    ours = LMS[kind]().eval()
    (tmp_path / "ours").mkdir()
    # a tied head is stored once
    weights = {name: ours.state_dict()[name] for name in expected_shapes(ours)}
    save_file(weights, tmp_path / "ours/model.safetensors")
    write_config(tmp_path / "ours", LM, ours.config())
    convert(str(tmp_path / "ours"), tmp_path / "hf", to="hf")

    theirs, report = AutoModelForCausalLM.from_pretrained(tmp_path / "hf", output_loading_info=True)
    assert not any(report.values()), report
    ids = torch.arange(11)[None]
    with torch.no_grad():
        expected = ours.head(ours.prefill(ours.embed(ids)))
        torch.testing.assert_close(theirs(ids).logits, expected, rtol=1e-4, atol=1e-5)
    convert(str(tmp_path / "hf"), tmp_path / "back")
    back = load_file(tmp_path / "back/model.safetensors")
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in weights.items())


_TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


@pytest.mark.parametrize("kind", ["mamba", "mamba2"])
def test_mamba_ssm_becomes_what_transformers_reads(kind: str, tmp_path: Path) -> None:
    tied = {"lm_head.weight": "backbone.embedding.weight"}
    keys = published_keys.mamba("", VOCAB, D, 2) if kind == "mamba" else None
    tensors = random(keys or published_keys.mamba2("", VOCAB, D, 2, state=16, head=16), tied)
    (tmp_path / "ssm").mkdir()
    torch.save(tensors, tmp_path / "ssm/pytorch_model.bin")
    ssm = {} if kind == "mamba" else {"layer": "Mamba2", "d_state": 16, "headdim": 16}
    config = {
        "d_model": D, "n_layer": 2, "vocab_size": VOCAB - 3, "ssm_cfg": ssm, "rms_norm": True,
        "residual_in_fp32": True, "fused_add_norm": True, "pad_vocab_size_multiple": 8,
    }  # fmt: skip
    (tmp_path / "ssm/config.json").write_text(json.dumps(config))
    convert(str(tmp_path / "ssm"), tmp_path / "ours")
    convert(str(tmp_path / "ssm"), tmp_path / "hf", to="hf")

    theirs = type(transformers_models()[kind]).from_pretrained(tmp_path / "hf")
    ids = torch.arange(9)[None]
    with torch.no_grad():
        torch.testing.assert_close(hidden(tmp_path / "ours", ids), theirs(ids).logits, rtol=1e-4, atol=1e-5)
    for name, tensor in load_file(tmp_path / "ours/model.safetensors").items():
        assert torch.equal(tensor, tensors[f"backbone.{name}"]), name


def test_shards_and_half_precision_are_kept_as_they_are(tmp_path: Path) -> None:
    theirs = transformers_models()["mamba2"].to(torch.bfloat16)
    theirs.save_pretrained(tmp_path / "hf", max_shard_size="20KB")
    assert (tmp_path / "hf/model.safetensors.index.json").is_file()
    convert(str(tmp_path / "hf"), tmp_path / "ours")
    ours = load_file(tmp_path / "ours/model.safetensors")
    assert torch.equal(ours["embedding.weight"], theirs.backbone.embeddings.weight)
    assert {tensor.dtype for tensor in ours.values()} == {torch.bfloat16}
    (tmp_path / "hf/model-00002-of-00003.safetensors").unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError, match=r"lacks \['model-00002"):
        convert(str(tmp_path / "hf"), tmp_path / "again")


def test_a_checkpoint_has_one_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shrink(monkeypatch)
    write_cobra(tmp_path / "cobra")
    transformers_models()["mamba2"].save_pretrained(tmp_path / "hf")
    convert(str(tmp_path / "hf"), tmp_path / "own")
    write_ml_mamba(tmp_path / "ml_mamba/latest-checkpoint.pt")
    (tmp_path / "ssm").mkdir()
    torch.save(random(published_keys.mamba("", VOCAB, D, 2)), tmp_path / "ssm/pytorch_model.bin")
    (tmp_path / "renamed").mkdir()
    # contents decide, not names
    (tmp_path / "cobra/config.json").rename(tmp_path / "renamed/config.json")
    (tmp_path / "cobra/checkpoints/latest-checkpoint.pt").rename(tmp_path / "renamed/pytorch_model.bin")
    titles = {}
    for folder in ("renamed", "ml_mamba", "ssm", "hf", "own"):
        source = open_source(tmp_path / folder)
        titles[folder] = [layout.title for layout in all_layouts() if layout.recognises(source)]
    assert titles == {
        "renamed": ["Cobra"], "ml_mamba": ["ML-Mamba"], "ssm": ["mamba_ssm"], "hf": ["Hugging Face Mamba"],
        "own": ["cobra"],
    }  # fmt: skip


@pytest.mark.parametrize("start", [b"\x80", b"PK"])
def test_a_safetensors_file_that_starts_like_another_format_is_read(start: bytes, tmp_path: Path) -> None:
    path, tensor = tmp_path / "model.safetensors", torch.randn(3)
    # the file starts with the length of its header, lowest byte first
    length = int.from_bytes(start, "little")
    save_file({"a": tensor}, path, metadata={"pad": ""})
    spare = length - int.from_bytes(path.read_bytes()[:8], "little")
    save_file({"a": tensor}, path, metadata={"pad": " " * (spare % (1 << 8 * len(start)))})
    assert path.read_bytes().startswith(start)
    assert torch.equal(open_tensors(path)["a"].read(), tensor)


def test_any_dtype_and_shape_is_written_as_safetensors_reads_it(tmp_path: Path) -> None:
    from cobra.weights.writer import write_tensors

    tensors = {
        "odd": torch.arange(3, dtype=torch.float16),
        "wide": torch.randn(3, 5, dtype=torch.float64),
        "scalar": torch.tensor(7),
        "empty": torch.zeros(0, 4),
        "mask": torch.tensor([True, False, True]),
        "half": torch.randn(2, 3).bfloat16(),
    }
    save_file(tensors, tmp_path / "theirs.safetensors")
    written: list[int] = []
    write_tensors(
        tmp_path / "ours.safetensors", open_tensors(tmp_path / "theirs.safetensors"), written.append
    )
    read = load_file(tmp_path / "ours.safetensors")
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())
    assert sum(written) == sum(tensor.nbytes for tensor in tensors.values())


def test_a_hub_folder_is_fetched_safetensors_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, list[str]]] = []

    def download(repository: str, allow_patterns: list[str]) -> str:
        asked.append((repository, allow_patterns))
        if any(pattern.endswith(".pt") for pattern in allow_patterns):
            shrink(monkeypatch)
            write_cobra(tmp_path / "cobra+3b")
        return str(tmp_path)

    monkeypatch.setattr(hub, "snapshot_download", download)
    assert hub.fetch("han1997/cobra/cobra+3b") == tmp_path / "cobra+3b"
    assert open_source(tmp_path / "cobra+3b").config["model"]["model_id"] == "cobra+3b"
    assert [repository for repository, _ in asked] == ["han1997/cobra"] * 2
    assert "cobra+3b/*.safetensors" in asked[0][1]
    assert "cobra+3b/checkpoints/latest-checkpoint.pt" in asked[1][1]
