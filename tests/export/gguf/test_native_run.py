"""cobra-run, the program for phones: it says what `cobra export run` says, and refuses what it cannot do."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cobra.data.chat import Chat
from cobra.export import manifest
from cobra.export.gguf.native_library import program
from cobra.export.manifest import MANIFEST
from cobra.export.run import run_export
from cobra.export.write import export_model
from cobra.pretrained import save_pretrained
from tests.data.sentencepiece_model import write_model
from tests.export.gguf.exported import NO_LLAMA, export, model, unseeing

pytestmark = [pytest.mark.export, pytest.mark.skipif(bool(NO_LLAMA), reason=NO_LLAMA)]

QUESTIONS = ["how many circles?", "  which colour?", "<|endoftext|> and é🙂 now?"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(model(), tmp_path_factory.mktemp("exported"))


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "p.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (70, 90, 3), np.uint8)).save(path)
    return path


def run(folder: Path, *options: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([program(), folder, *options, "--threads", "1"], capture_output=True, timeout=60)


@pytest.mark.parametrize("sees", [True, False])
def test_answers_are_those_of_the_engine(
    sees: bool, exported: Path, picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [picture] if sees else []
    shown = [option for path in images for option in ("--image", str(path))]
    found = run(exported, "--prompt", *QUESTIONS, *shown, "--max-new-tokens", "24")
    run_export(exported, images, QUESTIONS, 24)
    said = capsys.readouterr()
    assert len(said.out.split("\n")) > 3
    assert found.stdout.decode(errors="replace") == said.out, found.stderr
    columns = [text.split()[0] for text in found.stderr.decode().split(", ")]
    assert columns == [text.split()[0] for text in said.err.split(", ")]


def test_spaces_around_a_question_are_pythons(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spaces = "".join(filter(str.isspace, map(chr, range(0x110000))))
    # the second begins and ends with what is none
    asked = [f"{spaces}x{spaces}y{spaces}", "\u200b\u180ex\ufeff"]
    found = run(exported, "--prompt", *asked, "--max-new-tokens", "24")
    run_export(exported, [], asked, 24)
    assert found.stdout.decode(errors="replace") == capsys.readouterr().out, found.stderr


@pytest.mark.parametrize(
    "wrong", [b"\xff", b"\xc3", b"a\x80", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"]
)
def test_a_question_that_is_no_utf_8_is_refused(wrong: bytes, exported: Path) -> None:
    with pytest.raises(UnicodeDecodeError):
        wrong.decode()
    found = subprocess.run([program(), exported, "--prompt", "a", wrong], capture_output=True, timeout=60)
    assert found.returncode == 1
    assert b"a question is no text in UTF-8" in found.stderr


def test_it_says_how_it_is_used() -> None:
    for option in ("--help", "-h"):
        found = subprocess.run([program(), option], capture_output=True, timeout=60)
        assert (found.returncode, found.stderr) == (0, b"")
        assert found.stdout.startswith(b"usage: cobra-run DIR")


def test_peak_memory_is_its_own(exported: Path) -> None:
    # counted by the system for the process in whose place the program comes
    held = "import os, sys; x = b'1' * 500_000_000; os.execv(sys.argv[1], sys.argv[1:])"
    words = ["-c", held, str(program()), str(exported), "--prompt", "a", "--max-new-tokens", "1"]
    command = [sys.executable, *words, "--threads", "1"]
    found = subprocess.run(command, capture_output=True, timeout=60, check=True)
    assert int(found.stderr.split(b"peak RSS ")[1].split()[0]) < 200


@pytest.mark.parametrize("legacy", [False, True])
def test_spaces_of_sentencepiece_are_those_of_the_engine(
    legacy: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chat = Chat(str(write_model(tmp_path / "llama", legacy=legacy)), "cobra:data/templates/vicuna_v1.jinja")
    made = model()
    with torch.no_grad():
        for weight in made.lm.parameters():
            if len(weight) == made.lm.vocab_size:
                # nothing is said byte by byte, of which no text may come
                weight[
                    [number for token, number in chat.tokenizer.get_vocab().items() if token[0] == "<"]
                ] = 0
    save_pretrained(made, chat, tmp_path / "model")
    export_model(tmp_path / "model", "gguf", "f32", tmp_path / "out")
    # so short that the model answers otherwise where a turn begins with one space more
    asked = ["x", "b"]
    found = run(tmp_path / "out", "--prompt", *asked, "--max-new-tokens", "16")
    capsys.readouterr()
    run_export(tmp_path / "out", [], asked, 16)
    assert found.stdout.decode(errors="replace") == capsys.readouterr().out, found.stderr


@pytest.mark.parametrize(
    ("change", "options", "reason"),
    [
        ({"format": 1}, [], "it has format 1, this program reads 2: export the model again"),
        ({"target": "executorch-cpu"}, [], "it is of target executorch-cpu, this program runs gguf"),
        ({"contents": 3}, [], "is no manifest of an export"),
        ({}, ["--image", "none.png"], "none.png does not exist"),
        ({}, ["--image", __file__], "test_native_run.py is no JPEG, PNG or BMP that can be read"),
        ({}, ["--prompt", " "], "a question is empty"),
        ({}, ["--prompt", "an <image>?"], "a question places a picture: remove '<image>' from it"),
        ({}, ["--image", "p.png", "--image", "q.png"], "--image is one picture"),
        ({}, ["--image", ""], "--image names no file"),
        ({}, ["--prompt", "--image", "p.png"], "--prompt needs a value, and --image is an option"),
        ({}, ["--pictures", "p.png"], "--pictures is no option"),
    ],
)  # fmt: skip
def test_what_it_cannot_do_is_named(
    change: dict, options: list[str], reason: str, exported: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(exported, tmp_path / "out")
    said = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**said, **change}))
    found = run(folder, "--prompt", "a", *options)
    assert found.returncode in (1, 2)
    assert reason in found.stderr.decode()


def test_a_folder_that_reads_no_pictures_or_has_no_turns_says_why(
    exported: Path, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blind = export(unseeing(monkeypatch), tmp_path)
    found = run(blind, "--prompt", "a", "--image", str(picture))
    assert found.returncode == 1
    assert (
        "reads no pictures; its manifest says: the way of pictures: ggml's operations"
        in found.stderr.decode()
    )
    assert run(blind, "--prompt", "a", "--max-new-tokens", "2").returncode == 0

    said = json.loads((blind / MANIFEST).read_text())
    del said["contents"]["settings"]["turns"]
    said["contents"]["missing"].append("a tokenizer: the model has none")
    (blind / MANIFEST).write_text(json.dumps(said))
    assert "its manifest says: a tokenizer: the model has none" in run(blind, "--prompt", "a").stderr.decode()


def test_answers_that_are_none_or_go_nowhere_are_told(exported: Path, tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        command = [str(program()), str(exported), "--prompt", "a", "--threads", "1"]
        found = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, timeout=60)
    assert (found.returncode, found.stderr) == (
        1,
        b"cobra-run: the answer cannot be written: is the disk full?\n",
    )
    folder = shutil.copytree(exported, tmp_path / "out")
    weights = (folder / "lm.gguf").read_bytes()
    (folder / "lm.gguf").write_bytes(weights[:-4096] + b"\xff" * 4096)
    found = run(folder, "--prompt", "a")
    assert (found.returncode, found.stdout) == (1, b"")
    assert found.stderr == b"cobra-run: its logits are no numbers: export the model again\n"


def test_a_picture_whose_tokens_are_no_numbers_is_not_answered_about(
    picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # as of a large file, whose hash is not looked at
    monkeypatch.setattr(manifest, "_SMALL", 0)
    # a language model in 8 bits would make numbers of them
    folder = export(model(), tmp_path, "q8_0")
    file = folder / "pictures.gguf"
    whole = file.read_bytes()
    file.write_bytes(whole[:-4096] + b"\xff" * 4096)
    found = run(folder, "--prompt", "a", "--image", str(picture))
    told = "the picture's tokens are no numbers: export the model again"
    assert (found.returncode, found.stderr.decode()) == (1, f"cobra-run: {told}\n")
    with pytest.raises(ValueError, match=told):
        run_export(folder, [picture], ["a"], 2)


def test_one_token_takes_no_step(exported: Path) -> None:
    assert b"S_gen 0.0 tokens/s" in run(exported, "--prompt", "a", "--max-new-tokens", "1").stderr


def test_a_picture_that_is_too_large_is_refused_before_it_is_decoded(exported: Path, tmp_path: Path) -> None:
    Image.new("1", (20_000, 20_000)).save(tmp_path / "p.png")
    found = run(exported, "--prompt", "a", "--image", str(tmp_path / "p.png"))
    assert "is 20000 x 20000, too large: scale it down" in found.stderr.decode()
