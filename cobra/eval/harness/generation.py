"""Answers as harnesses ask for them: their options in this project's terms, batches, stop strings."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cobra.inference.text_stream import TextStream, before_stop
from cobra.models.sampling import Sampler

# what tasks call the longest answer; the first that is said counts
_LONGEST = ("max_new_tokens", "max_gen_toks", "max_tokens", "max_completion_tokens")


@dataclass(frozen=True)
class Generation:
    """How an answer is generated.

    Attributes:
        max_new_tokens: longest answer.
        temperature: 0 is greedy.
        top_k: as `Sampler` has it.
        top_p: as `Sampler` has it.
        stop: the answer ends before the first of these texts.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> "Generation":
        """From what a task gives transformers' `generate`; options of pictures, which some add, are not ours.

        Raises:
            ValueError: where it asks for a search by beams.
        """
        given = {name: value for name, value in said.items() if value is not None}
        if given.get("num_beams", 1) != 1:
            raise ValueError(
                f"num_beams {given['num_beams']}: there is no search by beams here: leave it out"
            )
        samples = given.get("do_sample", given.get("temperature", 0) > 0)
        stop = given.get("until", ())
        return cls(
            int(next((given[name] for name in _LONGEST if name in given), cls.max_new_tokens)),
            float(given.get("temperature", 1.0)) if samples else 0.0,
            int(given.get("top_k", cls.top_k)) if samples else cls.top_k,
            float(given.get("top_p", cls.top_p)) if samples else cls.top_p,
            tuple(filter(None, [stop] if isinstance(stop, str) else stop)),
        )

    @property
    def sampler(self) -> Sampler:
        """Of torch's global generator, which harnesses seed."""
        return Sampler(self.temperature, self.top_k, self.top_p)


def batches(kinds: Sequence[Any], lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    """Places of requests, at most `size` of one kind at a time, the longest first."""
    by_kind: dict[Any, list[int]] = {}
    for place, kind in enumerate(kinds):
        by_kind.setdefault(kind, []).append(place)
    for places in by_kind.values():
        places.sort(key=lambda place: -lengths[place])
        yield from (places[start : start + size] for start in range(0, len(places), size))


def texts(tokens: Iterator[Tensor], decode: Callable[[list[int]], str], stop: Sequence[str]) -> list[str]:
    """The answer of each row before its first stop string; no token (B,) is drawn after all rows have one."""
    if not stop:
        return [decode(ids) for ids in torch.stack(list(tokens), dim=1).tolist()]
    rows: list[TextStream] = []
    for token in tokens:
        rows = rows or [TextStream(decode, stop) for _ in token]
        for row, chosen in zip(rows, token.tolist(), strict=True):
            row.add(chosen)
        if all(row.stopped for row in rows):
            break
    return [before_stop(decode(row.ids), stop) for row in rows]
