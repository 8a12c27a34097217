"""The tiny model on the road of the large recipes: from files, full, packed and by LoRA, beside the demo."""

from dataclasses import dataclass, field
from pathlib import Path

import yaml
from rich.console import Console

from cobra.eval.precision import fastest_precision
from cobra.eval.rehearsal_report import DEMO, Outcome, report
from cobra.eval.training_run import Run, run_cobra

_HOME = "runs/rehearsal"


@dataclass
class Way:
    """A way to train on the files.

    Attributes:
        name: of its folder and in the table.
        configs: files in the folder of configs.
        merges: whether its result is an adapter, which is merged before it is examined.
    """

    name: str
    configs: tuple[str, ...]
    merges: bool = False


# Share of the demo's last stage behind which its tower and language model are the base of all ways: they have
# learned what questions are, and to answer some. From before it AdamW does not learn relations in time.
_PRETRAINED = 0.6

WAYS = (
    Way("full", ("rehearsal_cobra.yaml",)),
    Way("packed", ("rehearsal_cobra.yaml", "variants/rehearsal_cobra/packed.yaml")),
    Way("lora", ("rehearsal_imp.yaml",), merges=True),
)


@dataclass
class Rehearsal:
    """Where things are and what is rehearsed.

    Attributes:
        configs: folder of the yamls.
        out: folder for all that is written; what is finished there is not repeated.
        smoke: seconds for each training, no judgement of its result.
        precision: of training; None is what the yamls say.
    """

    configs: Path
    out: Path
    smoke: bool = False
    precision: str | None = None
    scenes: int = field(init=False)

    def __post_init__(self) -> None:
        self.scenes = 400 if self.smoke else 20000

    def seed(self, seed: int) -> list[Outcome]:
        """Train and examine all ways of one seed."""
        folder = self.out / f"seed-{seed}"
        demo = self._demo(folder, seed)
        outcomes = [Outcome.of(DEMO, seed, demo)]
        questions = [self.configs / "presets" / "shapes_questions.yaml"]
        questions += [self.configs / "presets" / "rehearsal_smoke.yaml"] if self.smoke else []
        for way in WAYS:
            configs = [self._config(name, folder) for name in way.configs]
            data = folder / f"data-{way.name}.json"
            if not data.is_file():
                named = (word for path in configs for word in ("-c", str(path)))
                run_cobra("data", "check", *named, "--json", str(data))
            run = Run([*configs, *questions], folder / way.name, seed, precision=self.precision)
            run.train()
            self._examine(run, way.merges)
            outcomes.append(Outcome.of(way.name, seed, run, data))
        return outcomes

    def _demo(self, folder: Path, seed: int) -> Run:
        """The demo, from pictures in memory; in the midst of its last stage it is the base of all ways."""
        configs = [self.configs / "cobra_tiny.yaml"]
        configs += [self.configs / "presets" / "smoke.yaml"] if self.smoke else []
        run = Run(configs, folder / "embedded", seed, precision=self.precision)
        base = folder / "base"
        if not (base / "config.json").is_file():
            if (run.folder / "model").is_dir():
                raise ValueError(
                    f"{base} is gone, and the run that it was a part of has ended: remove {folder}"
                )
            stages = yaml.safe_load(configs[-1].read_text(encoding="utf-8"))["stages"]
            *before, last = (stage["steps"] for stage in stages)
            run.train(until=sum(before) + int(_PRETRAINED * last))
            run_cobra("convert", str(run.checkpoint), str(base))
        run.train()
        self._examine(run)
        return run

    def _examine(self, run: Run, merges: bool = False) -> None:
        if (run.folder / "predictions-composition.jsonl").is_file():
            return
        if not merges:
            run.test()
            return
        merged = run.folder / "merged"
        if not (merged / "config.json").is_file():
            run_cobra("merge", str(run.folder / "adapter"), str(merged))
        run.test(merged)

    def _config(self, name: str, folder: Path) -> Path:
        """A config with the folders of a seed."""
        text = (self.configs / name).read_text(encoding="utf-8")
        folder.mkdir(parents=True, exist_ok=True)
        for here, there in ((f"{_HOME}/seed-0", folder), (f"{_HOME}/shapes", self.out / "shapes")):
            text = text.replace(here, str(there))
        path = folder / Path(name).name
        path.write_text(text, encoding="utf-8")
        return path


def rehearse(configs: Path, out: Path, seeds: list[int], smoke: bool, precision: str | None) -> None:
    """Rehearse with each seed, and write rehearsal.md, .json and .png under `out`.

    Raises:
        ValueError: where there are no such configs; where a way is more than two points below the demo, and
            this is no smoke.
    """
    if not (configs / "cobra_tiny.yaml").is_file():
        raise ValueError(f"{str(configs)!r} is no folder of this project's configs: name it with --configs")
    if precision == "auto":
        # what was begun in one precision is not finished in another
        precision = Run.precision_of(out / f"seed-{seeds[0]}" / "embedded") or fastest_precision()
    rehearsal = Rehearsal(configs, out, smoke, precision)
    run_cobra("data", "shapes", "--out", str(out / "shapes"), "--size", str(rehearsal.scenes))
    outcomes = []
    for seed in seeds:
        Console().rule(f"seed {seed}")
        outcomes += rehearsal.seed(seed)
    report(outcomes, out, judges=not smoke)
