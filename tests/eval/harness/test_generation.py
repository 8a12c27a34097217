"""What tasks say of an answer, and where it ends."""

from collections.abc import Iterator

import torch
from torch import Tensor

from cobra.eval.harness.generation import Generation, batches, texts


def test_options_mean_what_they_mean_in_transformers() -> None:
    assert Generation.of({}) == Generation()
    assert Generation.of({"do_sample": False, "temperature": 0.7, "top_p": 0.9}) == Generation()
    assert Generation.of({"do_sample": True}) == Generation(temperature=1.0)
    sampled = Generation.of({"temperature": 0.5, "top_k": 3, "top_p": None, "max_gen_toks": 9, "until": "\n"})
    assert sampled == Generation(9, 0.5, 3, 1.0, ("\n",))


def test_batches_hold_one_kind_and_begin_with_the_longest() -> None:
    assert list(batches("aabaab", [1, 5, 9, 5, 2, 1], 2)) == [[1, 3], [4, 0], [2, 5]]


def test_nothing_is_drawn_after_every_row_has_its_stop_string() -> None:
    drawn = 0

    def tokens() -> Iterator[Tensor]:
        nonlocal drawn
        for pair in zip("ab.cdef", "abcd. e", strict=True):
            drawn += 1
            yield torch.tensor([ord(letter) for letter in pair])

    def decode(ids: list[int]) -> str:
        return "".join(map(chr, ids))

    assert texts(tokens(), decode, ["."]) == ["ab", "abcd"]
    assert drawn == 5
    drawn = 0
    assert texts(tokens(), decode, []) == ["ab.cdef", "abcd. e"]
