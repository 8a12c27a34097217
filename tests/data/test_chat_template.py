"""Chat templates: what transformers renders, and an end to those that make much of little."""

import pickle

import pytest

import cobra.torchvision_shim  # noqa: F401  (before transformers)
from cobra.config import limits
from cobra.data import chat_template
from cobra.data.chat_template import ChatTemplate

from transformers.utils.chat_template_utils import render_jinja_template  # isort: skip

MESSAGES = [
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What <b>is</b> it?"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "A cat, {{ 1 }}"}]},
    {"role": "user", "content": [{"type": "text", "text": "Sure?"}]},
]
# what chat templates on the hub are made of
TEMPLATE = """{%- set ns = namespace(seen=0, text='') %}
{%- macro shown(parts) -%}
    {%- for part in parts -%}
        {%- if part.type == 'image' -%}<image>{%- else -%}{{ part['text'] | trim }}{%- endif -%}
    {%- endfor -%}
{%- endmacro -%}
{%- set rest = messages[1:] if messages[0]['role'] == 'system' else messages %}
{%- for message in rest %}
    {%- if loop.index0 > 10 %}{% break %}{% endif %}
    {%- set ns.seen = ns.seen + 1 %}
    {%- set ns.text = ns.text ~ message.role[:1] %}
    {%- if message['role'] == 'assistant' %}
        {%- generation %}{{ shown(message.content) ~ eos_token }}{% endgeneration %}
    {%- else %}
{{ '<|' + message['role'] + '|>' }}
{{ shown(message.content) }}{{ '.' * 3 if loop.last else '' }}
    {%- endif %}
{%- endfor %}
{{ [ns.seen, ns.text, (1, 2)] | tojson }} {{ {'a': messages | length} }} {{ 'x,y'.split(',') | join('-') }}
{{ 'a b'.replace(' ', '_').upper() }} {{ '%s' | format(ns.seen) }} {{ 7 % 4 }} {{ 2 ** 3 }}
{{ tools is none }}
{{ messages | map(attribute='role') | unique | list }} {{ range(3) | list }} {{ nothing is defined }}
{%- if add_generation_prompt %}<|assistant|>{% endif %}"""


@pytest.mark.parametrize("prompt", [False, True])
def test_a_template_is_rendered_as_by_transformers(prompt: bool) -> None:
    texts, spans = render_jinja_template(
        [MESSAGES], chat_template=TEMPLATE, return_assistant_tokens_mask=True, add_generation_prompt=prompt,
        eos_token="</s>",
    )  # fmt: skip
    template = ChatTemplate(TEMPLATE)
    for rendered in (template, pickle.loads(pickle.dumps(template))):
        pieces = rendered.render(MESSAGES, prompt, eos_token="</s>")
        assert "".join(text for text, _ in pieces) == texts[0]
        assert [text for text, said in pieces if said] == [texts[0][slice(*span)] for span in spans[0]]


LOOP = "{% for a in range(99999) %}"
ENDLESS = {
    "loops in loops": f"{LOOP}{LOOP}{LOOP}a{{% endfor %}}{{% endfor %}}{{% endfor %}}",
    "calls in calls": "{% macro m(n) %}{{ m(n - 1) ~ m(n - 1) if n else '' }}{% endmacro %}{{ m(60) }}",
    "slices": "{% set x = 'a' * 9999 %}" + LOOP + "{{ x[1:][:1] }}{% endfor %}",
    "filters": "{% set x = 'a' * 9999 %}" + LOOP + "{{ x | trim | length }}{% endfor %}",
    "a product": "{{ 'a' * 9999999999 }}",
    "a product of lists": "{{ ([1] * 99999999) | length }}",
    "a power": "{{ (9 ** (9 ** 9)) % 2 }}",
    "squares": "{% set n = namespace(x=9) %}" + LOOP + "{% set n.x = n.x * n.x %}{% endfor %}",
    "a centre": "{{ 'a' | center(9999999999) }}",
    "a method's centre": "{{ 'a'.center(9999999999) }}",
    "a width": "{{ '%9999999999d' % 1 }}",
    "a filter's width": "{{ '%9999999999d' | format(1) }}",
    "a format": "{{ '{:9999999999}'.format(1) }}",
    "an indent": "{{ ('a\n' * 9999) | indent(9999999) }}",
    "a number's bytes": "{{ (1).to_bytes(9999999999) }}",
    "replacements": "{% set x = 'a' * 9999 %}{{ x.replace('', x) | length }}",
    "a join": "{% set x = 'a' * 9999 %}{{ x | join(x) | length }}",
    "joined texts": "{% set n = namespace(x='a') %}" + LOOP + "{% set n.x = n.x ~ n.x %}{% endfor %}",
    "added lists": "{% set n = namespace(x=[1]) %}" + LOOP + "{% set n.x = n.x + n.x %}{% endfor %}",
    "nested lists": "{% set n = namespace(x=[1]) %}" + LOOP + "{% set n.x = [n.x, n.x] %}{% endfor %}",
    "nested tuples": "{% set n = namespace(x=1) %}" + LOOP + "{% set n.x = (n.x, n.x) %}{% endfor %}",
    "nested objects": "{% set n = namespace(x=1) %}" + LOOP + "{% set n.x = {1: n.x, 2: n.x} %}{% endfor %}",
    "namespaces": "{% set n = namespace(x=1) %}{% set m = namespace(x=n) %}{{ m }}",
    "written text": "{% set n = namespace(x='a') %}" + LOOP
    + "{% set b %}{{ n.x }}{{ n.x }}{% endset %}{% set n.x = b %}{% endfor %}",
}  # fmt: skip


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ENDLESS)
def test_what_would_not_end_or_fill_the_memory_is_stopped(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a hundredth of the bounds, since all of them are reached."""
    monkeypatch.setattr(chat_template, "MAX_TEMPLATE_TEXT", limits.MAX_TEMPLATE_TEXT // 100)
    monkeypatch.setattr(chat_template, "MAX_TEMPLATE_WORK", limits.MAX_TEMPLATE_WORK // 100)
    with pytest.raises(ValueError, match=r"it (makes|does|calls|sets|raises)|makes more than"):
        ChatTemplate(ENDLESS[name]).render(MESSAGES, False)
