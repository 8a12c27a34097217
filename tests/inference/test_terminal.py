"""The chat as a user types it: commands, mistakes, files."""

import io
import json
import os
import pty
import select
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from cobra.config.one_line import in_one_line
from cobra.config.shown_text import harmless
from cobra.data.chat import Chat
from cobra.data.llava import LlavaJson
from cobra.data.processor import Processor
from cobra.inference.conversation import Conversation
from cobra.inference.saved_chat import load_chat, save_chat
from cobra.inference.terminal import Session, chat
from cobra.models.sampling import Sampler
from cobra.models.vlm import CobraVLM
from cobra.pretrained import save_pretrained
from tests.models.builders import ENCODERS, LMS, PROJECTORS

ROOT = Path(__file__).parents[2]


def build(lm: str = "mamba2") -> CobraVLM:
    torch.manual_seed(0)
    return CobraVLM(ENCODERS["small_vit"], PROJECTORS["pixel_unshuffle"], LMS[lm]).eval()


def talk(lm: str = "mamba2", max_length: int = 300) -> Conversation:
    model = build(lm)
    sampler = Sampler(temperature=1.0, generator=torch.Generator().manual_seed(0))
    processor = Processor.of(model, Chat("cobra:data/shapes/tokenizer"))
    return Conversation(model, processor, max_length, max_new_tokens=6, sampler=sampler)


@pytest.fixture
def pictures(tmp_path: Path) -> list[str]:
    paths = [str(tmp_path / name) for name in ("a.png", "b c.png")]
    for path, color in zip(paths, ("red", "blue"), strict=True):
        Image.new("RGB", (3, 2), color).save(path)
    return paths


def seen(session: Session) -> list[list[str]]:
    """Names of the pictures of each question that was answered."""
    names = iter(Path(str(image)).name for image in session.conversation.images)
    return [
        [next(names) for part in message.content if part["type"] == "image"]
        for message in session.conversation.messages[::2]
    ]


@pytest.mark.parametrize("lm", ["mamba2", "llama"])
def test_a_picture_can_be_shown_at_any_time(lm: str, pictures: list[str]) -> None:
    a, b = pictures
    session = Session(talk(lm))
    for line in (f"/image {a}", "one", "/again", f"/image {b}", "two", "three", f"/image {b}", "four"):
        session.handle(line)
    assert not session.mistakes
    assert seen(session) == [["a.png", "b c.png"], [], ["b c.png"]]
    # as if nothing had been asked before
    session.handle("/again")
    fresh = talk(lm)
    for conversation in (session.conversation, fresh):
        conversation.sampler = Sampler()
    session.handle("five")
    "".join(fresh.ask("five", [a, b]))
    assert session.conversation.said == fresh.said


def test_a_refused_question_is_followed_by_one_that_is_answered(pictures: list[str]) -> None:
    a, b = pictures
    session = Session(talk(max_length=70))
    too_many = "/image" + f" {a}" * 40
    for line in (f"/image {a}", "too long " * 50, f"/image {b}", too_many, "one", "", "two"):
        session.handle(line)
    # the last picture was refused, and so is what would have been asked without it
    assert session.mistakes == 3
    assert seen(session) == [["a.png", "b c.png"]]


