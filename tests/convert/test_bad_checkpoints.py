"""What is not a whole checkpoint of a known system is refused in one line, and nothing in it runs."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from cobra.convert import checkpoint, hub
from cobra.convert.run import convert
from cobra.data.chat import Chat
from cobra.pretrained import from_pretrained, save_pretrained
from tests.convert import llava_keys, published_keys
from tests.convert.fakes import COBRA_CONFIG, VOCAB, D, nest, random, shrink, write_cobra, write_run
from tests.convert.test_convert import TOKENIZER, transformers_models
from tests.test_pretrained import tiny

CHECKPOINT = "checkpoints/latest-checkpoint.pt"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shrink(monkeypatch)
    write_cobra(tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_pretrained(tiny(), Chat(TOKENIZER), tmp_path / "saved")
    return tmp_path / "saved"


def refused(source: Path, match: str, to: str = "cobra") -> None:
    with pytest.raises((ValueError, OSError), match=match) as error:
        convert(str(source), source.parent / "out", to)
    assert "\n" not in str(error.value)
    assert not (source.parent / "out").exists()


def edit(run: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Rewrite a checkpoint with its tensors changed, names with groups joined by `/`."""
    groups = torch.load(run / CHECKPOINT, weights_only=True)["model"]
    tensors = {f"model/{group}/{name}": t for group, held in groups.items() for name, t in held.items()}
    change(tensors)
    torch.save(nest(tensors), run / CHECKPOINT)


LM = "model/llm_backbone/llm."


def lose(tensors: dict) -> None:
    for name in ("A_log", "D", "x_proj.weight"):
        del tensors[f"{LM}backbone.layers.1.mixer.{name}"]


def gain(tensors: dict) -> None:
    tensors[f"{LM}backbone.layers.7.norm.weight"] = torch.ones(D)


def grow(tensors: dict) -> None:
    for name in ("lm_head", "backbone.embedding"):
        tensors[f"{LM}{name}.weight"] = torch.ones(VOCAB + 8, D)


def untie(tensors: dict) -> None:
    tensors[f"{LM}lm_head.weight"] = tensors[f"{LM}lm_head.weight"] + 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lose, r"missing \['lm\.layers\.1\.mixer\.A_log', .*\.D', .*x_proj"),
        (gain, r"unexpected \['lm\.layers\.7\.norm\.weight'\]"),
        (grow, r"mis-shaped \['lm\.embedding\.weight: \(440, 32\) instead of \(432, 32\)'\]"),
        (untie, r"lm_head\.weight differs from .*embedding\.weight"),
    ],
)
def test_keys_that_do_not_fit_are_listed(run: Path, change: Callable, message: str) -> None:
    edit(run, change)
    refused(run, message)


def test_a_long_list_is_cut_short(run: Path) -> None:
    def rename(tensors: dict) -> None:
        for name in [name for name in tensors if ".layers.0." in name]:
            tensors[name.replace(".layers.0.", ".blocks.0.")] = tensors.pop(name)

    edit(run, rename)
    refused(run, r"missing \[('[^']*'(, )?){5}\] and 5 more; unexpected \[('[^']*'(, )?){5}\] and 5 more$")


def test_another_system_is_named(tmp_path: Path) -> None:
    (tmp_path / "gpt2").mkdir()
    torch.save({"transformer.wte.weight": torch.ones(2, 2)}, tmp_path / "gpt2/pytorch_model.bin")
    (tmp_path / "gpt2/config.json").write_text('{"model_type": "gpt2"}')
    refused(tmp_path / "gpt2", r"no layout that is known .*wte.*'gpt2'")


