"""The systems' sizes and costs against published figures, and the page that is made of them."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from cobra.bench.systems.configs import read_systems
from cobra.bench.systems.flops import mixing_flops, step_flops
from cobra.bench.systems.measure import System, _measure_lm, measure
from cobra.bench.systems.notes import read_notes
from cobra.bench.systems.show import document
from cobra.models.lm.mamba2 import Mamba2Mixer
from tests.models.builders import HYBRID

ROOT = Path(__file__).parents[2]
CONFIGS, NOTES, PAGE = ROOT / "configs", ROOT / "docs/models.yaml", ROOT / "docs/models.md"


@pytest.fixture(scope="module")
def systems() -> dict[str, System]:
    return {name: measure(name, tree) for name, tree in read_systems(CONFIGS).items()}


def test_the_counts_are_the_published_ones(systems: dict[str, System]) -> None:
    assert systems["cobra_2.8b"].parameters == 3_548_076_096
    assert systems["ml_mamba_2.7b"].parameters == 3_618_946_048
    for name, note in read_notes(NOTES).items():
        assert note.parameters in (0, systems[name].parameters, systems[name].in_use), name
    # a block of each tower, two norms and SigLIP's pooling
    unused = systems["cobra_2.8b"].parameters - systems["cobra_2.8b"].in_use
    dino, siglip = 302_358_528 // 24, 411_466_608 // 27
    assert unused == dino + 2 * 1024 + siglip + 2 * 1152 + (428_225_600 - 412_987_248)


def test_the_tables_have_a_row_for_every_yaml(systems: dict[str, System]) -> None:
    names = {path.stem for path in CONFIGS.glob("*.yaml")}
    names |= {f"{path.parent.name}/{path.stem}" for path in CONFIGS.glob("variants/*/*.yaml")}
    assert set(systems) == names
    assert systems["cobra_2.8b/ldpv2"].image_tokens == 196
    assert systems["phone_mamba2_780m"].image_tokens == 144


def test_cobra_costs_what_the_shapes_imply(systems: dict[str, System]) -> None:
    cobra = systems["cobra_2.8b"]
    assert cobra.vision_flops / 1e9 == pytest.approx(476.5 + 641.8, abs=0.1)
    assert cobra.projector_flops / 1e12 == pytest.approx(0.07, abs=0.001)
    # 64 layers of (in_proj, x_proj, dt_proj, out_proj), 47.8 MFLOP of scan, 4 taps of convolution
    linear, conv = 5.264e9, 2 * 4 * 5120 * 64
    assert cobra.lm.prefill_flops == pytest.approx(linear + 47.8e6 + conv, abs=1e6)
    assert cobra.lm.decode_flops == pytest.approx(linear + 6 * 5120 * 16 * 64 + conv + 0.257e9, abs=1e6)


def test_a_decode_step_reads_what_the_published_tables_say(systems: dict[str, System]) -> None:
    published = {
        "cobra_2.8b": (5_242_880, 1_310_720, 5.563e9),
        "ml_mamba_2.7b": (41_943_040, 1_376_256, 5.578e9),
    }
    for name, (ssm, conv, moved) in published.items():
        lm = systems[name].lm
        # three of the four inputs, which are all that the next output depends on
        assert lm.state_bytes == (4 * ssm + 2 * conv * 3 // 4,) * 3
        weights = lm.decode_bytes - 2 * lm.state_bytes[0]
        assert weights == 2 * lm.parameters
        assert weights + 2 * 2 * (ssm + conv) == pytest.approx(moved, abs=1e6)


def test_mamba2s_scan_has_the_published_cost() -> None:
    with torch.device("meta"):
        published = Mamba2Mixer(2560, chunk_size=256)
    channels = 5120 + 2 * 128
    assert 64 * (mixing_flops(published, 1024) - 8 * channels) == pytest.approx(339.7e6, abs=1e5)
    assert step_flops(published, 1024) == 5 * 5120 * 128 + 8 * channels


def test_ml_mambas_connector_costs_what_its_layers_imply(systems: dict[str, System]) -> None:
    d, tokens, inner = 2560, 729, 5120
    linears = 2176 * d + d * 4 * d + 4 * d * d + d * d + 2 * (d * 10576 + inner * d + 3 * d * d)
    # and two scans in each of two layers, of which the counter sees the matrix products
    scan = 2 * 2 * (2 * 64 * (128 + inner) + 4 * 128 * inner)
    expected = tokens * (2 * linears + scan)
    assert systems["ml_mamba_2.7b"].projector_flops == pytest.approx(expected, rel=0.01)


def test_a_transformers_cache_grows_and_its_embedding_is_not_read() -> None:
    options = {
        "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48, "head_dim": 8,
        "tie_word_embeddings": False,
    }  # fmt: skip
    arguments = {"vocab_size": 64, "d_model": 32, "n_layers": 2, "model_type": "llama", "options": options}
    tree = {"class_path": "cobra.models.lm.transformer.TransformerLM", "init_args": arguments}
    cost, _ = _measure_lm(json.dumps(tree))
    per_token = 2 * 2 * 2 * 8 * 2  # layers, keys and values, heads, channels, bytes
    assert cost.state_bytes == tuple(per_token * length for length in (1024, 8192, 32768))
    assert cost.decode_bytes == 2 * (cost.parameters - 64 * 32) + cost.state_bytes[0]
    linears = 2 * (32 * 32 + 2 * 16 * 32 + 32 * 32 + 3 * 32 * 48) + 32 * 64
    attention = 2 * 2 * 2 * 1024 * 32  # layers; scores and sums
    assert cost.decode_flops == 2 * linears + attention


def test_a_hybrid_costs_what_its_mixers_do(tmp_path: Path) -> None:
    """It is read as every yaml is, and nothing here knows it."""
    model = yaml.safe_load((CONFIGS / "cobra_tiny.yaml").read_text())["model"]
    model["model"]["init_args"]["lm"] = HYBRID
    (tmp_path / "hybrid.yaml").write_text(yaml.safe_dump({"model": model}))
    cost = measure("hybrid", read_systems(tmp_path)["hybrid"]).lm
    assert cost.title == "StackedLM 32 × 3"
    kept = 2 * (4 * 4 * 16 * 16 + 2 * 96 * 3)  # two mixers; heads of 16 channels × 16 in fp32, three inputs
    per_token = 2 * 2 * 8 * 2  # keys and values, heads, channels, bytes
    assert cost.state_bytes == tuple(kept + per_token * length for length in (1024, 8192, 32768))
    assert cost.decode_bytes == 2 * cost.parameters + 2 * kept + 1024 * per_token
    mixing = 2 * (5 * 4 * 16 * 16 + 8 * 96) + 4 * 1024 * 32
    linears = 2 * 32 * (164 + 64) + 32 * (32 + 2 * 16 + 32) + 3 * 3 * 32 * 64
    assert cost.decode_flops == 2 * (linears + 32 * 432) + mixing


def test_the_page_is_current(systems: dict[str, System]) -> None:
    page = document(list(systems.values()), read_notes(NOTES))
    assert PAGE.read_text() == page, "run: cobra models --markdown > docs/models.md"


def test_every_system_has_a_source_and_says_what_is_missing(systems: dict[str, System]) -> None:
    notes = read_notes(NOTES)
    assert set(notes) == set(systems), "docs/models.yaml and configs/ name different systems"
    for name, note in notes.items():
        assert note.title, name
        assert note.source, name
        assert note.verified or note.not_found, name


def test_a_config_that_names_a_foreign_class_is_refused(tmp_path: Path) -> None:
    (tmp_path / "evil.yaml").write_text("model: {model: {class_path: os.system, init_args: {command: ls}}}")
    with pytest.raises(ValueError, match=r"'os\.system' is not allowed"):
        read_systems(tmp_path)
    (tmp_path / "evil.yaml").write_text("trainer: {}")
    with pytest.raises(ValueError, match=r"evil\.yaml has no model\.model"):
        read_systems(tmp_path)
    with pytest.raises(FileNotFoundError, match="has no yamls"):
        read_systems(tmp_path / "none")
