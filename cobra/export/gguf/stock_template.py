"""A chat template as llama.cpp's own programs use it: with a marker among a turn's words for a picture."""

import re

from cobra.data.token_ids import IMAGE_TEXT

# of llama-mtmd-cli it is `<__media__>`; llama-server draws one, `<__media_` ... `__>`
_START, _END = "<__media", "__>"

# turns of words with markers become turns of parts
_BEFORE = (
    """
{%- set stock = namespace(messages=[], parts=[], marker="IMAGE") -%}
{%- for message in messages -%}
{%- if message.content is string -%}
{%- set stock.parts = [] -%}
{%- for piece in message.content.split("START") -%}
{%- set words = piece -%}
{%- if not loop.first -%}
{%- set tail = piece.split("END") -%}
{%- set stock.marker = "START" ~ tail[0] ~ "END" -%}
{%- set stock.parts = stock.parts + [{"type": "image"}] -%}
{%- set words = tail[1:] | join("END") -%}
{%- endif -%}
{%- if words -%}
{%- set stock.parts = stock.parts + [{"type": "text", "text": words}] -%}
{%- endif -%}
{%- endfor -%}
{%- set stock.messages = stock.messages + [{"role": message.role, "content": stock.parts}] -%}
{%- else -%}
{%- set stock.messages = stock.messages + [message] -%}
{%- endif -%}
{%- endfor -%}
{%- set messages = stock.messages -%}
{%- set rendered -%}
""".strip()
    .replace("IMAGE", IMAGE_TEXT)
    .replace("START", _START)
    .replace("END", _END)
)
# and what the template writes for a picture becomes the marker
_AFTER = '{%- endset -%}{{- rendered | replace("' + IMAGE_TEXT + '", stock.marker) -}}'


def stock_template(source: str) -> str:
    """The template without what others than transformers do not know, with markers for pictures."""
    plain = re.sub(r"{%-?\s*(end)?generation\s*-?%}", "", source)
    return f"{_BEFORE}{plain}{_AFTER}" if IMAGE_TEXT in plain else plain
