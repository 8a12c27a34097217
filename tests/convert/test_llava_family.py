"""Checkpoints of LLaVA's family: every published name at full size, and the same logits at small sizes."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

from cobra.convert import towers
from cobra.convert.checkpoint import arrange, open_checkpoint
from cobra.convert.layout import all_layouts, find_layout
from cobra.convert.run import convert
from cobra.convert.source import Source, open_source
from cobra.convert.towers import Tower
from cobra.convert.vision import tower_tensors
from cobra.data.record import Record, user
from cobra.models.vision.pictures import ONE_TILE
from cobra.models.vlm import IMAGE_ID
from cobra.pretrained import from_pretrained, lm_from_pretrained
from cobra.weights.tensors import Stored
from tests.convert import llava_keys as keys
from tests.convert.fakes import random
from tests.convert.published_keys import Shapes
from tests.convert.test_convert import TOKENIZER
from tests.convert.test_published_keys import listed, unread
from tests.data.sentencepiece_model import SYSTEM, Published, write_model

CLIP = "openai/clip-vit-large-patch14-336"
SIGLIP = "google/siglip-so400m-patch14-384"


def config(d: int, layers: int, heads: int, inner: int, vocab: int, **more: Any) -> dict[str, Any]:
    sizes = {"hidden_size": d, "num_hidden_layers": layers, "num_attention_heads": heads}
    return {**sizes, "intermediate_size": inner, "vocab_size": vocab, **more}


VICUNA = config(4096, 32, 32, 11008, 32000, rms_norm_eps=1e-5, model_type="llava", mm_vision_tower=CLIP)
ML14 = config(2048, 24, 16, 5632, 32000, rms_norm_eps=1e-6, model_type="mobilevlm", mm_vision_tower=CLIP)
ML27 = {**ML14, **config(2560, 32, 32, 6912, 32000), "n_head": 16, "n_query_groups": 16}
PHI2 = config(2560, 32, 32, 10240, 51200, partial_rotary_factor=0.4, mm_vision_tower=SIGLIP)
STABLE = config(
    2048, 24, 32, 5632, 100352, num_key_value_heads=32, use_qkv_bias=True, partial_rotary_factor=0.25
)
QWEN = config(2048, 24, 16, 5504, 151936, num_key_value_heads=16, rope_theta=1e6)
PHI3 = config(3072, 32, 32, 8192, 32064, rms_norm_eps=1e-5, mm_vision_tower=SIGLIP)
FACTORY = {
    "model.vision_tower.vision_tower.": "vision_tower._vision_tower.",
    "model.mm_projector.": "connector._connector.",
    "model.": "language_model.model.",
    "lm_head.": "language_model.lm_head.",
}
CLIP_USED = 303_507_456 - 12_596_224 - 2048
SIGLIP_USED = 397_745_440
# names, config.json; parameters of tower, projector and language model (0: no tower in the file)
PUBLISHED: dict[str, tuple[Shapes, dict[str, Any], tuple[int, int, int]]] = {
    "LLaVA-1.5-7B": (
        keys.clip() | keys.mlp(1024, 4096) | keys.llama(32000, 4096, 11008, 32),
        VICUNA, (CLIP_USED, 20_979_712, 6_738_415_616),
    ),
    "its weights without a tower": (
        keys.mlp(1024, 4096) | keys.llama(32000, 4096, 11008, 32),
        VICUNA, (0, 20_979_712, 6_738_415_616),
    ),
    "its projector after alignment": (keys.mlp(1024, 4096), VICUNA, (0, 20_979_712, 0)),
    "MobileVLM-1.7B": (
        keys.ldp(1024, 2048) | keys.llama(32000, 2048, 5632, 24), ML14, (0, 18_936_832, 1_364_297_728),
    ),
    "MobileVLM-3B": (
        keys.ldp(1024, 2560) | keys.llama(32000, 2560, 6912, 32), ML27, (0, 28_913_920, 2_701_560_320),
    ),
    "MobileVLM V2 1.7B": (
        keys.clip() | keys.ldpv2(1024, 2048) | keys.llama(32000, 2048, 5632, 24),
        ML14, (CLIP_USED, 6_316_032, 1_364_297_728),
    ),
    "MobileVLM V2 3B": (
        keys.clip() | keys.ldpv2(1024, 2560) | keys.llama(32000, 2560, 6912, 32),
        ML27, (CLIP_USED, 9_205_760, 2_701_560_320),
    ),
    "TinyLLaVA-1.5B": (
        keys.siglip() | keys.mlp(1152, 2048) | keys.llama(32000, 2048, 5632, 22, kv=256),
        config(2048, 22, 32, 5632, 32000, num_key_value_heads=4, rms_norm_eps=1e-5),
        (SIGLIP_USED, 6_557_696, 1_100_048_384),
    ),
    "TinyLLaVA-2.0B": (
        keys.siglip() | keys.mlp(1152, 2048)
        | keys.llama(100352, 2048, 5632, 24, bias=True, norm_bias=True),
        STABLE, (SIGLIP_USED, 6_557_696, 1_644_515_328),
    ),
    "TinyLLaVA-3.1B": (
        keys.siglip() | keys.mlp(1152, 2560) | keys.phi(51200, 2560, 10240, 32),
        PHI2, (SIGLIP_USED, 9_507_840, 2_779_683_840),
    ),
    "TinyLLaVA Factory": (
        keys.renamed(
            keys.siglip(layers=27) | keys.mlp(1152, 2560) | keys.phi(51200, 2560, 10240, 32), FACTORY
        ),
        {"text_config": {**PHI2, "model_type": "phi"}, "vision_feature_layer": -2},
        (SIGLIP_USED, 9_507_840, 2_779_683_840),
    ),
    "Imp-v1.5-2B": (
        keys.siglip() | keys.mlp(1152, 2048) | keys.llama(151936, 2048, 5504, 24, bias=True),
        QWEN, (SIGLIP_USED, 6_557_696, 1_836_828_672),
    ),
    "Imp-v1.5-4B": (
        keys.siglip() | keys.mlp(1152, 3072) | keys.phi3(32064, 3072, 8192, 32),
        PHI3, (SIGLIP_USED, 12_982_272, 3_821_079_552),
    ),
    "Imp-v1.5-3B-196": (
        keys.siglip("transformer.vision_tower.vision_tower.vision_model.", side=14)
        | keys.mlp(1152, 2560, "transformer.mm_projector.") | keys.first_phi(51200, 2560, 10240, 32),
        {"model_type": "imp"}, (SIGLIP_USED - (729 - 196) * 1152, 9_507_840, 2_779_683_840),
    ),
    "PhiVA-4B": (
        keys.clip("vision_tower.vision_model.", 768, 16, 14, 12)
        | keys.mlp(768, 3072, "multi_modal_projector.linear_", "1", "2")
        | keys.phi3(32013, 3072, 8192, 32, "language_model.model.", "language_model.lm_head"),
        {"model_type": "llava", "text_config": {**PHI3, "vocab_size": 32013, "model_type": "phi3"}},
        (85_799_424 - 7_087_872 - 1536, 11_802_624, 3_820_766_208),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_name_is_read_and_counted(name: str) -> None:
    names, said, counts = PUBLISHED[name]
    checkpoint = listed(names, said)
    found = [sum(t.shape.numel() for t in checkpoint.part(p).values()) for p in ("vision", "projector", "lm")]
    assert tuple(found) == counts
    assert [known.title for known in all_layouts() if known.recognises(checkpoint.source)] == [
        checkpoint.layout.title
    ]


def tower_of(name: str, **changed: Any) -> dict[str, Any]:
    names, said, _ = PUBLISHED[name]
    tensors = {key: Stored(torch.Size(shape), torch.float32, unread) for key, shape in names.items()}
    source = Source(Path("published.bin"), {**said, **changed}, tensors)
    return find_layout(source).parts(source)["vision"]["init_args"]


def test_towers_see_what_the_authors_show_them() -> None:
    """Facts that no shape shows: activation, padding, TinyLLaVA Factory's dropped patch."""
    llava = {"name": "vit_large_patch14_clip_336.openai", "image_size": 336}
    assert tower_of("LLaVA-1.5-7B", image_aspect_ratio="pad") == {**llava, "resize": "letterbox"}
    assert tower_of("its weights without a tower") == {**llava, "resize": "resize-crop-floor"}
    so400m = {"name": "vit_so400m_patch14_siglip_384.webli", "image_size": 384, "activation": "gelu_tanh"}
    imp = {**so400m, "resize": "resize-naive"}
    assert tower_of("Imp-v1.5-4B") == imp
    assert tower_of("Imp-v1.5-3B-196") == {**imp, "image_size": 196}
    assert tower_of("TinyLLaVA Factory") == {**imp, "drop_first": True}


