"""What the protocols that ship agree on."""

from pathlib import Path

import pytest

from cobra.eval.benchmarks.find import benchmark_names, find_benchmark
from cobra.eval.protocols.protocol import Ask, protocol_names, read_protocol


def test_an_ask_of_one_name_is_the_same_in_all_protocols() -> None:
    asks: dict[tuple[str, str], Ask] = {}
    for name in protocol_names():
        for benchmark, stanza in read_protocol(name).asks.items():
            for ask in stanza:
                assert asks.setdefault((benchmark, ask.name), ask) == ask, f"{name}: {benchmark}, {ask.name}"


@pytest.mark.parametrize("protocol", protocol_names())
def test_all_benchmarks_that_a_protocol_asks_are_there(protocol: str) -> None:
    assert set(read_protocol(protocol).asks) <= set(benchmark_names())


NAMES = (
    "pope", "vsr", "vsr_random", "mme", "mmbench", "mmbench_samples", "mmbench_cn", "ccbench", "scienceqa",
    "refcoco", "refcoco+", "refcocog", "chair", "amber", "photos_vqa", "photos_pope",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_benchmarks_of_choices_are_found_by_their_names(name: str) -> None:
    assert find_benchmark(name).name == name
    assert find_benchmark(name).downloads


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("about: [", "is no yaml"),
        ("", "is no protocol"),
        ("about: mine\nbenchmarks: {own: {asks: {a: {prompt: '{{ question'}}}}", "is no Jinja template"),
        ("about: mine\nbenchmarks: {own: {asks: {a: {prompt: 5}}}}", "is 5, no text"),
        ("about: mine\nbenchmarks: {own: {asks: {../a: {prompt: hm}}}}", "an ask is named '../a'"),
        (
            "about: mine\nbenchmarks: {own: {asks: {a: {prompt: hm, max_new_tokens: 0}}}}",
            "let it be 1 or more",
        ),
        ("about: mine\nbenchmarks: {own: {asks: {a: {prompt: hm, choices: [Yes, No]}}}}", "with quotes"),
        ("about: mine\nbenchmarks: {own: {asks: {a: {prompt: hm, choices: []}}}}", "write texts"),
        ("about: mine\nbenchmarks: {own: {asks: {a: {prompt: hm, choices: 'yes'}}}}", "'yes': write a list"),
        ("about: mine\nbenchmarks: {own: {asks: [a]}}", "the stanza of own is wrong"),
    ],
)
def test_a_protocol_of_ones_own_that_cannot_be_asked_is_refused_when_it_is_read(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_protocol(str(path))


@pytest.mark.parametrize("field", ["nothing", "question", "letters"])
def test_a_field_without_choices_is_refused_and_the_fields_are_named(field: str) -> None:
    ask = Ask("a", "{{ question }}", choices_field=field)
    with pytest.raises(ValueError, match=f"choices_field of ask 'a' is '{field}'.* fields question, letters"):
        ask.choices_of({"question": "Is it?", "letters": []})


def test_a_protocol_of_ones_own_does_not_pass_for_one_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "llava.yaml"
    path.write_text("about: mine\nbenchmarks: {}\n")
    with pytest.raises(ValueError, match=r"llava\.yaml is named as a protocol that ships"):
        read_protocol(str(path))
    assert read_protocol(str(path.rename(tmp_path / "mine.yaml"))).name == "mine"
