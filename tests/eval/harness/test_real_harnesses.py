"""The harnesses themselves, where they are installed: offline, on data in the working directory."""

import json
import os
import subprocess
import sys
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.eval.harness.commonsense_rows import write_commonsense
from tests.eval.harness.models import said_alone, write_model
from tests.eval.harness.shapes_rows import write_rows

pytestmark = pytest.mark.slow

TASKS = Path(__file__).with_name("shapes_tasks")
ROOT = Path(__file__).parents[3]
needs_lmms = pytest.mark.skipif(
    not find_spec("lmms_eval") or "cobra" not in entry_points(group="lmms_eval.models").names,
    reason="lmms-eval is not installed, or cobra is not installed beside it",
)
needs_lm_eval = pytest.mark.skipif(not find_spec("lm_eval"), reason="lm_eval is not installed")
# as `python -m lm_eval`, which cannot be imported beside a torchvision that was built for another torch
_LM_EVAL = "import cobra.torchvision_shim; from lm_eval.__main__ import cli_evaluate; cli_evaluate()"


def run(folder: Path, *command: str) -> dict[str, dict[str, float]]:
    """Metrics of each task that a command of Python reports."""
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT), "HF_HOME": str(folder / "hub")}
    env["COBRA_CACHE"] = str(folder / "cache")
    out = folder / f"out-{len(list(folder.glob('out-*')))}"
    output = ["--output_path", str(out), "--log_samples"]
    done = subprocess.run(
        [sys.executable, *command, *output], cwd=folder, env=env, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (results,) = out.rglob("*results*.json")
    return json.loads(results.read_text(encoding="utf-8"))["results"]


def samples(folder: Path, task: str) -> list[Any]:
    """What the last run logged of each document of a task."""
    out = max(folder.glob("out-*"))
    (file,) = out.rglob(f"*samples_{task}*.jsonl")
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return [row["filtered_resps"] for row in sorted(rows, key=lambda row: row["doc_id"])]


@needs_lmms
@pytest.mark.parametrize("mode", [["--batch_size", "5"], ["--batch_size", "1", "--force_simple"]])
def test_lmms_eval_asks_what_a_conversation_is_asked(mode: list[str], tmp_path: Path) -> None:
    records = write_rows(tmp_path / "shapes.parquet", 24)
    model = write_model(tmp_path / "model")
    command = ["-m", "cobra", "eval", "lmms", str(model), "--include_path", str(TASKS), "--device", "cpu"]
    scores = run(tmp_path, *command, "--tasks", "shapes_words", *mode)
    expected = said_alone(model, records, 8)
    assert len(set(expected)) > 8
    assert samples(tmp_path, "shapes_words") == expected
    right = [said == record.messages[1].text for said, record in zip(expected, records, strict=True)]
    assert scores["shapes_words"]["exact,none"] == sum(right) / len(right)


@needs_lmms
def test_lmms_eval_takes_the_likeliest_choice(tmp_path: Path) -> None:
    from cobra.data.record import Record
    from cobra.eval.harness.harness_model import HarnessModel

    records = [r for r in write_rows(tmp_path / "shapes.parquet", 80) if r.messages[1].text in ("yes", "no")]
    model = write_model(tmp_path / "model")
    command = ["-m", "cobra", "eval", "lmms", str(model), "--include_path", str(TASKS), "--device", "cpu"]
    scores = run(tmp_path, *command, "--tasks", "shapes_choice", "--force_simple", "--batch_size", "4")
    ours, right = HarnessModel(str(model), "cpu"), []
    for record in records:
        asked = Record(record.id, record.messages[:1], record.images)
        (yes, _), (no, _) = ours.likelihoods([asked], [["yes", "no"]])[0]
        right.append((yes > no) == (record.messages[1].text == "yes"))
    assert 0 < sum(right) < len(right)
    assert scores["shapes_choice"]["acc,none"] == sum(right) / len(right)


def write_tasks(folder: Path) -> None:
    """Tasks of lm-evaluation-harness in its three kinds, about texts in the same folder."""
    things = [("ring", "a"), ("cross", "at"), ("square", "by"), ("digit", "on")] * 3
    rows = [
        {
            "question": f"where is the red {shape}?",
            "choices": [f"in {place} the {'very ' * number}top", "no"],
            "label": number % 2,
        }
        for number, (shape, place) in enumerate(things)
    ]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    shared = "dataset_path: json\ndataset_kwargs: {data_files: {test: rows.jsonl}}\ntest_split: test\n"
    kinds = {
        "toy_choice": "output_type: multiple_choice\ndoc_to_text: '{{question}}'\n"
        "doc_to_choice: '{{choices}}'\ndoc_to_target: label\nmetric_list: [{metric: acc}]\n",
        "toy_text": "output_type: loglikelihood_rolling\ndoc_to_text: ''\n"
        "doc_to_target: '{{choices[0]}}'\nmetric_list: [{metric: byte_perplexity}]\n",
        "toy_words": "output_type: generate_until\ndoc_to_text: '{{question}}'\ndoc_to_target: no\n"
        "generation_kwargs: {max_gen_toks: 9, do_sample: false, until: ['e']}\n"
        "metric_list: [{metric: exact_match}]\n",
    }
    (folder / "tasks").mkdir()
    for name, text in kinds.items():
        (folder / f"tasks/{name}.yaml").write_text(f"task: {name}\n{shared}{text}", encoding="utf-8")


def write_transformers_model(kind: str, folder: Path) -> Path:
    """A language model of transformers with a tokenizer, of random weights."""
    import cobra.torchvision_shim  # noqa: F401  (before transformers)

    import torch  # isort: skip
    from transformers import LlamaConfig, LlamaForCausalLM, Mamba2Config, Mamba2ForCausalLM

    from cobra.data.chat import Chat

    torch.manual_seed(0)
    sizes: dict[str, Any] = {"vocab_size": 432, "hidden_size": 32, "num_hidden_layers": 2}
    if kind == "llama":
        heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 64}
        model = LlamaForCausalLM(LlamaConfig(**sizes, **heads, initializer_range=0.3))
    else:
        heads = {"num_heads": 4, "head_dim": 16, "state_size": 16, "n_groups": 1, "chunk_size": 8}
        model = Mamba2ForCausalLM(Mamba2Config(**sizes, **heads, tie_word_embeddings=True))
    model.save_pretrained(folder)
    # nothing in it is to change what is generated
    (folder / "generation_config.json").unlink(missing_ok=True)
    Chat("cobra:data/shapes/tokenizer").save(folder)
    return folder


