"""What `cobra bench kernels` measures: numbers that have a target, and a table of every operator."""

from collections.abc import Mapping, Sequence
from typing import Any

from cobra.bench.kernels.runners import OURS, REFERENCE, TRANSFORMERS, slower
from cobra.bench.kernels.sizes import Sizes
from cobra.bench.kernels.targets import (
    constant_cost,
    decode,
    linears,
    prefill,
    selective_scan,
    ssd_backward,
    ssd_forward,
)
from cobra.bench.timing.group import Group
from cobra.bench.timing.sample import Measurement


def plan(sizes: Sizes, isa_levels: Sequence[str], peers: bool = True) -> list[Group]:
    """Every group, those with targets first.

    Args:
        sizes: how large.
        isa_levels: that the machine runs, slowest first; empty without the native library.
        peers: whether transformers' path is measured too.
    """
    groups = [
        ssd_forward(sizes, isa_levels),
        ssd_backward(sizes, isa_levels),
        selective_scan(sizes, isa_levels),
        *(prefill(sizes, dtype, target) for dtype, target in (("float32", 1.3), ("bfloat16", 2.0))),
        decode(sizes),
        linears(sizes, isa_levels),
        *constant_cost(sizes),
    ]
    measured = {part.key for group in groups for part in group.parts.values()}
    groups += [group for group in _table(sizes, isa_levels) if group.parts["ours"].key not in measured]
    return groups if peers else [_without_peers(group) for group in groups]


def _without_peers(group: Group) -> Group:
    parts = {label: part for label, part in group.parts.items() if part.runner is not TRANSFORMERS}
    return Group(group.title, parts, group.numbers, group.repeats)


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
        **slower(levels, case, arguments),
    }
    pass_name = "forward and backward" if arguments.get("backward") else "forward"
    return Group(f"{case} {arguments['dtype']} {pass_name}", parts, repeats=5)
