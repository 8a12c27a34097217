"""What `cobra bench kernels` measures: numbers that have a target, and a table of every operator."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cobra.eval.kernel_bench.sample import Measurement, Prepared, Runner

OURS = Runner("cpu", "cobra.eval.kernel_bench.cases", backend="cpu")
KEEPING = Runner("cpu, memory kept", OURS.cases, OURS.backend, keeps_memory=True)
REFERENCE = Runner("reference", "cobra.eval.kernel_bench.cases", backend="reference")
TRANSFORMERS = Runner("transformers", "cobra.eval.kernel_bench.transformers_cases")


def ours_at(isa: str) -> Runner:
    """Our kernels at another ISA level than the machine's best."""
    return Runner(f"cpu {isa}", OURS.cases, OURS.backend, isa)


@dataclass(frozen=True)
class Outcome:
    """A prepared measurement and the seconds of one repeat of it."""

    prepared: Prepared
    seconds: float


Outcomes = Mapping[str, Outcome]


@dataclass(frozen=True)
class Number:
    """A number with a target.

    Attributes:
        name: what it says.
        value: from the outcomes of one repeat, by label; the report takes the median over repeats.
        target: the value to reach.
        at_least: whether more is better.
        unit: × or %, printed behind the value; % shows a share as hundredths.
        note: what a reader must know.
    """

    name: str
    value: Callable[[Outcomes], float]
    target: float
    at_least: bool = True
    unit: str = "×"
    note: str = ""


@dataclass(frozen=True)
class Group:
    """Measurements taken in turn, so that the machine's load falls on all alike.

    Attributes:
        title: for the progress bar.
        parts: measurements by label.
        numbers: what they tell.
        repeats: most repeats, where one takes long.
    """

    title: str
    parts: Mapping[str, Measurement]
    numbers: Sequence[Number] = ()
    repeats: int = 1000


