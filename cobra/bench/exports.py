"""Mobile builds of subjects with random weights: made once, kept in the cache."""

import json
from hashlib import sha256
from pathlib import Path

import cobra
from cobra.bench.runtimes import BUILDS, EXECUTORCH, GGUF
from cobra.bench.subjects import Subject
from cobra.config.build import build_on_meta
from cobra.config.config_json import CONFIG, read_config
from cobra.config.package_versions import package_versions
from cobra.data.cache_folder import cache_folder
from cobra.export.gguf.llama import VERSION
from cobra.export.manifest import Contents, read_manifest, write_manifest
from cobra.export.targets import load
from cobra.models.component import Component
from cobra.weights.saving import put, saving

# what writes one: called with (class_path tree, quant, folder to fill)
_WRITERS = {
    GGUF: "cobra.bench.random_gguf:write_random_gguf",
    EXECUTORCH: "cobra.bench.random_programs:write_random_programs",
}


def exported(subject: Subject, runtime: str, quant: str) -> Path:
    """The folder of a subject's build, of the whole model where it has one.

    It lies in `exports` of $COBRA_CACHE (~/.cache/cobra), named after the model, the quant and the versions,
    and nothing removes it.

    Raises:
        LackingError: where llama.cpp is missing.
        OSError: where the disk is full.
        ValueError: where ExecuTorch is missing, or the runtime cannot express the model, saying which part.
    """
    tree, target = subject.vlm or subject.lm, BUILDS[runtime]
    versions = {GGUF: VERSION, EXECUTORCH: package_versions(("executorch", "torchao"))}[runtime]
    said = json.dumps([tree, target, quant, cobra.__version__, versions], sort_keys=True, default=str)
    name = f"{subject.name.replace('/', '-')}-{quant}-{sha256(said.encode()).hexdigest()[:12]}"
    folder = cache_folder("exports") / name
    if not _is_readable(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with saving(folder.parent) as new:
            contents: Contents = load(_WRITERS[runtime])(tree, quant, new)
            write_manifest(new, target, quant, subject.name, contents)
            put(new, folder)
    return folder


def _is_readable(folder: Path) -> bool:
    """Whether a build is there, of a manifest that this version reads."""
    try:
        read_manifest(folder)
    except (OSError, ValueError):
        return False
    return True


def size_of(folder: Path, *names: str) -> int:
    """Bytes of these files of a build, where they are; of all of it when none is named."""
    files = [folder / name for name in names] if names else list(folder.rglob("*"))
    return sum(file.stat().st_size for file in files if file.is_file())


def described(folder: Path) -> Component:
    """The model of a build, or its language model alone, on the meta device."""
    return build_on_meta(read_config(folder / CONFIG)["model"])
