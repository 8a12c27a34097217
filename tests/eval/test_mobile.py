"""All builds of a model: each is held to the laws, asked and evaluated, and what is lacking is said."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from cobra.eval import mobile as mobile_module
from cobra.eval.compare_several import compare_several
from cobra.eval.mobile import Mobile
from cobra.export import write
from cobra.export.lacking import LACKING, LackingError
from cobra.export.manifest import Contents
from cobra.export.targets import TARGETS, Target
from cobra.pretrained import from_pretrained, save_pretrained
from tests.eval.test_evaluate import OWN, saved
from tests.export.gguf.exported import NO_LLAMA


@pytest.fixture
def builds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mobile:
    """With a target that is this project's own format, one that nothing runs, and one that is not here."""

    def copied(model: Path, quant: str, folder: Path) -> Contents:
        vlm, processor = from_pretrained(model)
        save_pretrained(vlm, processor.chat, folder)
        return Contents({"logits": 0.25, "image_tokens": 0.5})

    def lacking(model: Path, quant: str, folder: Path) -> Contents:
        raise LackingError("no runtime here: pip install it")

    writers = {"own:own": copied, "lacking:lacking": lacking}
    monkeypatch.setattr(write, "load", writers.__getitem__)
    made = {
        "own": Target(("fp32",), "own:own", {"cpu": "ours"}),
        "unrun": Target(("q1",), "own:own", {}),
        "lacking": Target(("q2",), "lacking:lacking", {"cpu": "ours"}),
    }
    # the laws themselves take seconds
    monkeypatch.setattr(mobile_module, "verify", verified)
    for name, target in made.items():
        monkeypatch.setitem(TARGETS, name, target)
    return Mobile(saved(tmp_path / "model", 0), tmp_path / "out", OWN, tmp_path, 4)


def verified(folder: Path, device: str, kept: bool = True) -> bool:
    print(f"the laws of {folder.name}")
    return kept


def answers(monkeypatch: pytest.MonkeyPatch, status: int, out: str, error: str) -> list[Sequence[str]]:
    """Lets each build answer so; the commands that ask."""
    asked: list[Sequence[str]] = []

    def run(command: Sequence[str], **options: object) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        return subprocess.CompletedProcess(command, status, out, error)

    monkeypatch.setattr(mobile_module.subprocess, "run", run)
    return asked


def test_each_build_has_a_line_and_what_is_lacking_a_reason(
    builds: Mobile, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = answers(monkeypatch, 0, "red |\n\nnot blue\n", "warning\nT_VE 0.1 s, peak RSS 9 MB\n")
    assert builds.write(["own", "unrun", "lacking"])
    (command,) = asked
    assert command[7:11] == ["export", "run", str(builds.out / "own-fp32"), "--image"]
    page = (builds.out / "README.md").read_text()
    assert "| own fp32, cpu | kept | red \\| not blue | T_VE 0.1 s, peak RSS 9 MB |" in page
    assert "- unrun q1: written, and run by nothing that is here" in page
    assert "- lacking q2: no runtime here: pip install it" in page
    assert "**own-words**" in page
    assert "| own fp32 | 0." in page
    assert "| 2.5e-01 | 5.0e-01 |" in page
    assert "| 0 of 4 |" in page
    assert (builds.out / "own-fp32-cpu-laws.txt").read_text() == "the laws of own-fp32\n"
    # on no device it is not asked, and once more in the same folder
    assert builds.write(["own"], ["vulkan"])
    assert len(asked) == 1
    assert builds.write(["own"])
    build = builds.out / "own-fp32"
    with pytest.raises(ValueError, match=r"own-fp32 is an export already"):
        Mobile(build, builds.out, OWN, builds.data, 4)


def test_two_exports_to_the_same_build_are_told_apart(
    builds: Mobile, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(monkeypatch, 0, "red", "")
    builds.write(["own"])
    model, own = builds.evaluated
    again = shutil.copytree(own, builds.out / "again")
    table = compare_several(model, [own, again], OWN)
    assert f"| own fp32 ({own}) | 0." in table
    assert f"| own fp32 ({again}) | 0." in table


@pytest.mark.parametrize("status", [1, 139])
def test_a_build_that_does_not_answer_is_a_failure(
    builds: Mobile, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    answers(monkeypatch, status, "", "cobra: cannot")
    assert not builds.write(["own"])
    assert "| own fp32, cpu | kept |  | cobra: cannot |" in (builds.out / "README.md").read_text()


def test_a_build_that_lacks_a_device_is_left_out(builds: Mobile, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, LACKING, "", "a warning\ncobra export: no GPU")
    assert builds.write(["own"])
    assert "- own fp32, cpu: cobra export: no GPU" in (builds.out / "README.md").read_text()


def test_a_build_that_breaks_a_law_is_a_failure_and_named(
    builds: Mobile, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers(monkeypatch, 0, "red", "")
    monkeypatch.setattr(mobile_module, "verify", lambda folder, device: verified(folder, device, False))
    assert not builds.write(["own"])
    said = capsys.readouterr().out.strip().splitlines()[-1]
    assert said == f"own fp32, cpu: breaks a law, see {builds.out / 'own-fp32-cpu-laws.txt'}"
    assert "| own fp32, cpu | **broken** | red |" in (builds.out / "README.md").read_text()


@pytest.mark.export
@pytest.mark.skipif(bool(NO_LLAMA), reason=NO_LLAMA or "is there")
def test_a_gguf_build_is_asked_in_a_process_of_its_own(tmp_path: Path) -> None:
    made = Mobile(saved(tmp_path / "model", 0), tmp_path / "out", OWN, tmp_path, 4)
    (run,) = [run for run in made.build("gguf", "f32") if "cpu" in run.name]
    assert run.laws == "kept"
    assert run.answer
    assert "peak RSS" in run.spent