def test_a_half_downloaded_file_is_named(run: Path) -> None:
    whole = (run / CHECKPOINT).read_bytes()
    (run / CHECKPOINT).write_bytes(whole[: len(whole) // 2])
    refused(run, rf"latest-checkpoint\.pt is incomplete .* {len(whole) // 2} bytes; download it again")
    transformers_models()["mamba"].save_pretrained(run.parent / "hf")
    weights = run.parent / "hf/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    refused(run.parent / "hf", r"model\.safetensors is incomplete")
    weights.write_bytes(b"<html>404</html>")
    refused(run.parent / "hf", r"model\.safetensors is incomplete or no file of weights")


@pytest.mark.parametrize("file", ["pytorch_model.bin", "model.safetensors"])
def test_tensors_of_an_unknown_dtype_are_named(file: str, tmp_path: Path) -> None:
    (tmp_path / "ssm").mkdir()
    tensors = {
        name: t.to(torch.float8_e4m3fn) for name, t in random(published_keys.mamba("", 64, 32, 1)).items()
    }
    write = torch.save if file.endswith(".bin") else save_file
    write(tensors, tmp_path / "ssm" / file)
    (tmp_path / "ssm/config.json").write_text('{"d_model": 32, "n_layer": 1, "vocab_size": 64}')
    refused(tmp_path / "ssm", r"holds tensors of dtype .*(F8_E4M3|float8_e4m3fn)")


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def test_code_in_a_pickle_is_not_run(run: Path) -> None:
    evil = {"model": {"projector": Evil(run / "ran"), "llm_backbone": {}}}
    torch.save(evil, run / CHECKPOINT)
    refused(run, "does not hold plain tensors, and nothing else in it is run")
    (run / CHECKPOINT).write_bytes(pickle.dumps(evil))
    refused(run, "bare pickle, which cannot be read without running it")
    assert not (run / "ran").exists()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("llm_backbone_id", "vicuna-v15-7b"),
        ("vision_backbone_id", "os.system"),
        ("arch_specifier", "no-align+ldpnet"),
        ("image_resize_strategy", None),
    ],
)
def test_an_identifier_that_is_not_published_is_named(run: Path, field: str, value: str | None) -> None:
    config = {**COBRA_CONFIG, "model": {**COBRA_CONFIG["model"], field: value}}  # type: ignore[dict-item]
    (run / "config.json").write_text(json.dumps(config))
    refused(run, rf"model\.{field} .* is not one of")


def test_a_foreign_class_in_a_config_is_refused(tmp_path: Path) -> None:
    transformers_models()["mamba"].save_pretrained(tmp_path / "hf")
    convert(str(tmp_path / "hf"), tmp_path / "own")
    for folder, change, message in (
        (
            "hf",
            {"architectures": ["EvilForCausalLM"], "auto_map": {"AutoModel": "evil.Evil"}},
            "EvilForCausalLM",
        ),
        ("hf", {"architectures": None, "model_type": "falcon_mamba"}, "falcon_mamba"),
        (
            "hf",
            {"architectures": None, "model_type": "mamba", "use_bias": True},
            "use_bias True cannot be read",
        ),
        (
            "own",
            {"model": {"class_path": "os.system", "init_args": {"command": "false"}}},
            "'os.system' is not",
        ),
    ):
        path = tmp_path / folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
        refused(tmp_path / folder, message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head_dim": 0}, "head_dim 0 must be 1 to"),
        ({"hidden_size": [32]}, r"Mamba2LM cannot have d_model \[32\]: it must be int"),
        ({"architectures": 3}, r"config\.json has values that do not fit .* restore that file"),
        ({"time_step_limit": [0.0, 0.1]}, r"time_step_limit \[0\.0, 0\.1\] cannot be read"),
    ],
)
def test_values_of_transformers_configuration_that_do_not_fit_are_refused(
    change: dict, message: str, tmp_path: Path
) -> None:
    transformers_models()["mamba2"].save_pretrained(tmp_path / "hf")
    path = tmp_path / "hf/config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    refused(tmp_path / "hf", message)


@pytest.mark.parametrize(
    "change",
    [
        {"vocab_size": "64"},
        {"pad_vocab_size_multiple": 0},
        {"ssm_cfg": [1]},
        {"ssm_cfg": {"layer": []}},
        {"d_model": -32},
    ],
)
def test_values_of_mamba_ssms_configuration_that_do_not_fit_are_refused(change: dict, tmp_path: Path) -> None:
    (tmp_path / "ssm").mkdir()
    torch.save(random(published_keys.mamba("", VOCAB, D, 2)), tmp_path / "ssm/pytorch_model.bin")
    config = {"d_model": D, "n_layer": 2, "vocab_size": VOCAB, **change}
    (tmp_path / "ssm/config.json").write_text(json.dumps(config))
    refused(tmp_path / "ssm", "do not fit|must be 1 to")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_named(value: float, tmp_path: Path) -> None:
    (tmp_path / "ssm").mkdir()
    tensors = random(published_keys.mamba("", VOCAB, D, 2), {"lm_head.weight": "backbone.embedding.weight"})
    tensors["backbone.layers.1.mixer.D"][3] = value
    torch.save(tensors, tmp_path / "ssm/pytorch_model.bin")
    (tmp_path / "ssm/config.json").write_text(json.dumps({"d_model": D, "n_layer": 2, "vocab_size": VOCAB}))
    for to in ("cobra", "hf"):
        refused(tmp_path / "ssm", r"pytorch_model.*layers\.1\.mixer\.D holds values that are not finite", to)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("layers", [1001, 10**9])
