"""Scans in other orders than forward, against scans of tokens that torch has put in that order."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cobra.kernels import cpu, ops
from cobra.kernels.cpu import library
from cobra.kernels.dispatch import use_backend
from cobra.kernels.scan_order import SCAN_ORDERS, Grid, ScanOrder
from tests.kernels.cases import Case, assert_near, each, floating, run
from tests.kernels.sequence_inputs import Inputs, normal, scan, scan_with_all, ssd, ssd_with_all

# larger than a chunk and no multiple of it, chunks that end inside columns; then a row and a column
GRIDS = [(9, 15), (1, 70), (70, 1), (0, 4)]
CASES = [
    Case("ssd_chunk_scan", ssd),
    Case("ssd_chunk_scan", ssd_with_all),
    Case("selective_scan", scan),
    Case("selective_scan", scan_with_all),
]
OTHERS: list[ScanOrder] = ["reversed", "columns", "columns_reversed"]
LEVELS = [] if cpu.unavailable() else library.levels()
PLAIN = ["reference", "torch"]
BACKENDS = [*PLAIN, *LEVELS]


def visits(scan_order: ScanOrder, height: int, width: int) -> list[tuple[int, int]]:
    """(row, column) of each visit, as VMamba's cross-scan reads an image."""
    rows = [(row, column) for row in range(height) for column in range(width)]
    columns = [(row, column) for column in range(width) for row in range(height)]
    orders = {"forward": rows, "reversed": rows[::-1], "columns": columns, "columns_reversed": columns[::-1]}
    return orders[scan_order]


def tokens_of(scan_order: ScanOrder, grid: Grid) -> Tensor:
    """The token of each visit (L,)."""
    return torch.tensor(
        [row * grid[1] + column for row, column in visits(scan_order, *grid)], dtype=torch.long
    )


def by_copies(case: Case, inputs: Inputs, tokens: Tensor) -> dict[str, Tensor]:
    """What a scan order must give: everything copied, scanned forward, and copied back."""
    length = len(tokens)

    def along(**arguments: Any) -> tuple[Tensor, Tensor]:
        moved = {
            name: value[:, tokens]
            if isinstance(value, Tensor) and value.dim() > 1 and value.shape[1] == length and name != "A"
            else value
            for name, value in arguments.items()
        }
        y, state = case.spec(**moved)
        return y[:, tokens.argsort()], state

    return run(along, case, inputs)


def with_gradients(inputs: Inputs) -> Inputs:
    return inputs | {name: inputs[name].requires_grad_() for name in floating(inputs)}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("scan_order", OTHERS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_route_gives_what_copies_in_its_order_give(
    case: Case, scan_order: ScanOrder, grid: Grid, backend: str
) -> None:
    inputs, tokens = case.make(grid[0] * grid[1]), tokens_of(scan_order, grid)
    if "seq_idx" in inputs:
        # its values must be neighbours in this order
        inputs["seq_idx"] = inputs["seq_idx"][:, tokens.argsort()]
    expected = by_copies(case, with_gradients(each(inputs, Tensor.double)), tokens)
    inputs |= {"scan_order": scan_order, "grid": grid}
    if backend in PLAIN:
        with use_backend(backend):
            actual = run(getattr(ops, case.op), case, with_gradients(each(inputs, Tensor.double)))
    else:
        with use_backend("cpu"), library.use_level(backend):
            actual = run(getattr(ops, case.op), case, with_gradients(inputs))
    assert_near(actual, expected, 2e-5)


@pytest.mark.parametrize("op", ["ssd_chunk_scan", "selective_scan"])
def test_a_cross_scan_is_the_sum_of_four_loops_over_the_image(op: str) -> None:
    """VMamba's cross-scan and cross-merge (arXiv 2401.10166), each scan order with parameters of its own."""
    grid, channels, d_state = (3, 5), 2, 4
    merged, expected = torch.zeros(1, 15, channels), torch.zeros(1, *grid, channels)
    for seed, scan_order in enumerate(SCAN_ORDERS):
        x, dt = normal(1, 15, channels), normal(1, 15, channels, seed=seed).abs()
        A = -normal(channels, seed=seed).exp()
        B, C = normal(1, 15, 1, d_state, seed=seed), normal(1, 15, 1, d_state, seed=seed + 9)
        if op == "ssd_chunk_scan":
            y, _ = ops.ssd_chunk_scan(x.unsqueeze(-1), dt, A, B, C, scan_order=scan_order, grid=grid)
        else:
            rates = A.unsqueeze(-1).expand(channels, d_state)
            y, _ = ops.selective_scan(x, dt, rates, B, C, scan_order=scan_order, grid=grid)
        merged += y.view(1, 15, channels)

        state = torch.zeros(channels, d_state)
        image = [m.view(*grid, -1) for m in (x, dt, B, C, expected)]
        for row, column in visits(scan_order, *grid):
            x_t, dt_t, B_t, C_t, y_t = (m[row, column] for m in image)
            state = (dt_t * A).exp()[:, None] * state + (dt_t * x_t)[:, None] * B_t
            y_t += state @ C_t
    torch.testing.assert_close(merged.view(1, *grid, channels), expected)


@pytest.mark.skipif(cpu.unavailable() is not None, reason=str(cpu.unavailable()))
@pytest.mark.parametrize("case", CASES, ids=str)
def test_two_threads_give_what_one_gives(case: Case) -> None:
    before, results = torch.get_num_threads(), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        inputs = case.make(200) | {"scan_order": "columns_reversed", "grid": (8, 25)}
        results.append(run(getattr(ops, case.op), case, with_gradients(inputs)))
    torch.set_num_threads(before)
    for name in results[0]:
        assert torch.equal(results[0][name], results[1][name]), name


def test_a_route_exports_and_compiles_whole() -> None:
    class Scan(nn.Module):
        def forward(self, u: Tensor) -> Tensor:
            B = u[..., None, :4]
            y, _ = ops.selective_scan(
                u, u, -torch.ones(6, 4), B, B, scan_order="columns_reversed", grid=(4, 5)
            )
            return y

    u = normal(2, 20, 6).abs()
    expected = Scan()(u)
    torch.testing.assert_close(torch.export.export(Scan(), (u,)).module()(u), expected)
    torch.compiler.reset()
    compiled = torch.compile(Scan(), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(u), expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"scan_order": "diagonal"},
            "scan_order is 'diagonal' but must be one of forward, reversed, columns",
        ),
        (
            {"scan_order": "columns"},
            r"scan_order 'columns' goes down the columns of a grid: give grid=\(height, width\)",
        ),
        ({"scan_order": "columns", "grid": (2, 4)}, r"grid is \(2, 4\) but there are 9 tokens"),
        ({"grid": (-3, -3)}, r"grid is \(-3, -3\) but there are 9 tokens"),
    ],
)
@pytest.mark.parametrize("make", [ssd, scan])
def test_a_wrong_route_is_refused_with_the_remedy(make: Any, arguments: dict[str, Any], message: str) -> None:
    op = ops.ssd_chunk_scan if make is ssd else ops.selective_scan
    with pytest.raises(ValueError, match=message):
        op(**make(9), **arguments)
