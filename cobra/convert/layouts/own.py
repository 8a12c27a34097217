"""This project's own folders: a vision-language model, or a language model alone."""

from collections.abc import Mapping

from cobra.config.build import build_on_meta
from cobra.config.config_json import ADAPTERS, LM, QUANTIZED, VLM
from cobra.config.limits import MAX_TENSORS
from cobra.convert.layout import Layout, Tree
from cobra.convert.source import Source
from cobra.models.adapters import merged, read
from cobra.pretrained import copies
from cobra.weights.tensors import Stored


class Own(Layout):
    """What `save_pretrained`, a training run and `cobra convert` write."""

    title = "cobra"

    def recognises(self, source: Source) -> bool:
        """Whether its model_type is one of this project's."""
        return source.config.get("model_type") in (VLM, LM)

    def parts(self, source: Source) -> dict[str, Tree]:
        """The trees as they were written."""
        tree = source.config.get("model")
        if (packed := source.config.get(QUANTIZED)) is not None:
            raise ValueError(
                f"{source.path.parent} holds packed weights ({packed}), from which nothing is converted or "
                "trained: take the model that they were made from"
            )
        if not isinstance(tree, dict) or not isinstance(tree.get("init_args"), dict):
            raise ValueError(f"{source.path.parent}: config.json has no class_path tree: restore the file")
        parts = {"lm": tree} if source.config["model_type"] == LM else tree["init_args"]
        for part in ("lm",) if source.config["model_type"] == LM else ("vision", "projector", "lm"):
            if not isinstance(parts.get(part), dict) or "class_path" not in parts[part]:
                raise ValueError(
                    f"{source.path.parent}: config.json names no class for {part}: restore the file"
                )
        return parts

    def tensors(self, source: Source) -> Mapping[str, Stored]:
        """A training run's checkpoint has adapters beside what they adapt."""
        adapters = read(source.config.get(ADAPTERS, {}))
        return merged(source.tensors, adapters) if adapters else source.tensors

    def key_map(self, source: Source) -> dict[str, str]:
        """The names as they are, but that a language model's lack the part."""
        return {"": "lm." if source.config["model_type"] == LM else ""}

    def copies(self, source: Source) -> dict[str, str]:
        """A training run's checkpoint has a tied head as well."""
        parts = {} if source.files is None else self.parts(source)
        tree = {"class_path": "cobra.models.vlm.CobraVLM", "init_args": parts}
        return copies(build_on_meta(tree, MAX_TENSORS)) if parts else {}

    def chat(self, source: Source) -> tuple[str, str | None] | None:
        """The tokenizer in the folder, which has its template."""
        return None if source.tokenizer is None else (str(source.tokenizer), None)
