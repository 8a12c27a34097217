"""What others printed: counted and spot-checked against the sources' tables, conflicts and all."""

from collections import Counter
from functools import partial

import pytest

from cobra.eval.beside import Asked, beside_rows, beside_table
from cobra.eval.papers.paper import read_paper, read_papers
from cobra.eval.published import Number, published_beside, read_numbers
from cobra.eval.results import Row, markdown

# numbers of each table, counted in the sources
COUNTS = {
    "cobra-2": 12 + 50,
    "cobra-4": 12,
    "cobra-5": 54,
    "cobra-7": 23,
    "cobra-earlier": 4,
    "cobra-issue-11": 1,
    "ml-mamba-2": 6 + 59,
    "ml-mamba-4": 18,
    "ml-mamba-5": 18,
    "ml-mamba-6": 18,
    "ml-mamba-7": 12,
    "mmmamba-1": 24 + 13,
    "vl-mamba": 8,
    "mobilevlm-readme": 54,
    "mobilevlm-tables": 2,
    "mobilevlm-9": 36,
    "mobilevlm-v2-projectors": 42,
    "llava-1.5-zoo": 48,
    "tinyllava-readme": 34,
    "tinyllava-factory": 80,
    "imp-readme": 36 + 13,
    "imp-paper": 6,
    "imp-1": 39,
    "mobilellm-readme": 117,
    "xiaomi": 8,
}


def find(table: str, system: str, benchmark: str, how: str = "") -> Number:
    return next(
        n
        for n in read_numbers()
        if (n.table, n.system, n.benchmark) == (table, system, benchmark) and how in n.how
    )


def test_no_number_of_a_table_is_missing() -> None:
    counts = Counter(number.table for number in read_numbers())
    assert {table: counts[table] for table in COUNTS} == COUNTS
    assert sum(counts.values()) == 898


@pytest.mark.parametrize(
    ("table", "system", "benchmark", "how", "value"),
    [
        ("cobra-2", "Cobra-3.5B", "pope", "", 88.4),
        ("cobra-2", "MobileVLM V2 3B", "textvqa", "", 57.5),
        ("cobra-2", "LLaVA-1.5-7B", "vsr", "", 51.5),
        ("cobra-4", "Cobra-8B", "average", "", 55.0),
        ("cobra-5", "Cobra-3.5B, base LM", "pope", "", 89.0),
        ("cobra-7", "Cobra-8B", "textvqa", "no OCR", 50.7),
        ("cobra-7", "Cobra-3.5B, LDPv2", "textvqa", "after", 44.7),
        ("ml-mamba-2", "ML-Mamba", "vizwiz", "", 45.17),
        ("ml-mamba-2", "InstructBLIP (Vicuna-13B)", "pope", "", 78.9),
        ("ml-mamba-7", "ML-Mamba, CSM", "vsr", "", 51.14),
        ("mmmamba-1", "mmMamba-hybrid-2.7B", "seed", "", 66.3),
        ("mobilevlm-readme", "MobileVLM V2 7B", "mme", "", 1560.7),
        ("mobilevlm-9", "MobileVLM-1.7B, stride 2 first", "mme", "", 1166.2),
        ("llava-1.5-zoo", "LLaVA-1.5-13B, LoRA", "mmbench_cn", "", 61.5),
        ("tinyllava-readme", "TinyLLaVA-2.0B", "mmvet", "", 32.6),
        ("tinyllava-factory", "TinyLLaVA Factory SigLIP + OpenELM-450M", "mmmu", "", 24.0),
        ("imp-readme", "Imp-v1.5-4B", "scienceqa", "", 78.28),
        ("imp-4-4bit", "Imp-3B at 196 px", "mmbench", "", 63.14),
        ("mobilellm-readme", "MobileLLM-LS-350M", "openbookqa", "", 45.8),
        ("sentinel", "LLaVA-1.5-7B, CLIP-DPO", "scienceqa", "", 67.6),
    ],
)
def test_numbers_are_as_printed(table: str, system: str, benchmark: str, how: str, value: float) -> None:
    assert find(table, system, benchmark, how).value == value


def test_a_row_of_another_paper_is_quoted() -> None:
    own, quoted = (
        {n.benchmark: n for n in read_numbers() if (n.table, n.system) == (table, "LLaVA-1.5-7B, LoRA")}
        for table in ("llava-1.5-zoo", "imp-1")
    )
    shared = own.keys() & quoted.keys()
    assert len(shared) == 6
    # to the digit what LLaVA prints
    assert all(own[name].value == quoted[name].value for name in shared)
    assert [(own[name].quoted, quoted[name].quoted) for name in shared] == [(False, True)] * 6


