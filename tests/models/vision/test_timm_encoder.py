"""Towers: what is built, counted and computed."""

from functools import partial

import pytest
import torch

from cobra.models.vision.fused import FusedEncoder, planes_of
from cobra.models.vision.square import Crop, Letterbox
from cobra.models.vision.timm_encoder import TimmEncoder

DINOV2, SIGLIP = "vit_large_patch14_reg4_dinov2.lvd142m", "vit_so400m_patch14_siglip_384.webli"
# name, side, width, patches: Cobra's encoders, and SigLIP-2
REGISTRY = [
    ("vit_base_patch16_clip_224.openai", 224, 768, 196),
    ("vit_large_patch14_clip_224.openai", 224, 1024, 256),
    ("vit_large_patch14_clip_336.openai", 336, 1024, 576),
    ("vit_base_patch16_siglip_224.webli", 224, 768, 196),
    ("vit_base_patch16_siglip_256.webli", 256, 768, 256),
    ("vit_base_patch16_siglip_384.webli", 384, 768, 576),
    ("vit_so400m_patch14_siglip_224.webli", 224, 1152, 256),
    (SIGLIP, 384, 1152, 729),
    (DINOV2, 224, 1024, 256),
    (DINOV2, 384, 1024, 729),
    ("vit_large_patch16_224.augreg_in21k_ft_in1k", 224, 1024, 196),
    ("vit_so400m_patch14_siglip_378.v2_webli", 378, 1152, 729),
    ("vit_so400m_patch16_siglip_384.v2_webli", 384, 1152, 576),
]
tiny = partial(TimmEncoder, "test_vit.r160_in1k", pretrained=False)


@pytest.mark.parametrize(("name", "side", "width", "patches"), REGISTRY)
def test_a_tower_has_the_published_width_and_number_of_patches(
    name: str, side: int, width: int, patches: int
) -> None:
    with torch.device("meta"):
        encoder = TimmEncoder(name, side)
    assert (encoder.embed_dim, encoder.num_patches) == (width, patches)
    quick = "QuickGELU" in type(encoder.tower.blocks[0].mlp.act).__name__
    assert quick == ("openai" in name)


def test_towers_count_whole_on_the_meta_device_and_used_where_they_run() -> None:
    with torch.device("meta"):
        fused = FusedEncoder([partial(TimmEncoder, DINOV2, 384), partial(TimmEncoder, SIGLIP, 384)])
    whole, used = fused.count_parameters()
    assert whole == sum(p.numel() for p in fused.parameters()) == 303_715_328 + 428_225_600
    # 26 SigLIP blocks without the last norm (397 745 440), 23 blocks of DINOv2 of 12 598 272 each
    assert used == 397_745_440 + 303_715_328 - 12_598_272 - 2 * 1024
    with torch.device("meta"):
        described = tiny(64)
    built = tiny(64)
    assert described.count_parameters() == built.count_parameters()
    assert sum(p.numel() for p in built.parameters()) == built.count_parameters()[1]


def test_a_built_tower_holds_nothing_that_its_features_do_not_depend_on() -> None:
    for encoder in (tiny(64), TimmEncoder("test_vit3.r160_in1k", 64, pretrained=False)):
        encoder(torch.randn(1, 3, 64, 64)).square().sum().backward()
        assert not [name for name, p in encoder.named_parameters() if p.grad is None]


@torch.no_grad()
def test_features_are_the_penultimate_block_without_norm_and_prefix() -> None:
    torch.manual_seed(0)
    encoder = tiny(64).eval()
    pixels = torch.randn(2, 3, 64, 64)
    tower = encoder.tower
    x = tower.norm_pre(tower.patch_drop(tower._pos_embed(tower.patch_embed(pixels))))
    assert len(tower.blocks) == 5  # of test_vit's 6
    for block in tower.blocks:
        x = block(x)
    torch.testing.assert_close(encoder(pixels), x[:, tower.num_prefix_tokens :])
    assert tower.num_prefix_tokens > 0


def test_pixels_beyond_the_last_whole_patch_are_not_seen() -> None:
    torch.manual_seed(0)
    encoder, pixels = tiny(70).eval(), torch.randn(1, 3, 70, 70)
    assert encoder.num_patches == 16
    blanked = pixels.clone()
    blanked[:, :, 64:] = blanked[..., 64:] = 0
    torch.testing.assert_close(encoder(pixels), encoder(blanked))


def test_a_picture_answers_the_same_in_a_batch() -> None:
    torch.manual_seed(0)
    encoder, pixels = tiny(64).eval(), torch.randn(3, 3, 64, 64)
    apart = torch.cat([encoder(one[None]) for one in pixels])
    torch.testing.assert_close(encoder(pixels), apart, rtol=1e-5, atol=1e-5)


def test_siglip_is_cropped_at_its_size_and_clip_b_as_timm_says() -> None:
    with torch.device("meta"):
        siglip = TimmEncoder(SIGLIP, 384, resize="resize-crop")
        clip = TimmEncoder("vit_base_patch16_clip_224.openai", 224, resize="letterbox")
        dino = TimmEncoder(DINOV2, 384, resize="letterbox-equal-bars")
    planes = [plane for encoder in (siglip, clip, dino) for plane in planes_of(encoder.transform)]
    assert [plane.square for plane in planes] == [
        Crop(384, 384),
        Letterbox(224, 248, colour=(122, 116, 104)),
        Letterbox(384, 384, colour=(123, 116, 103), equal_bars=True),
    ]


@pytest.mark.parametrize(
    ("name", "side", "options", "message"),
    [
        ("vit_so400m_patch14_siglip_224", 224, {}, r"which weights.*siglip_224\.v2_webli.*siglip_224\.webli"),
        ("vit_so400m_patch14_siglip_224.webly", 224, {}, r"which weights.*siglip_224\.webli"),
        ("vit_so401m.webli", 224, {}, "timm has no model"),
        ("resnet50.a1_in1k", 224, {}, "no plain ViT"),
        ("test_vit.r160_in1k", 15, {}, "smaller than a patch .* at least 16"),
        ("test_vit.r160_in1k", 32, {"resize": "stretch"}, "'stretch' is unknown: choose one of resize-naive"),
    ],
)
def test_an_impossible_tower_is_refused_with_the_remedy(
    name: str, side: int, options: dict, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        TimmEncoder(name, side, pretrained=False, **options)
