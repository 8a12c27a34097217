"""Chat template: a Jinja program from a tokenizer's file, which need not be trusted, run within bounds."""

import functools
import json
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from cobra.config.limits import MAX_TEMPLATE_TEXT, MAX_TEMPLATE_WORK

# Around what the assistant says, in rendered text; Unicode calls them no characters.
_START, _END = "\ufdd1", "\ufdd2"
# What an item of a list or a loop costs, and a call, in characters.
_ITEM, _CALL = 10, 200
_BITS = 1024
# What makes more than it is given, at most the product of its two longest arguments.
_GROWING = {
    "batch", "center", "expandtabs", "format", "indent", "join", "ljust", "replace", "rjust", "slice",
    "to_bytes", "wordwrap", "zfill", "*", "%",
}  # fmt: skip
# What makes much of words: a width in a format, a table of replacements.
_FORBIDDEN = {"format", "format_map", "translate"}


class ChatTemplate:
    """Renders chats as transformers does, with `{% generation %}` around what the assistant says.

    Args:
        source: the template.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self._environment = _Bounded()
        self._template = self._environment.from_string(source)

    def render(self, messages: list[dict[str, Any]], prompt: bool, **tokens: str) -> list[tuple[str, bool]]:
        """Stretches of text, and whether the assistant says them.

        Args:
            messages: as `apply_chat_template` takes them.
            prompt: whether the assistant is about to speak.
            tokens: the tokenizer's special tokens by their roles.

        Raises:
            Exception: whatever the template raises; a ValueError where it goes beyond a bound.
        """
        self._environment.work = 0
        text = self._template.render(
            messages=messages, tools=None, documents=None, add_generation_prompt=prompt, **tokens
        )
        return [(piece, bool(number % 2)) for number, piece in enumerate(re.split(f"[{_START}{_END}]", text))]

    def __reduce__(self) -> tuple[Any, ...]:
        # compiled code goes to no other process
        return ChatTemplate, (self.source,)


class _Generation(Extension):
    tags = {"generation"}  # noqa: RUF012  (as jinja declares it)

    def parse(self, parser: Any) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_say"), [], [], body).set_lineno(line)

    def _say(self, caller: Callable[[], str]) -> str:
        return _START + caller() + _END


class _Bounded(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, which counts what is made and how often: neither loops nor sizes are for ever.

    Every value that a program makes is measured when it is made, so that those it works with are small.
    """

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
        self.work = 0
        self.filters["tojson"] = _to_json
        for table in (self.filters, self.tests):
            for name, made in list(table.items()):
                table[name] = self._bounded(name, made)
        self.filters |= {"_counted": self._counted, "_measured": self._measured}
        self.globals = {
            "range": self.globals["range"], "dict": lambda *args, **kwargs: dict(*args, **kwargs),
            "namespace": _Attributes, "raise_exception": _raise,
            "strftime_now": lambda form: datetime.now().strftime(form),
        }  # fmt: skip

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        return _Measuring().visit(super()._parse(source, name, filename))

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        name = getattr(__obj, "__name__", "")
        owner = getattr(__obj, "__self__", None)
        if name in _FORBIDDEN:
            raise ValueError(f"it calls {name}, which has no bound")
        call = functools.partial(super().call, __context, __obj)
        return __self._make(name, call, args, kwargs, owner)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" and not (isinstance(right, int | float) and abs(right) <= 64):
            raise ValueError(f"it raises a number to {right!r}")
        makes_numbers = isinstance(left, int | float) and isinstance(right, int | float)
        return self._make("" if makes_numbers else operator, self.binop_table[operator], (left, right), {})

    def _bounded(self, name: str, made: Callable[..., Any]) -> Callable[..., Any]:
        return functools.wraps(made)(lambda *args, **kwargs: self._make(name, made, args, kwargs))

    def _make(self, name: str, call: Callable[..., Any], args: tuple, kwargs: dict, owner: Any = None) -> Any:
        if name in _GROWING:
            given = [owner, *args, *kwargs.values()]
            first, second = sorted((_size(value, numbers=True) for value in given), reverse=True)[:2]
            formats = name in ("%", "format") and any(isinstance(v, str) and _WIDTH.search(v) for v in given)
            if formats or first * max(second, 1) > MAX_TEMPLATE_TEXT:
                raise ValueError(f"{name} makes more than {MAX_TEMPLATE_TEXT} characters")
        self.work += _CALL
        return self._measured(call(*args, **kwargs))

    def _measured(self, value: Any) -> Any:
        self._spend(len(value) if type(value) is str else _size(value))
        return value

    def _counted(self, items: Any) -> Iterable[Any]:
        for item in items:
            self._spend(_ITEM)
            yield item

    def _spend(self, work: int) -> None:
        self.work += work
        if self.work > MAX_TEMPLATE_WORK:
            raise ValueError("it does not come to an end")


class _Measuring(NodeTransformer):
    """Every loop counts its items, and whatever no call makes is measured: lists, joined and written text."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.iter = _filtered(node.iter, "_counted")
        return node

    def visit_Output(self, node: nodes.Output) -> nodes.Node:
        self.generic_visit(node)
        node.nodes = [
            n if isinstance(n, nodes.TemplateData) else _filtered(n, "_measured") for n in node.nodes
        ]
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        return _filtered(self.generic_visit(node), "_measured")

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        if isinstance(node.arg, nodes.Slice):
            node.node = _filtered(node.node, "_measured")
        return node

    visit_List = visit_Dict = visit_Concat

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        self.generic_visit(node)
        return _filtered(node, "_measured") if node.ctx == "load" else node


def _filtered(node: nodes.Node, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


_WIDTH = re.compile(r"%[^a-zA-Z%]*(\d{4}|\*)")


def _size(value: Any, numbers: bool = False) -> int:
    """Characters in a value, an item being `_ITEM` and what it holds; with `numbers` what they count."""
    if numbers and isinstance(value, int):
        return abs(value)
    size, rest = 0, [value]
    while rest:
        value = rest.pop()
        if isinstance(value, int):
            if value.bit_length() > _BITS:
                raise ValueError(f"it makes a number of more than {_BITS} bits")
        elif isinstance(value, str | bytes | list | tuple | set | Mapping):
            is_text = isinstance(value, str | bytes)
            size += len(value) * (1 if is_text else _ITEM)
            if size > MAX_TEMPLATE_TEXT:
                raise ValueError(f"it makes more than {MAX_TEMPLATE_TEXT} characters")
            if not is_text:
                rest += [*value, *value.values()] if isinstance(value, Mapping) else value
    return size


class _Attributes(Namespace):
    """Jinja's, which holds no other: they could hold each other for ever, and no attribute of Python's."""

    def __init__(self, /, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        for name, value in dict(*args, **kwargs).items():
            self[name] = value

    def __setitem__(self, name: str, value: Any) -> None:
        if name.startswith("_") or isinstance(value, Namespace):
            raise ValueError(f"it sets {name} of a namespace to a {type(value).__name__}")
        super().__setitem__(name, value)


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, **options: Any) -> str:
    # Jinja's own would escape what HTML reserves
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=min(indent, 8) if indent else indent, **options
    )


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)
