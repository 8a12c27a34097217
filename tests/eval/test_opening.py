"""Models for an evaluation: of our folders, of runs, and published ones, which are converted once."""

import shutil
from pathlib import Path

import pytest

from cobra.convert.run import convert
from cobra.data.chat import Chat
from cobra.eval import opening
from cobra.eval.opening import Settings, model_path, open_model
from tests.convert.fakes import D, shrink, write_cobra, write_tower

TOKENIZER = Path(Chat("cobra:data/shapes/tokenizer").path)


@pytest.mark.slow
def test_a_published_checkpoint_is_converted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shrink(monkeypatch)
    monkeypatch.setenv("COBRA_CACHE", str(tmp_path / "cache"))
    write_cobra(tmp_path / "run")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(TOKENIZER / name, tmp_path / "run" / name)
    made: list[str] = []
    tower = tmp_path / "tower.safetensors"
    write_tower(tower)

    def converted(name: str, out: Path) -> None:
        made.append(name)
        convert(name, out, towers=[tower, tower])

    # timm's weights are on the hub
    monkeypatch.setattr(opening, "convert", converted)
    path = model_path(str(tmp_path / "run"))
    assert path.parent == tmp_path / "cache/models"
    assert path.name.startswith("run-")
    assert model_path(str(tmp_path / "run")) == path
    assert made == [str(tmp_path / "run")]
    model, _ = open_model(path, Settings(), "cpu")
    assert model.lm.d_model == D
    # another one of that name is another model
    (tmp_path / "run/checkpoints/latest-checkpoint.pt").touch()
    monkeypatch.setattr(opening, "convert", lambda name, out: made.append(str(out)))
    assert model_path(str(tmp_path / "run")) != path
    assert len(made) == 2


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is no file, no folder"):
        model_path(str(tmp_path / "nothing"))
    with pytest.raises(FileNotFoundError, match="has no weights"):
        model_path(str(tmp_path))