@dataclass(frozen=True)
class Sizes:
    """How large things are: those of the published models, or small ones to try the bench itself.

    Attributes:
        length: tokens of a sequence.
        lengths: tokens of the sequences whose cost per token must agree.
        inner: heads × head width of Mamba-2 130m, channels of Mamba-1 130m.
        gemm: side of the matrices for the rate of multiplications.
        read: MiB summed for the read bandwidth, and MiB of weights that a linear cycles over.
        small: width, layers and vocabulary of the model to prefill.
        large: of the model to decode with.
    """

    length: int = 1024
    lengths: Sequence[int] = (1024, 4096, 16384, 65536)
    inner: int = 1536
    gemm: int = 2048
    read: int = 1280
    small: Mapping[str, int] = field(
        default_factory=lambda: {"d_model": 768, "layers": 24, "vocabulary": 50288}
    )
    large: Mapping[str, int] = field(
        default_factory=lambda: {"d_model": 1024, "layers": 48, "vocabulary": 50288}
    )

    def ssd(self, **more: Any) -> dict[str, Any]:
        """A layer of Mamba-2 130m."""
        layer = {"heads": self.inner // 64, "head_dim": 64, "d_state": 128}
        return {"length": self.length, **layer, "dtype": "float32", **more}

    def selective(self, **more: Any) -> dict[str, Any]:
        """A layer of Mamba-1 130m."""
        return {"length": self.length, "channels": self.inner, "d_state": 16, "dtype": "float32", **more}


def quick_sizes() -> Sizes:
    """Small enough for a test; the values mean nothing."""
    model = {"d_model": 128, "layers": 2, "vocabulary": 512}
    return Sizes(128, (64, 128), 256, 256, 16, model, model)


def plan(sizes: Sizes, isa_levels: Sequence[str], peers: bool = True) -> list[Group]:
    """Every group, those with targets first.

    Args:
        sizes: how large.
        isa_levels: that the machine runs, slowest first; empty without the native library.
        peers: whether transformers' path is measured too.
    """
    groups = [
        _ssd_forward(sizes, isa_levels),
        _ssd_backward(sizes, isa_levels),
        _selective_scan(sizes, isa_levels),
        *(_prefill(sizes, dtype, target) for dtype, target in (("float32", 1.3), ("bfloat16", 2.0))),
        _decode(sizes),
        _linears(sizes, isa_levels),
        *_constant_cost(sizes),
    ]
    measured = {part.key for group in groups for part in group.parts.values()}
    groups += [group for group in _table(sizes, isa_levels) if group.parts["ours"].key not in measured]
    return groups if peers else [_without_peers(group) for group in groups]


def _without_peers(group: Group) -> Group:
    parts = {label: part for label, part in group.parts.items() if part.runner is not TRANSFORMERS}
    return Group(group.title, parts, group.numbers, group.repeats)


def _ratio(over: str, under: str) -> Callable[[Outcomes], float]:
    return lambda outcomes: outcomes[over].seconds / outcomes[under].seconds


def _slower(levels: Sequence[str], case: str, arguments: Mapping[str, Any]) -> dict[str, Measurement]:
    return {level: Measurement(ours_at(level), case, arguments) for level in levels[-2::-1]}


def _ssd_forward(sizes: Sizes, levels: Sequence[str]) -> Group:
    arguments = sizes.ssd()
    parts = {
        "ours": Measurement(OURS, "ssd_chunk_scan", arguments),
        "theirs": Measurement(TRANSFORMERS, "ssd_chunk_scan", arguments),
        "theirs, chunk 64": Measurement(TRANSFORMERS, "ssd_chunk_scan", {**arguments, "chunk_size": 64}),
        "gemm": Measurement(OURS, "gemm", {"size": sizes.gemm, "dtype": "float32"}),
        "reference": Measurement(REFERENCE, "ssd_chunk_scan", arguments),
        **_slower(levels, "ssd_chunk_scan", arguments),
    }
    numbers = [
        Number(
            "SSD forward, Mamba-2 130m layer, fp32, vs transformers' chunk scan",
            _ratio("theirs", "ours"),
            25.0,
        ),
        Number("SSD forward, share of the fp32 GEMM rate", _share_of_gemm, 0.70, unit="%"),
        Number("SSD forward, AVX2 speed as a share of AVX512", _ratio("ours", "avx2"), 0.65, unit="%"),
    ]
    return Group("SSD forward", parts, numbers)


def _share_of_gemm(outcomes: Outcomes) -> float:
    ours, gemm = outcomes["ours"], outcomes["gemm"]
    return (ours.prepared.flops / ours.seconds) / (gemm.prepared.flops / gemm.seconds)


def _ssd_backward(sizes: Sizes, levels: Sequence[str]) -> Group:
    arguments = sizes.ssd(backward=True)
    parts = {
        "ours": Measurement(OURS, "ssd_chunk_scan", arguments),
        "theirs": Measurement(TRANSFORMERS, "ssd_chunk_scan", arguments),
        "reference": Measurement(REFERENCE, "ssd_chunk_scan", arguments),
        **_slower(levels, "ssd_chunk_scan", arguments),
    }
    numbers = [
        Number(
            "SSD forward and backward vs autograd through transformers' path", _ratio("theirs", "ours"), 12.0
        ),
        Number(
            "SSD forward and backward, peak extra memory over transformers'",
            lambda outcomes: outcomes["ours"].prepared.peak_bytes / outcomes["theirs"].prepared.peak_bytes,
            0.25,
            at_least=False,
            unit="%",
        ),
    ]
    return Group("SSD forward and backward", parts, numbers)


def _selective_scan(sizes: Sizes, levels: Sequence[str]) -> Group:
    arguments = sizes.selective()
    parts = {
        "ours": Measurement(OURS, "selective_scan", arguments),
        "theirs": Measurement(TRANSFORMERS, "selective_scan", arguments),
        "reference": Measurement(REFERENCE, "selective_scan", arguments),
        **_slower(levels, "selective_scan", arguments),
    }
    numbers = [
        Number(
            "selective_scan forward, Mamba-1 130m layer, vs transformers'", _ratio("theirs", "ours"), 10.0
        ),
        Number(
            "selective_scan forward, AVX2 speed as a share of AVX512", _ratio("ours", "avx2"), 0.65, unit="%"
        ),
    ]
    return Group("selective_scan forward", parts, numbers)


def _prefill(sizes: Sizes, dtype: str, target: float) -> Group:
    arguments = {"length": sizes.length, **sizes.small, "dtype": dtype}
    parts = {
        "ours": Measurement(OURS, "prefill", arguments),
        "linears": Measurement(OURS, "prefill_linears", arguments),
        "theirs": Measurement(TRANSFORMERS, "prefill", arguments),
    }
    name = f"whole Mamba-2 130m prefill of {sizes.length} tokens over its linears alone, {dtype}"
    number = Number(name, _ratio("ours", "linears"), target, at_least=False, note="random weights")
    return Group(f"prefill {dtype}", parts, [number], repeats=5)


def _decode(sizes: Sizes) -> Group:
    arguments = {**sizes.large, "dtype": "bfloat16"}
    parts = {
        "ours": Measurement(OURS, "decode", arguments),
        "linears": Measurement(OURS, "decode_linears", arguments),
        "theirs": Measurement(TRANSFORMERS, "decode", arguments),
    }
    name = "decode step, whole Mamba-2 370m, over its linears alone, bfloat16"
    number = Number(name, _ratio("ours", "linears"), 1.25, at_least=False, note="random weights")
    return Group("decode", parts, [number])


def _linears(sizes: Sizes, levels: Sequence[str]) -> Group:
    weights = {"rows": 2048, "width": 8192, "mebibytes": sizes.read, "dtype": "bfloat16"}
    ops = ("linear_w8", "torch_int8", "linear_bf16", "torch_bf16", "torch_int4")
    arguments = {"op": "linear_w4", **weights}
    parts = {
        "ours": Measurement(OURS, "linear_cycle", arguments),
        "read": Measurement(OURS, "read", {"mebibytes": sizes.read}),
        **{op: Measurement(OURS, "linear_cycle", {**weights, "op": op}) for op in ops},
        **_slower(levels[1:], "linear_cycle", arguments),
    }
    number = Number(
        "linear_w4, 2048 × 8192, share of the read bandwidth", _share_of_bandwidth, 0.75, unit="%"
    )
    return Group("linears", parts, [number], repeats=5)


def _share_of_bandwidth(outcomes: Outcomes) -> float:
    ours, read = outcomes["ours"], outcomes["read"]
    return (ours.prepared.bytes / ours.seconds) / (read.prepared.bytes / read.seconds)


def _constant_cost(sizes: Sizes) -> list[Group]:
    return [_cost_on(OURS, sizes, ""), _cost_on(KEEPING, sizes, ", without page faults of results")]


def _cost_on(runner: Runner, sizes: Sizes, ending: str) -> Group:
    parts = {
        str(length): Measurement(runner, "ssd_chunk_scan", sizes.ssd(length=length))
        for length in sizes.lengths
    }

    def spread(outcomes: Outcomes) -> float:
        costs = [outcomes[str(length)].seconds / length for length in sizes.lengths]
        return max(costs) / min(costs)

    name = f"SSD forward, dearest over cheapest token, L = {sizes.lengths[0]} to {sizes.lengths[-1]}{ending}"
    return Group(f"cost per token{ending}", parts, [Number(name, spread, 1.10, at_least=False)], repeats=5)


def _table(sizes: Sizes, levels: Sequence[str]) -> list[Group]:
    """Operators × dtypes (× gradients) on every backend and level."""
    tokens, width = {"length": sizes.length}, {"width": sizes.inner}
    layer = {"heads": sizes.inner // 64, "head_dim": 64, "d_state": 128}
    rows: list[tuple[str, dict[str, Any], bool]] = [
        ("ssd_chunk_scan", {**tokens, **layer}, True),
        ("selective_scan", {**tokens, "channels": sizes.inner, "d_state": 16}, True),
        ("causal_conv1d", {**tokens, "channels": sizes.inner + 256}, True),
        ("rms_norm", {**tokens, "width": sizes.inner // 2}, True),
        ("add_rms_norm", {**tokens, "width": sizes.inner // 2}, False),
        ("rms_norm_gated", {**tokens, **width}, True),
        ("selective_state_update", layer, False),
        ("mamba2_step", layer, False),
        ("mamba_step", {"channels": sizes.inner, "d_state": 16, "dt_rank": 48}, False),
    ]
    groups = []
    for case, shape, has_backward in rows:
        for dtype in ("float32", "bfloat16"):
            for more in ({}, {"backward": True}) if has_backward else ({},):
                groups.append(_row(levels, case, {**shape, "dtype": dtype, **more}))
    return groups


def _row(levels: Sequence[str], case: str, arguments: Mapping[str, Any]) -> Group:
    parts = {
        "ours": Measurement(OURS, case, arguments),
        "reference": Measurement(REFERENCE, case, arguments),
        **_slower(levels, case, arguments),
    }
    pass_name = "forward and backward" if arguments.get("backward") else "forward"
    return Group(f"{case} {arguments['dtype']} {pass_name}", parts, repeats=5)
