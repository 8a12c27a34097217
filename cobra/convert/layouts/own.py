"""This project's own folders: a vision-language model, or a language model alone."""

from cobra.config.config_json import LM, VLM
from cobra.convert.layout import Layout, Tree
from cobra.convert.source import Source


class Own(Layout):
    """What `save_pretrained`, a training run and `cobra convert` write."""

    title = "cobra"

    def recognises(self, source: Source) -> bool:
        """Whether its model_type is one of this project's."""
        return source.config.get("model_type") in (VLM, LM)

    def parts(self, source: Source) -> dict[str, Tree]:
        """The trees as they were written."""
        tree = source.config.get("model")
        if not isinstance(tree, dict) or not isinstance(tree.get("init_args"), dict):
            raise ValueError(f"{source.path.parent}: config.json has no class_path tree: restore the file")
        return {"lm": tree} if source.config["model_type"] == LM else tree["init_args"]

    def key_map(self, source: Source) -> dict[str, str]:
        """The names as they are, but that a language model's lack the part."""
        return {"": "lm." if source.config["model_type"] == LM else ""}

    def chat(self, source: Source) -> tuple[str, str | None] | None:
        """The tokenizer in the folder, which has its template."""
        return None if source.tokenizer is None else (str(source.tokenizer), None)
