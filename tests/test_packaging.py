"""Every module imports on its own, and the wheel holds what the package needs."""

import os
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in (ROOT / "cobra").rglob("*.py")
    if path.name != "__main__.py"
)
# each is imported by the program that it plugs into
PLUG_INS = {
    "cobra.eval.harness.lmms": "lmms_eval",
    "cobra.eval.harness.lm_eval": "lm_eval",
    "cobra.eval.harness.vlmevalkit": "vlmeval",
}

# torch is imported once, and every module in a fork of that process: fresh, and 2 seconds less each
_IMPORT_APART = """
import os, sys, importlib, torch
running = {}
def end_one():
    pid, status = os.wait()
    if status:
        print(f"{running[pid]}: crashes")
    del running[pid]
for name in sys.argv[1:]:
    if len(running) == os.cpu_count():
        end_one()
    pid = os.fork()
    if pid == 0:
        try:
            importlib.import_module(name)
        except BaseException as error:
            print(f"{name}: {type(error).__name__}: {error}")
        sys.stdout.flush()
        os._exit(0)
    running[pid] = name
while running:
    end_one()
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_module_imports_alone_in_a_fresh_process() -> None:
    modules = [name for name in MODULES if name not in PLUG_INS or find_spec(PLUG_INS[name])]
    command = [sys.executable, "-c", _IMPORT_APART, *modules]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=880)
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""


def test_the_folders_at_the_root_are_links_and_no_packages() -> None:
    for name in ("models", "kernels", "eval", "export"):
        link = ROOT / name
        assert link.is_symlink()
        assert os.readlink(link) == f"cobra/{name}"
        assert not (link / "__init__.py").exists(), "it would shadow other packages of that name"


@pytest.mark.slow
def test_the_wheel_holds_the_package_with_its_data_and_nothing_else(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, timeout=280)
    (wheel,) = tmp_path.glob("cobra_vlm-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    tracked = subprocess.run(
        ["git", "ls-files", "cobra"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    # the C++ sources are built into a library
    sources = {name for name in tracked.stdout.split() if "/csrc/" in name}
    assert set(tracked.stdout.split()) - sources <= names
    assert sources.isdisjoint(names)
    assert {name.split("/")[0].split("-")[0] for name in names} == {"cobra", "cobra_vlm"}

    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    # an editable install's finder would come before PYTHONPATH
    code = (
        "import sys; sys.meta_path[:] = [f for f in sys.meta_path if 'ScikitBuild' not in type(f).__name__]\n"
    )
    code += (
        "import cobra.data.chat as chat; print(len(chat.Chat('cobra:data/shapes/tokenizer')), chat.__file__)"
    )
    run = [sys.executable, "-c", code]
    result = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100)
    assert result.stdout.split()[1:] == [str(tmp_path / "site/cobra/data/chat.py")], result.stderr