def test_a_tower_that_was_trained_further_is_not_replaced_by_googles() -> None:
    names = keys.mlp(1152, 64) | keys.phi(64, 64, 96, 1)
    said = config(64, 1, 2, 96, 64, mm_vision_tower="bczhou/TinyLLaVA-3.1B-SigLIP")
    tower = listed(names, said).parts["vision"]
    assert tower["init_args"]["weights"] == "bczhou/TinyLLaVA-3.1B-SigLIP"
    with pytest.raises(FileNotFoundError, match=r"TinyLLaVA-3\.1B-SigLIP is no folder here"):
        tower_tensors(tower, [])
    with pytest.raises(ValueError, match=r"mm_vision_tower 'other/vit' is not one of clip-vit-large"):
        listed(names, {**said, "mm_vision_tower": "other/vit"})


@pytest.mark.parametrize(
    ("names", "said", "message"),
    [
        ({}, {"model_type": "gemma"}, "model_type 'gemma' cannot be read"),
        ({}, {"vocab_size": "many"}, "TransformerLM cannot have vocab_size 'many': it must be int"),
        ({"model.mm_projector.4.weight": (64, 64)}, {}, "no projector is known with the names"),
        ({"model.layers.0.self_attn.q_norm.weight": (8,)}, {}, r"unexpected \['lm\..*q_norm"),
    ],
)
def test_what_is_built_otherwise_is_refused(names: Shapes, said: dict[str, Any], message: str) -> None:
    held = keys.mlp(1024, 64) | keys.llama(64, 64, 96, 1) | names
    with pytest.raises(ValueError, match=message):
        listed(held, {**config(64, 1, 4, 96, 64), "mm_vision_tower": CLIP, **said})


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"mm_vision_select_layer": -1}, r"mm_vision_select_layer -1 cannot be read, only -2"),
        ({"mm_vision_select_feature": "cls_patch"}, "mm_vision_select_feature 'cls_patch' .* only 'patch'"),
        ({"mm_use_im_start_end": True}, "mm_use_im_start_end True"),
        ({"mm_patch_merge_type": "spatial_unpad"}, "mm_patch_merge_type 'spatial_unpad'"),
        ({"image_aspect_ratio": "anyres", "mm_patch_merge_type": "flat"}, "image_aspect_ratio 'anyres'"),
        ({"mm_resampler_type": "perceiver"}, "mm_resampler_type 'perceiver'"),
        ({"mm_projector_type": "mlp3x_gelu"}, "mm_projector_type 'mlp3x_gelu'"),
        ({"mm_projector_type": "ldpnet"}, "mm_projector_type 'ldpnet' is not .* names of a MLPProjector"),
        ({"vision_tower_type": "siglip"}, "vision_tower_type 'siglip'"),
        ({"s2": True}, "s2 True"),
        ({"vision_config": {"hidden_act": "gelu"}}, r"vision_config\.hidden_act 'gelu' .* only 'quick_gelu'"),
        ({"mm_spatial_pool_mode": "bilinear"}, "mm_spatial_pool_mode 'bilinear' cannot be read"),
    ],
)
def test_options_that_would_be_built_as_plain_llava_are_refused(said: dict[str, Any], message: str) -> None:
    plain = {**config(64, 1, 4, 96, 64), "mm_vision_tower": CLIP, "model_type": "llava"}
    held = keys.mlp(1024, 64) | keys.llama(64, 64, 96, 1)
    published = {
        "mm_vision_select_layer": -2, "mm_vision_select_feature": "patch", "mm_use_im_start_end": False,
        "mm_use_im_patch_token": False, "mm_projector_type": "mlp2x_gelu", "mm_hidden_size": 1024,
        "mm_projector_lr": 2e-5, "image_aspect_ratio": "pad", "mm_patch_merge_type": "flat",
    }  # fmt: skip
    listed(held, {**plain, **published})
    with pytest.raises(ValueError, match=rf"config\.json: {message}"):
        listed(held, {**plain, **published, **said})


