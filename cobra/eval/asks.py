"""Asks of a benchmark under several protocols, each once, and which number a protocol's papers print."""

from collections.abc import Sequence

from cobra.eval.benchmarks.base import Benchmark
from cobra.eval.protocols.protocol import Ask, Headline, Protocol


def asks_of(benchmark: type[Benchmark], protocols: Sequence[Protocol]) -> list[Ask]:
    """All ways in which protocols ask it; what several share comes once.

    Raises:
        ValueError: where none asks it, or two mean different things by one name.
    """
    asks: dict[str, Ask] = {}
    for protocol in protocols:
        for ask in protocol.asks.get(benchmark.name, benchmark.asks):
            if asks.setdefault(ask.name, ask) != ask:
                raise ValueError(
                    f"protocol {protocol.name} has another ask {ask.name!r} of {benchmark.name} than one "
                    "before it: rename one of them, or evaluate one protocol at a time"
                )
    if not asks:
        names = ", ".join(protocol.name for protocol in protocols)
        raise ValueError(
            f"no stanza of {benchmark.name} in protocol {names}: name another --protocol, or let the "
            "benchmark say its own `asks`"
        )
    return list(asks.values())


def headline_of(benchmark: type[Benchmark], protocol: Protocol) -> Headline | None:
    """The number of it that the protocol's papers print; None where they print none."""
    return protocol.headlines.get(benchmark.name, benchmark.headline)
