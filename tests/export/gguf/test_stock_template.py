"""Chat templates of lm.gguf: turns with markers, as llama.cpp has them, are turns with pictures."""

from importlib.resources import files
from pathlib import Path

import pytest

from cobra.data.chat_template import ChatTemplate
from cobra.export.gguf.stock_template import stock_template

_TEMPLATES = Path(str(files("cobra.data") / "templates"))
_SOURCES = {
    **{path.stem: path.read_text() for path in sorted(_TEMPLATES.glob("*.jinja"))},
    "shapes": (_TEMPLATES.parent / "shapes/tokenizer/chat_template.jinja").read_text(),
}
_TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}


@pytest.mark.parametrize("marker", ["<__media__>", "<__media_x8kd__>"])
@pytest.mark.parametrize("name", _SOURCES)
def test_markers_in_words_are_pictures(name: str, marker: str) -> None:
    image = {"type": "image"}
    said = [
        [image, image, {"type": "text", "text": " What is it?__>"}],
        [{"type": "text", "text": "A cat."}],
        [{"type": "text", "text": "And else?"}],
    ]
    roles = ("user", "assistant", "user")
    parts = [{"role": role, "content": content} for role, content in zip(roles, said, strict=True)]
    words = [f"{marker}{marker} What is it?__>", "A cat.", "And else?"]
    strings = [{"role": role, "content": text} for role, text in zip(roles, words, strict=True)]
    template, stock = ChatTemplate(_SOURCES[name]), ChatTemplate(stock_template(_SOURCES[name]))
    for turns in (1, 3):
        expected = "".join(text for text, _ in template.render(parts[:turns], True, **_TOKENS))
        assert "<image>" in expected
        (found,) = stock.render(strings[:turns], True, **_TOKENS)
        assert found == (expected.replace("<image>", marker), False)
        # without pictures nothing is otherwise
        assert "".join(t for t, _ in stock.render(parts[1:turns], True, **_TOKENS)) == "".join(
            t for t, _ in template.render(parts[1:turns], True, **_TOKENS)
        )


def test_a_template_without_pictures_loses_transformers_marks_alone() -> None:
    source = "{% generation %}{{ messages[0].content }}{%- endgeneration -%} <|end|>"
    assert stock_template(source) == "{{ messages[0].content }} <|end|>"
