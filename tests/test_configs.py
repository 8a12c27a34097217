"""Every config, alone and with each of its variants: its size in earnest, its working in miniature."""

import copy
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cobra.torchvision_shim  # noqa: F401  (before timm)

import lightning as L  # isort: skip
import pytest
import timm
import torch
import yaml
from torch import Tensor
from torch.utils._pytree import tree_map

from cobra.config.build import build, build_on_meta
from cobra.data.source import Source
from cobra.models.vision.pictures import ONE_TILE, Pixels
from cobra.models.vlm import IGNORE_ID, IMAGE_ID, CobraVLM
from cobra.train.cli import CobraCLI
from cobra.train.data import DataModule
from cobra.train.module import CobraModule
from cobra.train.selection import named_modules
from cobra.train.stages import Stage
from tests.data.on_disk import IMPORTERS, SIZE, on_disk, write_llava, write_text
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
TINY = {"d_model": 32, "n_layers": 2, "vocab_size": 512, "d_state": 16, "head_dim": 8, "embed_dim": 32}
TINY |= {"num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 48}
TINY |= {"n_heads": 4, "n_kv_heads": 2, "d_ff": 48}
# a timm tower keeps its family, patches and image size: a picture becomes as many tokens as in earnest
TINY_TOWER = {"embed_dim": 32, "depth": 3, "num_heads": 2}
TEXTS = [[1, 2, 3, 7, 9], [4, 5]]
# optimizer steps of a stage
STEPS = 3


def test_every_variant_belongs_to_a_config() -> None:
    assert {path.parent.name for path in CONFIGS.glob("variants/**/*.yaml")} <= {base.stem for base in BASES}


def test_a_config_names_all_its_variants() -> None:
    for path in CONFIGS.glob("variants/*/*.yaml"):
        text = (CONFIGS / f"{path.parent.name}.yaml").read_text(encoding="utf-8")
        comments = "".join(line for line in text.splitlines() if line.startswith("#"))
        assert re.search(rf"\b{re.escape(path.stem)}\b", comments), path


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


class Moved(L.Callback):
    """Remembers what moves in each stage, and the losses."""

    def __init__(self) -> None:
        self.moved: list[set[str]] = []
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *rest: object) -> None:
        self.losses.append(float(trainer.callback_metrics["loss"]))

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *rest: object) -> None:
        if trainer.global_step % STEPS == 0:
            self.before = self.look(pl_module)
            self.moved.append(set())

    def on_before_zero_grad(self, trainer: L.Trainer, pl_module: L.LightningModule, *rest: object) -> None:
        now = self.look(pl_module)
        self.moved[-1] = {name for name in now if not torch.equal(now[name], self.before[name])}

    def look(self, module: L.LightningModule) -> dict[str, Tensor]:
        return {name: p.detach().clone() for name, p in module.model.named_parameters()}


