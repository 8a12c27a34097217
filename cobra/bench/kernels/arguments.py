"""What `cobra bench kernels` takes on the command line. No torch here."""

import argparse
from pathlib import Path
from typing import Any


def add_kernel_bench(subjects: Any) -> None:
    """Add it to the subjects of `cobra bench`."""
    kernels = subjects.add_parser(
        "kernels", help="CPU kernels beside transformers' path and the machine's limits"
    )
    kernels.add_argument("--out", type=Path, required=True, help="folder to write the reports to")
    kernels.add_argument("--repeats", type=int, default=9, help="interleaved repeats (default: 9)")
    kernels.add_argument("--threads", type=int, default=1, help="of each process (default: 1)")
    kernels.add_argument("--quick", action="store_true", help="small sizes: tries the bench, judges nothing")
    kernels.add_argument("--no-peers", action="store_true", help="leave transformers' path out")
    kernels.add_argument(
        "--only", nargs="*", default=[], metavar="WORD", help="groups whose title has a WORD"
    )
    kernels.set_defaults(bench=_bench)


def _bench(options: argparse.Namespace) -> None:
    from cobra.bench.kernels.run import bench

    bench(options.out, options.repeats, options.quick, options.threads, not options.no_peers, options.only)
