"""Text of models and files on its way to a terminal."""

import re
from typing import TextIO

# all but tab and new line
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def harmless(text: str, stream: TextIO) -> str:
    """The text without characters that would command a terminal; a pipe or a file gets it as it is."""
    return _CONTROL.sub("\ufffd", text) if stream.isatty() else text