def test_a_model_that_would_not_be_built_in_a_day_is_refused(layers: int, tmp_path: Path) -> None:
    """Blocks of our own, and transformers', whose configuration makes a list of them."""
    for name, keys, config in (
        ("ssm", published_keys.mamba("", VOCAB, D, 2), {"d_model": D, "n_layer": layers}),
        (
            "phi3", llava_keys.phi3(VOCAB, 64, 96, 1),
            {"model_type": "phi3", "hidden_size": 64, "num_hidden_layers": layers, "num_attention_heads": 4},
        ),
    ):  # fmt: skip
        (tmp_path / name).mkdir()
        torch.save(random(keys), tmp_path / name / "pytorch_model.bin")
        (tmp_path / name / "config.json").write_text(json.dumps({**config, "vocab_size": VOCAB}))
        refused(tmp_path / name, f"n_layers {layers} must be 1 to 1000")
        # nor is anything else of a size that no file has
        (tmp_path / name / "config.json").write_text(
            json.dumps({**config, "vocab_size": 4 * 10**9, "n_layer": 2, "num_hidden_layers": 1})
        )
        refused(tmp_path / name, "vocab_size 4000000000 must be 1 to")


@pytest.mark.timeout(20)
def test_a_tree_that_makes_parameters_without_end_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "MAX_TENSORS", 2000)
    transformers_models()["mamba"].save_pretrained(tmp_path / "hf")
    convert(str(tmp_path / "hf"), tmp_path / "own")
    path = tmp_path / "own/config.json"
    lm = json.loads(path.read_text())["model"]
    vision = {"class_path": "cobra.models.vision.small_vit.SmallViT", "init_args": {"depth": 1000}}
    projector = {"class_path": "cobra.models.projectors.linear.LinearProjector", "init_args": {}}
    parts = {"vision": vision, "projector": projector, "lm": lm}
    tree = {"class_path": "cobra.models.vlm.CobraVLM", "init_args": parts}
    path.write_text(json.dumps({"model_type": "cobra_vlm", "model": tree}))
    refused(tmp_path / "own", "makes more than 2000 parameters")


def test_an_index_cannot_name_files_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "hf").mkdir()
    index = {"weight_map": {"a": "../secret.safetensors"}}
    (tmp_path / "hf/model.safetensors.index.json").write_text(json.dumps(index))
    refused(tmp_path / "hf", r"names files outside its folder: \['\.\./secret")


@pytest.mark.parametrize("other", ["model.safetensors.index.json", "other.index.json"])
def test_an_index_names_no_index(other: str, tmp_path: Path) -> None:
    (tmp_path / "hf").mkdir()
    for name in ("model.safetensors.index.json", "other.index.json"):
        (tmp_path / "hf" / name).write_text(json.dumps({"weight_map": {"a": other}}))
    refused(tmp_path / "hf", rf"names \['{other}'\], not files of weights: download it again")


@pytest.mark.parametrize("part", ["vision", "projector", "lm"])
@pytest.mark.parametrize("said", [None, 3, {}])
def test_a_part_that_an_own_config_does_not_describe_is_named(part: str, said: object, saved: Path) -> None:
    config = json.loads((saved / "config.json").read_text())
    parts = config["model"]["init_args"]
    parts[part] = said
    if said is None:
        del parts[part]
    (saved / "config.json").write_text(json.dumps(config))
    refused(saved, f"config.json names no class for {part}: restore the file")
    with pytest.raises(ValueError, match=rf"missing 1 required .*'{part}'|cannot have {part} "):
        from_pretrained(saved)


