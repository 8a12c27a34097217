"""`cobra data check -c`: what a run would meet, found before it, and once."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from cobra.cli import main
from cobra.data.token_counts import Counting

MODEL = {
    "class_path": "cobra.models.vlm.CobraVLM",
    "init_args": {
        "vision": {
            "class_path": "cobra.models.vision.small_vit.SmallViT",
            "init_args": {"image_size": 32, "embed_dim": 16},
        },
        "projector": {"class_path": "cobra.models.projectors.linear.LinearProjector"},
        "lm": {
            "class_path": "cobra.models.lm.mamba.MambaLM",
            "init_args": {"vocab_size": 512, "d_model": 16, "n_layers": 1},
        },
    },
}
# of a picture
TOKENS = 16


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COBRA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "tables")


def row(name: str, image: str | None, question: str = "what is it?", answer: str = "red") -> dict[str, Any]:
    turns = [
        {"from": "human", "value": "<image>" * (image is not None) + question},
        {"from": "gpt", "value": answer},
    ]
    return {"id": name, "conversations": turns, **({"image": image} if image else {})}


def config(folder: Path, rows: list[dict[str, Any]], **stage: Any) -> Path:
    Image.linear_gradient("L").save(folder / "good.png")
    (folder / "bad.png").write_bytes((folder / "good.png").read_bytes()[:200])
    (folder / "data.json").write_text(json.dumps(rows))
    source = {
        "class_path": "cobra.data.llava.LlavaJson",
        "init_args": {"json": str(folder / "data.json"), "image_root": str(folder)},
    }
    first = {
        "name": "align",
        "train": ["projector"],
        "data": ["chats"],
        "epochs": 2,
        "batch_size": 2,
        "lr": 1.0e-3,
    }
    tree = {
        "stages": [{**first, **stage}, {**first, "name": "other", "data": {"others": 1.0}}],
        "model": {"model": MODEL},
        "data": {
            "tokenizer": "cobra:data/shapes/tokenizer",
            "train": {"chats": source, "others": source},
            "max_length": 60,
        },
        "trainer": {"accelerator": "cpu", "devices": 3, "accumulate_grad_batches": 2},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(tree))
    return folder / "run.yaml"


def check(monkeypatch: pytest.MonkeyPatch, *options: object) -> None:
    monkeypatch.setattr(sys, "argv", ["cobra", "data", "check", *map(str, options)])
    main()


def test_everything_that_a_run_could_not_use_is_counted_named_and_drawn(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    rows = [
        row("fine", "good.png"),
        row("again", "good.png"),
        row("text", None),
        row("gone", "gone.png"),
        row("torn", "bad.png"),
        row("long", None, "why? " * 90),
        row("behind", "good.png", "why? " * 90 + "<image>"),
        row("endless", None, answer="so " * 90),
        row("mute", "good.png", answer=""),
        row("pretends", None, "what is <image>?"),
    ]
    rows[6]["conversations"][0]["value"] = "why? " * 90 + "<image>"
    file, plot = config(tmp_path, rows), tmp_path / "plots/lengths.png"
    with pytest.raises(SystemExit, match=r"cobra data: 6 of 10 records cannot be used or teach nothing"):
        check(monkeypatch, "-c", file, "--stage", "align", "--json", tmp_path / "out.json", "--plot", plot)
    told = json.loads((tmp_path / "out.json").read_text())
    found = told["sources"]["chats"]
    expected = {
        "records": 8, "missing": 1, "broken": 1, "cut_pictures": 1, "nothing_to_learn": 1, "over_long": 3,
        "duplicates": 1, "unreadable": 0, "pictures": 5,
    }  # fmt: skip
    assert {name: found[name] for name in expected} == expected
    assert sum(found["dropped"].values()) == 2
    named = {"gone", "torn", "behind", "long", "mute", "pretends"}
    assert {sample["id"] for sample in found["bad"]} == named
    assert found["picture_bytes"] == (tmp_path / "good.png").stat().st_size
    assert set(told["sources"]) == {"chats"}
    # 8 records twice, 2 × 3 devices × 2 a step
    assert told["stages"]["align"]["steps"] == 2
    out = capsys.readouterr().out
    assert "record 'gone' of chats: image" in out
    assert "no answer" in out
    with Image.open(plot) as drawn:
        assert drawn.size == (960, 480)


def test_good_data_pass_and_a_second_look_reads_no_record(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = config(tmp_path, [row(f"r{i}", "good.png", "so? " * i) for i in range(7)], batching="packed")
    check(monkeypatch, "-c", file, "--devices", 1)
    first = capsys.readouterr().out
    assert "stages on 1 device" in first
    monkeypatch.setattr(Counting, "__call__", None)
    monkeypatch.setattr("cobra.data.picture_checks.load_rgb", None)
    check(monkeypatch, "-c", file, "--devices", 1)
    assert capsys.readouterr().out == first


def test_pictures_that_were_fetched_changed_or_lost_are_seen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = config(tmp_path, [row("fine", "good.png"), row("torn", "other.png"), row("gone", "gone.png")])
    good, other, gone = (tmp_path / f"{name}.png" for name in ("good", "other", "gone"))
    other.write_bytes(good.read_bytes())

    def wrong(count: int) -> None:
        if count:
            with pytest.raises(SystemExit, match=rf"{count} of 6 records"):
                check(monkeypatch, "-c", file)
        else:
            check(monkeypatch, "-c", file)

    wrong(2)
    gone.write_bytes(good.read_bytes())
    wrong(0)
    other.unlink()
    wrong(2)
    other.write_bytes(good.read_bytes()[:200])
    gone.unlink()
    wrong(4)
    # what was kept last
    wrong(4)


def test_a_record_in_the_middle_that_was_changed_is_looked_at(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rows = [row(name, "good.png") for name in "abc"]
    check(monkeypatch, "-c", config(tmp_path, rows))
    rows[1] = row("b", "gone.png", "why? " * 90)
    with pytest.raises(SystemExit, match="2 of 6 records"):
        check(monkeypatch, "-c", config(tmp_path, rows), "--json", tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text())["sources"]["chats"]["over_long"] == 1


def test_records_of_one_name_count_apart_also_as_captions(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rows = [
        row("one", "gone.png"),
        row("one", "lost.png"),
        row("one", "good.png"),
        row("two", None, answer=""),
    ]
    file = config(tmp_path, rows)
    tree = yaml.safe_load(file.read_text())
    captions = {"source": tree["data"]["train"]["others"]}
    tree["data"]["train"]["others"] = {"class_path": "cobra.data.captions.Captions", "init_args": captions}
    file.write_text(yaml.safe_dump(tree))
    with pytest.raises(SystemExit, match="6 of 8 records"):
        check(monkeypatch, "-c", file, "--json", tmp_path / "out.json")
    for found in json.loads((tmp_path / "out.json").read_text())["sources"].values():
        assert [sample["id"] for sample in found["bad"]] == ["one", "one", "two"]
        assert found["dropped"] == {"no answer": 1}


def test_text_is_looked_at_as_well(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = config(tmp_path, [row("fine", "good.png")])
    (tmp_path / "a.txt").write_text(" ".join(map(str, range(100, 500))))
    documents = {
        "class_path": "cobra.data.text.documents.TextFiles",
        "init_args": {"folder": str(tmp_path), "patterns": ["*.txt"]},
    }
    tree = yaml.safe_load(file.read_text())
    tree["data"]["train"]["chats"] = {
        "class_path": "cobra.data.text.rows.TextRows",
        "init_args": {"documents": documents, "cache_dir": str(tmp_path / "text")},
    }
    file.write_text(yaml.safe_dump(tree))
    check(monkeypatch, "-c", file, "--stage", "align", "--json", tmp_path / "out.json")
    found = json.loads((tmp_path / "out.json").read_text())["sources"]["chats"]
    assert found["tokens"] == 60 * found["records"] > 60
    assert found["duplicates"] == 0


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"stages": []}, "no stages: say in `stages`"),
        ({"trainer": {"accumulate_grad_batches": "x"}}, "accumulate_grad_batches 'x' is no whole number"),
    ],
)
def test_yamls_of_no_run_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    file = config(tmp_path, [row("fine", "good.png")])
    file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), **changed}))
    with pytest.raises(SystemExit, match=message):
        check(monkeypatch, "-c", file)


def test_without_a_cache_all_is_looked_at_and_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("COBRA_CACHE", str(tmp_path / "file"))
    rows = [row("fine", "good.png"), row("long", f"{'a' * 5000}/x.png"), row("nul", "\0/x.png")]
    with pytest.raises(SystemExit, match="4 of 6 records"):
        check(monkeypatch, "-c", config(tmp_path, rows))
    assert "set COBRA_CACHE to a folder with room" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--stage", "none"], r"there is no stage 'none': name some of \['align', 'other'\]"),
        (["data.json"], "name files and their --image-root, or the yamls of a run with -c"),
    ],
)
def test_what_is_not_there_is_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, options: list[str], message: str
) -> None:
    with pytest.raises(SystemExit, match=message):
        check(monkeypatch, "-c", config(tmp_path, [row("fine", "good.png")]), *options)


def test_an_unknown_source_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"data\.train has no source 'gone': it has \['chats', 'others'\]"):
        check(monkeypatch, "-c", config(tmp_path, [row("fine", "good.png")], data=["gone"]))
