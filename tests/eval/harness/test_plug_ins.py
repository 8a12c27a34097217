"""The plug-ins, asked as each harness asks, without it: a batch answers as each question asked alone."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cobra.data.record import Record, user
from cobra.pretrained import from_pretrained
from tests.eval.harness.models import said_alone, write_model
from tests.eval.harness.stubs import plug_in

QUESTIONS = ["what?", "is there a red circle in the picture?", "where is it now?", "which digit is written?"]
OPTIONS = {"max_new_tokens": 6, "temperature": 0, "do_sample": False, "num_beams": 1, "top_p": None}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def records() -> list[Record]:
    noise = np.random.default_rng(0)
    pictures = noise.integers(0, 256, (len(QUESTIONS), 40, 50, 3), dtype=np.uint8)
    return [
        Record(str(n), [user(q, 1)], [p]) for n, (q, p) in enumerate(zip(QUESTIONS, pictures, strict=True))
    ]


class Harness:
    """Requests of lmms-eval about records, as it makes them for one of our classes."""

    def __init__(self, model: Any, records: list[Record]) -> None:
        pictures = [Image.fromarray(record.images[0]) for record in records]  # type: ignore[arg-type]
        self.model, self.records, self.docs = model, records, pictures
        model.task_dict = {"task": {"test": pictures}}

    def asks(self, *args: Any) -> list[Any]:
        texts = [record.messages[0].text for record in self.records]
        places = [(place, "task", "test") for place in range(len(texts))]
        return [SimpleNamespace(args=(t, *args, *p)) for t, p in zip(texts, places, strict=True)]

    def generate(self, options: dict[str, Any]) -> list[str]:
        if self.model.is_simple:
            return self.model.generate_until(self.asks(options, lambda picture: [picture]))
        return self.model.generate_until(self.asks(self._chat, options))

    def _chat(self, picture: Image.Image) -> list[dict[str, Any]]:
        text = self.records[self.docs.index(picture)].messages[0].text
        parts = [{"type": "image", "url": picture}, {"type": "text", "text": text}]
        return [{"role": "user", "content": parts}]


@pytest.mark.parametrize("batch_size", ["1", "3"])
@pytest.mark.parametrize("name", ["Cobra", "CobraByText"])
def test_lmms_eval_gets_the_answer_to_each_question_alone(
    name: str, batch_size: str, folder: Path, records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = getattr(plug_in(monkeypatch, "lmms"), name)(str(folder), batch_size, "cpu")
    expected = said_alone(folder, records, 6)
    assert len(set(expected)) == len(expected)
    assert Harness(model, records).generate(OPTIONS) == expected
    assert {said[1][0]: said[2] for said in model.cached} == dict(zip(QUESTIONS, expected, strict=True))


def test_lmms_eval_gets_the_loss_of_each_choice_and_whether_it_is_what_would_be_said(
    folder: Path, records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = plug_in(monkeypatch, "lmms").CobraByText(str(folder), 3, "cpu")
    said = said_alone(folder, records, 3)
    choices = [[" yes", answer, " top left"] for answer in said]
    requests = [
        SimpleNamespace(args=(request.args[0], choice, lambda picture: [picture], *request.args[1:]))
        for request, row in zip(Harness(model, records).asks(), choices, strict=True)
        for choice in row
    ]
    pairs = [result.text for result in model.loglikelihood(requests)]
    whole, processor = from_pretrained(folder)
    for record, row in zip(records, choices, strict=True):
        prompt = processor.encode(record, prompt=True)
        pixels = processor.collate([prompt], left=True).pictures
        for choice in row:
            loss, is_greedy = pairs.pop(0)
            ids = processor.chat.answer_ids(choice)
            with torch.inference_mode():
                hidden = whole(torch.tensor([prompt.ids + ids]), pixels)[0, len(prompt.ids) - 1 : -1]
                logits = whole.lm.head(hidden)
            expected = torch.nn.functional.cross_entropy(logits, torch.tensor(ids), reduction="sum")
            assert loss == pytest.approx(float(expected), abs=1e-4)
            assert is_greedy == (logits.argmax(-1).tolist() == ids)


def test_pictures_stand_where_a_task_puts_them(monkeypatch: pytest.MonkeyPatch) -> None:
    placed = plug_in(monkeypatch, "lmms")._placed
    image = {"type": "image"}

    def text(said: str) -> dict[str, str]:
        return {"type": "text", "text": said}

    parts = [image, image, text("first <image> then <image>\nor?")]
    assert placed(parts) == [text("first"), image, text("then"), image, text("or?")]
    # of a task that numbers its pictures nothing is known
    assert placed([image, text("in <image 1>?")]) == [image, text("in <image 1>?")]


def test_what_the_model_cannot_do_is_said(
    folder: Path, records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    lmms = plug_in(monkeypatch, "lmms")
    with pytest.raises(ValueError, match="batch_size auto"):
        lmms.Cobra(str(folder), "auto")
    with pytest.raises(ValueError, match="dtype 'int3' must be fp32"):
        lmms.Cobra(str(folder), dtype="int3", device="cpu")
    model = lmms.Cobra(str(folder), 1, "cpu", max_length=9)
    with pytest.raises(ValueError, match="more than max_length 9"):
        Harness(model, records).generate(OPTIONS)
    with pytest.raises(ValueError, match="num_beams 4"):
        Harness(model, records).generate({"num_beams": 4})
    film = [{"role": "user", "content": [{"type": "video", "url": "a.mp4"}]}]
    with pytest.raises(ValueError, match="task shows a video"):
        model.generate_until(Harness(model, records).asks(lambda doc: film, OPTIONS))


def test_vlmevalkit_gets_the_answer_to_pictures_of_files(
    folder: Path, records: list[Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kit = plug_in(monkeypatch, "vlmevalkit")
    kit.register("ours", str(folder), max_new_tokens=6, device="cpu")
    model = kit.supported_VLM["ours"]()
    Image.fromarray(records[1].images[0]).save(tmp_path / "1.png")  # type: ignore[arg-type]
    message = [
        {"type": "image", "value": str(tmp_path / "1.png")},
        {"type": "text", "value": records[1].messages[0].text},
    ]
    assert [model.generate(message, dataset="D")] == said_alone(folder, records[1:2], 6)