def test_all_tokens_of_siglip_are_patches() -> None:
    held = keys.siglip() | keys.mlp(1152, 64) | keys.phi(64, 64, 96, 1)
    listed(held, {**config(64, 1, 2, 96, 64), "mm_vision_select_feature": "cls_patch"})


TINY = {"embed_dim": 32, "depth": 3, "num_heads": 2}


@pytest.fixture
def tiny_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tower of 17 positions is CLIP ViT-B/16, small."""
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **given: create(name, **{**given, **TINY}))
    small = Tower("vit_base_patch16_clip_224.openai", 64, "resize-naive")
    monkeypatch.setitem(towers.SHAPES, (32, 16, 17), small)


def llava_model() -> LlavaForConditionalGeneration:
    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=128, num_hidden_layers=3, num_attention_heads=2, image_size=64,
        patch_size=16,
    )  # fmt: skip
    text = LlamaConfig(
        vocab_size=512, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4
    )
    said = LlavaConfig(vision_config=vision, text_config=text, image_token_index=500)
    return LlavaForConditionalGeneration(said).eval()


# LLaVA's names for transformers'
ORIGINAL = {
    "model.vision_tower.": "model.vision_tower.vision_tower.vision_model.",
    "model.multi_modal_projector.linear_1.": "model.mm_projector.0.",
    "model.multi_modal_projector.linear_2.": "model.mm_projector.2.",
    "model.language_model.": "model.",
}


def originally(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """transformers' tensors by LLaVA's names."""
    names = {name: next((old for old in ORIGINAL if name.startswith(old)), "") for name in state}
    return {ORIGINAL.get(old, "") + name.removeprefix(old): state[name] for name, old in names.items()}


def write(folder: Path, tensors: dict[str, Tensor], said: dict[str, Any]) -> None:
    folder.mkdir()
    torch.save({name: tensor.clone() for name, tensor in tensors.items()}, folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps(said))


@torch.no_grad()
@pytest.mark.parametrize("layout", ["saved", "in memory", "original"])
def test_llavas_logits_are_transformers(layout: str, tmp_path: Path, tiny_clip: None) -> None:
    theirs, source = llava_model(), tmp_path / "published"
    state = theirs.state_dict()
    if layout == "saved":
        theirs.save_pretrained(source)
    elif layout == "in memory":
        write(source, state, theirs.config.to_dict())
    else:
        original = originally(state)
        original["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
        write(source, original, {**theirs.config.text_config.to_dict(), "model_type": "llava"})
    titles = [known.title for known in all_layouts() if known.recognises(open_source(source))]
    assert titles == ["LLaVA" if layout == "original" else "Hugging Face LLaVA"]
    convert(str(source), tmp_path / "ours", tokenizer=TOKENIZER)
    ours, processor = from_pretrained(tmp_path / "ours")
    assert "USER: " in processor.chat.tokenizer.chat_template

    pixels, text = torch.randn(2, 3, 64, 64), [[5, 6, 7], [8, 9, 10]]
    ids = torch.tensor([[1, *[IMAGE_ID] * ours.num_image_tokens(ONE_TILE), *row] for row in text])
    expected = theirs(ids.masked_fill(ids == IMAGE_ID, 500), pixels).logits
    torch.testing.assert_close(ours.lm.head(ours(ids, pixels)), expected, rtol=1e-4, atol=1e-5)


def test_shards_and_a_sentencepiece_model_alone_become_a_model_with_llavas_ids(
    tmp_path: Path, tiny_clip: None
) -> None:
    """As LLaVA and MobileVLM are published: .bin files with an index, and only tokenizer.model."""
    theirs, source = llava_model(), tmp_path / "published"
    original = {name: tensor.clone() for name, tensor in originally(theirs.state_dict()).items()}
    write_model(source, legacy=False)
    shards = {
        name: f"pytorch_model-0000{1 + number % 2}-of-00002.bin" for number, name in enumerate(original)
    }
    for shard in set(shards.values()):
        torch.save({name: t for name, t in original.items() if shards[name] == shard}, source / shard)
    (source / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": shards}))
    said = {**theirs.config.text_config.to_dict(), "model_type": "mobilevlm"}
    (source / "config.json").write_text(json.dumps(said))
    convert(str(source), tmp_path / "ours")
    _, processor = from_pretrained(tmp_path / "ours")
    ids = processor.encode(Record("r", [user("What is it?")], []), prompt=True).ids
    assert ids == Published(source, legacy=False).prompt(f"{SYSTEM} USER: What is it? ASSISTANT:")
    assert not any((tmp_path / "ours" / name).exists() for name in ("tokenizer.model", "added_tokens.json"))


def test_a_tower_that_the_user_names_replaces_the_checkpoints(tmp_path: Path, tiny_clip: None) -> None:
    llava_model().save_pretrained(tmp_path / "published")
    other = llava_model().model.vision_tower
    torch.nn.init.ones_(other.embeddings.class_embedding)
    other.save_pretrained(tmp_path / "tower")
    convert(str(tmp_path / "published"), tmp_path / "ours", towers=[tmp_path / "tower"], tokenizer=TOKENIZER)
    ours, _ = from_pretrained(tmp_path / "ours")
    assert (ours.vision.state_dict()["tower.cls_token"] == 1).all()


SMALL: dict[str, dict[str, Any]] = {
    "llama": {"num_key_value_heads": 2},
    "phi": {"partial_rotary_factor": 0.4, "hidden_act": "gelu_new"},
    "phi3": {"pad_token_id": 0},
    "qwen2": {"num_key_value_heads": 4, "rope_theta": 1e6},
    "stablelm": {"num_key_value_heads": 4, "use_qkv_bias": True, "partial_rotary_factor": 0.25},
}


@torch.no_grad()
@pytest.mark.parametrize("kind", SMALL)
def test_a_language_model_alone_has_transformers_logits(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    said = AutoConfig.for_model(kind, **config(40, 2, 4, 48, 64), **SMALL[kind])
    theirs = AutoModelForCausalLM.from_config(said).eval()
    for parameter in theirs.parameters():
        parameter += 0.1 * torch.randn(parameter.shape)  # no norm or bias hides behind a one or a zero
    theirs.save_pretrained(tmp_path / "published")
    convert(str(tmp_path / "published"), tmp_path / "ours")
    ours, ids = lm_from_pretrained(tmp_path / "ours"), torch.arange(9)[None]
    logits = ours.head(ours.prefill(ours.embed(ids)))
    torch.testing.assert_close(logits, theirs(ids).logits, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("layout", ["alone", "LLaVA"])
def test_a_tied_model_may_store_its_head_again(layout: str, tmp_path: Path) -> None:
    """Qwen1.5-0.5B-Chat does; a head that is another is refused."""
    shapes = keys.llama(64, 64, 96, 1, bias=True)
    if layout == "LLaVA":
        shapes |= keys.mlp(1024, 64)
    said = {
        **config(64, 1, 4, 96, 64, num_key_value_heads=4),
        "tie_word_embeddings": True,
        "mm_vision_tower": CLIP,
    }
    tensors = random(shapes, {"lm_head.weight": "model.embed_tokens.weight"})
    write(tmp_path / "published", tensors, {**said, "model_type": "qwen2" if layout == "alone" else "llava"})
    lm = open_checkpoint(str(tmp_path / "published")).part("lm")
    assert "causal_lm.lm_head.weight" not in lm
    assert torch.equal(lm["causal_lm.model.embed_tokens.weight"].read(), tensors["lm_head.weight"])
    tensors["lm_head.weight"][0, 0] += 1
    torch.save(tensors, tmp_path / "published/pytorch_model.bin")
    with pytest.raises(ValueError, match=r"lm_head\.weight differs from model\.embed_tokens\.weight"):
        open_checkpoint(str(tmp_path / "published"))


def test_a_window_of_attention_is_kept_and_not_exceeded(tmp_path: Path) -> None:
    """Phi-3's is 2047 tokens; behind it transformers cuts off, which is not built here."""
    said = {**config(64, 1, 4, 96, 64), "model_type": "phi3", "sliding_window": 8}
    write(tmp_path / "published", random(keys.phi3(64, 64, 96, 1)), said)
    convert(str(tmp_path / "published"), tmp_path / "ours")
    ours = lm_from_pretrained(tmp_path / "ours")
    ours.prefill(ours.embed(torch.ones(1, 8, dtype=torch.long)))
    with pytest.raises(ValueError, match="9 tokens exceed sliding_window 8"):
        ours.prefill(ours.embed(torch.ones(1, 9, dtype=torch.long)))


