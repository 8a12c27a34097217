"""A SentencePiece tokenizer (LLaMA's, Phi-3's) in a GGUF file's metadata."""

from typing import Any

from cobra.export.gguf.file import Value

# llama.cpp's types of tokens
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
_BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))
_SPACE = "▁"
_PHI3 = {"<unk>", "<s>", "</s>", "<|endoftext|>"}
# of pieces that no merge makes
_NEVER = -1e9


class CannotExpress(ValueError):
    """A tokenizer that llama.cpp does not have."""


def is_sentencepiece(said: dict[str, Any]) -> bool:
    """Whether a tokenizer.json is of characters that fall back to bytes."""
    return said["model"]["type"] == "BPE" and bool(said["model"].get("byte_fallback"))


def sentencepiece_metadata(said: dict[str, Any], types: list[int]) -> dict[str, Value]:
    """Scores, by which llama.cpp merges, and its rule of spaces; bytes and the unknown get their types.

    Args:
        said: tokenizer.json.
        types: of all tokens, changed in place.

    Raises:
        CannotExpress: where llama.cpp cuts in another way, saying why.
    """
    model = said["model"]
    vocabulary: dict[str, int] = model["vocab"]
    # llama.cpp ends the process at a character that is none
    if missing := [byte for byte in _BYTES if byte not in vocabulary]:
        raise CannotExpress(f"it has no token for the byte {missing[0]}")
    for byte in _BYTES:
        types[vocabulary[byte]] = BYTE
    metadata: dict[str, Value] = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.scores": _scores(model, len(types)),
        "tokenizer.ggml.add_space_prefix": _has_prefix(said),
    }
    if model.get("unk_token") is not None:
        unknown = vocabulary[model["unk_token"]]
        types[unknown], metadata["tokenizer.ggml.unknown_token_id"] = UNKNOWN, unknown
    # the one name by which llama.cpp lets special tokens swallow the spaces behind them, all but these
    known = {*vocabulary, *(token["content"] for token in said["added_tokens"])}
    if any(token["special"] and token["rstrip"] for token in said["added_tokens"]) and known >= _PHI3:
        metadata["general.name"] = "Phi-3"
    return metadata


def _scores(model: dict[str, Any], size: int) -> list[float]:
    """The earlier a merge, the higher is the score of what it makes."""
    scores = [_NEVER] * size
    for rank, merge in enumerate(model["merges"]):
        made = model["vocab"]["".join(merge.split(" ") if isinstance(merge, str) else merge)]
        scores[made] = max(scores[made], -float(rank))
    return scores


def _has_prefix(said: dict[str, Any]) -> bool:
    """Whether a text begins with a space of its own."""
    normal, cut = said["normalizer"] or {}, said["pre_tokenizer"] or {}
    steps = [*normal.get("normalizers", [normal] if normal else [])]
    cuts = [*cut.get("pretokenizers", [cut] if cut else [])]
    prepends = [step for step in steps if step == {"type": "Prepend", "prepend": _SPACE}]
    others = [step for step in steps if step not in prepends and not _is_replaced(step)]
    whole = [step for step in cuts if step["type"] == "Metaspace" and not step.get("split", True)]
    if others or whole != cuts or len(prepends) + len(whole) > 1:
        raise CannotExpress("llama.cpp knows no way like its own to put spaces")
    return bool(prepends) or any(step["prepend_scheme"] != "never" for step in whole)


def _is_replaced(step: dict[str, Any]) -> bool:
    return step["type"] == "Replace" and step["pattern"] == {"String": " "} and step["content"] == _SPACE