def test_averages_are_those_of_their_rows() -> None:
    """A wrong digit, or two swapped columns of unlike size, would show in the printed means."""
    rows: dict[tuple[str, str], list[Number]] = {}
    for number in read_numbers():
        rows.setdefault((number.table, number.system), []).append(number)
    checked = 0
    for (table, system), numbers in rows.items():
        *parts, last = numbers
        if last.benchmark == "average" and parts:
            mean = sum(n.value / 20 if n.benchmark == "mme" else n.value for n in parts) / len(parts)
            adds_up = mean == pytest.approx(last.value, abs=0.11)
            assert adds_up != last.note.startswith("the mean of the six is"), (table, system, mean)
            checked += 1
    assert checked == 3 + 6 + 6 + 4 + 13


def test_two_numbers_of_one_thing_are_a_conflict_and_a_conflict_is_two_numbers() -> None:
    values: dict[tuple[str, ...], set[float]] = {}
    noted: dict[tuple[str, str], set[float]] = {}
    for n in read_numbers():
        key = (n.system, n.benchmark)
        if n.conflict:
            noted.setdefault(key, set()).add(n.value)
        else:
            values.setdefault((*key, n.metric, n.how), set()).add(n.value)
    assert {key: found for key, found in values.items() if len(found) > 1} == {}
    assert min(len(found) for found in noted.values()) > 1
    assert len(noted) == 12


def test_every_system_with_a_printed_accuracy_is_in_its_papers_tables() -> None:
    by_table = {(n.table, n.system) for n in read_numbers()}
    for paper in read_papers():
        if not paper.tables:
            assert paper.name == "phiva"
            assert "accuracy" in paper.not_found[0]
            continue
        assert set(paper.tables) <= {table for table, _ in by_table}, paper.name
        unprinted = {s for s in paper.systems if not any((t, s) in by_table for t in paper.tables)}
        assert unprinted <= {"Imp-v1.5-3B at 196 px"}, paper.name


def test_the_papers_numbers_stand_beside_ours_with_what_differs() -> None:
    beside = {b.number.system: b for b in published_beside("pope", "llava")}
    assert beside["LLaVA-1.5-7B"].differences == []
    assert "by likelihood" in beside["Cobra-3.5B"].differences
    assert beside["Cobra-3.5B"].number.value == 88.4
    assert beside["TinyLLaVA-3.1B"].differences == ["metric accuracy"]
    assert "BLIP-2 (Vicuna-13B)" not in beside
    both = [
        b.number.value for b in published_beside("scienceqa", "llava") if b.number.system == "MobileVLM-1.7B"
    ]
    assert both == [57.3, 54.7]
    # papers' own numbers alone, not what others measured
    mme = [b.number.value for b in published_beside("mme", "llava") if b.number.system == "LLaVA-1.5-7B"]
    assert mme == [1510.7]
    with pytest.raises(ValueError, match="there is no paper 'cobro'"):
        read_paper("cobro")


def test_a_printed_number_stands_beside_the_protocol_nearest_to_its_own() -> None:
    asked = [Asked("pope", "llava", 80.0), Asked("pope", "prismatic", 90.0), Asked("shapes", "", 99.0)]
    rows = {row[1]: row[2:6] for row in beside_rows(asked)}
    assert rows["Cobra-3.5B"] == ("88.4 †", "90.00", "prismatic", "–")
    assert rows["LLaVA-1.5-7B"] == ("85.9", "80.00", "llava", "–")
    assert rows["TinyLLaVA-3.1B"] == ("86.4", "80.00", "llava", "metric accuracy")
    assert "| pope | LLaVA-1.5-7B | 85.9 | 80.00 | llava |" in beside_table(beside_rows(asked))
    assert beside_table(beside_rows([Asked("shapes", "llava", 99.0), Asked("pope", "mine", 1.0)])) == ""


def test_what_is_unlike_is_said_of_a_part_of_the_questions_and_of_what_nobody_says() -> None:
    row = partial(Row, "pope", "llava", "short", "f1", 80.0)
    assert "| 80.00 | llava | 9 of 9,000 questions |" in markdown([row("9/9,000")])
    assert "| 80.00 | llava | – |" in markdown([row("9,000/9,000")])
    # nobody says whether ML-Mamba was given OCR tokens
    (unsaid,) = (row for row in beside_rows([Asked("textvqa", "prismatic", 50.0)]) if row[1] == "ML-Mamba")
    assert unsaid[5] == "OCR tokens not stated"
