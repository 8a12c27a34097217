"""Evaluations: the same predictions whatever the batches, the order and what stops them, and no others."""

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch

import cobra
from cobra.data.chat import Chat
from cobra.data.processor import Example, Processor
from cobra.data.record import ImageSource, Record, user
from cobra.eval.answerer import Answer, Answerer, Asked
from cobra.eval.benchmarks.base import Question
from cobra.eval.evaluate import evaluate
from cobra.eval.invariance import check_invariance
from cobra.eval.opening import Settings, fingerprint, model_path, open_model
from cobra.eval.predictions import read_predictions, write_predictions
from cobra.eval.processes import join_processes
from cobra.eval.protocols.protocol import read_protocol
from cobra.eval.tasks import drawn, read_tasks
from cobra.models.projectors.pixel_unshuffle import PixelUnshuffleProjector
from cobra.models.vision.small_vit import SmallViT
from cobra.models.vlm import CobraVLM
from cobra.pretrained import save_pretrained
from tests.models.builders import LMS
from tests.models.tiled import TileTransform

OWN = str(Path(__file__).with_name("own_benchmark.py"))
FILES = ("own-words.jsonl", "own-choose.jsonl")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of random weights: its tokens are near to each other, and depend on the picture."""
    return saved(tmp_path_factory.mktemp("model"), 0)


def saved(folder: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    vision = partial(SmallViT, image_size=64, embed_dim=16)
    model = CobraVLM(vision, PixelUnshuffleProjector, LMS["mamba2"])
    with torch.no_grad():
        for weight in model.projector.parameters():
            weight.mul_(10)
    save_pretrained(model, Chat("cobra:data/shapes/tokenizer"), folder)
    return folder


Evaluate = Callable[..., dict[str, bytes]]


@pytest.fixture
def answered(model: Path, tmp_path: Path) -> Evaluate:
    """Evaluates and returns the files of predictions."""

    def run(out: str = "out", benchmarks: tuple[str, ...] = (OWN,), **options: object) -> dict[str, bytes]:
        folder, given = tmp_path / out, {"settings": Settings(), "data": tmp_path, **options}
        evaluate(str(model), benchmarks, ["llava"], out=folder, **given)  # type: ignore[arg-type]
        return {path.name: path.read_bytes() for path in folder.glob("*.jsonl*")}

    return run


def same(*files: dict[str, bytes]) -> bool:
    """Whether they are to the letter, but for the last digits of log-likelihoods."""
    plain = [
        {name: [json.loads(line) for line in lines.splitlines()] for name, lines in each.items()}
        for each in files
    ]
    scores = [[[*row.pop("scores").items()] for name in sorted(each) for row in each[name]] for each in plain]
    near = [[(name, pytest.approx(value, abs=1e-3)) for name, value in row] for row in scores[0]]
    return all(each == plain[0] for each in plain) and all(each == near for each in scores)


def test_predictions_are_the_same_at_every_batch_size(answered: Evaluate) -> None:
    alone = answered("1", batch_size=1)
    assert set(alone) == set(FILES)
    assert same(alone, answered("3", batch_size=3), answered("16"))


def test_benchmarks_may_come_in_any_order(answered: Evaluate, tmp_path: Path) -> None:
    other = tmp_path / "other.py"
    other.write_text(Path(OWN).read_text().replace('"own"', '"other"'))
    assert same(answered("a", (OWN, str(other)), limit=6), answered("b", (str(other), OWN), limit=6))


@pytest.mark.parametrize("lines", [0, 7, 24])
def test_what_is_answered_is_not_asked_again_and_a_broken_line_is_cut_off(
    answered: Evaluate, tmp_path: Path, lines: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = answered("whole")
    asked: list[Asked] = []
    prepare = Answerer.prepare

    def counted(self: Answerer, given: list[Asked]) -> list[Example]:
        asked.extend(given)
        return prepare(self, given)

    monkeypatch.setattr(Answerer, "prepare", counted)
    (tmp_path / "out").mkdir()
    kept = whole[FILES[0]].splitlines(keepends=True)
    (tmp_path / "out" / FILES[0]).write_bytes(b"".join(kept[:lines]) + kept[0][:9])
    # what another process wrote, and what it had begun to
    (tmp_path / "out" / f"{FILES[1]}.part-1").write_bytes(whole[FILES[1]] + b'{"spl')
    assert same(answered(), whole)
    assert len(asked) == 24 - lines


def test_more_questions_of_a_benchmark_join_those_that_are_answered(answered: Evaluate) -> None:
    some = answered(limit=5)
    assert [len(lines.splitlines()) for lines in some.values()] == [5, 5]
    assert same(answered(), answered("whole"))


def test_answers_of_another_checkpoint_are_refused(answered: Evaluate, model: Path, tmp_path: Path) -> None:
    answered(limit=2)
    run = tmp_path / "out" / "run.json"
    for options in ({"settings": Settings("bf16")}, {"settings": Settings(quant="int8")}):
        with pytest.raises(
            ValueError, match=r"another checkpoint, dtype or quantization.*name another --out"
        ):
            answered(limit=2, **options)
    # also where its run.json is lost
    run.unlink()
    path = tmp_path / "out" / FILES[0]
    others = [*read_predictions(path)]
    others[1].model = "0123"
    write_predictions(path, others)
    with pytest.raises(ValueError, match=r"own-words.jsonl holds answers of another checkpoint.*0123"):
        answered(limit=2)


def test_a_benchmark_that_is_named_twice_is_refused(answered: Evaluate, tmp_path: Path) -> None:
    other = tmp_path / "other.py"
    other.write_text(Path(OWN).read_text())
    with pytest.raises(ValueError, match="2 of --benchmarks are called 'own': leave out all but one"):
        answered(benchmarks=(OWN, str(other)), limit=2)
    assert not (tmp_path / "out").exists()


def test_a_question_that_is_answered_twice_is_refused(answered: Evaluate, tmp_path: Path) -> None:
    answered(limit=2)
    path = tmp_path / "out" / FILES[0]
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(ValueError, match=r"answers question 'q0' twice"):
        answered(limit=2)


def test_other_words_of_an_ask_are_refused(answered: Evaluate, tmp_path: Path) -> None:
    answered(limit=2)
    own = tmp_path / "own_benchmark.py"
    own.write_text(Path(OWN).read_text().replace("max_new_tokens=6", "max_new_tokens=7"))
    with pytest.raises(ValueError, match="the words of own-words changed"):
        answered(benchmarks=(str(own),), limit=2)


@pytest.mark.parametrize(("old", "new"), [('"ring?"', '"disc?"'), ('["red"]', '["blue"]')])
def test_a_question_of_ones_own_that_has_changed_is_refused(
    answered: Evaluate, tmp_path: Path, old: str, new: str
) -> None:
    own = tmp_path / "mine.py"
    own.write_text(Path(OWN).read_text())
    answered(benchmarks=(str(own),), limit=2)
    answered(benchmarks=(str(own),), limit=3)
    own.write_text(Path(OWN).read_text().replace(old, new))
    with pytest.raises(ValueError, match=r"question 'q\d+' of own is another .* name another --out"):
        answered(benchmarks=(str(own),), limit=4)
    own.write_text(Path(OWN).read_text().replace('f"q{number}"', 'f"p{number}"'))
    with pytest.raises(ValueError, match=r"answers 'q\d+', which own does not ask any more: name another"):
        answered(benchmarks=(str(own),), limit=4)


def test_words_that_were_never_answered_may_change(answered: Evaluate, tmp_path: Path) -> None:
    own = tmp_path / "own_benchmark.py"
    own.write_text(Path(OWN).read_text().replace("{{ question }}", "{{ questoin }}"))
    with pytest.raises(ValueError, match="questoin"):
        answered(benchmarks=(str(own),), limit=2)
    answered(limit=2)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('f"q{number}"', '"q"', r"own has 24 questions of the id 'q'"),
        ('f"q{number}"', "number", r"`id` of question 0 has the value 0, which is no str"),
        ('answers=["red"]', "answers=[1]", r"`answers` of question 'q0' has the value 1, which is no str"),
        ('answers=["red"]', 'answers="red"', r"`answers` of question 'q0' .* no list"),
        ('kind="even" if number % 2 == 0 else "odd"', "kind=number", r"`kind` of question 'q0' .* no str"),
        ('Headline("words"', 'Headline("word"', r"its headline is of the ask 'word', which `asks` has not"),
        ("    asks = (", "    asks = Ask('a', 'b')\n    more = (", r"`asks` is Ask\(.*: let it be a tuple"),
        ("range(24)", "range(0)", r"own has no questions"),
        ('name = "own"', 'name = "my/own"', r"the name of its benchmark is 'my/own'"),
        ('name = "own"', 'name = "pope"', r"that of a benchmark that ships"),
        ('name = "own"', "", r"the name of its benchmark is None"),
    ],
)
def test_a_benchmark_of_ones_own_whose_answers_would_be_lost_is_refused_before_it_runs(
    answered: Evaluate, tmp_path: Path, before: str, after: str, message: str
) -> None:
    own = tmp_path / "mine.py"
    own.write_text(Path(OWN).read_text().replace(before, after))
    with pytest.raises(ValueError, match=message):
        answered(benchmarks=(str(own),))
    assert not (tmp_path / "out").exists()


def test_a_second_run_in_the_folder_is_refused(answered: Evaluate, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    code = "import sys; from pathlib import Path; from cobra.weights.saving import claim\n"
    code += "lock = claim(Path(sys.argv[1])); print('held', flush=True); input()"
    words = [sys.executable, "-c", code, str(tmp_path / "out" / ".lock")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(ValueError, match="written to by another run"):
            answered(limit=2)
        other.kill()


def test_all_that_is_missing_is_told_before_anything_runs(
    answered: Evaluate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "mine.py"
    own.write_text(
        Path(OWN).read_text().replace("[pictures[number * 9 // 24]]", '[self.root / f"{number}.png"]')
    )
    with pytest.raises(FileNotFoundError, match="--allow-missing"):
        answered(benchmarks=("pope", str(own)))
    told = capsys.readouterr().err
    assert "pope: 3 files missing; `cobra eval data pope`" in told
    assert "own: 21 pictures missing" in told
    assert "and 11 more" in told
    assert not (tmp_path / "out").exists()
    found = answered(benchmarks=("pope", str(own)), allow_missing=True)
    assert [len(lines.splitlines()) for lines in found.values()] == [3, 3]
    assert "| own | llava | words | accuracy |" in (tmp_path / "out/scores.md").read_text()
    assert "3/24 |" in (tmp_path / "out/scores.md").read_text()


def test_damaged_pictures_are_left_out_only_where_that_is_allowed(answered: Evaluate, tmp_path: Path) -> None:
    own = tmp_path / "mine.py"
    own.write_text(Path(OWN).read_text().replace("[pictures[number * 9 // 24]]", '[b"no picture"]'))
    with pytest.raises(ValueError, match=r"cannot be opened.*--allow-missing"):
        answered(benchmarks=(str(own),))
    found = answered(benchmarks=(str(own),), allow_missing=True)
    assert [len(lines.splitlines()) for lines in found.values()] == [3, 3]


def test_a_close_call_is_answered_alone(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever rounding does in a batch: here it makes every answer another one that is near."""
    answerer = Answerer(*open_model(model, Settings(), "cpu"), 4)
    (task,) = read_tasks([OWN], [read_protocol("llava")], tmp_path, 6, False)
    asked = [Asked.of(question, task.asks[0]) for question in task.questions]
    examples = answerer.prepare(asked)
    alone = [answerer.answer([a], [e])[0].text for a, e in zip(asked, examples, strict=True)]
    real = answerer._answer

    def rounded(given: list[Asked], fed: list[Example]) -> list[Answer]:
        answers = real(given, fed)
        return answers if len(given) == 1 else [Answer("another", close=0.9 * answerer.close) for _ in given]

    monkeypatch.setattr(answerer, "_answer", rounded)
    assert [answer.text for answer in answerer.answer(asked, examples)] == alone
    assert answerer.again == len(asked)


