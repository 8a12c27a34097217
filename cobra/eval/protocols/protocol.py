"""A protocol: a file of prompt templates, one for each way in which a family of papers asks a benchmark."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from jinja2 import StrictUndefined, Template, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

# of benchmarks and asks, after which files of predictions are named
FILE_NAME = re.compile(r"\w[\w.+-]*")
_SHIPPED = Path(__file__).with_name("llava.yaml")
_JINJA = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)


@dataclass(frozen=True)
class Ask:
    """A way to ask a benchmark.

    Two protocols that ask alike name it alike, and share its predictions.

    Attributes:
        name: of its file of predictions; the same in all protocols for the same content.
        prompt: Jinja template of the user's turn, over `Question.fields`.
        choices: the model chooses the likeliest of these; None: it answers in words.
        choices_field: the field with the choices of each question, in the place of `choices`.
        max_new_tokens: longest answer.
    """

    name: str
    prompt: str
    choices: tuple[str, ...] | None = None
    choices_field: str | None = None
    max_new_tokens: int = 128

    def __post_init__(self) -> None:
        """Refuse what would be found out by the first question alone.

        Raises:
            ValueError: where the name names no file, the template is none, or the length no number.
        """
        if not isinstance(self.name, str) or not FILE_NAME.fullmatch(self.name):
            raise ValueError(f"an ask is named {self.name!r}: let it be letters, digits and _ . + -")
        if not isinstance(self.prompt, str):
            raise ValueError(f"the prompt of ask {self.name!r} is {self.prompt!r}, no text")
        try:
            _template(self.prompt)
        except TemplateError as error:
            raise ValueError(f"the prompt of ask {self.name!r} is no Jinja template: {error}") from error
        if self.choices is not None and not (self.choices and all(isinstance(c, str) for c in self.choices)):
            raise ValueError(
                f"the choices of ask {self.name!r} are {list(self.choices)}: write texts, in yaml with quotes"
            )
        if type(self.max_new_tokens) is not int or self.max_new_tokens < 1:
            raise ValueError(
                f"the max_new_tokens of ask {self.name!r} is {self.max_new_tokens!r}: let it be 1 or more"
            )

    @property
    def chooses(self) -> bool:
        """Whether it is answered by likelihood."""
        return self.choices is not None or self.choices_field is not None

    def render(self, fields: Mapping[str, Any]) -> str:
        """The user's turn.

        Raises:
            ValueError: where the template names a field that the question has not.
        """
        try:
            return _template(self.prompt).render(fields)
        except TemplateError as error:
            raise ValueError(
                f"the prompt of ask {self.name!r} cannot be made: {error}; is an optional file missing?"
            ) from error

    def choices_of(self, fields: Mapping[str, Any]) -> list[str]:
        """What the model chooses from; empty where it answers in words.

        Raises:
            ValueError: where the question has no such field, or no choices in it.
        """
        if not self.chooses:
            return []
        found = self.choices if self.choices_field is None else fields.get(self.choices_field)
        if not isinstance(found, list | tuple) or not found:
            raise ValueError(
                f"the choices_field of ask {self.name!r} is {self.choices_field!r}, which is no list of "
                f"texts here: name one of the fields {', '.join(fields)}"
            )
        return list(found)


@dataclass(frozen=True)
class Headline:
    """The number that a family's papers print of a benchmark.

    Attributes:
        ask: of which it is a metric.
        metric: name in `Scores`.
    """

    ask: str
    metric: str


@dataclass(frozen=True)
class Protocol:
    """How a family asks.

    Attributes:
        name: as on the command line.
        about: who asks like this, and where it is written.
        asks: of each benchmark, by its name.
        headlines: of each benchmark, by its name.
    """

    name: str
    about: str
    asks: Mapping[str, tuple[Ask, ...]]
    headlines: Mapping[str, Headline] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> "Protocol":
        """From its yaml.

        Raises:
            ValueError: where it is no yaml, a headline names an ask that is not there, or a stanza has an
                unknown key or a wrong value.
        """
        try:
            tree = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is no yaml: {error}") from error
        if not isinstance(tree, dict) or not isinstance(tree.get("benchmarks"), dict) or "about" not in tree:
            raise ValueError(
                f"{path} is no protocol: give it `about` and `benchmarks`, as {_SHIPPED} has them"
            )
        asks, headlines = {}, {}
        for benchmark, stanza in tree["benchmarks"].items():
            try:
                asks[benchmark] = tuple(_ask(name, given) for name, given in stanza["asks"].items())
                headlines[benchmark] = Headline(**stanza["headline"])
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{path}: the stanza of {benchmark} is wrong: {error}") from error
            if headlines[benchmark].ask not in {ask.name for ask in asks[benchmark]}:
                raise ValueError(f"{path}: {benchmark} has no ask {headlines[benchmark].ask!r}")
        return cls(path.stem, tree["about"], asks, headlines)


@lru_cache(64)
def _template(text: str) -> Template:
    return _JINJA.from_string(text)


def _ask(name: str, given: dict[str, Any]) -> Ask:
    choices = given.get("choices")
    if not isinstance(choices, list | None):
        raise ValueError(f"the choices of ask {name!r} are {choices!r}: write a list of texts")
    return Ask(name, **{**given, "choices": None if choices is None else tuple(choices)})


def protocol_names() -> list[str]:
    """The protocols that ship with the package."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.yaml"))


def read_protocol(name: str) -> Protocol:
    """A protocol by its name, or one of a user's own by the path of its yaml.

    Raises:
        ValueError: where there is none, or a user's own is named as one of ours.
    """
    path = Path(name) if name.endswith(".yaml") else Path(__file__).with_name(f"{name}.yaml")
    if not path.is_file():
        raise ValueError(
            f"there is no protocol {name!r}: take one of {', '.join(protocol_names())}, or a yaml"
        )
    # scores and papers' numbers are told apart by it
    if path.stem in protocol_names() and path.parent.resolve() != _SHIPPED.parent.resolve():
        raise ValueError(f"{path} is named as a protocol that ships with the package: give it another name")
    return Protocol.read(path)
