"""A state's buffers: where they lie, what they weigh, and what does not fit."""

import pickle

import pytest
import torch

from cobra.models.lm.state import Buffer, State

LAYERS = [
    {"conv": Buffer((5, 3)), "ssm": Buffer((2, 7), recurrent=True), "angle": Buffer((3,), recurrent=True)},
    {},
    {"keys": Buffer((2, 4), grows=True), "latent": Buffer((6,), grows=True)},
]


def made(rows: int = 2, max_length: int = 9, layers: list[dict[str, Buffer]] = LAYERS) -> State:
    return State(layers, rows, max_length, torch.bfloat16, torch.float32, torch.device("cpu"), {})


def test_buffers_have_their_shapes_and_precisions_and_share_nothing() -> None:
    state = made()
    buffers = {name: buffer for layer in state.layers for name, buffer in layer.items()}
    assert {name: (tuple(x.shape), x.dtype) for name, x in buffers.items()} == {
        "conv": ((2, 5, 3), torch.bfloat16),
        "ssm": ((2, 2, 7), torch.float32),
        "angle": ((2, 3), torch.float32),
        "keys": ((2, 2, 9, 4), torch.bfloat16),
        "latent": ((2, 9, 6), torch.bfloat16),
    }
    for number, buffer in enumerate(buffers.values()):
        buffer.fill_(number)
    assert all((buffer == number).all() for number, buffer in enumerate(buffers.values()))


def test_a_step_moves_what_does_not_grow_twice_and_the_rest_up_to_the_context() -> None:
    state, fixed = made(), 2 * (2 * 15 + 4 * 14 + 4 * 3)
    per_token = 2 * 2 * (8 + 6)
    assert state.nbytes == fixed + 9 * per_token
    assert state.step_bytes(4) == 2 * fixed + 5 * per_token


def test_a_slot_takes_a_state_of_another_length_and_nothing_else() -> None:
    slots, request = made(rows=3), made(rows=1, max_length=4)
    for layer in request.layers:
        for buffer in layer.values():
            buffer.fill_(1)
    request.lengths.fill_(4)
    slots.put([1], request)
    assert slots.lengths.tolist() == [0, 4, 0]
    keys, ssm = slots.layers[2]["keys"], slots.layers[0]["ssm"]
    assert keys[1, :, :4].eq(1).all()
    assert keys.sum() == 2 * 4 * 4
    assert ssm[:, 0, 0].tolist() == [0, 1, 0]
    with pytest.raises(ValueError, match=r"1 rows and 3 layers does not fit 2 rows of 3 layers: allocate"):
        slots.put([0, 1], request)
    with pytest.raises(ValueError, match=r"1 rows and 1 layers does not fit 1 rows of 3 layers: allocate"):
        slots.put([0], made(1, layers=LAYERS[:1]))
    request.lengths.fill_(9)
    with pytest.raises(ValueError, match="9 tokens exceed the state's max_length 4: allocate more"):
        made(1, 4).copy_from(request)


def test_a_pickle_holds_the_memory_once() -> None:
    state = made(max_length=1000)
    assert len(pickle.dumps(state)) < state.nbytes + 5000
