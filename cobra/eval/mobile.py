"""`cobra eval mobile`: every mobile build of a model, verified, asked, evaluated, and told of in one page."""

import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

from cobra.config.shown_text import harmless
from cobra.data.image import load_rgb
from cobra.eval.compare_several import compare_several
from cobra.eval.evaluate import evaluate
from cobra.eval.evaluated import is_export
from cobra.eval.evaluation_folder import RUN
from cobra.eval.opening import Settings
from cobra.eval.protocols.protocol import read_protocol
from cobra.eval.tasks import read_tasks
from cobra.export.lacking import LACKING, LackingError
from cobra.export.manifest import BLIND, read_manifest
from cobra.export.targets import DEVICES, TARGETS
from cobra.export.verify import verify
from cobra.export.write import check_place, export_model

PAGE = "README.md"
_KEPT, _BROKEN = "kept", "**broken**"
_PROTOCOL = "llava"
# longest answer about the picture
_WORDS = 16


@dataclass(frozen=True)
class Run:
    """A line about a build on a device.

    Attributes:
        name: of both.
        laws: what its engine made of the laws of state.
        answer: to the question; empty where it was not asked.
        spent: how long that took.
        skipped: why it was left out.
        failed: why it counts as broken; empty where it does not.
    """

    name: str
    laws: str = ""
    answer: str = ""
    spent: str = ""
    skipped: str = ""
    failed: str = ""


