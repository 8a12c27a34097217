"""What runs on devices, on a machine without them: by rule, by `cobra kernels` and by docs/kernels.md."""

import re
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from cobra.kernels import cpu, dispatch, hub, mamba_ssm, triton
from cobra.kernels.dispatch import BACKENDS, OPS, accepting, refusal, use_backend
from cobra.kernels.show import print_kernels
from tests.kernels import upstream

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/kernels.md"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "fp64": torch.float64}
BY_NAME = {backend.name: backend for backend in BACKENDS}
needs_triton = pytest.mark.skipif(triton.unavailable() is not None, reason=str(triton.unavailable()))


@pytest.fixture(autouse=True)
def undecided(monkeypatch: pytest.MonkeyPatch) -> None:
    """No backend is asked for, and what was found before is forgotten."""
    monkeypatch.setattr(dispatch, "_candidates_of", {})
    monkeypatch.setattr(dispatch, "_asked", None)


def table() -> list[tuple[str, str, str]]:
    """The device, dtype and backend of each cell of the page's first table."""
    text = PAGE.read_text()
    lines = text[text.index("| device |") :].split("\n\n")[0].splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if not line.startswith("|--")]
    return [
        (row[0], dtype, cell) for row in rows[1:] for dtype, cell in zip(rows[0][1:], row[1:], strict=True)
    ]


@needs_triton
@pytest.mark.skipif(cpu.unavailable() is not None, reason=str(cpu.unavailable()))
@pytest.mark.parametrize(("device", "dtype", "backend"), table())
def test_the_page_says_what_runs(device: str, dtype: str, backend: str) -> None:
    for op in OPS:
        if backend == "triton" and BY_NAME["triton"].find(op) is None:
            continue
        first = accepting(op, torch.device(device), DTYPES[dtype])[0]
        assert first.name == backend, op


def test_the_page_has_all_devices_and_dtypes() -> None:
    devices = ("cpu", "cuda", "xpu", "mps")
    assert [(device, dtype) for device, dtype, _ in table()] == [(d, t) for d in devices for t in DTYPES]


def test_the_readme_says_what_the_page_says() -> None:
    runs = {(device, dtype): backend for device, dtype, backend in table()}
    rows = re.findall(
        r"^\| .*\(`(\w+)`.*\) \| (\w+)(?:; (\w+) in fp64)? \|", (ROOT / "README.md").read_text(), re.M
    )
    # one of two vendors names the device of both in front of its own
    assert [device for device, *_ in rows] == ["cuda", "xpu", "mps"]
    for device, backend, in_fp64 in rows:
        assert runs[device, "bf16"] == backend
        assert runs[device, "fp64"] == (in_fp64 or backend)


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Both of upstream's packages are there; the names of those that were loaded."""
    loaded: list[str] = []

    def backend(name: str) -> dispatch.Backend:
        def load() -> mamba_ssm.Upstream:
            loaded.append(name)
            return upstream.UPSTREAM

        return dispatch.adapters(name, lambda: None, load)

    changed = [backend(b.name) if b.name in ("mamba_ssm", "hub") else b for b in BACKENDS]
    monkeypatch.setattr(dispatch, "BACKENDS", tuple(changed))
    return loaded