def test_questions_of_one_picture_are_answered_as_if_each_had_it_alone(model: Path, tmp_path: Path) -> None:
    """Also where rows of a batch share pictures, have others, or none."""
    answerer = Answerer(*open_model(model, Settings(), "cpu"), 4)
    answerer.close = 0
    (task,) = read_tasks([OWN], [read_protocol("llava")], tmp_path, None, False)
    for ask in task.asks:
        asked = [Asked.of(question, ask) for question in task.questions if question.images]
        examples = answerer.prepare(asked)
        # nine pictures are read, and not one a question
        assert len({id(example.pictures) for example in examples}) == 9
        with torch.inference_mode():
            batch, state, rows = answerer._read_pictures(asked, examples, 9)
        # what is left of each prompt begins where it differs from the others about its picture
        assert state is not None
        assert rows is not None
        assert state.rows == len({*rows}) == len({each.pictures for each in asked})
        assert batch.mask is not None
        begins = [int(ids[mask][0]) for ids, mask in zip(batch.ids, batch.mask, strict=True)]
        for row in {*rows}:
            own = [begin for begin, of in zip(begins, rows, strict=True) if of == row]
            assert len(own) == 1 or len({*own}) > 1
        together = answerer.answer(asked, examples)
        for each, answer in zip(asked, together, strict=True):
            (alone,) = answerer.answer([each], answerer.prepare([each]))
            assert answer.close == pytest.approx(alone.close, abs=1e-4)
            assert answer.scores == pytest.approx(alone.scores, abs=2e-4)


