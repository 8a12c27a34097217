"""Every command of docs/training.md, in order, at a tiny size, in a folder laid out as the page says."""

import json
import math
import os
import re
import shutil
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file

from cobra.data.chat import Chat
from cobra.models.lm.transformer import TransformerLM
from cobra.models.projectors.mlp import MLPProjector
from cobra.models.vision.timm_encoder import TimmEncoder
from cobra.models.vlm import CobraVLM
from cobra.pretrained import from_pretrained, save_pretrained
from tests.convert import llava_keys, published_keys
from tests.convert.fakes import random
from tests.data.on_disk import picture, write_llava, write_tsv
from tests.test_cli import ROOT
from tests.test_configs import shrink

BLOCKS = re.findall(r"```sh\n(.*?)```", (ROOT / "docs/training.md").read_text(encoding="utf-8"), re.DOTALL)
TOKENIZER = ROOT / "cobra/data/shapes/tokenizer"
TOWER: dict[str, Any] = {"name": "test_vit.r160_in1k", "image_size": 64, "pretrained": False}
# what a CPU without a cluster has in the place of what the page names, one after the other
INSTEAD = [
    (r"torchrun (.*)", r"torchrun \1 --trainer.default_root_dir runs/nodes --overwrite"),
    (r"(srun .*)", r"\1 --trainer.default_root_dir runs/job"),
    (r"--nproc-per-node 8", "--nproc-per-node 1"),
    (r"HOST:29500", "127.0.0.1:PORT"),
    (r"--trainer.num_nodes 2 --trainer.devices 8", "--trainer.num_nodes 2 --trainer.devices 1"),
    (r"--trainer.devices 8", "--trainer.devices 2"),
    (r"(?m)^(torchrun .*)$", r"\1 & first=$!; \1; wait $first"),
    (r"(?m)^(cobra fit (?!.*--ckpt_path|.*--print_config).*)$", r"\1 --overwrite"),
    (r"batch_size \d+", "batch_size 1"),
    (r"accumulate_grad_batches \d+", "accumulate_grad_batches 2"),
    (r"--data.num_workers \d+", "--data.num_workers 1"),
    (r"every: 500", "every: 2"),
    (r"val_check_interval: 2000", "val_check_interval: 2"),
]
# where published identifiers stand for small models within a process: tests/convert/test_llava_adapters.py
ELSEWHERE = "cobra convert liuhaotian/"
SRUN = """#!{python}
import os, subprocess, sys
job = dict(SLURM_JOB_ID="7", SLURM_JOB_NAME="cobra", SLURM_NTASKS="2", SLURM_NTASKS_PER_NODE="1")
job |= dict(SLURM_NNODES="2", SLURM_NODELIST="127.0.0.1", SLURM_LOCALID="0", MASTER_ADDR="127.0.0.1")
job |= dict(os.environ, MASTER_PORT="{port}")
places = [dict(SLURM_PROCID=str(rank), SLURM_NODEID=str(rank)) for rank in range(2)]
tasks = [subprocess.Popen(sys.argv[1:], env=job | place) for place in places]
sys.exit(max(task.wait() for task in tasks))
"""


@pytest.mark.parametrize("script", ["slurm.sh", "torchrun.sh"])
def test_scripts_for_two_nodes_keep_the_published_batch(script: str) -> None:
    text = (ROOT / "docs" / script).read_text(encoding="utf-8")
    sizes = [
        re.search(rf"--{name} (\d+)", text)
        for name in ("trainer.num_nodes", "trainer.devices", "stages.0.batch_size")
    ]
    assert math.prod(int(size[1]) for size in sizes if size) == 128


def tiny(tree: Any) -> Any:
    """The yaml of a run at the sizes of a test, on a CPU; the names in it stay."""
    tree = shrink(tree)
    tree["trainer"] |= {"accelerator": "cpu", "devices": 1, "precision": "32-true"}
    tree["data"]["num_workers"] = 0
    tree["data"]["max_length"] = 256
    if "checkpoint_every" in tree:
        tree["checkpoint_every"] = 2
    for lora in tree["model"].get("adapters", {}).values():
        lora["r"] = 2
    for stage in tree["stages"]:
        stage["batch_size"] = 2
        if "steps" in stage:
            stage["steps"] = 2
    sources = [
        source for split in ("train", "val", "test") for source in tree["data"].get(split, {}).values()
    ]
    for source in sources:
        if "size" in source["init_args"]:
            source["init_args"]["size"] = 8
    towers = tree["model"]["model"]["init_args"]["vision"]
    for tower in towers["init_args"].get("encoders", [towers]):
        if tower["class_path"].endswith("TimmEncoder"):
            tower["init_args"] = TOWER
    return tree


