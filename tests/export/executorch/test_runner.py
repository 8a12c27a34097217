"""What ExecuTorch's runtime is given."""

import json
import logging
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest

from cobra.export.engines.executorch import ExecuTorchEngine
from cobra.export.executorch import runner
from cobra.export.executorch.quiet import quiet
from cobra.export.executorch.runner import Runner, Settings
from cobra.export.manifest import MANIFEST, Contents, write_manifest


def test_a_program_that_was_cut_is_named_before_it_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "model.pte").write_bytes(bytes(100))
    write_manifest(tmp_path, "executorch-cpu", "fp32", "model", Contents())
    (tmp_path / "model.pte").write_bytes(bytes(50))
    with pytest.raises(ValueError, match=r"model\.pte has 50 bytes, not the 100 that were written"):
        ExecuTorchEngine(tmp_path)


@pytest.mark.parametrize(
    ("quant", "message"), [("fp32", "of model has pixels None"), ("q9", "is in quant 'q9', not one of fp32")]
)
def test_what_a_manifest_does_not_say_is_named(quant: str, message: str, tmp_path: Path) -> None:
    write_manifest(tmp_path, "executorch-cpu", quant, "model", Contents())
    assert json.loads((tmp_path / MANIFEST).read_text())["files"] == {}
    with pytest.raises(ValueError, match=message):
        ExecuTorchEngine(tmp_path)


def test_a_program_that_cannot_be_loaded_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(path: str) -> object:
        raise RuntimeError("loading program failed with error 0x23")

    monkeypatch.setattr(runner, "runtime", lambda: SimpleNamespace(_load_for_executorch=load))
    with pytest.raises(ValueError, match=r"cannot load .*model\.pte \(loading program failed .*: export the"):
        Runner(tmp_path / "model.pte", Settings(4, 4, 4, 4, False, []))


def test_a_program_that_cannot_be_run_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run_method(name: str, inputs: object) -> object:
        raise RuntimeError("Failed to get method_meta for step, error: 0x23")

    module = SimpleNamespace(run_method=run_method)
    monkeypatch.setattr(runner, "runtime", lambda: SimpleNamespace(_load_for_executorch=lambda path: module))
    opened = Runner(tmp_path / "model.pte", Settings(4, 4, 4, 4, False, []))
    with pytest.raises(
        ValueError, match=r"cannot run step of .*model\.pte \(Failed .*0x23\): see `cobra exp"
    ):
        opened.step(1)


def test_at_work_details_are_kept_back_and_warnings_are_not(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), warnings.catch_warnings(record=True) as warned, quiet():
        logging.info("a detail")
        logging.warning("seen")
        warnings.warn("will be dropped", FutureWarning, stacklevel=1)
        warnings.warn("seen", stacklevel=1)
    assert caplog.messages == [str(each.message) for each in warned] == ["seen"]
