"""A training run's checkpoint stands wherever a model folder does, and is data alone."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cobra.cli import main
from cobra.convert.parts import load_parts
from cobra.convert.run import convert
from cobra.data.chat import Chat
from cobra.models.vlm import CobraVLM
from cobra.pretrained import described, from_pretrained, lm_from_pretrained
from cobra.weights.run_checkpoint import FILES
from tests.models.builders import ENCODERS, LMS, PROJECTORS
from tests.train.test_module import run, stage

CHAT = Chat("cobra:data/shapes/tokenizer")


def model(lm: str = "mamba2", seed: int = 0) -> CobraVLM:
    torch.manual_seed(seed)
    return CobraVLM(ENCODERS["small_vit"], PROJECTORS["pixel_unshuffle"], LMS[lm])


def save(path: Path, made: CobraVLM, change: Callable[[dict[str, Any]], object] = bool) -> Path:
    """What a run would write, as far as it is of the model."""
    # sharded training gathers a tied head and its embedding one by one
    state = {f"model.{name}": tensor.clone() for name, tensor in made.state_dict().items()}
    state["objectives.0.head.weight"] = torch.ones(2)
    checkpoint = {"state_dict": state, FILES: described(made, CHAT), "global_step": 3}
    change(checkpoint)
    torch.save(checkpoint, path)
    return path


def equal(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    states = one.state_dict(), other.state_dict()
    return states[0].keys() == states[1].keys() and all(
        torch.equal(tensor, states[1][name]) for name, tensor in states[0].items()
    )


# a state-space model, a tied head, and blocks that are used twice
@pytest.mark.parametrize("lm", ["mamba2", "qwen2", "mobile_llm_shared"])
def test_each_model_comes_back_from_a_checkpoint(lm: str, tmp_path: Path) -> None:
    made = model(lm)
    path = save(tmp_path / "last.ckpt", made)
    loaded, processor = from_pretrained(path)
    assert equal(loaded, made)
    assert processor.chat.encode("where?") == CHAT.encode("where?")
    convert(str(path), tmp_path / "converted")
    assert equal(from_pretrained(tmp_path / "converted")[0], made)
    other = model(lm, seed=1)
    load_parts(other, dict.fromkeys(("vision", "lm"), str(path)))
    assert equal(other.lm, made.lm)
    assert equal(other.vision, made.vision)
    assert not equal(other.projector, made.projector)


def test_a_run_writes_checkpoints_that_answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    module = run([stage("a", ["lm"])], tmp_path)
    module.trainer.save_checkpoint(tmp_path / "last.ckpt")
    assert module.model is not None
    assert equal(from_pretrained(tmp_path / "last.ckpt")[0], module.model)
    options = ["--prompt", "where is it?", "--max-new-tokens", "3"]
    monkeypatch.setattr("sys.argv", ["cobra", "generate", "--ckpt", str(tmp_path / "last.ckpt"), *options])
    main()
    assert capsys.readouterr().out.endswith("\n")


def hostile_class(checkpoint: dict[str, Any]) -> None:
    tree = json.loads(bytes(checkpoint[FILES]["config.json"].tolist()))
    tree["model"]["init_args"]["projector"] = {"class_path": "os.system", "init_args": {"command": "false"}}
    text = json.dumps(tree).encode()
    checkpoint[FILES]["config.json"] = torch.frombuffer(bytearray(text), dtype=torch.uint8)


def add_file(name: str, content: torch.Tensor) -> Callable[[dict[str, Any]], object]:
    return lambda checkpoint: checkpoint[FILES].update({name: content})


BYTE = torch.zeros(1, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (hostile_class, r"class path 'os\.system' is not allowed"),
        (
            add_file("../outside", BYTE),
            r"last\.ckpt holds files that are no tokenizer's \(\['\.\./outside'\]\)",
        ),
        (add_file("..", BYTE), "holds files that are no tokenizer's"),
        (add_file("", BYTE), "holds files that are no tokenizer's"),
        (add_file("a.json", torch.ones(1)), "holds files that are no tokenizer's"),
        (add_file("a.json", BYTE.expand(1 << 40)), "holds files that are no tokenizer's"),
        (lambda checkpoint: checkpoint.pop(FILES), r"does not say what model it is of: .* --ckpt_path"),
        (
            lambda checkpoint: checkpoint["state_dict"].clear(),
            "is no checkpoint of a training run, nor a mod",
        ),
        (
            lambda checkpoint: checkpoint["state_dict"].pop("model.lm.norm_f.weight"),
            r"missing \['lm\.norm_f\.wei",
        ),
    ],
)
def test_what_is_no_checkpoint_of_a_model_is_refused(
    change: Callable[[dict[str, Any]], object], message: str, tmp_path: Path
) -> None:
    folder = tmp_path / "inside"
    folder.mkdir()
    path = save(folder / "last.ckpt", model(), change)
    with pytest.raises(ValueError, match=message):
        from_pretrained(path)
    assert [path.name for path in tmp_path.iterdir()] == ["inside"]


def test_a_whole_model_is_no_language_model_alone(tmp_path: Path) -> None:
    path = save(tmp_path / "last.ckpt", model())
    with pytest.raises(ValueError, match="describes a whole vision-language model"):
        lm_from_pretrained(path)


def test_a_sharded_checkpoint_is_refused_with_the_command_that_joins_it(tmp_path: Path) -> None:
    (tmp_path / "last.ckpt").mkdir()
    (tmp_path / "last.ckpt/meta.pt").touch()
    for open_it in (from_pretrained, lambda path: convert(str(path), tmp_path / "out")):
        with pytest.raises(
            ValueError, match=r"shares of the weights: .*`lightning consolidate .*last\.ckpt`"
        ):
            open_it(tmp_path / "last.ckpt")