@dataclass
class Mobile:
    """All builds of a model.

    Args:
        model: folder.
        out: for exports, their evaluations and the page.
        benchmark: that they are evaluated on; its first picture is the one that each is asked about.
        data: folder of all benchmarks.
        limit: questions of the benchmark; None: all.

    Raises:
        ValueError: where the model is an export already, or the benchmark shows no picture.
    """

    model: Path
    out: Path
    benchmark: str
    data: Path
    limit: int | None
    picture: Path = field(init=False)
    prompt: str = field(init=False)
    truth: str = field(init=False)
    # of evaluations, the model's first
    evaluated: list[Path] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        if is_export(str(self.model)):
            raise ValueError(f"{self.model} is an export already: name the model that it was made of")
        (task,) = read_tasks([self.benchmark], [read_protocol(_PROTOCOL)], self.data, self.limit, False)
        question = next((question for question in task.questions if question.images), None)
        if question is None:
            raise ValueError(f"--benchmark {self.benchmark} shows no picture: name one that does")
        self.prompt, self.truth = task.asks[0].render(question.fields), " / ".join(question.answers)
        self.picture = self.out / "picture.png"
        self.out.mkdir(parents=True, exist_ok=True)
        load_rgb(question.images[0]).save(self.picture)

    def write(self, targets: Sequence[str], devices: Sequence[str] = DEVICES) -> bool:
        """Whether there is a build of one of the targets, and all keep the laws and answer; writes the page.

        Args:
            targets: of `cobra.export.targets.TARGETS`.
            devices: that builds are asked on, of those that their targets have.

        Raises:
            ValueError: where something else is in a build's place.
        """
        for place in (self._place(target, quant) for target in targets for quant in TARGETS[target].quants):
            check_place(place)
        self.evaluated.clear()
        self._evaluate(self.model, "model")
        runs = [run for t in targets for quant in TARGETS[t].quants for run in self.build(t, quant, devices)]
        first, *others = self.evaluated
        lost = compare_several(first, others, self.benchmark) if others else ""
        page = "".join(_page(self, runs))
        (self.out / PAGE).write_text(page + lost, encoding="utf-8")
        print(harmless(page, sys.stdout) + f"{self.out / PAGE}: {len(runs)} lines")
        failed = [f"{run.name}: {run.failed}" for run in runs if run.failed]
        for line in failed:
            print(harmless(line, sys.stdout))
        return len(self.evaluated) > 1 and not failed

    def build(self, target: str, quant: str, devices: Sequence[str] = DEVICES) -> Iterator[Run]:
        """A build, on each of the devices that its target has; it is evaluated last."""
        name, folder = f"{target} {quant}", self._place(target, quant)
        try:
            export_model(self.model, target, quant, folder)
        # what this machine, or this model, has not for it
        except (LackingError, ValueError) as error:
            yield Run(name, skipped=" ".join(str(error).split()))
            return
        engines = TARGETS[target].engines
        if not engines:
            yield Run(name, skipped="written, and run by nothing that is here")
            return
        missing = read_manifest(folder).contents.missing
        if blind := next((text for text in missing if text.startswith(BLIND)), ""):
            laws, broken = self._laws(folder)
            yield Run(name, skipped=f"laws of state {laws}; {blind}", failed=broken)
            return
        for device in (device for device in devices if device in engines):
            yield self._ask(name, folder, device)
        try:
            self._evaluate(folder, folder.name)
        except (ValueError, OSError) as error:
            why = " ".join(str(error).split())
            yield Run(f"{name}, evaluated", spent=why, failed=why)

    def _place(self, target: str, quant: str) -> Path:
        return self.out / f"{target}-{quant}"

    def _evaluate(self, model: Path, name: str) -> None:
        to = self.out / "eval" / name
        # builds are written anew, and their answers are given anew
        if (to / RUN).is_file():
            shutil.rmtree(to)
        what = (str(model), [self.benchmark], [_PROTOCOL], self.data, to)
        evaluate(*what, settings=Settings(), limit=self.limit)
        self.evaluated.append(to)

    def _ask(self, name: str, folder: Path, device: str) -> Run:
        """What a build says of the picture, in a process of its own, whose memory is then the build's."""
        words = ["export", "run", str(folder), "--image", str(self.picture), "--prompt", self.prompt]
        words += ["--max-new-tokens", str(_WORDS), *(["--device", device] if device != "cpu" else [])]
        # not at once from this process, whose memory would be counted as the build's
        command = ["sh", "-c", '"$@"; exit $?', "sh", sys.executable, "-m", "cobra", *words]
        done = subprocess.run(command, capture_output=True, text=True)
        said = done.stderr.strip().splitlines() or [""]
        if done.returncode == LACKING:
            return Run(f"{name}, {device}", skipped=said[-1])
        # which take a GPU in software a minute
        laws, broken = self._laws(folder, device)
        if done.returncode:
            why = said[-1] or f"status {done.returncode}"
            return Run(f"{name}, {device}", laws, spent=why, failed=why)
        spent = next((line for line in reversed(said) if line.startswith("T_VE")), "")
        return Run(f"{name}, {device}", laws, done.stdout.strip(), spent, failed=broken)

    def _laws(self, folder: Path, device: str = DEVICES[0]) -> tuple[str, str]:
        """What the page says of them, and why the build counts as broken, where it does."""
        report = self.out / f"{folder.name}-{device}-laws.txt"
        with report.open("w", encoding="utf-8") as file, redirect_stdout(file):
            if verify(folder, device):
                return _KEPT, ""
        return _BROKEN, f"breaks a law, see {report}"


def _page(mobile: Mobile, runs: Sequence[Run]) -> Iterator[str]:
    yield f"# Mobile builds of {mobile.model}\n\nWhat each build says of `picture.png`, and what it loses of "
    yield "the model's accuracy. `-laws.txt` beside a build is what `cobra export verify` printed of it.\n\n"
    yield f"{mobile.prompt} (true: {mobile.truth})\n\n"
    yield "| build | laws of state | answer | spent |\n|---|---|---|---|\n"
    for run in runs:
        if not run.skipped:
            yield f"| {run.name} | {run.laws} | {_cell(run.answer)} | {_cell(run.spent)} |\n"
    if skipped := [f"- {run.name}: {run.skipped}\n" for run in runs if run.skipped]:
        yield "\nLeft out:\n\n"
        yield from skipped
    yield "\nSizes are without oracle.npz; logits and image tokens are relative RMS, of the manifest's "
    yield "parity.\n\n"


def _cell(text: str) -> str:
    """What a build says, which may be of several lines, within a table."""
    return " ".join(text.split()).replace("|", "\\|")
