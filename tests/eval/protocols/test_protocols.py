"""What the protocols that ship agree on."""

import pytest

from cobra.eval.benchmarks.find import benchmark_names, find_benchmark
from cobra.eval.protocols.protocol import Ask, protocol_names, read_protocol


def test_an_ask_of_one_name_is_the_same_in_all_protocols() -> None:
    asks: dict[tuple[str, str], Ask] = {}
    for name in protocol_names():
        for benchmark, stanza in read_protocol(name).asks.items():
            for ask in stanza:
                assert asks.setdefault((benchmark, ask.name), ask) == ask, f"{name}: {benchmark}, {ask.name}"


@pytest.mark.parametrize("protocol", protocol_names())
def test_all_benchmarks_that_a_protocol_asks_are_there(protocol: str) -> None:
    assert set(read_protocol(protocol).asks) <= set(benchmark_names())


NAMES = (
    "pope", "vsr", "vsr_random", "mme", "mmbench", "mmbench_samples", "mmbench_cn", "ccbench", "scienceqa",
    "refcoco", "refcoco+", "refcocog", "chair", "amber", "photos_vqa", "photos_pope",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_benchmarks_of_choices_are_found_by_their_names(name: str) -> None:
    assert find_benchmark(name).name == name
    assert find_benchmark(name).downloads