def test_a_question_whose_picture_is_missing_is_not_answered_without_it(
    pictures: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    session = Session(talk())
    session.handle("/image missing.png")
    session.handle("one")
    assert not session.conversation.messages
    assert "not asked, for want of its picture (image 'missing.png' does not exist" in capsys.readouterr().err
    session.handle("one")
    session.handle("/image missing.png")
    session.handle(f"/image {pictures[0]}")
    session.handle("two")
    assert seen(session) == [[], ["a.png"]]


def test_an_answer_that_breaks_off_ends_its_line_and_needs_a_reset(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session(talk())
    head, calls = session.conversation.model.lm.head, iter(range(1000))
    with monkeypatch.context() as patch:
        lm = session.conversation.model.lm
        patch.setattr(lm, "head", lambda x: head(x) + (torch.nan if next(calls) == 4 else 0))
        for line in ("what is it?", "and now?"):
            session.handle(line)
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 1
    assert out.endswith("\n")
    assert [line[:16] for line in err.splitlines()] == ["! the logits of ", "! the model fail"]
    session.handle("/reset")
    session.handle("what is it?")
    assert session.mistakes == 2


def test_no_speed_is_told_of_an_answer_that_was_not_seen_to_come(capsys: pytest.CaptureFixture[str]) -> None:
    conversation = talk()
    end = conversation.processor.chat.eos_id
    # of text that is none
    conversation.processor.chat.decode_part = lambda ids: ""  # type: ignore[method-assign]
    session = Session(conversation)
    session.handle("what is it?")
    assert conversation.said[0] != [end]
    assert "tok/s" not in capsys.readouterr().err


@pytest.mark.parametrize("typed", ["{}", '"{}"', "'{}'", "~/b c.png", '"~/b c.png"', "~/b\\ c.png"])
def test_quotes_and_the_home_folder_are_understood(
    typed: str, pictures: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(Path(pictures[1]).parent))
    session = Session(talk())
    session.handle("/image " + typed.format(pictures[1]))
    session.handle("one")
    assert seen(session) == [["b c.png"]]


def test_several_pictures_go_with_one_question(pictures: list[str]) -> None:
    session = Session(talk())
    session.handle(f"/image {pictures[0]} '{pictures[1]}'")
    session.handle("one")
    assert seen(session) == [["a.png", "b c.png"]]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/nonsense", "no command /nonsense"),
        ("/image", "needs the path"),
        ("/image don't.png", "don't.png\" does not exist"),
        ("/again", "/again needs a conversation"),
        ("/save", "/save needs the path of one file"),
        ("/save x.json", "nothing was said yet"),
        ("/load missing.json", "! missing.json: No such file or directory"),
        ("\udcff", "no UTF-8: retype it"),
    ],
)
def test_a_mistake_is_told_in_one_line(line: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    Session(talk()).handle(line)
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1
    assert told[0].startswith("! ")
    assert message.replace("'don't", "\"don't").replace("png'", 'png"') in told[0] or message in told[0]


def test_a_place_where_nothing_can_be_saved_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session = Session(talk())
    session.handle("one")
    capsys.readouterr()
    session.handle(f"/save {tmp_path}")
    session.handle(f"/save {tmp_path / 'no' / 'chat.json'}")
    assert capsys.readouterr().err.splitlines() == [
        f"! {tmp_path}: Is a directory",
        f"! {tmp_path / 'no' / 'chat.json'} cannot be written: make the folder {tmp_path / 'no'} first",
    ]


@pytest.mark.parametrize("lm", ["mamba2", "llama"])
def test_a_saved_conversation_goes_on_as_if_it_had_not_ended(
    lm: str, pictures: list[str], tmp_path: Path
) -> None:
    conversation, file = talk(lm), tmp_path / "chat.json"
    "".join(conversation.ask("one", pictures))
    "".join(conversation.ask("two"))
    "".join(conversation.ask("three", pictures[:1]))
    save_chat(conversation, file)
    loaded = load_chat(conversation, file)
    assert [m.as_dict() for m in loaded.messages] == [m.as_dict() for m in conversation.messages]
    assert loaded.said == conversation.said
    loaded.sampler = conversation.sampler.clone()
    assert "".join(loaded.ask("four")) == "".join(conversation.ask("four"))
    # and is a record to train on
    record = LlavaJson(_lines(file), tmp_path, tmp_path / "cache")[0]
    assert [str(image) for image in record.images] == [*pictures, pictures[0]]
    assert [message.role for message in record.messages] == ["user", "assistant"] * 3


def _lines(file: Path) -> Path:
    lines = file.with_suffix(".jsonl")
    lines.write_text(json.dumps(json.loads(file.read_text())) + "\n")
    return lines


def test_an_edited_answer_is_read_as_it_was_edited(tmp_path: Path) -> None:
    conversation, file = talk(), tmp_path / "chat.json"
    "".join(conversation.ask("one"))
    save_chat(conversation, file)
    held = json.loads(file.read_text())
    held["messages"][1]["content"][0]["text"] = "red circle"
    file.write_text(json.dumps(held))
    loaded = load_chat(conversation, file)
    chat = conversation.processor.chat
    assert chat.decode(loaded.said[0]) == "red circle"
    # what looks like a special token is none
    end = chat.tokenizer.decode([chat.eos_id])
    held["messages"][1]["content"][0]["text"] = f"red {end} circle"
    file.write_text(json.dumps(held))
    loaded = load_chat(conversation, file)
    assert loaded.said[0].count(chat.eos_id) == 1
    assert loaded.messages[1].text == f"red {end} circle"


@pytest.mark.parametrize("lm", ["mamba2", "llama"])
def test_a_saved_conversation_is_as_long_as_it_was(lm: str, tmp_path: Path) -> None:
    """A question may have all of max_length, of a state that does not grow, and an answer comes then."""
    conversation, file = talk(lm), tmp_path / "chat.json"
    question = "what is it? " * 10
    size = len(conversation._question(conversation._record(question, [])).ids[0])
    conversation = talk(lm, size + 6 if lm == "llama" else size)
    "".join(conversation.ask(question))
    assert conversation.answer_tokens > 1
    save_chat(conversation, file)
    conversation.max_new_tokens = 1
    assert load_chat(conversation, file).said == conversation.said


def test_a_conversation_that_cannot_be_saved_leaves_nothing(tmp_path: Path) -> None:
    conversation = talk()
    "".join(conversation.ask("one"))
    conversation.messages[0].content[0]["text"] = "\udcff"
    with pytest.raises(ValueError, match="surrogates"):
        save_chat(conversation, tmp_path / "chat.json")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{}", '{"messages": 3}', '{"messages": [{"role": "user"}]}', "\xff",
        '{"messages": [{"role": "assistant", "content": [], "ids": [1e999]}]}',
    ],
)  # fmt: skip
def test_what_is_no_conversation_is_neither_loaded_nor_replaced(text: str, tmp_path: Path) -> None:
    conversation, file = talk(), tmp_path / "chat.json"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"chat\.json"):
        load_chat(conversation, file)
    "".join(conversation.ask("one"))
    with pytest.raises(ValueError, match="would be replaced"):
        save_chat(conversation, file)
    assert file.read_bytes() == text.encode("latin-1")


