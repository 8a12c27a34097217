"""Text of files that people write or fetch."""

from pathlib import Path


def read_text(path: Path) -> str:
    """The text of a file, without the mark that some editors put first.

    Raises:
        FileNotFoundError: where there is none.
        ValueError: where it is not UTF-8, with the position.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no UTF-8 at byte {error.start}: save it as UTF-8") from error
