"""The page of answers in headless Chromium: its script, its keys, and a phone's width."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from cobra.eval.answers_page.page import write_page
from cobra.eval.predictions import Prediction, write_predictions
from tests.eval.answers_page.test_page import ATTACK, said

pytestmark = pytest.mark.slow

# A frame around the page; what `look` returns is read from the document afterwards.
FRAME = """<iframe src="page.html" style="width: {width}px; height: 800px"></iframe>
<pre id="seen"></pre>
<script>
const frame = document.querySelector("iframe");
const wait = () => new Promise((done) => setTimeout(done, 300));
frame.addEventListener("load", async () => {{
  const page = frame.contentDocument, window = frame.contentWindow, faults = [];
  window.alert = () => faults.push("alert");
  const press = async (key) => {{
    page.activeElement.dispatchEvent(new KeyboardEvent("keydown", {{ key, bubbles: true }}));
    await wait();
  }};
  await wait();
  const seen = await (async () => {{ {look} }})();
  document.getElementById("seen").textContent = JSON.stringify({{ seen, faults }});
}});
</script>"""
CARDS = 'const cards = () => [...page.querySelectorAll("article h2")].map((head) => head.textContent);'

Look = Callable[..., Any]


@pytest.fixture
def look(tmp_path: Path) -> Look:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium on the PATH")

    def look(sides: list[list[Prediction]], script: str, width: int = 1000) -> Any:
        paths = [tmp_path / f"{number}.jsonl" for number in range(len(sides))]
        for path, predictions in zip(paths, sides, strict=True):
            write_predictions(path, predictions)
        write_page(paths, tmp_path, tmp_path / "page.html")
        (tmp_path / "frame.html").write_text(FRAME.format(width=width, look=CARDS + script))
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
        flags += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=20000", "--dump-dom"]
        ran = subprocess.run(
            [browser, *flags, f"file://{tmp_path}/frame.html"], capture_output=True, text=True, timeout=120
        )
        found = re.search('<pre id="seen">(.+?)</pre>', ran.stdout, re.DOTALL)
        assert found, ran.stderr
        result = json.loads(unescape(found[1]))
        assert result["faults"] == []
        return result["seen"]

    return look


def test_keys_filter_search_and_walk(look: Look) -> None:
    answers = [said(str(number), "yes" if number % 3 else "no", benchmark="") for number in range(200)]
    script = """
    const all = [page.getElementById("count").textContent, cards().length];
    await press("f");
    const wrong = page.getElementById("count").textContent;
    await press("j"); await press("j"); await press("k");
    const walked = page.activeElement.querySelector("h2").textContent;
    await press("/");
    const field = page.activeElement;
    field.value = "QUESTION 33?"; field.dispatchEvent(new Event("input")); await wait();
    await press("f");
    const searched = cards();
    await press("Escape"); await press("?");
    const help = page.getElementById("help").open;
    page.getElementById("help").close();
    page.querySelector("[type=reset]").click(); await wait();
    return [...all, wrong, walked, searched, help, page.getElementById("count").textContent];
    """
    count, drawn, wrong, walked, searched, is_help_open, cleared = look([answers], script)
    assert count == cleared == "200 of 200 questions"
    # the rest is drawn when it comes near
    assert 40 <= drawn < 200
    assert wrong == "67 of 200 questions"
    assert walked == "question 0?"
    assert searched == ["question 33?"]
    assert is_help_open


def test_only_where_one_side_is_right_and_the_other_wrong(look: Look) -> None:
    one = [said(str(number), "yes" if number < 2 else "no", benchmark="") for number in range(4)]
    other = [said(str(number), "yes" if number % 2 else "no", benchmark="") for number in range(4)]
    script = """
    const choose = async (value) => {
      const verdict = page.getElementById("verdict");
      verdict.value = value; verdict.dispatchEvent(new Event("change")); await wait();
      return cards().map((text) => text[9]).join("");
    };
    return [await choose("ahead"), await choose("behind"), await choose("both"), await choose("right")];
    """
    assert look([one, other], script) == ["0", "3", "2", "1"]


def test_a_phone_needs_no_sideways_scroll_and_no_text_becomes_a_picture(look: Look) -> None:
    ugly = Prediction(ATTACK, ATTACK, ATTACK, ATTACK + "w" * 900, ATTACK, [ATTACK], "", ATTACK, [ATTACK])
    ugly.scores = {ATTACK: -1.0, "w" * 100: -2.0}
    root = "page.documentElement"
    script = f"return [{root}.scrollWidth, {root}.clientWidth, page.querySelectorAll('article img').length];"
    needed, there, pictures = look([[ugly], [ugly]], script, width=360)
    assert needed == there <= 360
    assert pictures == 0


def test_on_a_phone_no_field_lies_over_another(look: Look) -> None:
    parts = [
        Prediction(f"s{n // 6}", str(n), f"k{n % 3}", "?", "yes", ["yes"], "", f"a{n % 2}") for n in range(12)
    ]
    script = """
    const fields = [...page.querySelectorAll("#filters input, #filters select, #filters button")];
    const boxes = fields.map((field) => field.getBoundingClientRect()).filter((box) => box.width);
    const over = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
    return [boxes.length, boxes.filter((a) => boxes.some((b) => a !== b && over(a, b))).length];
    """
    assert look([parts], script, width=405) == [7, 0]


def test_a_difference_that_rounds_to_nothing_has_no_sign(look: Look) -> None:
    one = [said(str(number), "yes" if number else "no", benchmark="") for number in range(3000)]
    script = "return [...page.querySelectorAll('#sums td')].map((cell) => cell.textContent);"
    assert look([one, [*one[1:], said("0", "yes", benchmark="")]], script) == [
        "3,000",
        "100.0",
        "100.0",
        "0.0",
    ]