def test_the_same_words_are_encoded_for_each_number_of_image_tokens(model: Path) -> None:
    vlm, processor = open_model(model, Settings(), "cpu")
    tiled = TileTransform(vlm.vision.transform)
    tokens = processor.num_image_tokens
    processor = Processor(processor.chat, tiled, lambda layout: layout.tiles * tokens(layout))
    answerer = Answerer(vlm, processor, 4)
    wide, high = (np.zeros((64, width, 3), np.uint8) for width in (200, 64))
    given: list[list[ImageSource]] = [[wide], [high], [wide, high], [high, wide], [], [wide]]
    asked = [
        Asked(Question(str(number), {}, images), "what is there?", []) for number, images in enumerate(given)
    ]
    for each, example in zip(asked, answerer.prepare(asked), strict=True):
        images = each.question.images
        alone = processor.encode_question(Record("0", [user(each.prompt, len(images))], images))
        assert (example.ids, example.record.id) == (alone.ids, each.question.id)
        assert [picture.layout for picture in example.pictures] == [p.layout for p in alone.pictures]


def test_no_answer_differs_by_its_batch(model: Path, tmp_path: Path) -> None:
    assert check_invariance(str(model), [OWN], ["llava"], tmp_path, settings=Settings(), limit=8) == 0


def test_invariance_is_checked_without_damaged_pictures_where_that_is_allowed(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "mine.py"
    own.write_text(Path(OWN).read_text().replace("[pictures[number * 9 // 24]]", '[b"no picture"]'))
    check = partial(check_invariance, str(model), [str(own)], ["llava"], tmp_path, settings=Settings())
    with pytest.raises(ValueError, match="--allow-missing"):
        check()
    assert check(allow_missing=True) == 0
    assert "left out" in capsys.readouterr().err


def test_answers_that_depend_on_their_batch_are_counted(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = Answerer.answer

    def first_of_batch(self: Answerer, asked: list[Asked], examples: list[Example]) -> list[Answer]:
        answers = answer(self, asked, examples)
        return [answers[0]] + [Answer("red") for _ in answers[1:]]

    monkeypatch.setattr(Answerer, "answer", first_of_batch)
    assert check_invariance(str(model), [OWN], ["llava"], tmp_path, settings=Settings(), limit=4) > 0


def test_a_limit_draws_the_same_by_lot_and_what_counts_together_together() -> None:
    questions = [Question(str(n), {}, [], split="yes" if n % 2 else "no") for n in range(1000)]
    some = drawn(questions, 100)
    assert [q.id for q in drawn(questions, 100)] == [q.id for q in some]
    # yes and no take turns, of which every tenth would take one alone
    assert 35 <= [q.split for q in some].count("yes") <= 65
    assert {q.id for q in some} < {q.id for q in drawn(questions, 200)}
    assert drawn(questions, 1001) == questions
    turns = [Question(str(n), {}, [], group=str(n % 10)) for n in range(40)]
    groups = Counter(q.group for q in drawn(turns, 10))
    assert len(groups) == 3
    assert set(groups.values()) == {4}


def test_run_json_says_what_was_run(answered: Evaluate, model: Path, tmp_path: Path) -> None:
    answered(limit=2)
    said = json.loads((tmp_path / "out/run.json").read_text())
    assert said["fingerprint"] == fingerprint(model, Settings())
    assert said["asks"]["own-words"]["prompt"] == "{{ question }}"
    assert said["versions"]["torch"] == torch.__version__
    assert said["versions"]["cobra"] == cobra.__version__
    scores = json.loads((tmp_path / "out/scores.json").read_text())
    assert [(s["benchmark"], s["ask"], s["answered"], s["questions"]) for s in scores] == [
        ("own", "words", 2, 24),
        ("own", "choose", 2, 24),
    ]


@pytest.mark.parametrize("name", ["run.json", "scores.json"])
def test_a_damaged_report_is_named_with_its_remedy(answered: Evaluate, tmp_path: Path, name: str) -> None:
    answered(limit=2)
    report = tmp_path / "out" / name
    report.write_bytes(report.read_bytes()[:20])
    with pytest.raises(ValueError, match=f"{name} is damaged .* remove it and run the same command again"):
        answered(limit=2)
    report.unlink()
    assert answered(limit=2)


def test_a_fingerprint_tells_weights_and_settings_apart(model: Path, tmp_path: Path) -> None:
    other = saved(tmp_path / "other", 1)
    settings = [Settings(), Settings("bf16"), Settings(quant="int4"), Settings(quant="int4", group_size=64)]
    marks = {fingerprint(path, each) for path in (model, other) for each in settings}
    assert len(marks) == 8
    # not part of any answer
    assert fingerprint(model, Settings()) == fingerprint(model, Settings(group_size=64))
    assert model_path(str(model)) == model


@pytest.mark.slow
@pytest.mark.parametrize("started", ["fabric", "torchrun"])
def test_two_processes_answer_as_one(answered: Evaluate, model: Path, tmp_path: Path, started: str) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "cobra"]
    words = [sys.executable, "-m", "cobra"] if started == "fabric" else torchrun
    words += ["eval", str(model), "--benchmarks", OWN, "--data", str(tmp_path), "--batch-size", "3"]
    words += ["--out", str(tmp_path / "two")] + (["--devices", "2"] if started == "fabric" else [])
    result = subprocess.run(words, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert same({path.name: path.read_bytes() for path in (tmp_path / "two").glob("*.jsonl*")}, answered())


@pytest.mark.faults
def test_no_process_goes_on_when_the_first_is_killed(model: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "cobra", "eval", str(model), "--benchmarks", "shapes_pope"]
    words += ["--batch-size", "1", "--out", str(tmp_path / "two"), "--devices", "2"]
    with subprocess.Popen(words, env=os.environ | {"OMP_NUM_THREADS": "1"}, start_new_session=True) as first:
        part = tmp_path / "two/shapes_pope-plain.jsonl.part-1"
        while not part.exists() and first.poll() is None:
            time.sleep(0.1)
        first.kill()
    time.sleep(1)
    size = part.stat().st_size
    time.sleep(3)
    assert part.stat().st_size == size


@pytest.mark.parametrize("device", ["bogus", "xpu"])
def test_a_device_that_is_not_there_is_told(model: Path, device: str) -> None:
    with pytest.raises(ValueError, match=f"--device {device}: not on this machine"):
        open_model(model, Settings(), device)


@pytest.mark.slow
def test_devices_that_are_not_there_are_told() -> None:
    with pytest.raises(ValueError, match="--devices 2 --device bogus: not on this machine"):
        join_processes(2, "bogus")


@pytest.mark.faults
def test_a_run_that_is_killed_ten_times_leaves_the_same_predictions(
    answered: Evaluate, model: Path, tmp_path: Path
) -> None:
    """At random moments, from its start to its table; also with another number of processes in between."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cobra.eval.evaluate", "cobra.eval.benchmarks.shapes"])
    whole = answered("whole", ("shapes_pope", OWN), limit=300, batch_size=2)
    arguments = (str(model), ["shapes_pope", OWN], ["llava"], tmp_path, tmp_path / "out")
    options = {"settings": Settings(), "limit": 300, "batch_size": 2}
    random, kills = Random(0), list[int]()
    while len(kills) < 10:
        process = context.Process(target=evaluate, args=arguments, kwargs=options)
        process.start()
        process.join(random.uniform(0, 2.5))
        if process.exitcode is not None:
            assert process.exitcode == 0
            # it was too soon done: begin anew
            shutil.rmtree(tmp_path / "out")
            continue
        process.kill()
        process.join()
        kills.append(_size(tmp_path / "out"))
        # a batch that another process had begun to write
        if kills[-1] and random.random() < 0.5:
            first = next((tmp_path / "out").glob("*.jsonl"))
            first.with_name(f"{first.name}.part-1").write_bytes(first.read_bytes()[-40:-20])
    print(f"bytes at the kills: {kills}")
    assert len(set(kills)) > 3
    assert same(answered("out", ("shapes_pope", OWN), limit=300, batch_size=2), whole)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.jsonl"))
