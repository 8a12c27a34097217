"""`cobra bench kernels`: operators by shape, dtype and pass, on our kernels and on their peers."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

from cobra.bench.ceilings import bandwidth, product_rate
from cobra.bench.room import check_device
from cobra.bench.run import Plan, run
from cobra.bench.timing.interleave import Group
from cobra.bench.timing.sample import Measurement, Runner
from cobra.kernels.cpu import library


@dataclass(frozen=True)
class Peer:
    """Who runs an operator.

    Attributes:
        name: its column in the report.
        runner: its process.
        arguments: of its case, beside the operator's.
    """

    name: str
    runner: Runner
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Operator:
    """What is measured of an operator at one shape.

    Attributes:
        case: its name, in every peer's module.
        shape: arguments of its case beside length, dtype and pass.
        lengths: tokens of a call.
        peers: beside our kernels and their slower levels.
        dtypes: of activations.
        backward: whether with gradients: not, only, or both.
    """

    case: str
    shape: Mapping[str, Any]
    lengths: Sequence[int]
    peers: Sequence[Peer] = ()
    dtypes: Sequence[str] = ("float32", "bfloat16")
    backward: Sequence[bool] = (False,)

    @property
    def name(self) -> str:
        """What it is called in the report: with its shape."""
        letters = [f"{letter}{self.shape[key]}" for key, letter in _LETTERS.items() if key in self.shape]
        return " ".join([self.shape.get("op", self.case), *letters])


OURS = Peer("cpu", Runner("cpu", "cobra.bench.op_cases", backend="cpu"))
REFERENCE = Peer("reference", replace(OURS.runner, name="reference", backend="reference"))
# only where it is not the reference's own
TORCH = Peer("torch backend", replace(OURS.runner, name="torch backend", backend="torch"))
# by device; on a GPU beside plain PyTorch and, where it is installed, upstream's kernels
TRITON, PLAIN, UPSTREAM = (
    Peer(name, replace(OURS.runner, name=name, backend=name, device="cuda"))
    for name in ("triton", "torch", "mamba_ssm")
)
TRANSFORMERS = Peer("transformers", Runner("transformers", "cobra.bench.transformers_cases"))
# the faster one is the honest baseline: published configurations ask for 256, a CPU likes less
SMALL_CHUNKS = replace(TRANSFORMERS, name="transformers, chunks of 64", arguments={"chunk_size": 64})
_LETTERS = {"batch": "B", "heads": "H", "head_dim": "P", "d_state": "N", "channels": "D", "dt_rank": "R"}
_LETTERS |= {"rows": "rows ", "width": "D"}
_SHORT = {"float32": "fp32", "bfloat16": "bf16"}


def bench_kernels(
    out: Path,
    repeats: int,
    threads: int,
    quick: bool = False,
    peers: bool = True,
    words: Sequence[str] = (),
    device: str = "cpu",
) -> None:
    """Measure the operators and write the reports to `out`.

    Args:
        out: folder to write to.
        repeats: of everything, in turn.
        threads: of each process.
        quick: small sizes, to try the bench; the values mean nothing.
        peers: whether transformers' and torch's own ways are measured, too.
        words: only operators whose name in the report has one of these; empty for all.
        device: cpu or cuda.

    Raises:
        ValueError: where no operator has one, or the device is not on this machine.
    """
    check_device(device)
    levels = [] if library.unavailable() else library.levels()
    groups = plan(quick, levels, peers) if device == "cpu" else gpu_plan(quick, peers)
    chosen = [group for group in groups if not words or any(word in group.title for word in words)]
    if not chosen:
        names = ", ".join(dict.fromkeys(group.title.split()[0] for group in groups))
        raise ValueError(f"no operator has {' or '.join(words)} in its name: there are {names}")
    ours = OURS if device == "cpu" else TRITON
    about = {"device": device, "quick": quick, "ours": ours.name}
    run(Plan("kernels", chosen, about), threads, repeats, out)


def plan(quick: bool, levels: Sequence[str], peers: bool = True) -> list[Group]:
    """A group for each operator, shape, dtype and pass.

    Args:
        quick: small sizes.
        levels: of our kernels on this machine, slowest first; empty without the native library.
        peers: whether others are measured beside our backends.
    """
    ceilings = {
        "bandwidth": bandwidth(16 if quick else 1280, "cpu"),
        "product_rate": product_rate(256 if quick else 2048),
    }
    slower = [Peer(f"cpu {level}", replace(OURS.runner, name=level, isa=level)) for level in levels[-2::-1]]
    groups = []
    for operator in _operators(quick):
        others = [peer for peer in operator.peers if peers or peer in (TORCH, REFERENCE)]
        for title, parts in _rows(operator, [OURS, *others, *slower]):
            groups.append(Group(title, parts, ceilings))
    return groups


def gpu_plan(quick: bool, peers: bool = True) -> list[Group]:
    """The same on a GPU: the layers of Mamba and Mamba-2 2.7b, batch 1 and 8.

    Args:
        quick: small sizes.
        peers: whether plain PyTorch and mamba_ssm are measured, too.
    """
    groups = []
    for operator in _gpu_operators(quick):
        for title, parts in _rows(operator, [TRITON, *(operator.peers if peers else ())]):
            dtype = parts[0].arguments["dtype"]
            ceilings = {
                "bandwidth": bandwidth(16 if quick else 4096, "cuda"),
                "product_rate": product_rate(256 if quick else 8192, "cuda", dtype),
            }
            groups.append(Group(title, parts, ceilings))
    return groups


def _gpu_operators(quick: bool) -> Iterator[Operator]:
    """Operators at the sizes of a layer of Mamba and Mamba-2 2.7b, or small ones."""
    lengths, inner = ([128], 256) if quick else ([512, 1024, 2048, 4096], 5120)
    half, both, all_peers = ["bfloat16"], (False, True), (PLAIN, UPSTREAM)
    for batch in (1, 8):
        mamba2 = {"batch": batch, "heads": inner // 64, "head_dim": 64, "d_state": 128}
        yield Operator("ssd_chunk_scan", mamba2, lengths, all_peers, half, both)
        mamba = {"batch": batch, "channels": inner, "d_state": 16}
        yield Operator("selective_scan", mamba, lengths[-2:], all_peers, half, both)
    longest = lengths[-1:]
    yield Operator("causal_conv1d", {"channels": inner + 256}, longest, all_peers, half, both)
    yield Operator("rms_norm", {"width": inner // 2}, longest, all_peers, half, both)
    yield Operator("add_rms_norm", {"width": inner // 2}, longest, all_peers, half)
    yield Operator("rms_norm_gated", {"width": inner}, longest, all_peers, half, both)
    for batch in (1, 16):
        heads = {"heads": inner // 64, "head_dim": 64, "d_state": 128}
        yield Operator("selective_state_update", heads, [batch], all_peers, half)
        yield Operator("mamba2_step", heads, [batch], [PLAIN], half)
        channels = {"channels": inner, "d_state": 16, "dt_rank": inner // 32}
        yield Operator("mamba_step", channels, [batch], [PLAIN], half)
    shape = {"rows": inner, "width": inner // 2, "mebibytes": 16 if quick else 4096}
    for op in ("linear_bf16", "linear_w8", "linear_w4"):
        peers = [Peer("torch", PLAIN.runner, {"op": "torch_bf16"})] if op == "linear_bf16" else []
        yield Operator("linear_cycle", {"op": op, **shape}, [1, 4, 16], peers, half)


def _rows(operator: Operator, peers: Sequence[Peer]) -> Iterator[tuple[str, list[Measurement]]]:
    """What is a row of the report: its title, and everybody's measurement."""
    for length, dtype, backward in product(operator.lengths, operator.dtypes, operator.backward):
        op = f"{operator.name} {_SHORT[dtype]}" + (" forward+backward" if backward else "")
        arguments = {**operator.shape, "length": length, "dtype": dtype}
        if backward:
            arguments["backward"] = True
        entry = {"op": op, "length": length, "backward": backward}
        yield f"{op} at {length:,}", [_measurement(peer, operator, arguments, entry) for peer in peers]