@needs_triton
def test_packages_run_only_if_they_are_asked_for_by_name(packages: list[str]) -> None:
    cuda = torch.device("cuda")
    names = [backend.name for backend in accepting("rms_norm", cuda, torch.bfloat16)]
    assert names == ["triton", "torch", "reference"]
    asked_for = {refusal(b, "rms_norm", cuda, torch.bfloat16) for b in dispatch.BACKENDS[2:4]}
    assert asked_for == {
        f"is not taken on cuda by itself: COBRA_BACKEND={name} asks for it" for name in ("mamba_ssm", "hub")
    }
    assert not packages
    with use_backend("hub,triton"):
        names = [backend.name for backend in accepting("rms_norm", cuda, torch.bfloat16)]
        assert names == ["hub", "triton"]
        assert accepting("silu_mul", cuda, torch.bfloat16) in ([], [BY_NAME["triton"]])
    assert set(packages) == {"hub"}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("mamba_ssm", "cannot be imported .*undefined symbol"),
        ("hub", "has no kernels-community/mamba-ssm for this machine .*offline"),
    ],
)
def test_a_package_that_cannot_be_loaded_is_refused_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, name: str, reason: str
) -> None:
    module = {"mamba_ssm": mamba_ssm, "hub": hub}[name]
    failing = ModuleType("failing")

    def get_kernel(*_: Any, **__: Any) -> None:
        raise ValueError(
            "Version 5 is not available in the local cache and the hub is in offline mode.\nMore"
        )

    def fail(attribute: str) -> None:
        raise ImportError("selective_scan_cuda.so: undefined symbol: _ZN3c104cuda9SetDeviceEa\nand more")

    failing.__dict__.update({"get_kernel": get_kernel} if name == "hub" else {"__getattr__": fail})
    for part in mamba_ssm.MODULES.values() if name == "mamba_ssm" else ("kernels",):
        monkeypatch.setitem(sys.modules, part, failing)
    load = module.load.__wrapped__
    broken = dispatch.adapters(name, lambda: None, load)
    monkeypatch.setattr(dispatch, "BACKENDS", (broken, BY_NAME["reference"]))
    with use_backend(name):
        said = refusal(broken, "rms_norm", torch.device("cuda"), torch.float32)
    assert said is not None
    assert re.search(reason, said)
    assert "\n" not in said
    assert ("pip install" if name == "mamba_ssm" else "COBRA_BACKEND=triton") in said


def test_the_hubs_package_has_the_functions_at_its_own_places(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    def get_kernel(repository: str, *, version: int) -> SimpleNamespace:
        asked.append((repository, version))
        return SimpleNamespace(__name__="mamba_ssm_0a1b2c3d")

    monkeypatch.setitem(sys.modules, "kernels", SimpleNamespace(get_kernel=get_kernel))
    # as huggingface/kernels-community lays them out
    for name, module in mamba_ssm.MODULES.items():
        inside = module.removeprefix("mamba_ssm.").replace("causal_conv1d.", "_causal_conv1d.", 1)
        place = f"mamba_ssm_0a1b2c3d.{inside}"
        known = sys.modules.get(place, ModuleType(place))
        setattr(known, name, name)
        monkeypatch.setitem(sys.modules, place, known)
    assert hub.load.__wrapped__() == ({name: name for name in mamba_ssm.MODULES}, None)
    assert asked == [("kernels-community/mamba-ssm", 5)]


@needs_triton
def test_the_command_shows_a_row_an_op_and_why_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(
        dispatch,
        "BACKENDS",
        tuple(
            replace(b, unavailable=lambda: "pip install 'cobra-vlm[hub]'") if b.name == "hub" else b
            for b in BACKENDS
        ),
    )
    print_kernels("xpu", "float32")
    wide = capsys.readouterr().out
    assert len(re.findall(r"^│ \w+", wide, re.MULTILINE)) == len(OPS)
    assert re.search(r"│ rms_norm +│ triton +│ torch, reference", wide)
    assert wide.startswith("kernels on xpu in float32; no xpu device is here: what would run")
    assert re.search(r"^cpu +runs on cpu, not on xpu$", wide, re.MULTILINE)
    print_kernels("cuda", "float32")
    assert re.search(r"^hub +pip install 'cobra-vlm\[hub\]' *$", capsys.readouterr().out, re.MULTILINE)
    monkeypatch.setenv("COLUMNS", "80")
    print_kernels("cpu", "float32")
    narrow = capsys.readouterr().out
    assert max(map(len, narrow.splitlines())) <= 80
    assert len(narrow.splitlines()) < 2 * len(OPS) + 10
