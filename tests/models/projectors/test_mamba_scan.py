"""ML-Mamba's connector: each path against transformers' mixer, the released names, the initialization."""

# declares operators that transformers' import of torchvision needs
import cobra.torchvision_shim  # noqa: F401  isort: skip

import importlib.util
from math import prod

import pytest
import torch
import torch.nn.functional as F
from transformers.models.mamba2.configuration_mamba2 import Mamba2Config
from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer

from cobra.models.projectors.mamba_scan import MambaScanProjector, ScanBlock, SwiGLUBlock
from cobra.models.projectors.scan_mixer import Paths, ScanMixer

SIDE, WIDTH = 5, 16
# the order in which each path meets the cells (row, column), written out
ROWS = [(y, x) for y in range(SIDE) for x in range(SIDE)]
COLUMNS = [(y, x) for x in range(SIDE) for y in range(SIDE)]
ORDERS: dict[Paths, dict[str, list[tuple[int, int]]]] = {
    "bidirectional": {"": ROWS, "_b": ROWS[::-1]},
    "cross": {"": ROWS, "_b": ROWS[::-1], "_c": COLUMNS, "_d": COLUMNS[::-1]},
}


def mixer(paths: Paths) -> ScanMixer:
    made = ScanMixer(WIDTH, paths, d_state=8, head_dim=8, expand=2, d_conv=4, chunk_size=8)
    rng = torch.Generator().manual_seed(0)
    for parameter in made.parameters():
        parameter.data = 0.5 * torch.randn(parameter.shape, generator=rng)
    return made


def transformers_mixer(ours: ScanMixer, path: str) -> Mamba2Mixer:
    """Their mixer with the weights of one of our paths."""
    config = Mamba2Config(
        hidden_size=WIDTH,
        state_size=8,
        num_heads=4,
        head_dim=8,
        n_groups=1,
        chunk_size=8,
        num_hidden_layers=1,
    )
    theirs = Mamba2Mixer(config, layer_idx=0).eval()
    own = {f"{name}{path}": name for name in ("conv1d", "dt_bias", "A_log", "D")}
    shared = {name: name for name in ("in_proj", "norm", "out_proj")}
    state = {}
    for key, value in ours.state_dict().items():
        module, _, kind = key.partition(".")
        if module in own | shared:
            state[".".join(filter(None, [(own | shared)[module], kind]))] = value
    theirs.load_state_dict(state)
    return theirs


@pytest.mark.skipif(
    any(importlib.util.find_spec(name) for name in ("mamba_ssm", "causal_conv1d")),
    reason="transformers would use mamba_ssm or causal_conv1d: run this where they are not installed",
)
@pytest.mark.parametrize("paths", ["bidirectional", "cross"])
@torch.no_grad()
def test_paths_average_transformers_mixer_over_each_order(paths: Paths) -> None:
    ours = mixer(paths)
    patches = torch.randn(2, SIDE**2, WIDTH, generator=torch.Generator().manual_seed(1))
    expected = torch.zeros_like(patches)
    for path, order in ORDERS[paths].items():
        cells = [y * SIDE + x for y, x in order]
        # out_proj is linear: the mean of the outputs is the output of the mean
        expected[:, cells] += transformers_mixer(ours, path)(patches[:, cells]) / len(ORDERS[paths])
    torch.testing.assert_close(ours(patches), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_block_adds_the_mixer_without_a_norm_and_a_swiglu_with_one() -> None:
    torch.manual_seed(0)
    block, patches = SwiGLUBlock(WIDTH, mixer("bidirectional")), torch.randn(1, SIDE**2, WIDTH)
    mixed = patches + block.mixer(patches)
    w1, w2, w3 = block.mlp.w1, block.mlp.w2, block.mlp.w3
    normed = F.layer_norm(mixed, (WIDTH,), block.norm.weight, block.norm.bias, eps=1e-5)
    torch.testing.assert_close(block(patches), mixed + w3(F.silu(w1(normed)) * w2(normed)))
    torch.testing.assert_close(ScanBlock(WIDTH, block.mixer)(patches), mixed)


def test_names_and_shapes_are_the_released_ones() -> None:
    with torch.device("meta"):
        connector = MambaScanProjector(2176, 2560)
    groups = {"mlp": 5_573_120, "scan": 119_834_560, "projector": 58_997_760}
    shapes = {key: tuple(value.shape) for key, value in connector.state_dict().items()}
    for group, size in groups.items():
        assert sum(prod(shape) for key, shape in shapes.items() if key.startswith(f"{group}.")) == size
    released = {"mlp.0.weight": (2560, 2176), "mlp.0.bias": (2560,)}
    released |= {f"scan.norm_f.{kind}": (2560,) for kind in ("weight", "bias")}  # bidirectional_mamba.norm_f
    for layer in ("scan.layers.0", "scan.layers.1"):
        released[f"{layer}.mixer.in_proj.weight"] = (10576, 2560)
        released[f"{layer}.mixer.norm.weight"] = (5120,)
        released[f"{layer}.mixer.out_proj.weight"] = (2560, 5120)
        for path in ("", "_b"):
            released[f"{layer}.mixer.conv1d{path}.weight"] = (5376, 1, 4)
            released[f"{layer}.mixer.conv1d{path}.bias"] = (5376,)
            released |= {f"{layer}.mixer.{name}{path}": (80,) for name in ("dt_bias", "A_log", "D")}
        released |= {f"{layer}.norm.{kind}": (2560,) for kind in ("weight", "bias")}
        for linear in ("w1", "w2", "w3"):
            released[f"{layer}.mlp.{linear}.weight"] = (2560, 2560)
            released[f"{layer}.mlp.{linear}.bias"] = (2560,)
    for number, width, inner in ((0, 10240, 2560), (2, 2560, 10240), (4, 2560, 2560)):
        released[f"projector.projector.{number}.weight"] = (width, inner)
        released[f"projector.projector.{number}.bias"] = (width,)
    assert shapes == released


def test_the_projector_starts_from_xaviers_weights_and_no_bias() -> None:
    torch.manual_seed(0)
    connector = MambaScanProjector(64, 128)
    linears = [module for module in connector.projector.modules() if isinstance(module, torch.nn.Linear)]
    assert len(linears) == 3
    for linear in linears:
        expected = (2 / (linear.in_features + linear.out_features)) ** 0.5
        assert linear.weight.std().item() == pytest.approx(expected, rel=0.03)
        assert not linear.bias.any()
    marked = {name for name, p in connector.named_parameters() if getattr(p, "_no_weight_decay", False)}
    assert {name.rpartition(".")[2].removesuffix("_b") for name in marked} == {"A_log", "D", "dt_bias"}
