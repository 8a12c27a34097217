import pickle
from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from cobra.data.record import Message, Record, assistant, user

PICTURE = np.zeros((2, 3, 3), np.uint8)


def test_helpers_write_chat_template_parts() -> None:
    assert user("why?", images=2).as_dict() == {
        "role": "user",
        "content": [{"type": "image"}, {"type": "image"}, {"type": "text", "text": "why?"}],
    }
    assert assistant("so").as_dict() == {"role": "assistant", "content": [{"type": "text", "text": "so"}]}
    assert user("why?", images=2).text == "why?"


def test_record_is_frozen_and_travels_to_workers() -> None:
    record = Record("a", [user("why?", images=1), assistant("so")], [PICTURE], meta={"type": "x"})
    with pytest.raises(FrozenInstanceError):
        record.id = "b"  # type: ignore[misc]
    copy = pickle.loads(pickle.dumps(record))
    assert (copy.id, copy.messages, copy.meta) == (record.id, record.messages, record.meta)


def test_question_without_answer_is_a_record() -> None:
    assert len(Record("a", [user("why?")]).messages) == 1


@pytest.mark.parametrize(
    ("messages", "images", "problem"),
    [
        ([], 0, "no messages"),
        ([Message("system", [])], 0, "no messages"),
        ([user("a"), Message("system", [])], 0, "turn 1 .* 'system', not 'assistant'"),
        ([assistant("so")], 0, "turn 0 .* 'assistant', not 'user'"),
        ([user("a"), user("b")], 0, "turn 1 .* 'user', not 'assistant'"),
        ([user("a", images=1)], 0, "0 images .* place 1"),
        ([user("a")], 1, "1 images .* place 0"),
        ([Message("user", [{"type": "video"}])], 0, "video"),
        ([Message("user", [{"type": "text"}])], 0, "'text'"),
    ],
)
def test_impossible_record_is_refused(messages: list[Message], images: int, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Record("a", messages, [PICTURE] * images)
