"""What holds for every projector, and the published sizes."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

from cobra.config.build import build
from cobra.models.projectors.base import Projector
from cobra.models.projectors.fused_mlp import FusedMLPProjector
from cobra.models.projectors.ldp import LDPProjector
from cobra.models.projectors.ldpv2 import LDPv2Projector
from cobra.models.projectors.linear import LinearProjector
from cobra.models.projectors.mamba_scan import MambaScanProjector
from cobra.models.projectors.mlp import MLPProjector
from cobra.models.projectors.pixel_unshuffle import PixelUnshuffleProjector
from cobra.models.vision.pictures import ONE_TILE
from cobra.models.vlm import IMAGE_ID, CobraVLM
from tests.models.builders import ENCODERS, LMS, PROJECTORS

cobra_ldpv2 = partial(LDPv2Projector, side=14, fused=True)
scan: Callable[..., Projector] = MambaScanProjector
cross = partial(MambaScanProjector, paths="cross")

# Cobra and ML-Mamba (2176 = DINOv2 and SigLIP), SigLIP alone, MobileVLM v1 and V2: facts of their code
PUBLISHED: list[tuple[Callable[[int, int], Projector], int, int, int]] = [
    (LinearProjector, 2176, 2560, 5_573_120),
    (MLPProjector, 2176, 2560, 12_129_280),
    (MLPProjector, 1152, 2560, 9_507_840),
    (FusedMLPProjector, 2176, 2560, 47_789_568),
    (cobra_ldpv2, 2176, 2560, 41_259_008),
    (LDPProjector, 1024, 2048, 18_936_832),
    (LDPProjector, 1024, 2560, 28_913_920),
    (LDPv2Projector, 1024, 2048, 6_316_032),
    (LDPv2Projector, 1024, 2560, 9_205_760),
    (LDPv2Projector, 1024, 4096, 21_020_672),
    (scan, 2176, 2560, 5_573_120 + 119_834_560 + 58_997_760),
]


@pytest.mark.parametrize(("make", "in_dim", "out_dim", "parameters"), PUBLISHED)
def test_projectors_have_the_published_sizes(
    make: Callable[[int, int], Projector], in_dim: int, out_dim: int, parameters: int
) -> None:
    with torch.device("meta"):
        projector = make(in_dim, out_dim)
    assert sum(p.numel() for p in projector.parameters()) == parameters


@pytest.mark.parametrize(
    ("make", "patches", "tokens"),
    [(LDPProjector, 576, 144), (LDPv2Projector, 576, 144), (cobra_ldpv2, 729, 196), (LDPProjector, 729, 196)],
)
def test_downsampling_projectors_give_the_published_number_of_tokens(
    make: Callable[[int, int], Projector], patches: int, tokens: int
) -> None:
    projector = make(8, 16)
    assert projector.num_tokens(patches) == projector(torch.randn(1, patches, 8)).shape[1] == tokens


@pytest.mark.parametrize("name", sorted(PROJECTORS))
@torch.no_grad()
def test_patches_are_projected_the_same_in_a_batch(name: str) -> None:
    torch.manual_seed(0)
    projector = PROJECTORS[name](6, 32).eval()
    patches = torch.randn(3, 16, 6)
    together = projector(patches)
    assert together.shape == (3, projector.num_tokens(16), 32)
    apart = torch.cat([projector(one[None]) for one in patches])
    torch.testing.assert_close(together, apart, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("make", [LDPProjector, LDPv2Projector, cross, PixelUnshuffleProjector])
def test_patches_that_are_no_square_are_refused(make: Callable[[int, int], Projector]) -> None:
    with pytest.raises(ValueError, match="728 patches are no square grid"):
        make(64, 64).num_tokens(728)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: LDPv2Projector(8, 8, side=14).num_tokens(144),
            r"12 × 12 patches .* pooled to 14 × 14 tokens",
        ),
        (lambda: PixelUnshuffleProjector(8, 8).num_tokens(729), r"27 × 27 patches cannot be folded by 2"),
        (lambda: LDPv2Projector(8, 8, side=0), "side 0 must be at least 1"),
        (lambda: scan(8, 24), "d_inner 48 must be a multiple of head_dim 64"),
        (lambda: scan(8, 32, paths="spiral"), "'spiral' is unknown: choose one of bidirectional, cross"),
        (lambda: scan(8, 32, variant="best"), "'best' is unknown: choose one of mlp, basic, advanced"),
    ],
)
def test_impossible_projectors_are_refused_with_the_remedy(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_projector_is_added_by_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_lab.py").write_text(
        "from torch import nn\n"
        "from cobra.models.projectors.base import Projector\n"
        "class Normed(Projector):\n"
        "    def __init__(self, in_dim, out_dim, bias=True):\n"
        "        super().__init__()\n"
        "        self.layers = nn.Sequential(nn.LayerNorm(in_dim), nn.Linear(in_dim, out_dim, bias))\n"
        "    def forward(self, patches):\n"
        "        return self.layers(patches)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    tree = CobraVLM(ENCODERS["small_vit"], PROJECTORS["linear"], LMS["mamba2"]).config()
    tree["init_args"]["projector"] = {"class_path": "my_lab.Normed", "init_args": {"bias": False}}
    with pytest.raises(ValueError, match="COBRA_ALLOW"):
        build(tree)
    monkeypatch.setenv("COBRA_ALLOW", "my_lab")
    model = build(tree)()
    assert model.config() == tree
    ids = torch.tensor([[1] + [IMAGE_ID] * model.num_image_tokens(ONE_TILE) + [2]])
    assert model.generate(ids, torch.randn(1, 3, 32, 32), max_new_tokens=2).shape == (1, 2)
