"""Files of tensors: what is damaged is not read."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cobra.weights.tensors import load_plain, open_tensors


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    torch.save({"a": torch.randn(1000), "b": {"c": torch.arange(50), "step": 7}}, tmp_path / "a.pt")
    return tmp_path / "a.pt"


def content(path: Path) -> str:
    data = load_plain(path)
    return repr((data["a"].tolist(), data["b"]["c"].tolist(), data["b"]["step"]))


def test_no_bit_that_is_flipped_changes_what_is_read(saved: Path) -> None:
    whole, expected = saved.read_bytes(), content(saved)
    rng, refused = np.random.default_rng(0), 0
    for place in rng.integers(0, len(whole), 300):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(0, 8))
        saved.write_bytes(damaged)
        try:
            found = content(saved)
        except ValueError:
            refused += 1
        else:
            assert found == expected, place
    assert refused > 150


def test_a_flipped_bit_of_a_weight_is_refused_with_the_remedy(saved: Path) -> None:
    whole = bytearray(saved.read_bytes())
    whole[whole.index(torch.arange(50).numpy().tobytes()) + 9] ^= 4
    saved.write_bytes(whole)
    with pytest.raises(
        ValueError, match=r"a\.pt is damaged: .* check sum: get the file again, or take an ear"
    ):
        open_tensors(saved)


def test_a_file_that_was_written_without_check_sums_is_read(saved: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"a": torch.ones(3)}, saved)
    finally:
        torch.serialization.set_crc32_options(True)
    assert open_tensors(saved)["a"].read().tolist() == [1, 1, 1]
