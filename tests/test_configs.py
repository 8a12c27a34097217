"""Every config, alone and with each of its variants: its size in earnest, its working in miniature."""

import re
from pathlib import Path
from typing import Any

import cobra.torchvision_shim  # noqa: F401  (before timm)

import pytest  # isort: skip
import timm
import torch
import yaml
from torch import Tensor
from torch.utils._pytree import tree_map

from cobra.config.build import build, build_on_meta
from cobra.models.vision.pictures import ONE_TILE, Pixels
from cobra.models.vlm import IGNORE_ID, IMAGE_ID, CobraVLM
from cobra.train.cli import CobraCLI
from tests.models.test_vlm import pixels_of
from tests.test_cli import ON_CPU, ROOT, instantiate

CONFIGS = ROOT / "configs"
BASES = sorted(CONFIGS.glob("*.yaml"))
# a variant is an overlay in a folder with the name of the config that it changes
CASES = {
    "+".join(path.stem for path in paths): paths
    for base in BASES
    for paths in [
        [base],
        *([base, path] for path in sorted((CONFIGS / "variants" / base.stem).glob("*.yaml"))),
    ]
}

# arguments of components that are cut down, wherever they stand in a model
TINY = {"d_model": 32, "n_layers": 2, "vocab_size": 64, "d_state": 16, "head_dim": 8, "embed_dim": 32}
TINY |= {"num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 48}
TINY |= {"n_heads": 4, "n_kv_heads": 2, "d_ff": 48}
# a timm tower keeps its family, patches and image size: a picture becomes as many tokens as in earnest
TINY_TOWER = {"embed_dim": 32, "depth": 3, "num_heads": 2}
TEXTS = [[1, 2, 3, 7, 9], [4, 5]]


def test_every_variant_belongs_to_a_config() -> None:
    assert {path.parent.name for path in CONFIGS.glob("variants/**/*.yaml")} <= {base.stem for base in BASES}


def test_no_two_runs_write_to_the_same_folder() -> None:
    folders = [
        yaml.safe_load(paths[-1].read_text())["trainer"]["default_root_dir"] for paths in CASES.values()
    ]
    assert len(set(folders)) == len(folders)


def test_the_published_systems_have_the_published_sizes() -> None:
    """Counted from the papers' checkpoints: towers whole, tied embedding once."""
    assert stated(CASES["cobra_2.8b"]) == {"image tokens": 729, "parameters": 3_548_076_096}
    assert stated(CASES["ml_mamba_2.7b"]) == {"image tokens": 729, "parameters": 3_618_946_048}


@pytest.mark.parametrize("name", ["mamba1", "published_init", "short_init", "transformer"])
def test_what_the_demo_is_compared_with_is_as_large(name: str) -> None:
    base = stated(CASES["cobra_tiny"])
    twin = stated(CASES[f"cobra_tiny+{name}"])
    assert twin == {**base, "parameters": pytest.approx(base["parameters"], rel=0.03)}


def test_variants_of_different_tables_combine(tmp_path: Path) -> None:
    names = ["csm", "msc_basic", "lm_780m"]
    variants = [CONFIGS / "variants/ml_mamba_2.7b" / f"{name}.yaml" for name in names]
    model = load([CONFIGS / "ml_mamba_2.7b.yaml", *variants], tmp_path).model.model
    connector = model.projector.config()["init_args"]
    assert (connector["paths"], connector["variant"], model.lm.d_model) == ("cross", "basic", 1536)


def load(paths: list[Path], folder: Path) -> CobraCLI:
    """What `cobra fit` makes of the files, with the model on the meta device."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        try:
            cli = instantiate(patch, "fit", *(word for path in paths for word in ("-c", str(path))), *ON_CPU)
        except SystemExit as refused:  # a fixture may not exit: every later case would fail with it
            pytest.fail(f"refused: {refused}", pytrace=False)
    with torch.device("meta"):
        cli.model.configure_model()
    return cli


@pytest.fixture(scope="module", params=sorted(CASES))
def paths(request: pytest.FixtureRequest) -> list[Path]:
    return CASES[request.param]


@pytest.fixture(scope="module")
def cli(paths: list[Path], tmp_path_factory: pytest.TempPathFactory) -> CobraCLI:
    return load(paths, tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def tiny(cli: CobraCLI) -> CobraVLM:
    """The model of a config with few layers and small widths."""
    torch.manual_seed(0)
    create = timm.create_model
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timm, "create_model", lambda name, **options: create(name, **{**options, **TINY_TOWER}))
        return build(shrink(cli.model.model.config()))()


def shrink(tree: Any) -> Any:
    """A component's description with the arguments in TINY cut down."""
    if isinstance(tree, dict):
        return {k: min(v, TINY[k]) if k in TINY else shrink(v) for k, v in tree.items()}
    return [shrink(item) for item in tree] if isinstance(tree, list) else tree


def stated(paths: list[Path]) -> dict[str, int]:
    """The numbers in the comments; a variant that states none leaves those of its config."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in paths)
    numbers = re.findall(r"^#.*? ([\d,]+) image tokens.* ([\d,]+) parameters", text, re.M)
    assert numbers, f"a comment of {paths[0].name} must say '... image tokens, ... parameters'"
    tokens, parameters = numbers[-1]
    return {"image tokens": int(tokens), "parameters": int(parameters.replace(",", ""))}


def test_a_model_is_as_large_as_its_config_states(paths: list[Path], cli: CobraCLI) -> None:
    model = cli.model.model
    assert next(model.parameters()).is_meta
    # without adapters, and as if none were packed
    plain = build_on_meta(model.config())
    count = sum(parameter.numel() for parameter in plain.parameters())
    assert {"image tokens": model.num_image_tokens(ONE_TILE), "parameters": count} == stated(paths)


def test_weights_and_stages_find_their_parts_and_data_and_pictures_are_not_cut(cli: CobraCLI) -> None:
    assert set(cli.model.weights) <= set(cli.model.model.parts())
    for stage in cli.model.stages:
        assert set(stage.data) <= set(cli.datamodule.sources["train"])
    assert cli.datamodule.max_length > cli.model.model.num_image_tokens(ONE_TILE)


def test_gradients_are_clipped_at_1(cli: CobraCLI) -> None:
    """As prismatic does, and transformers' Trainer where nothing is said."""
    assert cli.trainer.gradient_clip_val == 1.0


def prompts(model: CobraVLM) -> tuple[list[list[int]], Pixels]:
    """Two prompts of different lengths, each with a picture in front."""
    return [[IMAGE_ID] * model.num_image_tokens(ONE_TILE) + text for text in TEXTS], pixels_of(
        model, len(TEXTS)
    )


def test_everything_that_is_trained_gets_a_gradient(cli: CobraCLI, tiny: CobraVLM) -> None:
    trained = {name for stage in cli.model.stages for name in stage.train}
    for name, part in tiny.parts().items():
        part.requires_grad_(name in trained)
    rows, pixels = prompts(tiny)
    width = min(map(len, rows))
    ids = torch.tensor([row[:width] for row in rows])
    loss = tiny.loss(tiny(ids, pixels), ids.masked_fill(ids == IMAGE_ID, IGNORE_ID))
    loss.backward()
    gradients = {name: p.grad for name, p in tiny.named_parameters() if p.requires_grad}
    assert [name for name, grad in gradients.items() if grad is None or not grad.isfinite().all()] == []
    assert loss.isfinite()


@torch.no_grad()
def test_a_ragged_batch_answers_like_its_single_prompts(tiny: CobraVLM) -> None:
    rows, pixels = prompts(tiny.eval())
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[False] * (width - len(row)) + [True] * len(row) for row in rows])
    logits = tiny.lm.head(tiny.lm.prefill(tiny.splice(ids, pixels), mask=mask)[:, -1])
    answers = tiny.generate(ids, pixels, mask, max_new_tokens=4)
    assert answers.shape == (2, 4)
    for i, row in enumerate(rows):
        alone = torch.tensor([row]), tree_map(lambda p, i=i: p[i : i + 1], pixels)
        torch.testing.assert_close(logits[i : i + 1], last_logits(tiny, *alone), rtol=1e-5, atol=1e-5)
        assert answers[i].tolist() == tiny.generate(*alone, max_new_tokens=4)[0].tolist()


def last_logits(model: CobraVLM, ids: Tensor, pixels: Pixels) -> Tensor:
    return model.lm.head(model(ids, pixels)[:, -1])