def train(
    cli: CobraCLI, tiny: CobraVLM, sources: Mapping[str, Callable[[], Source]], stages: list[Stage]
) -> None:
    """Three steps of each stage, as the config says otherwise; what a stage names learns, nothing else."""
    given = cli.model
    # a small tower has fewer blocks, of which the last half learns where that of the whole does
    parts = [[re.sub(r"blocks\.\d+-", "blocks.1-", name) for name in stage.train] for stage in stages]
    stages = [
        replace(stage, train=names, steps=STEPS, epochs=None, batch_size=2)
        for stage, names in zip(stages, parts, strict=True)
    ]
    adapters = {part: replace(lora, r=2) for part, lora in given.adapters.items()}
    for name, parameter in tiny.requires_grad_().named_parameters():
        # DINOv2 starts its blocks at 1e-5 of their outputs, of which no gradient would be seen
        if name.endswith(".gamma"):
            parameter.data.fill_(1)
    module = CobraModule(
        stages, partial(copy.deepcopy, tiny), given.betas, given.muon, given.recompute,
        adapters=adapters, quantization=given.quantization, group_size=given.group_size,
    )  # fmt: skip
    data = DataModule(
        stages, "cobra:data/shapes/tokenizer", cli.datamodule.template, dict(sources),
        max_length=cli.datamodule.max_length, row_length=cli.datamodule.row_length,
    )  # fmt: skip
    watch = Moved()
    trainer = L.Trainer(
        accelerator="cpu", devices=1, max_epochs=1, callbacks=[watch], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        use_distributed_sampler=False, gradient_clip_val=cli.trainer.gradient_clip_val, limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(module, data)
    assert len(watch.losses) == STEPS * len(stages)
    assert all(map(math.isfinite, watch.losses))
    assert data.bad == {}
    model = module.model
    assert model is not None
    for stage, moved in zip(stages, watch.moved, strict=True):
        named = {
            id(p) for path in stage.train for m in named_modules(model, path).values() for p in m.parameters()
        }
        adapted = tuple(f"{part}." for part in adapters)
        expected = {
            name for name, p in model.named_parameters()
            if id(p) in named and (not name.startswith(adapted) or "lora_" in name)
        }  # fmt: skip
        assert moved == expected, stage.name


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every file that a config reads, tiny."""
    folder = tmp_path_factory.mktemp("downloads")
    texts = "\n".join(path.read_text(encoding="utf-8") for path in CONFIGS.rglob("*.yaml"))
    source = r"cobra\.data\.llava\.(\w+)[\s,]+init_args:[\s{]+json: ([^\s},]+)[\s,]+image_root: ([^\s},]+)"
    for kind, json, root in re.findall(source, texts):
        write_llava(folder / json, folder / root, text_only=kind == "LlavaJson")
    for path in re.findall(r"path: (download/[^\s},]+)", texts):
        write_text(folder / path)
    return folder


@pytest.mark.parametrize(
    "paths",
    [pytest.param(name, marks=[pytest.mark.slow] if "+" in name else []) for name in sorted(CASES)],
    indirect=True,
)
def test_three_steps_of_each_stage_train_what_it_names(
    cli: CobraCLI, tiny: CobraVLM, downloads: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(downloads)
    monkeypatch.setenv("COBRA_CACHE", str(downloads / "cache"))
    sources = {
        # fewer scenes than the demo draws
        name: partial(source, size=SIZE) if "size" in source.keywords else source
        for name, source in cli.datamodule.sources["train"].items()
    }
    train(cli, tiny, sources, list(cli.model.stages))


@pytest.mark.slow
@pytest.mark.parametrize("paths", [base.stem for base in BASES], indirect=True)
@pytest.mark.parametrize("importer", IMPORTERS)
def test_three_steps_on_what_an_importer_reads(
    importer: str, cli: CobraCLI, tiny: CobraVLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COBRA_CACHE", str(tmp_path / "cache"))
    # text alone passes no projector, and a tower of a stage of its own asks for scenes
    last = replace(cli.model.stages[-1], data=[importer])
    if importer == "text" and isinstance(last.lr, float):
        last = replace(last, train=["lm"])
    elif importer == "text":
        last = replace(last, train=["lm"], lr=last.lr["lm"])
    train(cli, tiny, {importer: on_disk(importer, tmp_path)}, [last])


@pytest.mark.parametrize("paths", ["cobra_2.8b", "imp_3b"], indirect=True)
@pytest.mark.parametrize("importer", IMPORTERS)
def test_a_state_space_model_and_a_transformer_learn_from_every_importer(
    importer: str, cli: CobraCLI, tiny: CobraVLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    test_three_steps_on_what_an_importer_reads(importer, cli, tiny, tmp_path, monkeypatch)


def keys(tree: Any, part: str = "") -> Any:
    """A config's keys in their order, but for those of a part of the model and of what parts start from."""
    if isinstance(tree, dict) and part not in ("vision", "projector", "lm", "weights"):
        return [(key, keys(value, key)) for key, value in tree.items()]
    return [keys(item) for item in tree] if isinstance(tree, list) and part == "stages" else None


@pytest.mark.parametrize(
    ("rehearsed", "published"), [("rehearsal_cobra", "cobra_2.8b"), ("rehearsal_imp", "imp_3b")]
)
def test_what_is_rehearsed_has_the_keys_of_the_published_recipe_in_their_order(
    rehearsed: str, published: str
) -> None:
    ours, theirs = (yaml.safe_load((CONFIGS / f"{name}.yaml").read_text()) for name in (rehearsed, published))
    assert keys(ours) == keys(theirs)
    sources = [
        {name: source["class_path"] for name, source in tree["data"]["train"].items()}
        for tree in (ours, theirs)
    ]
    assert sources[0] == sources[1]
    assert [stage["train"] for stage in ours["stages"]] == [stage["train"] for stage in theirs["stages"]]