@needs_lm_eval
@pytest.mark.parametrize("kind", ["llama", "mamba2"])
def test_lm_eval_measures_what_it_measures_of_transformers_own(kind: str, tmp_path: Path) -> None:
    write_tasks(tmp_path)
    model = write_transformers_model(kind, tmp_path / "model")
    names = ["toy_choice", "toy_text", "toy_words"]
    options = ["--include_path", "tasks", "--tasks", ",".join(names), "--device", "cpu"]
    theirs = ["--model", "hf", "--model_args", f"pretrained={model},dtype=float32", "--batch_size", "1"]
    run(tmp_path, "-c", _LM_EVAL, "run", *theirs, *options)
    expected = {name: samples(tmp_path, name) for name in names}
    run(tmp_path, "-m", "cobra", "eval", "lm", str(model), *options, "--batch_size", "5")
    found = {name: samples(tmp_path, name) for name in names}
    assert found["toy_words"] == expected["toy_words"]
    assert len({str(said) for said in found["toy_words"]}) > 1
    for one, other in zip(found["toy_text"], expected["toy_text"], strict=True):
        assert float(one[0]) == pytest.approx(float(other[0]), rel=1e-6, abs=1e-4)
    for one, other in zip(found["toy_choice"], expected["toy_choice"], strict=True):
        assert [float(score) for score, _ in one] == pytest.approx(
            [float(score) for score, _ in other], rel=1e-6, abs=1e-4
        )
        assert [is_greedy for _, is_greedy in one] == [is_greedy for _, is_greedy in other]


@needs_lm_eval
def test_the_eight_tasks_of_mobilellm_run_on_data_sets_in_the_working_directory(tmp_path: Path) -> None:
    write_commonsense(tmp_path)
    model = write_model(tmp_path / "model", "mobile_llm_shared")
    scores = run(
        tmp_path, "-m", "cobra", "eval", "lm", str(model), "--tasks", "commonsense", "--batch_size", "8"
    )
    tasks = [values["acc,none"] for name, values in scores.items() if name != "commonsense"]
    assert len(tasks) == 8
    assert scores["commonsense"]["acc,none"] == pytest.approx(sum(tasks) / 8)
