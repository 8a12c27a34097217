"""The text of an answer, piece by piece as its tokens come."""

from collections.abc import Callable


class TextStream:
    """Text that becomes certain with each token; all pieces together are the whole text, without outer space.

    A token is decoded together with a few before it, never with all: the cost of a token does not grow.

    Args:
        decode: text of token ids, with its spaces.
    """

    def __init__(self, decode: Callable[[list[int]], str]) -> None:
        self.decode = decode
        self.ids: list[int] = []
        # ids[:certain] are shown; decoding starts at context, since a first token may lose its space
        self.context = self.certain = 0
        self.started = False
        self.space = ""

    def add(self, token: int) -> str:
        """What is certain now and was not before."""
        self.ids.append(token)
        text = self._rest()
        # bytes of an unfinished character decode to a replacement sign: wait for the others
        if not text or text.endswith("\ufffd"):
            return ""
        self.context, self.certain = self.certain, len(self.ids)
        return self._without_outer_space(text)

    def end(self) -> str:
        """What is left when no more tokens come."""
        return self._without_outer_space(self._rest())

    def _rest(self) -> str:
        shown = self.decode(self.ids[self.context : self.certain])
        return self.decode(self.ids[self.context :])[len(shown) :]

    def _without_outer_space(self, text: str) -> str:
        """Spaces wait for what follows them; those at the start are dropped."""
        text = self.space + text if self.started else text.lstrip()
        shown = text.rstrip()
        self.space = text[len(shown) :]
        self.started = self.started or bool(shown)
        return shown
