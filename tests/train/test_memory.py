"""The estimate of a training step's memory against the bytes of real steps."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cobra.config.build import build
from cobra.models.vision.pictures import ONE_TILE
from cobra.models.vlm import IGNORE_ID, IMAGE_ID, CobraVLM, label_places
from cobra.train.memory import Memory, Step, steps
from cobra.train.module import CobraModule
from cobra.train.show_memory import _runs, print_memory
from tests.models.builders import HYBRID, LMS, PROJECTORS, timm_vit
from tests.train.test_module import stage
from tests.train.test_recompute import saved_bytes

BATCH, LENGTH = 4, 96
LM_TREES: dict[str, Any] = {
    name: LMS[name]().config() for name in ("mamba", "mamba2", "llama", "mobile_llm_shared")
}
LM_TREES["hybrid"] = HYBRID


def tree(lm: str) -> dict[str, Any]:
    model = CobraVLM(timm_vit, PROJECTORS["mlp"], LMS["mamba"])
    described = model.config()
    described["init_args"]["lm"] = LM_TREES[lm]
    return described


PIXELS = torch.randn(BATCH, 3, 64, 64)


def real_loss(model: CobraVLM) -> Tensor:
    count = model.num_image_tokens(ONE_TILE)
    ids = torch.randint(1, 400, (BATCH, LENGTH))
    ids[:, :count] = IMAGE_ID
    labels = ids.masked_fill(ids == IMAGE_ID, IGNORE_ID)
    return model.loss(model(ids, PIXELS), labels, label_places(labels))


@pytest.mark.parametrize(
    ("lm", "precision", "recompute"),
    [
        *((lm, "bf16-mixed", {"lm": 1}) for lm in LM_TREES),
        *((lm, "32-true", {}) for lm in ("mamba2", "hybrid")),
        *(("mamba2", precision, {"lm": 2, "vision": 1}) for precision in ("32-true", "bf16-mixed")),
    ],
)
def test_the_estimate_is_what_a_real_step_takes(lm: str, precision: str, recompute: dict[str, int]) -> None:
    trained = ["vision", "projector", "lm"] if "vision" in recompute else ["projector", "lm"]
    stages = [stage("a", trained, batch_size=BATCH)]
    muon = ["lm"] if lm == "mamba2" else []
    ((_, step),) = steps(tree(lm), stages, recompute, muon, precision, LENGTH)

    module = CobraModule(stages, build(tree(lm)), muon=muon, recompute=recompute)
    module.configure_model()
    model = module.model
    assert model is not None
    optimizer = module.optimizer()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
        kept = saved_bytes(model, real_loss)
        loss = real_loss(model)
    loss.backward()
    optimizer.step()
    found = step.alone
    assert found.weights == sum(x.nbytes for x in [*model.parameters(), *model.buffers()])
    assert found.gradients == sum(p.grad.nbytes for p in model.parameters() if p.grad is not None)
    moments = [x for state in optimizer.state.values() for x in state.values() if isinstance(x, Tensor)]
    assert found.optimizer == sum(x.nbytes for x in moments)
    # the pictures are there whether they are saved as they are or not
    batch = 0 if "vision" in trained and precision == "32-true" else PIXELS.nbytes
    assert found.activations == pytest.approx(kept + batch, rel=0.03)
    assert found.work > 0


def test_devices_share_what_one_has_whole() -> None:
    step = Step(Memory(1600, 800, 1600, 50, 7), (1000, 2000), [(300, 200), (500, 400)])
    assert step.replicated(1) == step.sharded(1) == step.alone
    assert step.replicated(8) == Memory(1600, 1000, 1600, 50, 7)
    gathered, added_up = 800 + 3 * 500, 200 + 2 * 400
    assert step.sharded(8) == Memory(200, 100, 250, 50, 7 + gathered + added_up)


# of the published size: the tests above hold the count itself to real steps
@pytest.mark.slow
def test_cobra_fits_eight_devices_of_80_gb_as_its_config_says() -> None:
    ((_, run),) = _runs(Path("configs"), ["cobra_2.8b"])
    assert (run.recompute, run.precision, run.is_sharded, run.max_length) == (
        {"lm": 1},
        "bf16-mixed",
        True,
        2777,
    )
    ((at, step),) = steps(run.tree, run.stages, run.recompute, run.muon, run.precision, run.max_length)
    assert at.batch_size == 16
    assert step.sharded(8).total < 75e9 < step.replicated(8).total
    # inputs of 64 blocks: the sum in fp32 and the last output in bf16
    assert step.alone.activations == pytest.approx(64 * 16 * 2777 * 2560 * (4 + 2), rel=0.03)
    assert step.alone.weights == pytest.approx(4 * 3.505e9, rel=0.001)


def test_a_frozen_part_has_neither_gradients_nor_moments_until_a_stage_trains_it() -> None:
    stages = [stage("a", ["projector"]), stage("b", ["projector", "lm"])]
    (_, first), (_, second) = steps(tree("mamba"), stages, {}, [], "32-true", LENGTH)
    model = build(tree("mamba"))()
    sizes = {name: sum(p.nbytes for p in part.parameters()) for name, part in model.parts().items()}
    assert first.alone.gradients == sizes["projector"]
    assert second.alone.gradients == first.trained[0] == sizes["projector"] + sizes["lm"]
    assert first.alone.optimizer == pytest.approx(2 * first.alone.gradients, rel=0.001)
    assert second.alone.optimizer == second.trained[1] == first.trained[1]


@pytest.fixture(scope="module")
def configs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two systems: reading all takes seconds."""
    folder = tmp_path_factory.mktemp("configs")
    for name in ("cobra_tiny.yaml", "mobilellm_125m.yaml"):
        shutil.copy(Path("configs") / name, folder)
    return folder


def test_the_tables_have_a_row_for_each_stage_that_reads_answers(
    configs: Path, capsys: pytest.CaptureFixture
) -> None:
    print_memory(configs, ["cobra_tiny"], devices=[2], max_length=128, mfu=0.5)
    rows = [line.split("│")[1:-1] for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    assert [[cell.strip() for cell in row[:3]] for row in rows] == [
        ["cobra_tiny", "align", "32 × 128"], ["cobra_tiny", "instruct", "32 × 128"],
        ["cobra_tiny", "align", "2"], ["cobra_tiny", "instruct", "2"],
    ]  # fmt: skip
    assert all(row[-1].strip() == "DDP, FSDP2" for row in rows[:2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"names": ["cobra_9b"]}, "no yaml describes cobra_9b: name some of cobra_tiny"),
        ({"names": ["cobra_tiny"], "max_length": 16}, "max_length 16 has no room for a picture's 16 tokens"),
    ],
)
def test_what_cannot_be_estimated_is_refused(arguments: dict[str, Any], message: str, configs: Path) -> None:
    with pytest.raises(ValueError, match=message):
        print_memory(configs, **arguments)


def test_a_precision_that_nobody_counts_is_refused() -> None:
    with pytest.raises(
        ValueError, match="precision 'transformer-engine' cannot be estimated: name one of 32"
    ):
        list(steps(tree("mamba"), [stage("a", ["lm"])], {}, [], "transformer-engine", LENGTH))