@pytest.mark.parametrize("file", ["adapter_model.safetensors", "adapter_model.bin"])
@pytest.mark.parametrize("is_file", [False, True])
def test_an_adapter_is_no_model(file: str, is_file: bool, tmp_path: Path) -> None:
    """As peft writes it, and LLaVA's training of adapters."""
    (tmp_path / "lora").mkdir()
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    write = torch.save if file.endswith(".bin") else save_file
    write({name: torch.ones(2, 8), name.replace("_A", "_B"): torch.ones(8, 2)}, tmp_path / "lora" / file)
    described: dict[str, Any] = {"peft_type": "LORA", "base_model_name_or_path": "lmsys/vicuna-7b-v1.5"}
    described |= {"r": 2, "lora_alpha": 4}
    (tmp_path / "lora/adapter_config.json").write_text(json.dumps(described))
    (tmp_path / "lora/config.json").write_text(json.dumps({"model_type": "llava_llama"}))
    source = tmp_path / "lora" / file if is_file else tmp_path / "lora"
    with pytest.raises(ValueError, match=r"is an adapter of lmsys/vicuna-7b-v1\.5 .* its base with --base"):
        convert(str(source), tmp_path / "out")
    # a hub repository of it is fetched with what names its base
    assert "adapter_config.json" in hub._DESCRIPTION


def test_a_hybrid_or_untied_mamba_is_refused(tmp_path: Path) -> None:
    keys = published_keys.mamba2("", VOCAB, D, 2, state=16, head=16)
    (tmp_path / "ssm").mkdir()
    torch.save(random(keys), tmp_path / "ssm/pytorch_model.bin")
    config = {"d_model": D, "n_layer": 2, "vocab_size": VOCAB}
    ssm = {"layer": "Mamba2", "d_state": 16, "headdim": 16}
    for change, message in (
        ({"attn_layer_idx": [1]}, r"attn_layer_idx \[1\] cannot be read"),
        ({"ssm_cfg": {**ssm, "bias": True}}, "bias True cannot be read"),
        ({"ssm_cfg": {**ssm, "learnable_init_states": True}}, "learnable_init_states"),
        ({"vocab_size": VOCAB + 1}, r"embedding\.weight: \(432, 32\) instead of \(440, 32\)"),
    ):
        (tmp_path / "ssm/config.json").write_text(json.dumps({**config, "ssm_cfg": ssm, **change}))
        refused(tmp_path / "ssm", message)
    (tmp_path / "ssm/config.json").write_text(json.dumps({**config, "ssm_cfg": ssm}))
    refused(tmp_path / "ssm", "differs from")


def test_what_is_missing_is_named(run: Path, tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "no file, no folder and no hub name")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", r"has no weights: expected one of model\.safetensors")
    refused(run, r"tokenizer EleutherAI/gpt-neox-20b is not here .* name that with --tokenizer")
    with pytest.raises(ValueError, match=r"a file for each of the 2 towers \['test_vit"):
        convert(str(run), tmp_path / "out", towers=[run], tokenizer=TOKENIZER)
    # none are given, and timm's cannot be fetched
    with pytest.raises(FileNotFoundError, match=r"the weights of 'test_vit.*put the file"):
        convert(str(run), tmp_path / "half", tokenizer=TOKENIZER)
    assert not (tmp_path / "half").exists()
    (run / "config.json").unlink()
    refused(run, r"has no config\.json with a `model`")


def test_a_hub_name_without_the_hub_says_what_to_place_where(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"state-spaces/mamba-130m is no folder here.* its config\.json and"
    ):
        convert("state-spaces/mamba-130m", tmp_path / "out")


def test_an_align_stage_is_no_whole_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shrink(monkeypatch)
    projector = random(published_keys.fused_mlp("model/projector/", 128, D))
    write_run(tmp_path / "align", projector, COBRA_CONFIG)
    refused(tmp_path / "align", "holds no weights of the lm .*model.weights")


def test_the_source_is_not_written_over(run: Path) -> None:
    with pytest.raises(ValueError, match="holds the source"):
        convert(str(run), run)


@pytest.mark.parametrize("to", ["cobra", "hf"])
def test_a_model_is_not_written_over(run: Path, tmp_path: Path, to: str) -> None:
    (out := tmp_path / "trained").mkdir()
    (out / "config.json").write_text("{}")
    with pytest.raises(
        ValueError, match="trained holds a model already: name another folder, or remove that"
    ):
        convert(str(run), out, to, tokenizer=TOKENIZER)
    assert [path.name for path in out.iterdir()] == ["config.json"]
