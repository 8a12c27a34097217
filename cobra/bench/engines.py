"""Models in the engines and settings that were asked for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cobra.bench.exports import exported
from cobra.bench.runtimes import BUILDS, EXECUTORCH, GGUF, OURS, TRANSFORMERS, chosen_quants
from cobra.bench.subjects import Subject
from cobra.bench.timing.sample import Measurement, Runner
from cobra.config.build import build_on_meta

# cases of whole models, which see a picture
SEEING = ("e2e", "train")
_CASES = {
    OURS: "cobra.bench.torch_cases",
    TRANSFORMERS: "cobra.bench.transformers_cases",
    GGUF: "cobra.bench.gguf_cases",
    EXECUTORCH: "cobra.bench.executorch_cases",
}
# transformers, and transformers' architectures in llama.cpp, run twice: the faster one is the honest baseline
_MODES: dict[str, dict[str, dict[str, Any]]] = {
    TRANSFORMERS: {"eager": {"mode": "eager"}, "compiled": {"mode": "compiled"}},
    GGUF: {"": {"flash": False}, "flash attention": {"flash": True}},
}


@dataclass(frozen=True)
class Settings:
    """How models run.

    Attributes:
        quantizations: of the language model's weights; each is measured in the runtimes that know it. Where
            none is named, a runtime takes the first that it knows.
        dtype: of activations, and of all weights that are not quantized.
        device: cpu or cuda.
        runtimes: engines.
        threads: of each process.
        read_mebibytes: how much is read to measure the bandwidth.
        state_dtypes: fp32, bf16: of a recurrent state in our engine; each is measured.
    """

    quantizations: Sequence[str] = ()
    dtype: str = "bfloat16"
    device: str = "cpu"
    runtimes: Sequence[str] = (OURS,)
    threads: int = 1
    read_mebibytes: int = 1280
    state_dtypes: Sequence[str] = ("fp32",)


@dataclass(frozen=True)
class Point:
    """What every engine is measured at.

    Attributes:
        case: e2e, decode, prefill or train.
        length: tokens before the first that is timed; of a prompt, its tokens.
        arguments: of the case.
    """

    case: str
    length: int
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class Engine:
    """A model in one engine with one setting.

    Attributes:
        subject: the model.
        runtime: torch, transformers, gguf or executorch.
        precision: of its language model's weights, for the report.
        mode: of the runtime, and of the state where it is narrowed, for the report.
        arguments: of every case on it.
        missing: why it cannot run here; empty if it can.
    """

    subject: Subject
    runtime: str
    precision: str
    mode: str
    arguments: dict[str, Any]
    missing: str = ""

    @property
    def label(self) -> str:
        """What it is called in plots."""
        runtime = "" if self.runtime == OURS else self.runtime
        how = " ".join(filter(None, (runtime, self.mode)))
        return ", ".join(filter(None, (self.subject.name, self.precision, how)))

    @property
    def entry(self) -> dict[str, Any]:
        """What a report says of it."""
        named = {"runtime": self.runtime, "mode": self.mode, "precision": self.precision}
        return {"label": self.label, "model": self.subject.name, **named}

    @property
    def runner(self) -> Runner:
        """Its process."""
        return Runner(self.label, _CASES[self.runtime])

    def measurement(self, point: Point, batch: int) -> Measurement:
        """It at a point, among the engines of a batch."""
        tree: dict[str, Any] = {"lm": self.subject.lm}
        if point.case in SEEING:
            tree = {"vlm": self.subject.vlm}
        if self.runtime in BUILDS:
            tree = {}
        entry = {**self.entry, "length": point.length, "batch": batch}
        return Measurement(self.runner, point.case, {**tree, **self.arguments, **point.arguments}, entry)


def engines(subjects: Sequence[Subject], settings: Settings) -> list[Engine]:
    """Every model in every engine that was asked for; mobile builds are not made yet.

    Raises:
        ValueError: as `chosen_quants`.
    """
    quants = chosen_quants(settings.runtimes, settings.quantizations)
    return [
        engine
        for subject in subjects
        for runtime in settings.runtimes
        for engine in _ways(subject, runtime, quants[runtime], settings)
    ]


def with_build(engine: Engine) -> Engine:
    """An engine that runs a mobile build, with its folder, or why there is none; another engine as it is."""
    if engine.runtime not in BUILDS:
        return engine
    try:
        folder = exported(engine.subject, engine.runtime, engine.precision)
    except OSError:
        raise
    # an exporter fails in ways of its own, and other engines are to be measured all the same
    except Exception as reason:
        return replace(engine, missing=" ".join(str(reason).split()))
    return replace(engine, arguments={**engine.arguments, "folder": str(folder)})


def _ways(subject: Subject, runtime: str, quants: Sequence[str], settings: Settings) -> list[Engine]:
    common = {"dtype": settings.dtype, "device": settings.device}
    plain = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}[settings.dtype]
    if runtime == OURS:
        # bf16 of our kernels is not that of torch
        names = {"none": plain, "bf16": "packed bf16"}
        return [
            Engine(
                subject,
                OURS,
                names.get(name, name),
                "" if state == "fp32" else f"{state} state",
                {**common, "quantization": name, "state_dtype": state},
            )
            for name in quants
            for state in _state_dtypes(subject, settings)
        ]
    if runtime == TRANSFORMERS:
        modes = _MODES[TRANSFORMERS].items()
        return [Engine(subject, TRANSFORMERS, plain, mode, {**common, **more}) for mode, more in modes]
    described: Any = build_on_meta(subject.lm)
    ways = list(_MODES.get(runtime, {"": {}}).items())
    # without keys and values attention is nobody's setting
    ways = ways[:1] if described.recurrent else ways
    return [
        Engine(subject, runtime, quant, mode, {"threads": settings.threads, **more})
        for quant in quants
        for mode, more in ways
    ]


def _state_dtypes(subject: Subject, settings: Settings) -> Sequence[str]:
    """A model without a recurrent state is measured once, however many precisions were asked for."""
    lm: Any = build_on_meta(subject.lm)
    return settings.state_dtypes if lm.recurrent else ("fp32",)
