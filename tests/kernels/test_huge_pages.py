"""Tensors on huge pages are ordinary tensors at aligned addresses."""

import gc
from pathlib import Path

import pytest
import torch

from cobra.kernels import huge_pages
from cobra.kernels.huge_pages import FROM_SYSTEM, HUGE_PAGE

ENABLED = Path("/sys/kernel/mm/transparent_hugepage/enabled")
CPU = torch.device("cpu")


@pytest.mark.parametrize("shape", [(0, 3), (5,), (3, HUGE_PAGE // 8), (7, 2**18 + 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int32])
def test_a_copy_holds_the_same_values_and_is_its_own(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x = torch.arange(max(1, torch.Size(shape).numel())).to(dtype)[: torch.Size(shape).numel()].view(shape)
    assert torch.equal(huge_pages.zeros(shape, dtype, CPU), torch.zeros(shape, dtype=dtype))
    same = huge_pages.copy(x)
    gc.collect()
    assert torch.equal(same, x)
    assert same.is_contiguous()
    if x.nbytes >= HUGE_PAGE:
        assert same.data_ptr() % HUGE_PAGE == 0
    same.zero_()
    assert x.numel() <= 1 or x.any()


def test_only_memory_that_is_fresh_from_the_system_is_taken_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    kept, fresh = torch.empty(FROM_SYSTEM - 1, dtype=torch.int8), torch.empty(3, FROM_SYSTEM // 2).bfloat16()
    monkeypatch.setattr(huge_pages, "_MALLOC_KEEPS_ALL", False)
    assert huge_pages.unwritten(kept) is kept
    taken = huge_pages.unwritten(fresh)
    assert (taken.shape, taken.dtype, taken.data_ptr() % HUGE_PAGE) == (fresh.shape, fresh.dtype, 0)
    monkeypatch.setattr(huge_pages, "_MALLOC_KEEPS_ALL", True)
    assert huge_pages.unwritten(fresh) is fresh


def test_meta_tensors_take_no_memory() -> None:
    assert huge_pages.zeros((2**20, 2**20), torch.float32, torch.device("meta")).is_meta


@pytest.mark.skipif(
    not ENABLED.is_file() or "[never]" in ENABLED.read_text(),
    reason="this system has no transparent huge pages",
)
def test_the_system_gives_large_pages() -> None:
    def large() -> int:
        rollup = Path("/proc/self/smaps_rollup").read_text()
        return int(rollup.split("AnonHugePages:")[1].split()[0]) * 1024

    before = large()
    x = huge_pages.zeros((16 * HUGE_PAGE,), torch.int8, CPU)
    x.fill_(1)
    # memory may be too scattered to give all
    assert large() - before >= 8 * HUGE_PAGE
