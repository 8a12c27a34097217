"""The targets for ExecuTorch, by its own compiler and runtime."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cobra.data.chat import Chat
from cobra.export.engines.executorch import ExecuTorchEngine
from cobra.export.laws import LAWS
from cobra.export.laws.check import check_laws, drawn_pictures
from cobra.export.laws.law import GREEN
from cobra.export.manifest import check_files, read_manifest
from cobra.export.random_lm import write_random_lm
from cobra.export.verify import verify
from cobra.export.write import export_model
from cobra.models.vlm import CobraVLM
from cobra.pretrained import from_pretrained, save_pretrained
from tests.export.test_conform import MAMBA2
from tests.models.builders import ENCODERS, LMS, PROJECTORS

pytestmark = [pytest.mark.export, pytest.mark.filterwarnings("ignore")]
pytest.importorskip("executorch.exir", reason="ExecuTorch is missing: pip install 'cobra-vlm[export]'")

Exported = Callable[..., tuple[Path, Path]]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A model's folder and its export's, by the names of its language model, target and quant; made once."""
    made: dict[tuple[str, ...], tuple[Path, Path]] = {}

    def export(lm: str, target: str = "executorch-cpu", quant: str = "fp32") -> tuple[Path, Path]:
        if (lm, target, quant) not in made:
            folder = tmp_path_factory.mktemp("export")
            torch.manual_seed(0)
            model = CobraVLM(ENCODERS["small_vit"], PROJECTORS["pixel_unshuffle"], LMS[lm]).eval()
            save_pretrained(model, Chat("cobra:data/shapes/tokenizer"), folder / "model")
            export_model(folder / "model", target, quant, folder / "out")
            made[lm, target, quant] = folder / "model", folder / "out"
        return made[lm, target, quant]

    return export


@pytest.mark.parametrize("lm", ["mamba2_groups", "phi3"])
def test_an_export_says_what_the_model_says_of_a_picture(exported: Exported, tmp_path: Path, lm: str) -> None:
    source, out = exported(lm)
    model, processor = from_pretrained(source)
    assert read_manifest(out).contents.settings["lowered"]["step"]["delegates"] == 1
    pixels = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    engine = ExecuTorchEngine(out)
    ids = torch.randint(400, (1, 70), generator=torch.Generator().manual_seed(0))
    (image,) = engine.read_pictures([tmp_path / "picture.png"])
    logits = engine.prefill(np.concatenate([image, engine.embed(ids[0].numpy())]))
    with torch.inference_mode():
        tile: Any = processor.transform(Image.fromarray(pixels)).tiles[0]
        state = model.lm.allocate_state(1, 200)
        tokens = model.projector(model.vision(tile[None]))
        hidden = model.lm.prefill(torch.cat([tokens, model.lm.embed(ids)], dim=1), state)[:, -1]
        for _ in range(64):
            expected = model.lm.head(hidden)[0].numpy()
            assert np.linalg.norm(logits - expected) < 1e-5 * np.linalg.norm(expected)
            token = int(expected.argmax())
            assert int(logits.argmax()) == token
            hidden = model.lm.step(model.lm.embed(torch.tensor([[token]]))[:, 0], state)
            logits = engine.step(token)


@pytest.mark.parametrize("quant", ["fp32", "8da4w"])
@pytest.mark.parametrize("target", ["executorch-cpu", "executorch-vulkan"])
def test_a_step_is_one_delegate(exported: Exported, target: str, quant: str) -> None:
    said = read_manifest(exported("mamba2_groups", target, quant)[1]).contents
    assert said.settings["lowered"]["step"]["delegates"] == 1
    assert (said.parity == {}) == (target == "executorch-vulkan")
    assert any("not run" in line for line in said.missing) == (target == "executorch-vulkan")


def test_an_export_in_fp32_is_held_to_exact_arithmetic(exported: Exported) -> None:
    engine = ExecuTorchEngine(exported("mamba2_groups")[1])
    with drawn_pictures() as pictures:
        findings = check_laws(engine, [LAWS[name] for name in ("oracle", "pictures-oracle")], pictures)
    assert [found.status for found in findings] == [GREEN, GREEN]
    assert ExecuTorchEngine(exported("mamba2_groups", quant="8da4w")[1]).oracle() is None


def test_quantised_steps_agree_with_quantised_pieces(exported: Exported) -> None:
    _, out = exported("mamba2_groups", quant="8da4w")
    check_files(out)
    engine = ExecuTorchEngine(out)
    ids = np.arange(7, 27)
    whole = engine.prefill(ids)
    engine.reset()
    for token in ids:
        logits = engine.step(int(token))
    assert np.linalg.norm(logits - whole) < engine.rounding * np.linalg.norm(whole)
    size = (exported("mamba2_groups")[1] / "model.pte").stat().st_size
    assert (out / "model.pte").stat().st_size < size


def test_a_state_is_gone_back_to(exported: Exported) -> None:
    engine = ExecuTorchEngine(exported("phi3")[1])
    engine.prefill(np.arange(5, 15))
    before = engine.snapshot()
    first = engine.step(3)
    engine.step(9)
    engine.restore(before)
    assert (engine.step(3) == first).all()
    with pytest.raises(ValueError, match="have room for"):
        engine.prefill(np.arange(5, 15).repeat(300))


def test_an_export_for_vulkan_is_not_run(exported: Exported, capsys: pytest.CaptureFixture[str]) -> None:
    out = exported("mamba2_groups", "executorch-vulkan")[1]
    with pytest.raises(ValueError, match="this engine runs executorch-cpu"):
        ExecuTorchEngine(out)
    assert verify(out)
    assert "not run" in capsys.readouterr().out


def test_a_model_without_a_form_leaves_nothing(exported: Exported) -> None:
    with pytest.raises(ValueError, match="MambaMixer has no form for ExecuTorch"):
        exported("mamba")


def test_a_language_model_alone_is_refused_with_the_target_that_takes_it(tmp_path: Path) -> None:
    (tmp_path / "lm").mkdir()
    write_random_lm(MAMBA2, tmp_path / "lm")
    with pytest.raises(
        ValueError, match="language model alone, without pictures: export it with --target gguf"
    ):
        export_model(tmp_path / "lm", "executorch-cpu", "fp32", tmp_path / "out")
    assert not (tmp_path / "out").exists()