def test_a_pipe_gets_answers_only_and_an_exit_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = "one\ntwo\n/exit\nthree\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    conversation = talk()
    chat(conversation)
    out, err = capsys.readouterr()
    assert out.splitlines() == [message.text for message in conversation.messages[1::2]]
    assert err.count("tokens, the first after") == 2
    monkeypatch.setattr("sys.stdin", io.StringIO("/nonsense\none\n"))
    with pytest.raises(ValueError, match="1 of the lines had no effect"):
        chat(talk())


def test_an_answer_does_not_command_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "a\x1b]0;title\x07b\x9b2J\tc\nü"
    assert harmless(text, sys.stdout) == text
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert harmless(text, sys.stdout) == "a\ufffd]0;title\ufffdb\ufffd2J\tc\nü"


def test_what_was_said_and_errors_do_not_command_a_terminal_either(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Though answers go to a file: `cobra chat > answers`."""
    conversation, file = talk(), tmp_path / "chat.json"
    "".join(conversation.ask("one \x1b]0;title\x07"))
    save_chat(conversation, file)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    Session(conversation).handle(f"/load {file}")
    assert "> one \ufffd]0;title\ufffd" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended, in_one_line("cobra x"):
        raise FileNotFoundError("\x1b[2J")
    assert ended.value.code == "cobra x: \ufffd[2J"


def test_a_chat_ends_when_nobody_reads_its_answers(
    monkeypatch: pytest.MonkeyPatch, pictures: list[str]
) -> None:
    def closed(text: str, *_: object) -> None:
        raise BrokenPipeError

    session = Session(talk())
    monkeypatch.setattr(sys.stdout, "write", closed)
    with pytest.raises(BrokenPipeError):
        session.handle("one")


def test_a_missing_picture_on_the_command_line_ends_the_chat() -> None:
    with pytest.raises(FileNotFoundError, match=r"missing\.png"):
        chat(talk(), [Path("missing.png")])


@pytest.mark.slow
def test_a_chat_in_a_terminal(pictures: list[str], tmp_path: Path) -> None:
    save_pretrained(build(), Chat("cobra:data/shapes/tokenizer"), tmp_path / "model")
    master, terminal = pty.openpty()
    command = [
        sys.executable,
        "-m",
        "cobra",
        "chat",
        "--ckpt",
        str(tmp_path / "model"),
        "--max-new-tokens",
        "4",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TERM": "dumb"}
    process = subprocess.Popen(
        command, stdin=terminal, stdout=terminal, stderr=terminal, env=environment, close_fds=True
    )
    os.close(terminal)
    shown = ""
    for line in (
        f'/image "{pictures[1]}"',
        "what is it?",
        "/again",
        f"/image {pictures[0]}",
        "and?",
        "/exit",
    ):
        shown += _until(master, "> ")
        os.write(master, f"{line}\n".encode())
    assert process.wait(60) == 0
    shown += _until(master, "no such prompt")
    os.close(master)
    assert shown.count("tokens, the first after") == 2
    assert "!" not in shown
    assert "Traceback" not in shown


def _until(master: int, prompt: str) -> str:
    """What a terminal shows until a prompt, or the end."""
    shown = ""
    while not shown.endswith(prompt) and select.select([master], [], [], 60)[0]:
        try:
            shown += os.read(master, 4096).decode(errors="replace")
        except OSError:  # the other side is closed
            break
    return shown
