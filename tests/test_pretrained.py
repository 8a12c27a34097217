"""Saving and loading: bit-equal, atomic, and nothing foreign is run."""

import json
import os
import pickle
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from cobra.data.chat import Chat
from cobra.data.record import Record, user
from cobra.models.lm.mamba import MambaLM
from cobra.models.quantize import Quantization, quantize_
from cobra.models.vlm import CobraVLM
from cobra.pretrained import from_pretrained, save_pretrained
from tests.models.builders import ENCODERS, LMS, PROJECTORS
from tests.models.lm.test_lora import outputs
from tests.models.test_adapters import adapted

TOKENIZER = "cobra:data/shapes/tokenizer"


def tiny(lm: str = "mamba2") -> CobraVLM:
    torch.manual_seed(0)
    return CobraVLM(ENCODERS["small_vit"], PROJECTORS["pixel_unshuffle"], LMS[lm])


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_pretrained(tiny(), Chat(TOKENIZER), tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("lm", sorted(LMS))
def test_a_saved_model_comes_back_bit_for_bit(lm: str, tmp_path: Path) -> None:
    model = tiny(lm)
    save_pretrained(model, Chat(TOKENIZER), tmp_path)
    loaded, processor = from_pretrained(tmp_path)
    assert loaded.config() == model.config()
    for (name, one), (_, other) in zip(model.state_dict().items(), loaded.state_dict().items(), strict=True):
        assert torch.equal(one, other), name
    ids = torch.tensor([[1, 2, 3]])
    assert torch.equal(loaded.generate(ids, max_new_tokens=4), model.eval().generate(ids, max_new_tokens=4))
    assert processor.chat.encode("where is the red circle?") == Chat(TOKENIZER).encode(
        "where is the red circle?"
    )


@pytest.mark.parametrize(
    "path", ["os.system", "subprocess.Popen", "antigravity.x", "cobra.cli.sys.exit", "torch.hub.load"]
)
def test_a_foreign_class_in_config_is_neither_imported_nor_called(saved: Path, path: str) -> None:
    config = json.loads((saved / "config.json").read_text())
    config["model"]["init_args"]["projector"] = {"class_path": path, "init_args": {"command": "false"}}
    (saved / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"not allowed|does not fit"):
        from_pretrained(saved)
    assert "antigravity" not in sys.modules


def test_an_allowed_class_of_the_wrong_kind_is_refused(saved: Path) -> None:
    config = json.loads((saved / "config.json").read_text())
    config["model"]["init_args"]["projector"] = {"class_path": "cobra.models.vision.small_vit.SmallViT"}
    (saved / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="projector must make a Projector"):
        from_pretrained(saved)


@pytest.mark.parametrize(
    "path", ["cobra.data.shapes.export.export_llava", "cobra.models.lm.init.scale_output"]
)
def test_a_function_of_this_project_in_config_is_not_called(saved: Path, tmp_path: Path, path: str) -> None:
    config = json.loads((saved / "config.json").read_text())
    config["model"]["init_args"]["lm"] = {"class_path": path, "init_args": {"out": str(tmp_path / "written")}}
    (saved / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="not allowed"):
        from_pretrained(saved)
    assert not (tmp_path / "written").exists()


def test_code_beside_a_tokenizer_is_not_run(saved: Path) -> None:
    config = json.loads((saved / "tokenizer_config.json").read_text())
    config["auto_map"] = {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}
    (saved / "tokenizer_config.json").write_text(json.dumps(config))
    (saved / "evil.py").write_text("from pathlib import Path\nPath(__file__).with_name('ran').touch()\n")
    from_pretrained(saved)
    assert not (saved / "ran").exists()


def test_half_precision_keeps_the_time_scales_in_fp32_and_still_sees(saved: Path) -> None:
    model, processor = from_pretrained(saved, dtype=torch.bfloat16)
    kinds = {name: p.dtype for name, p in model.named_parameters()}
    wide = {name.rpartition(".")[2] for name, dtype in kinds.items() if dtype == torch.float32}
    assert wide == {"A_log", "D", "dt_bias"}
    record = Record("r", [user("see?", images=1)], [np.zeros((32, 32, 3), dtype=np.uint8)])
    batch = processor.collate([processor.encode(record, prompt=True)], left=True)
    assert model.generate(batch.ids, batch.pictures, max_new_tokens=2).shape == (1, 2)


def test_weights_of_another_size_are_named(saved: Path) -> None:
    config = json.loads((saved / "config.json").read_text())
    config["model"]["init_args"]["lm"]["init_args"]["n_layers"] = 3
    (saved / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"missing \['lm\.layers\.2"):
        from_pretrained(saved)


def test_a_missing_or_broken_file_is_named(saved: Path) -> None:
    weights = saved / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"model\.safetensors is incomplete .* download it again"):
        from_pretrained(saved)
    (saved / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is not valid JSON"):
        from_pretrained(saved)
    (saved / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ValueError, match="another project"):
        from_pretrained(saved)
    (saved / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors is missing"):
        from_pretrained(saved)


def change(saved: Path, part: str, **arguments: object) -> None:
    """Edit the arguments of a part in config.json."""
    config = json.loads((saved / "config.json").read_text())
    config["model"]["init_args"][part]["init_args"].update(arguments)
    (saved / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("part", "arguments", "message"),
    [
        ("lm", {"d_model": "32"}, "Mamba2LM cannot have d_model '32': it must be int"),
        ("lm", {"norm_eps": float("nan")}, "Mamba2LM cannot have norm_eps nan: it must be float"),
        ("lm", {"dt_range": [0.1]}, r"cannot have dt_range \[0\.1\]: it must be tuple\[float, float\]"),
        ("lm", {"d_modell": 32}, "Mamba2LM has no argument 'd_modell': it takes vocab_size, d_model"),
        ("lm", {"head_dim": 0}, "head_dim 0 must be 1 to 10000000"),
        ("lm", {"d_model": -32}, "d_model -32 must be 1 to"),
        ("lm", {"d_model": 2**40}, "d_model 1099511627776 must be 1 to"),
        ("lm", {"n_layers": 2**40}, "n_layers 1099511627776 must be 1 to 1000"),
        ("vision", {"image_size": True}, "SmallViT cannot have image_size True: it must be int"),
    ],
)
def test_an_argument_that_does_not_fit_is_named_with_its_value(
    saved: Path, part: str, arguments: dict, message: str
) -> None:
    change(saved, part, **arguments)
    with pytest.raises(ValueError, match=rf"config\.json: .*{message}.*; restore it"):
        from_pretrained(saved)


@pytest.mark.parametrize("arguments", [None, [1], "x"])
def test_arguments_that_are_no_object_are_refused(saved: Path, arguments: object) -> None:
    config = json.loads((saved / "config.json").read_text())
    config["model"]["init_args"] = arguments
    (saved / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="init_args of CobraVLM must be an object"):
        from_pretrained(saved)


def test_a_config_nested_too_deeply_is_refused(saved: Path) -> None:
    (saved / "config.json").write_text('{"model": ' + "[" * 100_000 + "]" * 100_000 + "}")
    with pytest.raises(ValueError, match=r"config\.json is not valid JSON .*recursion"):
        from_pretrained(saved)


def pickled(weights: Path) -> None:
    weights.write_bytes(pickle.dumps({"a": 1}))


def pickled_by_python_3_14(weights: Path) -> None:
    weights.write_bytes(pickle.dumps({"a": 1}, protocol=5))


def torch_saved(weights: Path) -> None:
    torch.save({"a": torch.ones(1)}, weights)


def of_integers(weights: Path) -> None:
    save_file({name: tensor.int() for name, tensor in load_file(weights).items()}, weights)


def with_a_nan(weights: Path) -> None:
    tensors = load_file(weights)
    tensors["lm.norm_f.weight"][3] = float("nan")
    save_file(tensors, weights)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (pickled, "is a pickle, not safetensors: get the weights as safetensors"),
        (pickled_by_python_3_14, "is a pickle, not safetensors"),
        (torch_saved, "is a pickle, not safetensors"),
        (of_integers, r"in torch\.int32, which cannot stand for torch\.float32: get the file again"),
        (with_a_nan, r"values in lm\.norm_f\.weight that are not finite: .* take an earlier checkpoint"),
    ],
)
def test_weights_that_are_no_weights_are_refused(
    saved: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(saved / "model.safetensors")
    with pytest.raises(ValueError, match=rf"model\.safetensors .*{message}"):
        from_pretrained(saved)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("tokenizer.json", "{", "cannot be read .*: restore its tokenizer.json"),
        ("tokenizer.json", "{}", "cannot be read .*: restore its tokenizer.json"),
        (
            "tokenizer_config.json",
            '{"model_max_length": [9]}',
            "cannot be read .*: restore its tokenizer.json",
        ),
        ("tokenizer_config.json", "[]", "cannot be read .*: restore its tokenizer.json"),
        ("chat_template.jinja", "{% for %}", "of tokenizer .* fails .*: restore its chat_template.jinja"),
        ("chat_template.jinja", "{{ 1 / 0 }}", "of tokenizer .* fails .*division by zero"),
    ],
)
def test_a_damaged_tokenizer_is_named(saved: Path, file: str, text: str, message: str) -> None:
    (saved / file).write_text(text)
    with pytest.raises(ValueError, match=rf"tokenizer '{saved}' {message}|template of tokenizer '{saved}'"):
        Chat(str(saved)).segments([user("what is it?").as_dict()], prompt=True)


