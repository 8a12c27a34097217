"""The measurements behind the numbers that have a target."""

from collections.abc import Callable, Sequence
from typing import Any

from cobra.bench.kernels.runners import KEEPING, OURS, REFERENCE, TRANSFORMERS, slower
from cobra.bench.kernels.sizes import Sizes
from cobra.bench.timing.group import Group, Number, Outcomes
from cobra.bench.timing.sample import Measurement, Runner


def _ratio(over: str, under: str) -> Callable[[Outcomes], float]:
    return lambda outcomes: outcomes[over].seconds / outcomes[under].seconds


def ssd_forward(sizes: Sizes, levels: Sequence[str]) -> Group:
    """Mamba-2's scan beside transformers', the rate of a matrix product and the levels."""
    arguments = sizes.ssd()
    parts = {
        **_scan("ssd_chunk_scan", arguments, levels),
        "theirs, chunk 64": Measurement(TRANSFORMERS, "ssd_chunk_scan", {**arguments, "chunk_size": 64}),
        "gemm": Measurement(OURS, "gemm", {"size": sizes.gemm, "dtype": "float32"}),
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


def ssd_backward(sizes: Sizes, levels: Sequence[str]) -> Group:
    """Mamba-2's scan with its gradients: time and memory beside transformers'."""
    parts = _scan("ssd_chunk_scan", sizes.ssd(backward=True), levels)
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


def selective_scan(sizes: Sizes, levels: Sequence[str]) -> Group:
    """Mamba-1's scan beside transformers' and the levels."""
    parts = _scan("selective_scan", sizes.selective(), levels)
    numbers = [
        Number(
            "selective_scan forward, Mamba-1 130m layer, vs transformers'", _ratio("theirs", "ours"), 10.0
        ),
        Number(
            "selective_scan forward, AVX2 speed as a share of AVX512", _ratio("ours", "avx2"), 0.65, unit="%"
        ),
    ]
    return Group("selective_scan forward", parts, numbers)


def _scan(op: str, arguments: dict[str, Any], levels: Sequence[str]) -> dict[str, Measurement]:
    """A scan beside transformers', the reference and the levels below the best."""
    return {
        "ours": Measurement(OURS, op, arguments),
        "theirs": Measurement(TRANSFORMERS, op, arguments),
        "reference": Measurement(REFERENCE, op, arguments),
        **slower(levels, op, arguments),
    }


def prefill(sizes: Sizes, dtype: str, target: float) -> Group:
    """A whole model's prompt beside its linears alone."""
    arguments = {"length": sizes.length, **sizes.small, "dtype": dtype}
    parts = {
        "ours": Measurement(OURS, "prefill", arguments),
        "linears": Measurement(OURS, "prefill_linears", arguments),
        "theirs": Measurement(TRANSFORMERS, "prefill", arguments),
    }
    name = f"whole Mamba-2 130m prefill of {sizes.length} tokens over its linears alone, {dtype}"
    number = Number(name, _ratio("ours", "linears"), target, at_least=False, note="random weights")
    return Group(f"prefill {dtype}", parts, [number], repeats=5)


def decode(sizes: Sizes) -> Group:
    """A whole model's token beside its linears alone."""
    arguments = {**sizes.large, "dtype": "bfloat16"}
    parts = {
        "ours": Measurement(OURS, "decode", arguments),
        "linears": Measurement(OURS, "decode_linears", arguments),
        "theirs": Measurement(TRANSFORMERS, "decode", arguments),
    }
    name = "decode step, whole Mamba-2 370m, over its linears alone, bfloat16"
    number = Number(name, _ratio("ours", "linears"), 1.25, at_least=False, note="random weights")
    return Group("decode", parts, [number])


def linears(sizes: Sizes, levels: Sequence[str]) -> Group:
    """Linears for decoding beside torch's and the read bandwidth, for a token and for a few."""
    weights = {"rows": 2048, "width": 8192, "mebibytes": sizes.read, "dtype": "bfloat16"}
    ops = ("linear_w8", "torch_int8", "linear_bf16", "torch_bf16", "torch_int4")
    arguments = {"op": "linear_w4", **weights}
    parts = {
        "ours": Measurement(OURS, "linear_cycle", arguments),
        "read": Measurement(OURS, "read", {"mebibytes": sizes.read}),
        **{op: Measurement(OURS, "linear_cycle", {**weights, "op": op}) for op in ops},
        **{f"batch {n}": Measurement(OURS, "linear_cycle", {**arguments, "batch": n}) for n in (4, 8)},
        **slower(levels[1:], "linear_cycle", arguments),
    }
    number = Number(
        "linear_w4, 2048 × 8192, share of the read bandwidth", _share_of_bandwidth, 0.75, unit="%"
    )
    return Group("linears", parts, [number], repeats=5)


def _share_of_bandwidth(outcomes: Outcomes) -> float:
    ours, read = outcomes["ours"], outcomes["read"]
    return (ours.prepared.bytes / ours.seconds) / (read.prepared.bytes / read.seconds)


def constant_cost(sizes: Sizes) -> list[Group]:
    """What a token costs in Mamba-2's scan, whatever the length."""
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