def test_phi2s_first_names_are_its_todays(tmp_path: Path) -> None:
    """Wqkv is queries, keys, values, and every other matrix only has another name."""
    prefix = "transformer.vision_tower.vision_tower.vision_model."
    held = keys.first_phi(64, 32, 48, 2) | keys.mlp(1152, 32, "transformer.mm_projector.")
    published = random(held)
    tensors = {name: _stored(tensor) for name, tensor in published.items()}
    shapes = keys.siglip(prefix, side=14)
    tensors |= {name: _stored(torch.empty(shape, device="meta")) for name, shape in shapes.items()}
    said = {"model_type": "imp", "n_head": 4, "num_attention_heads": 4}
    lm = arrange(Source(tmp_path / "pytorch_model.bin", said, tensors)).part("lm")
    wqkv = published["transformer.h.1.mixer.Wqkv.weight"]
    for number, part in enumerate("qkv"):
        read = lm[f"causal_lm.model.layers.1.self_attn.{part}_proj.weight"].read()
        assert torch.equal(read, wqkv[32 * number : 32 * (number + 1)])
    assert torch.equal(lm["causal_lm.model.final_layernorm.bias"].read(), published["lm_head.ln.bias"])
    assert torch.equal(
        lm["causal_lm.model.layers.0.self_attn.dense.bias"].read(),
        published["transformer.h.0.mixer.out_proj.bias"],
    )


def _stored(tensor: Tensor) -> Any:
    return Stored(tensor.shape, tensor.dtype, partial(_itself, tensor))


def _itself(tensor: Tensor) -> Tensor:
    return tensor