@pytest.mark.parametrize("step", ["pre_tokenizer", "normalizer"])
def test_a_tokenizer_whose_pattern_panics_is_named(saved: Path, step: str) -> None:
    """The tokenizers library's panic is no Exception; this pattern takes exponential time."""
    described = json.loads((saved / "tokenizer.json").read_text())
    pattern = {"Regex": "(x+x+)+y"}
    described[step] = {
        "pre_tokenizer": {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False},
        "normalizer": {"type": "Replace", "pattern": pattern, "content": "b"},
    }[step]
    (saved / "tokenizer.json").write_text(json.dumps(described))
    with pytest.raises(ValueError, match=rf"'{saved}' fails on this text \(Onig: .*retry.*restore that file"):
        Chat(str(saved)).encode("x" * 200)


def test_a_tokenizer_of_more_tokens_than_the_model_knows_is_refused(tmp_path: Path) -> None:
    model = CobraVLM(ENCODERS["small_vit"], PROJECTORS["linear"], partial(MambaLM, 429, 16, 1))
    save_pretrained(model, Chat(TOKENIZER), tmp_path)
    with pytest.raises(
        ValueError, match=rf"'{tmp_path}' has 430 tokens with ids up to 429, vocab_size is 429: .*tokenizer"
    ):
        from_pretrained(tmp_path)


