"""LRV-Instruct: questions about pictures and charts, among them such that have no answer."""

from collections.abc import Iterator
from pathlib import PurePosixPath

from cobra.data.json_records import read_json_records
from cobra.data.llava import LlavaJson
from cobra.data.raw_chat import RawChat


class LrvInstruct(LlavaJson):
    """Chats from a file of `{"image_id", "question", "answer"}`: filter_cap1.json, chart_release_update.json.

    Ids of Visual Genome's pictures lack the `.jpg` of their files, which are in LRV's own archive, numbered
    otherwise than Visual Genome; ids of charts are names of files.
    """

    def raws(self) -> Iterator[RawChat]:
        """The file's records as LLaVA has them."""
        for row in read_json_records(self.json):
            yield RawChat(_as_llava(row))


def _as_llava(row: object) -> object:
    if not isinstance(row, dict) or not row.get("image_id"):
        return None
    picture = PurePosixPath(str(row["image_id"]))
    turns = [{"from": "human", "value": row.get("question")}, {"from": "gpt", "value": row.get("answer")}]
    name = str(picture) if picture.suffix else f"{picture}.jpg"
    return {"id": picture.stem, "image": name, "conversations": turns}