def _measurement(
    peer: Peer, operator: Operator, arguments: Mapping[str, Any], row: Mapping[str, Any]
) -> Measurement:
    entry = {**row, "label": f"{row['op']}, {peer.name}", "runner": peer.name, "peer": peer in operator.peers}
    return Measurement(peer.runner, operator.case, {**arguments, **peer.arguments}, entry)


def _operators(quick: bool) -> list[Operator]:
    """Operators at the sizes of a layer of Mamba and Mamba-2 130m, or small ones."""
    tokens, inner, mebibytes = ([128], 256, 16) if quick else ([1024], 1536, 1280)
    longer = [64] if quick else [4096, 16384, 65536]
    mamba2 = {"heads": inner // 64, "head_dim": 64, "d_state": 128}
    mamba = {"channels": inner, "d_state": 16}
    both = (False, True)
    return [
        # the reference goes token by token, whose gradients need gigabytes
        Operator("ssd_chunk_scan", mamba2, tokens, (TRANSFORMERS, SMALL_CHUNKS, TORCH), backward=both),
        # a token must cost the same however many there are
        Operator("ssd_chunk_scan", mamba2, longer, dtypes=["float32"]),
        # transformers' gradients of it take time by the square of the length
        Operator("selective_scan", mamba, tokens, (TRANSFORMERS, TORCH, REFERENCE)),
        Operator("selective_scan", mamba, tokens, [TORCH, REFERENCE], backward=[True]),
        Operator("causal_conv1d", {"channels": inner + 256}, tokens, [REFERENCE], backward=both),
        Operator("rms_norm", {"width": inner // 2}, tokens, [REFERENCE], backward=both),
        Operator("add_rms_norm", {"width": inner // 2}, tokens, [REFERENCE]),
        Operator("rms_norm_gated", {"width": inner}, tokens, [REFERENCE], backward=both),
        Operator("selective_state_update", mamba2, [1], [REFERENCE]),
        Operator("mamba2_step", mamba2, [1], [REFERENCE]),
        Operator("mamba_step", {**mamba, "dt_rank": 48}, [1], [REFERENCE]),
        *_linears(mebibytes),
    ]


def _linears(mebibytes: int) -> Iterator[Operator]:
    """Weight-only linears, of which a token reads every weight, beside torch's."""
    shape = {"rows": 2048, "width": 8192, "mebibytes": mebibytes}
    for op, theirs, lengths in (
        ("linear_bf16", "torch_bf16", [1]),
        ("linear_w8", "torch_int8", [1]),
        ("linear_w4", "torch_int4", [1, 4, 8]),
    ):
        torch = Peer("torch", OURS.runner, {"op": theirs})
        yield Operator("linear_cycle", {"op": op, **shape}, lengths, [torch], dtypes=["bfloat16"])
