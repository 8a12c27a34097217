"""The text of an answer, piece by piece as its tokens come."""

from collections.abc import Callable, Sequence


class TextStream:
    """Text that becomes certain with each token; all pieces together are the whole text, without outer space.

    A token is decoded together with a few before it, never with all: the cost of a token does not grow.

    Args:
        decode: text of token ids, with its spaces.
        stop: the text ends before the first of these; `stopped` says that it has.
    """

    def __init__(self, decode: Callable[[list[int]], str], stop: Sequence[str] = ()) -> None:
        self.decode, self.stop = decode, stop
        self.ids: list[int] = []
        # ids[:certain] are decoded; decoding starts at context, since a first token may lose its space
        self.context = self.certain = 0
        # decoded, but not shown yet: spaces that may be the last, and what may begin a stop string
        self.held = ""
        self.started = self.stopped = False

    def add(self, token: int) -> str:
        """What is certain now and was not before."""
        self.ids.append(token)
        text = self._rest()
        # bytes of an unfinished character decode to a replacement sign: wait for the others
        if not text or text.endswith("\ufffd"):
            return ""
        self.context, self.certain = self.certain, len(self.ids)
        return self._shown(text)

    def end(self) -> str:
        """What is left when no more tokens come."""
        return "" if self.stopped else self._shown(self._rest(), is_last=True)

    def _rest(self) -> str:
        shown = self.decode(self.ids[self.context : self.certain])
        return self.decode(self.ids[self.context :])[len(shown) :]

    def _shown(self, text: str, is_last: bool = False) -> str:
        """What can be shown of what was held and comes now."""
        self.held += text
        if not self.started:
            self.held = self.held.lstrip()
        kept = before_stop(self.held, self.stop)
        self.stopped = len(kept) < len(self.held)
        wait = 0 if is_last or self.stopped else max((_begun(kept, s) for s in self.stop), default=0)
        shown = kept[: len(kept) - wait].rstrip()
        self.held = self.held[len(shown) :]
        self.started = self.started or bool(shown)
        return shown


def before_stop(text: str, stop: Sequence[str]) -> str:
    """The text before the first of the stop strings."""
    return text[: min((text.index(s) for s in stop if s in text), default=len(text))]


def _begun(text: str, stop: str) -> int:
    """How many of its last characters may be the first of a stop string."""
    sizes = range(min(len(stop) - 1, len(text)), 0, -1)
    return next((size for size in sizes if text.endswith(stop[:size])), 0)
