"""Data sets of the `datasets` library: by name from the Hugging Face hub, or in a local folder."""

from collections.abc import Iterator
from os.path import expanduser
from pathlib import Path
from typing import Any

from cobra.data.chat_table import ChatTable
from cobra.data.columns import Columns, picture
from cobra.data.raw_chat import RawChat
from cobra.data.record import ImageSource


class HubDataset(ChatTable):
    """Chats of a data set that `datasets` loads, as `ParquetChats` reads their columns.

    What was fetched once is read without a network. `datasets` keeps a copy with pictures inside, which is
    mapped; of a set that is too large for one, fetch the files and read them with `ParquetChats`. No code of
    a data set is run.

    Args:
        name: on the hub, such as `HuggingFaceM4/the_cauldron`; or a folder that `save_to_disk` wrote or that
            holds parquet, JSON, or pictures with a metadata file.
        split: such as `train` or `train[:1000]`.
        config: of several in one set, such as `ai2d`.
        chats: the column of chats; found by its usual names when left out.
        images: the column of pictures; found by its usual names when left out.
        min_rating: leave out turns that FineVision rates lower, in any of its four ways.
        cache_dir: where the table is kept; the `datasets` library's own folder when left out.
    """

    def __init__(
        self,
        name: str,
        split: str = "train",
        config: str | None = None,
        chats: str | None = None,
        images: str | None = None,
        min_rating: int = 0,
        cache_dir: str | Path | None = None,
    ) -> None:
        # Arrow's own values: a picture stays the bytes of its file
        self.data = _load(expanduser(name), config, split).with_format("arrow")
        self.columns = Columns.find(self.data.column_names, f"data set {name!r}", chats, images, min_rating)
        files = [Path(file["filename"]) for file in self.data.cache_files]
        options = [self.data._fingerprint, self.columns.chats, self.columns.images, min_rating]
        super().__init__(Path(name).name, files, cache_dir, options, f"data set {name!r}")

    def raws(self) -> Iterator[RawChat]:
        """The rows of the split, in order."""
        row = 0
        names = [*self.columns.texts, *([self.columns.images] if self.columns.images else [])]
        for table in self.data.select_columns(names).iter(1024):
            yield from self.columns.raws(table, (str(row + number) for number in range(len(table))))
            row += len(table)

    def image(self, name: str, row: int) -> ImageSource:
        """The bytes in the row's cell, or the file that it names."""
        value = self.data[row].column(self.columns.images)[0].as_py()
        try:
            return picture(value, int(name))
        except ValueError as error:
            raise ValueError(f"row {row}: {error}") from error


def _load(name: str, config: str | None, split: str) -> Any:
    import datasets

    folder = Path(name)
    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        found = datasets.load_from_disk(name)
        if isinstance(found, datasets.Dataset):
            return found
        if split not in found:
            raise ValueError(f"{name!r} has no split {split!r}, but {sorted(found)}: name one with `split`")
        return found[split]
    try:
        return datasets.load_dataset(name, config, split=split)
    # no network, no such set, a set that is a program, files that are none: each fails in its own way
    except Exception as error:
        raise ValueError(
            f"data set {name!r} cannot be loaded ({type(error).__name__}: {error}): check `name`, `config` "
            "and `split`, or fetch its files and name their folder"
        ) from error
