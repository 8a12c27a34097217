"""What tells two ways of asking a benchmark apart."""

from cobra.eval.protocols.protocol import Ask


def ask_difference(own: Ask, other: Ask) -> str:
    """What tells one way of asking from another, for people."""
    said = []
    if own.chooses != other.chooses:
        said.append("by likelihood" if other.chooses else "generated")
    if own.prompt != other.prompt:
        places = _ocr(own.prompt), _ocr(other.prompt)
        said.append(f"OCR tokens {places[1]}, not {places[0]}" if places[0] != places[1] else "prompt")
    if own.max_new_tokens != other.max_new_tokens and not other.chooses:
        said.append(f"up to {other.max_new_tokens} tokens")
    return ", ".join(said) or "choices"


def _ocr(prompt: str) -> str:
    tokens, question = prompt.find("ocr_tokens"), prompt.find("question")
    return "left out" if tokens < 0 else "before the question" if tokens < question else "after the question"
