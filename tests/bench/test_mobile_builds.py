"""Builds with random weights, and what is timed of them, in the runtimes that are here."""

import argparse
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import save_file

from cobra.bench.arguments import add_benches
from cobra.bench.exports import exported
from cobra.bench.random_gguf import write_random_gguf
from cobra.bench.report import read_json
from cobra.bench.subjects import Subject
from cobra.config.build import build
from cobra.config.config_json import LM, write_config
from cobra.data.cache_folder import cache_folder
from cobra.export.gguf.context import Context, open_weights
from cobra.export.gguf.tensors_in import tensors_in
from cobra.export.write import export_model
from cobra.pretrained import WEIGHTS, expected_shapes
from tests.export.gguf.exported import NO_LLAMA

pytestmark = [pytest.mark.export]
needs_llama = pytest.mark.skipif(bool(NO_LLAMA), reason=NO_LLAMA)
NO_EXECUTORCH = "" if find_spec("executorch") else "ExecuTorch is missing: pip install 'cobra-vlm[export]'"
# rows of 256 numbers, which blocks of 4-bit weights have
LLAMA: dict[str, Any] = {
    "class_path": "cobra.models.lm.transformer.TransformerLM",
    "init_args": {
        "vocab_size": 512,
        "d_model": 256,
        "n_layers": 2,
        "options": {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 512},
    },
}
MAMBA2: dict[str, Any] = {
    "class_path": "cobra.models.lm.mamba2.Mamba2LM",
    "init_args": {"vocab_size": 512, "d_model": 256, "n_layers": 2},
}


@needs_llama
@pytest.mark.parametrize("tree", [LLAMA, MAMBA2], ids=["llama", "mamba2"])
@pytest.mark.parametrize("quant", ["q4_k_m", "f16"])
def test_a_random_build_has_the_types_and_sizes_of_a_real_one(
    tree: dict[str, Any], quant: str, tmp_path: Path
) -> None:
    lm: Any = build(tree)()
    model = tmp_path / "model"
    model.mkdir()
    state = lm.state_dict()
    save_file(
        {n: state[n].contiguous() for n in expected_shapes(lm)}, model / WEIGHTS, metadata={"format": "pt"}
    )
    write_config(model, LM, lm.config())
    export_model(model, "gguf", quant, tmp_path / "real")
    random = tmp_path / "random"
    random.mkdir()
    write_random_gguf(tree, quant, random)
    found = tensors_in(random / "lm.gguf")
    assert found == tensors_in(tmp_path / "real" / "lm.gguf")
    written = (random / "lm.gguf").read_bytes()
    # no matrix is left as zeros
    for name, place in found.items():
        values = np.frombuffer(written[place.start : place.start + place.nbytes], np.uint8)
        assert np.count_nonzero(values) > len(values) / 3, name


@needs_llama
def test_what_is_read_again_and_again_costs_and_counts_as_if_it_had_been_read(tmp_path: Path) -> None:
    """Keys and values of one layer depend on a token and its position alone."""
    tree = {**LLAMA, "init_args": {**LLAMA["init_args"], "n_layers": 1}}
    write_random_gguf(tree, "f32", tmp_path)
    weights = open_weights(tmp_path / "lm.gguf")
    ids = np.arange(20) * 7
    contexts = [Context(weights, 512, 2, 1, True, kv_unified=True) for _ in range(2)]
    contexts[0].read(np.resize(ids, 50))
    contexts[1].read(ids)
    contexts[1].repeat(50)
    expected, found = (context.read(np.array([3, 4])) for context in contexts)
    assert np.linalg.norm(found - expected) < 1e-5 * np.linalg.norm(expected)
    # without the repetition it is another text
    contexts[1].reset()
    contexts[1].read(ids)
    other = contexts[1].read(np.array([3, 4]))
    assert np.linalg.norm(other - expected) > 1e-3 * np.linalg.norm(expected)


@needs_llama
def test_a_build_is_made_once_and_again_for_another_version_of_its_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COBRA_CACHE", str(tmp_path))
    folder = exported(Subject("tiny", MAMBA2), "gguf", "f16")
    made = (folder / "lm.gguf").stat().st_mtime_ns
    assert exported(Subject("tiny", MAMBA2), "gguf", "f16") == folder
    assert (folder / "lm.gguf").stat().st_mtime_ns == made
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"format": ', '"format": 1000', 1))
    assert exported(Subject("tiny", MAMBA2), "gguf", "f16") == folder
    assert (folder / "lm.gguf").stat().st_mtime_ns > made


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("runtime", "quant"), [("gguf", "q4_k_m"), ("executorch", "8da4w")])
def test_builds_are_made_once_and_timed_in_processes_of_their_own(
    runtime: str, quant: str, demo: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reason = {"gguf": NO_LLAMA, "executorch": NO_EXECUTORCH}[runtime]
    if reason:
        pytest.skip(reason)
    cache = tmp_path / "cache"
    cache.mkdir()
    # where llama.cpp is, and nothing else
    (cache / "llama.cpp").symlink_to(cache_folder("llama.cpp"))
    monkeypatch.setenv("COBRA_CACHE", str(cache))
    parser = argparse.ArgumentParser()
    add_benches(parser.add_subparsers())
    words = ["--models", demo.name, "--runtime", runtime, "--quant", quant, "--repeats", "1"]
    found: list[dict[str, Any]] = []
    for case in (
        ["e2e", "--new-tokens", "3"],
        ["decode", "--contexts", "0", "600"],
        ["prefill", "--lengths", "9"],
    ):
        options = parser.parse_args([*case, *words, "--read-mebibytes", "16", "--out", str(tmp_path)])
        options.bench(options)
        found += read_json(tmp_path / f"{case[0]}.json")["measurements"]
    assert [entry.get("missing") for entry in found] == [None] * 4
    # the whole model, and its language model alone
    assert len(list((cache / "exports").iterdir())) == 2
    assert found[0]["prompt_tokens"] == found[0]["image_tokens"] + 21
    assert found[0]["peak_bytes"] > found[0]["before_bytes"] > 0
    assert all(entry["constant_state"] for entry in found)
