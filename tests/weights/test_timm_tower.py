"""Weights of towers: timm's and transformers' layouts, the hub's cache, broken files."""

# declares operators that timm's and transformers' import of torchvision need
import cobra.torchvision_shim  # noqa: F401  isort: skip

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    PreTrainedModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from cobra.models.vision.timm_encoder import TimmEncoder

TINY = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
WIDE = {**TINY, "intermediate_size": 128}
# timm's name, side, and transformers' model, for DINOv2 with another grid: its positions are resampled
FAMILIES: dict[str, tuple[str, int, Callable[[], PreTrainedModel]]] = {
    "siglip": (
        "vit_base_patch16_siglip_224.webli",
        64,
        lambda: SiglipVisionModel(
            SiglipVisionConfig(**WIDE, image_size=64, patch_size=16, hidden_act="gelu")
        ),
    ),
    "clip": (
        "vit_large_patch14_clip_336.openai",
        56,
        lambda: CLIPVisionModel(CLIPVisionConfig(**WIDE, image_size=56, patch_size=14)),
    ),
    "dinov2": (
        "vit_large_patch14_reg4_dinov2.lvd142m",
        59,
        lambda: Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**TINY, image_size=98, patch_size=14)),
    ),
}


@pytest.fixture
def tiny_towers(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink = partial(timm.create_model, embed_dim=32, depth=3, num_heads=2)
    monkeypatch.setattr(timm, "create_model", shrink)


def scrambled(family: str) -> PreTrainedModel:
    model = FAMILIES[family][2]().eval()
    rng = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=rng)
    return model


@pytest.mark.usefixtures("tiny_towers")
@pytest.mark.parametrize("family", sorted(FAMILIES))
@torch.no_grad()
def test_features_equal_transformers_from_its_own_file(family: str, tmp_path: Path) -> None:
    name, side, _ = FAMILIES[family]
    theirs = scrambled(family)
    theirs.save_pretrained(tmp_path)
    ours = TimmEncoder(name, side, weights=str(tmp_path)).eval()
    pixels = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    hidden = theirs(pixels, output_hidden_states=True).hidden_states
    assert len(hidden) == 4
    expected = hidden[-2][:, ours.tower.num_prefix_tokens :]
    torch.testing.assert_close(ours(pixels), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("tiny_towers")
def test_a_tower_inside_a_larger_model_is_found(tmp_path: Path) -> None:
    name, side, _ = FAMILIES["siglip"]
    state = scrambled("siglip").state_dict()
    save_file(state, tmp_path / "alone.safetensors")
    larger = {f"model.vision_tower.vision_tower.vision_model.{key}": value for key, value in state.items()}
    larger |= {"text_model.encoder.layers.0.mlp.fc1.weight": torch.zeros(1), "logit_scale": torch.zeros(1)}
    torch.save(larger, tmp_path / "larger.bin")
    alone, inside = (
        TimmEncoder(name, side, weights=str(tmp_path / file)) for file in ("alone.safetensors", "larger.bin")
    )
    for (key, one), (_, other) in zip(alone.state_dict().items(), inside.state_dict().items(), strict=True):
        assert torch.equal(one, other), key


@pytest.mark.usefixtures("tiny_towers")
def test_timms_own_file_is_resampled_as_timm_does_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    name, side, _ = FAMILIES["dinov2"]
    source = timm.create_model(name, img_size=98, num_classes=5)  # 7 × 7 patches, and a classifier
    save_file(
        {key: value.half() for key, value in source.state_dict().items()}, tmp_path / "model.safetensors"
    )
    ours = TimmEncoder(name, side, weights=str(tmp_path / "model.safetensors"))
    expected = timm.layers.resample_abs_pos_embed(
        source.half().float().pos_embed, [4, 4], num_prefix_tokens=0
    )
    assert torch.equal(ours.tower.pos_embed, expected)
    assert torch.equal(ours.tower.blocks[1].attn.qkv.weight, source.blocks[1].attn.qkv.weight)
    assert ours.arguments()["weights"] is None


def test_a_tower_that_cannot_be_downloaded_names_the_file_and_where_it_goes() -> None:
    message = (
        r"huggingface\.co/timm/test_vit\.r160_in1k/resolve/main/model\.safetensors .*`weights` to its path"
    )
    with pytest.raises(FileNotFoundError, match=message) as caught:
        TimmEncoder("test_vit.r160_in1k", 64)
    assert caught.value.__suppress_context__


def test_a_tower_in_the_hubs_cache_is_taken_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    source = timm.create_model("test_vit.r160_in1k")
    repository, commit = tmp_path / "models--timm--test_vit.r160_in1k", "0" * 40
    (repository / "snapshots" / commit).mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(commit)
    save_file(source.state_dict(), repository / "snapshots" / commit / "model.safetensors")
    ours = TimmEncoder("test_vit.r160_in1k", 160)
    assert torch.equal(ours.tower.pos_embed, source.pos_embed)


def test_a_file_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    encoder = partial(TimmEncoder, "test_vit.r160_in1k", 64)
    with pytest.raises(FileNotFoundError, match=r"none\.safetensors does not exist"):
        encoder(weights=str(tmp_path / "none.safetensors"))
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors does not exist"):
        encoder(weights=str(tmp_path))
    other = timm.create_model("test_vit2.r160_in1k").state_dict()
    save_file(other, tmp_path / "other.safetensors")
    with pytest.raises(
        ValueError, match=r"does not fit test_vit\.r160_in1k: missing \['cls_token'\]; unexpected"
    ):
        encoder(weights=str(tmp_path / "other.safetensors"))
    whole = (tmp_path / "other.safetensors").read_bytes()
    (tmp_path / "half.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"half\.safetensors is incomplete or no file of weights"):
        encoder(weights=str(tmp_path / "half.safetensors"))
    torch.save({"state_dict": other}, tmp_path / "nested.bin")
    with pytest.raises(ValueError, match=r"unexpected \['state_dict/blocks\.0\."):
        encoder(weights=str(tmp_path / "nested.bin"))
    torch.save(other, tmp_path / "old.bin", _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match=r"old\.bin is a bare pickle"):
        encoder(weights=str(tmp_path / "old.bin"))


@pytest.mark.parametrize(
    ("state", "message"),
    [
        # DINOv3's: no position embedding, and no bias of the keys
        ({"embeddings.patch_embeddings.weight": (32, 3, 16, 16)}, "missing 'pos_embed'"),
        (
            {
                "embeddings.patch_embeddings.weight": (32, 3, 16, 16),
                "encoder.layer.0.attention.q_proj.bias": (32,),
            },
            r"missing 'blocks\.0\.attn\.k\.bias'",
        ),
        ({"pos_embed": (3,)}, "does not fit"),
    ],
)
def test_a_tower_of_another_family_is_refused(
    state: dict[str, tuple[int, ...]], message: str, tmp_path: Path
) -> None:
    save_file({key: torch.ones(shape) for key, shape in state.items()}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=message):
        TimmEncoder("test_vit.r160_in1k", 64, weights=str(tmp_path / "other.safetensors"))


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"pos_embed": Evil()}, tmp_path / "evil.bin")
    with pytest.raises(ValueError, match=r"evil\.bin does not hold plain tensors") as caught:
        TimmEncoder("test_vit.r160_in1k", 64, weights=str(tmp_path / "evil.bin"))
    # torch's own message says how to run it
    assert "weights_only" not in str(caught.value)
    assert not (tmp_path / "ran").exists()
