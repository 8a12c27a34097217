"""LLaVA-style JSON, which most published instruction data comes in."""

from collections.abc import Iterator, Sequence
from os.path import expanduser
from pathlib import Path

from cobra.data.chat_table import ChatTable
from cobra.data.json_records import read_json_records
from cobra.data.raw_chat import RawChat, caption, open_image
from cobra.data.record import ImageSource, Message


class LlavaJson(ChatTable):
    """Chats from a file of `{"id", "image", "conversations": [{"from", "value"}, ...]}`, an array or lines.

    Read as well: `{"messages": [{"role", "content"}, ...]}` of OpenAI and Hugging Face, content being text or
    parts, pictures named in the parts or beside the chat; TRL's `{"prompt", "completion"}`.

    The file is converted once to an Arrow table, which is mapped and not read, so that workers share it.
    Records without a picture are text only. `<image>` keeps its place in the text; pictures that no text
    places come first. As by LLaVA, answers before the first question and a question after the last answer are
    left out, and counted in `mended`; an answer may be empty, but not all. Records that are no chat are
    dropped, counted in `dropped` and logged in one line with the first of each kind.

    Args:
        json: the file.
        image_root: folder that the file's image paths start from.
        cache_dir: where the table is kept; the `datasets` library's own folder when left out.
    """

    def __init__(self, json: str | Path, image_root: str | Path, cache_dir: str | Path | None = None) -> None:
        # no shell has read the yaml that these may come from
        self.json, self.image_root = (Path(expanduser(name)).absolute() for name in (json, image_root))
        if not self.json.is_file():
            raise FileNotFoundError(f"there is no file {str(self.json)!r}: check `json`")
        if not self.image_root.is_dir():
            raise FileNotFoundError(f"there is no folder {str(self.image_root)!r}: check `image_root`")
        super().__init__(self.json.stem, [self.json], cache_dir)

    def raws(self) -> Iterator[RawChat]:
        """The file's records, as they are."""
        for chat in read_json_records(self.json):
            yield RawChat(chat)

    def image(self, name: str, row: int) -> ImageSource:
        """The file, or the bytes that a data: address holds."""
        return open_image(name, self.image_root)


class LlavaCaptions(LlavaJson):
    """Pictures with the first answer about them and no question: what Cobra's stage `align` reads."""

    def messages(self, turns: Sequence[dict[str, str]]) -> list[Message]:
        """The pictures and the first answer."""
        return caption(super().messages(turns))