def programs(folder: Path, ports: list[str]) -> None:
    """The commands that the page calls."""
    folder.mkdir()
    scripts = {
        "cobra": f'#!/bin/sh\nexec {sys.executable} -m cobra "$@"\n',
        "torchrun": f'#!/bin/sh\nexec {sys.executable} -m torch.distributed.run "$@"\n',
        "sbatch": '#!/bin/sh\nexec bash -e "$1"\n',
        "srun": SRUN.format(python=sys.executable, port=ports[1]),
    }
    for name, text in scripts.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)


def weights(root: Path) -> None:
    """Language models and tokenizers, in folders of the names that they have on the hub."""
    mamba, phi = root / "xiuyul/mamba-2.8b-zephyr", root / "microsoft/phi-2"
    for folder in (mamba, phi):
        folder.mkdir(parents=True)
    tied = {"lm_head.weight": "backbone.embedding.weight"}
    torch.save(random(published_keys.mamba("", 512, 32, 2), tied), mamba / "pytorch_model.bin")
    (mamba / "config.json").write_text(json.dumps({"d_model": 32, "n_layer": 2, "vocab_size": 512}))
    tensors = random(llava_keys.phi(512, 32, 48, 2))
    save_file(tensors, phi / "model.safetensors")
    said = {"model_type": "phi", "vocab_size": 512, "hidden_size": 32, "intermediate_size": 48}
    said |= {"num_hidden_layers": 2, "num_attention_heads": 2, "partial_rotary_factor": 0.4}
    (phi / "config.json").write_text(json.dumps(said))
    for name in ("EleutherAI/gpt-neox-20b", "MILVLG/Imp-v1.5-3B-Phi2"):
        shutil.copytree(TOKENIZER, root / name)
    options = {"num_attention_heads": 2, "intermediate_size": 48, "partial_rotary_factor": 0.4}
    lm = partial(TransformerLM, 512, 32, 2, model_type="phi", options=options)
    model = CobraVLM(partial(TimmEncoder, **TOWER), MLPProjector, lm)
    model.lm.load_state_dict({**model.lm.state_dict(), **_as_ours(model, tensors)})
    save_pretrained(model, Chat(str(TOKENIZER)), root / "models/base")


def _as_ours(model: CobraVLM, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    names = {name: next(key for key in model.lm.state_dict() if key.endswith(name)) for name in tensors}
    return {names[name]: tensor for name, tensor in tensors.items()}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """What the page's first table lists, and the configs in miniature."""
    for name in ("cobra_2.8b", "imp_3b", "cobra_tiny"):
        tree = yaml.safe_load((ROOT / f"configs/{name}.yaml").read_text(encoding="utf-8"))
        if name == "imp_3b":
            # timm's would be fetched again to merge the adapter
            tree["model"]["weights"]["vision"] = "models/base"
        (tmp_path / "configs").mkdir(exist_ok=True)
        (tmp_path / f"configs/{name}.yaml").write_text(yaml.safe_dump(tiny(tree), sort_keys=False))
    chats = tmp_path / "download/llava-v1.5-instruct"
    for name in ("llava_v1_5_lvis4v_lrv_mix1231k.json", "llava_v1_5_mix665k.json"):
        write_llava(chats / name, chats)
    captions = tmp_path / "download/llava-laion-cc-sbu-558k"
    write_llava(captions / "chat.json", captions, text_only=False)
    write_tsv(tmp_path / "download/MMBench_DEV_EN.tsv")
    for name in ("a", "b"):
        write_llava(tmp_path / f"{name}.json", tmp_path / "pictures")
    (tmp_path / "picture.jpg").write_bytes(picture(0))
    weights(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_command_of_the_page_runs_in_its_order(root: Path) -> None:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    ports = [str(free.getsockname()[1]) for free in sockets]
    for free in sockets:
        free.close()
    programs(root / "bin", ports)
    environment = {**os.environ, "PATH": f"{root / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    environment |= {"COBRA_CACHE": str(root / "cache"), "OMP_NUM_THREADS": "1", "HF_HOME": str(root / "hub")}
    elsewhere = 0
    for block in BLOCKS:
        lines = block.splitlines(keepends=True)
        elsewhere += sum(line.startswith(ELSEWHERE) for line in lines)
        script = "".join(line for line in lines if not line.startswith(ELSEWHERE))
        script = re.sub(r" +#(?!SBATCH).*", "", script)
        for pattern, value in INSTEAD:
            script = re.sub(pattern, value, script)
        script = script.replace("PORT", ports[0])
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script], cwd=root, env=environment, text=True,
            capture_output=True, timeout=600,
        )  # fmt: skip
        assert done.returncode == 0, f"{script}\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
    assert elsewhere == 1
    for name in ("cobra_2.8b", "imp_3b", "nodes", "job"):
        model, _ = from_pretrained(root / f"runs/{name}/model")
        assert all(p.isfinite().all() for p in model.parameters())
    assert (root / "models/cobra_hf/config.json").is_file()