def test_a_tokenizers_largest_id_counts_not_its_length(tmp_path: Path) -> None:
    """An id behind a gap is a row that the model has not."""
    Chat(TOKENIZER).save(tmp_path)
    file = tmp_path / "tokenizer.json"
    described = json.loads(file.read_text())
    words = described["model"]["vocab"]
    words[max(words, key=words.__getitem__)] = 5000
    file.write_text(json.dumps(described))
    with pytest.raises(ValueError, match=r"ids up to 5000, vocab_size is 4096"):
        Chat(str(tmp_path)).check_vocabulary(4096)


def test_half_a_character_is_named() -> None:
    with pytest.raises(ValueError, match=r"'what\\udcff' holds half a character at 4"):
        Chat(TOKENIZER).encode("what\udcff")


def test_a_failed_save_leaves_the_old_model_whole(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path.name: path.read_bytes() for path in saved.iterdir()}

    def full_disk(*args: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    for step in ("pretrained.save_file", "pretrained.write_config", "weights.saving.os.fsync"):
        with monkeypatch.context() as patch:
            patch.setattr(f"cobra.{step}", full_disk)
            with pytest.raises(OSError, match="No space left"):
                save_pretrained(tiny("mamba"), Chat(TOKENIZER), saved)
        assert {path.name: path.read_bytes() for path in saved.iterdir()} == before


def test_all_files_of_a_model_can_be_read_by_those_who_can_read_new_files(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        save_pretrained(tiny(), Chat(TOKENIZER), tmp_path)
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o644}


@pytest.mark.parametrize("quantization", ["none", "int4"])
def test_adapters_are_merged_into_what_is_saved_or_kept_beside_what_is_packed(
    quantization: Quantization, tmp_path: Path
) -> None:
    model = adapted("mamba")
    quantize_(model.lm, quantization)
    save_pretrained(model, Chat(TOKENIZER), tmp_path)
    loaded, _ = from_pretrained(tmp_path)
    assert bool(loaded.adapters) == (quantization == "int4")
    for mine, theirs in zip(outputs(loaded.lm), outputs(model.eval().lm), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)
    ids = torch.tensor([[1, 2, 3]])
    assert torch.equal(loaded.generate(ids, max_new_tokens=4), model.generate(ids, max_new_tokens=4))


@pytest.mark.parametrize(
    "said", [[], {"lm": 3}, {"lm": {"r": "4", "alpha": 1, "dropout": 0}}, {"lm": {"r": 4, "rank": 4}}]
)
def test_adapters_that_are_none_are_refused(saved: Path, said: object) -> None:
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps({**config, "adapters": said}))
    with pytest.raises(ValueError, match=r"adapters .* are not those of parts"):
        from_pretrained(saved)
