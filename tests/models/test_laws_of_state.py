"""Laws of state, which every language model keeps on every backend."""

import copy
import pickle
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from cobra.kernels.dispatch import use_backend
from cobra.models.lm.base import LanguageModel
from cobra.models.lm.stacked import StackedLM
from cobra.models.lm.state import State
from tests.models.builders import LMS, VOCAB

TOKENS = 19
SETTINGS: dict[str, tuple[str | None, torch.dtype]] = {
    "reference": ("reference", torch.float32),
    "torch": ("torch", torch.float32),
    "fastest": (None, torch.float32),
    "bf16": (None, torch.bfloat16),
}


# what rounds the same in both halves of a law keeps it in bf16, too
bf16_too = pytest.mark.parametrize("setting", SETTINGS, indirect=True)


@pytest.fixture(params=["reference", "torch", "fastest"])
def setting(request: pytest.FixtureRequest) -> Iterator[torch.dtype]:
    backend, dtype = SETTINGS[request.param]
    with use_backend(backend):
        yield dtype


@pytest.fixture(params=sorted(LMS))
def lm(request: pytest.FixtureRequest, setting: torch.dtype) -> LanguageModel:
    torch.manual_seed(0)
    lm = LMS[request.param]().eval()
    generator = torch.Generator().manual_seed(3)
    for parameter in lm.parameters():  # none hides behind a one or a zero
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    return lm.to(setting)


@pytest.fixture
def embeds(lm: LanguageModel) -> Tensor:
    return lm.embed(token_ids(2)).detach()


def token_ids(rows: int, tokens: int = TOKENS) -> Tensor:
    return torch.randint(VOCAB, (rows, tokens), generator=torch.Generator().manual_seed(1))


def assert_close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


def assert_same(actual: State, expected: State) -> None:
    """The same memories, to rounding."""
    assert actual.lengths.tolist() == expected.lengths.tolist()
    for layout, layer, other in zip(actual.layouts, actual.layers, expected.layers, strict=True):
        for name, buffer in layout.items():
            for row, length in enumerate(actual.lengths.tolist()):
                written = (..., slice(length), slice(None)) if buffer.grows else ...
                assert_close(layer[name][row][written], other[name][row][written])


def after(lm: LanguageModel, embeds: Tensor, *pieces: int) -> tuple[Tensor, State]:
    """Hidden states of a prompt read in pieces, and the state then."""
    state = lm.allocate_state(len(embeds), embeds.shape[1])
    parts = embeds.split(list(pieces) or [embeds.shape[1]], 1)
    return torch.cat([lm.prefill(part, state) for part in parts], 1), state


MASKS: dict[str, Callable[[Tensor], Tensor]] = {
    "left": lambda index: index >= 6,
    "right": lambda index: index < 13,
    "middle": lambda index: (index < 5) | (index >= 11),
    "scattered": lambda index: index % 3 != 1,
    "all but one": lambda index: index == 9,
    "all": lambda index: index < 0,
}


@torch.no_grad()
@pytest.mark.parametrize("where", MASKS)
def test_masked_tokens_leave_no_trace(lm: LanguageModel, embeds: Tensor, where: str) -> None:
    """In outputs and state, of a first prompt, of one behind it, and of a step behind both."""
    masks = torch.stack([MASKS[where](torch.arange(TOKENS)), torch.arange(TOKENS) != 4])
    state, alone = lm.allocate_state(2, 50), [lm.allocate_state(1, 50) for _ in range(2)]
    for mask in (masks, masks.flip(0)):
        hidden, free = lm.prefill(embeds, state, mask), lm.prefill(embeds, mask=mask)
        for row, (kept, own) in enumerate(zip(mask, alone, strict=True)):
            if kept.any():
                assert_close(hidden[row, kept], lm.prefill(embeds[row, kept][None], own)[0])
                assert_close(free[row, kept], lm.prefill(embeds[row, kept][None])[0])
    stepped = lm.step(embeds[:, 0], state)
    for row, own in enumerate(alone):
        assert_close(stepped[row], lm.step(embeds[row : row + 1, 0], own)[0])
        assert_same(state.take([row]), own)


@torch.no_grad()
def test_a_prompt_cut_anywhere_gives_one_state_however_it_is_read(lm: LanguageModel, embeds: Tensor) -> None:
    whole, expected = after(lm, embeds)
    for cut in range(1, TOKENS):
        hidden, state = after(lm, embeds, cut, TOKENS - cut)
        assert_close(hidden, whole)
        assert_same(state, expected)


@torch.no_grad()
def test_prefill_is_steps(lm: LanguageModel, embeds: Tensor) -> None:
    state = lm.allocate_state(2, TOKENS)
    steps = torch.stack([lm.step(embed, state) for embed in embeds.unbind(1)], 1)
    whole, expected = after(lm, embeds)
    assert_close(steps, whole)
    assert_close(steps, lm.prefill(embeds))
    assert_same(state, expected)


@torch.no_grad()
@pytest.mark.parametrize("lm", ["hybrid", "llama", "mobile_llm_shared", "phi"], indirect=True)
def test_a_step_past_the_kernel_that_takes_it_whole_is_the_same(lm: LanguageModel, embeds: Tensor) -> None:
    mask = torch.arange(TOKENS) >= torch.tensor([[0], [4]])
    whole, apart = (lm.allocate_state(2, TOKENS) for _ in range(2))
    assert whole.tables
    # as on devices without such a kernel; rows are of different lengths
    apart.tables = {}
    for state in (whole, apart):
        lm.prefill(embeds[:, :9], state, mask[:, :9])
    for embed in embeds[:, 9:].unbind(1):
        assert_close(lm.step(embed, apart), lm.step(embed, whole))
    assert_same(apart, whole)
    with pytest.raises(ValueError, match="max_length"):
        lm.step(lm.step(embed, apart), apart)


@torch.no_grad()
def test_a_batch_is_its_rows_alone(lm: LanguageModel, embeds: Tensor) -> None:
    hidden, state = after(lm, embeds)
    for row in range(2):
        alone, expected = after(lm, embeds[row : row + 1])
        assert_close(hidden[row], alone[0])
        assert_same(state.take([row]), expected)


@torch.no_grad()
def test_what_is_not_finite_stays_in_its_row(lm: LanguageModel, embeds: Tensor) -> None:
    clean, state = (lm.allocate_state(2, 20) for _ in range(2))
    wrong = embeds.clone()
    wrong[0, 5] = torch.nan
    assert torch.equal(lm.prefill(wrong, state)[1], lm.prefill(embeds, clean)[1])
    assert torch.equal(lm.step(wrong[:, 5], state)[1], lm.step(embeds[:, 5], clean)[1])
    assert torch.equal(lm.prefill(wrong)[1], lm.prefill(embeds)[1])


@torch.no_grad()
def test_a_long_text_is_many_short_ones(lm: LanguageModel) -> None:
    """Longer than the chunks of a scan and than the blocks of a kernel."""
    embeds = lm.embed(token_ids(1, 300))
    whole, expected = after(lm, embeds)
    hidden, state = after(lm, embeds, *[1, 2, 7, 64, 65, 128, 33])
    assert_close(hidden, whole)
    assert_same(state, expected)


@torch.no_grad()
def test_a_state_that_does_not_grow_is_never_full_and_another_says_so(lm: LanguageModel) -> None:
    embeds, state = lm.embed(token_ids(1)), lm.allocate_state(1, max_length=10)
    if state.grows:
        with pytest.raises(ValueError, match="19 tokens exceed the state's max_length 10: allocate more"):
            lm.prefill(embeds, state)
        for embed in embeds[:, :10].unbind(1):
            lm.step(embed, state)
        with pytest.raises(ValueError, match="allocate"):
            lm.step(embeds[:, 0], state)
        with pytest.raises(ValueError, match="10 tokens exceed the state's max_length 9: allocate more"):
            lm.allocate_state(1, 9).copy_from(state)
    else:
        assert_close(lm.prefill(embeds, state), lm.prefill(embeds))


@torch.no_grad()
def test_embeddings_in_are_tokens_in(lm: LanguageModel) -> None:
    ids = token_ids(2)
    apart = torch.stack([lm.embed(token[:, None])[:, 0] for token in ids.unbind(1)], 1)
    assert torch.equal(apart, lm.embed(ids))


def test_packed_sequences_are_separate_ones_in_values_and_gradients(
    lm: LanguageModel, embeds: Tensor
) -> None:
    cuts, mask = ([7, 12], [1, 18]), torch.arange(TOKENS) % 7 != 2
    seq_idx = torch.tensor([[0] * first + [3] * second for first, second in cuts], dtype=torch.int32)
    packed = lm.prefill(embeds, mask=mask.expand(2, -1), seq_idx=seq_idx)[:, mask]
    apart = [
        lm.prefill(part[kept][None])[0]
        for row, cut in zip(embeds, cuts, strict=True)
        for part, kept in zip(row.split(cut), mask.split(cut), strict=True)
    ]
    separate = torch.cat(apart).view_as(packed)
    assert_close(packed, separate)
    weights = torch.randn(packed.shape, generator=torch.Generator().manual_seed(2))
    # all but the embedding, which comes before
    parameters = list(lm.parameters())[1:]
    gradients = [
        torch.autograd.grad((x * weights).sum(), parameters, allow_unused=True) for x in (packed, separate)
    ]
    for one, other in zip(*gradients, strict=True):
        if one is not other:
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def written_over(state: State) -> State:
    """Another state that held something else before."""
    other = state.clone()
    for layer in other.layers:
        for buffer in layer.values():
            buffer.fill_(torch.nan)
    other.lengths.fill_(3)
    other.copy_from(state)
    return other


def through_slots(state: State) -> State:
    """The same rows, which were taken out one by one and put back into others."""
    slots = written_over(state)
    slots.put([1], state.take([0]))
    slots.put([0], state.take([1]))
    return slots.take([1, 0])


COPIES: dict[str, Callable[[State], State]] = {
    "clone": State.clone,
    "deepcopy": copy.deepcopy,
    "pickle": lambda state: pickle.loads(pickle.dumps(state)),
    "copy_from": written_over,
    "take and put": through_slots,
}


@bf16_too
@torch.no_grad()
@pytest.mark.parametrize("how", COPIES)
def test_a_restored_state_never_left(lm: LanguageModel, embeds: Tensor, how: str) -> None:
    state, mask = lm.allocate_state(2, 40), torch.arange(TOKENS) >= torch.tensor([[4], [0]])
    lm.prefill(embeds, state, mask)
    restored = COPIES[how](state)
    assert_same(restored, state)
    before = restored.clone()
    hidden = lm.prefill(embeds[:, :5], state, mask[:, 2:7])
    first = lm.step(embeds[:, 0], state)
    # it was not written by the other
    assert_same(restored, before)
    assert torch.equal(lm.prefill(embeds[:, :5], restored, mask[:, 2:7]), hidden)
    assert torch.equal(lm.step(embeds[:, 0], restored), first)
    assert_same(restored, state)


@torch.no_grad()
@pytest.mark.parametrize("count", [1, 6])
def test_what_is_read_behind_rows_of_a_state_is_not_remembered(
    lm: LanguageModel, embeds: Tensor, count: int
) -> None:
    """It is what would be read behind copies of the rows."""
    state, rows = lm.allocate_state(2, 30), [1, 0, 1, 1]
    lm.prefill(embeds, state, torch.arange(TOKENS) >= torch.tensor([[4], [0]]))
    before, new = state.clone(), lm.embed(token_ids(4, count))
    for mask in (None, torch.arange(count) >= torch.tensor([[0], [2], [0], [1]])):
        hidden = lm.prefill(new, state, mask, rows=rows)
        read = torch.ones(4, count, dtype=torch.bool) if mask is None else mask
        assert_close(hidden[read], lm.prefill(new, state.take(rows), mask)[read])
    assert state.lengths.equal(before.lengths)
    for layer, other in zip(state.layers, before.layers, strict=True):
        assert all(buffer.equal(other[name]) for name, buffer in layer.items())
    for wrong in ([0, 1, 2, 0], [0, -1, 0, 0], [0, 1]):
        with pytest.raises(ValueError, match="of a state of 2 are not one for each of 4 sequences"):
            lm.prefill(new, state, rows=wrong)
    with pytest.raises(ValueError, match="rows are of no state"):
        lm.prefill(new, rows=rows)


def test_rows_are_read_behind_without_gradients(lm: LanguageModel, embeds: Tensor) -> None:
    with pytest.raises(ValueError, match=r"without gradients: call it under torch.no_grad"):
        lm.prefill(embeds, lm.allocate_state(2, TOKENS), rows=[0, 0])


@bf16_too
@torch.no_grad()
def test_a_state_that_was_reset_has_read_nothing(lm: LanguageModel, embeds: Tensor) -> None:
    state = lm.allocate_state(2, 40)
    for layer in state.layers:
        for buffer in layer.values():
            buffer.fill_(torch.nan)
    state.lengths.fill_(5)
    state.reset()
    mask = torch.arange(TOKENS) >= torch.tensor([[4], [0]])
    fresh = lm.allocate_state(2, 40)
    assert torch.equal(lm.prefill(embeds, state, mask), lm.prefill(embeds, fresh, mask))
    assert torch.equal(lm.step(embeds[:, 0], state), lm.step(embeds[:, 0], fresh))
    assert_same(state, fresh)


@torch.no_grad()
def test_rewinding_is_exact_or_refused(lm: LanguageModel, embeds: Tensor) -> None:
    _, state = after(lm, embeds)
    kept = {name for layout in state.layouts for name, buffer in layout.items() if not buffer.grows}
    if kept:
        with pytest.raises(ValueError, match=r"'conv' of layer 0 cannot be rewound.*copy_from the clone"):
            state.rewind(7)
        return
    state.rewind(torch.tensor([7, 11]))
    for row, length in enumerate((7, 11)):
        assert_same(state.take([row]), after(lm, embeds[row : row + 1, :length])[1])
    with pytest.raises(ValueError, match=r"have read \[7, 11\] tokens cannot be rewound to \[8, 8\]"):
        state.rewind(8)


def gradients(loss: Tensor, lm: LanguageModel, embeds: Tensor) -> list[Tensor]:
    """Of the embeddings, then of all parameters."""
    return list(torch.autograd.grad(loss, [embeds, *lm.parameters()], materialize_grads=True))


def seeds(like: Tensor) -> Tensor:
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(2)).to(like.dtype)


def test_gradients_reach_through_a_carried_state(lm: LanguageModel, embeds: Tensor) -> None:
    embeds.requires_grad_()
    whole = lm.prefill(embeds)
    first, second, rest = embeds.split([5, 7, 7], 1)
    state = lm.allocate_state(2, TOKENS)
    hidden = [lm.prefill(first, state), lm.prefill(second, state)]
    pieces = torch.cat([*hidden, *(lm.step(embed, state)[:, None] for embed in rest.unbind(1))], 1)
    assert_close(pieces, whole)
    for one, other in zip(
        *(gradients((x * seeds(x)).sum(), lm, embeds) for x in (pieces, whole)), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_gradients_end_where_a_state_is_detached(lm: LanguageModel, embeds: Tensor) -> None:
    """Truncated backpropagation: each piece is trained as if the state that it finds were given."""
    embeds.requires_grad_()
    state, mask = lm.allocate_state(2, TOKENS), torch.arange(TOKENS) >= torch.tensor([[0], [3]])
    memory = [x.data_ptr() for layer in state.layers for x in layer.values()]
    with torch.no_grad():
        given = lm.allocate_state(2, TOKENS)
    for piece in (slice(0, 8), slice(8, TOKENS)):
        hidden = lm.prefill(embeds[:, piece], state, mask[:, piece])
        expected = lm.prefill(embeds[:, piece], given.clone(), mask[:, piece])
        both = [gradients((x * seeds(x)).sum(), lm, embeds) for x in (hidden, expected)]
        for one, other in zip(*both, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
        assert state.detach_() is state
        with torch.no_grad():
            lm.prefill(embeds[:, piece], given, mask[:, piece])
        assert_same(state, given)
    # kernels that were captured go on with the same memory
    assert memory == [x.data_ptr() for layer in state.layers for x in layer.values()]


def test_gradients_of_a_state_are_not_cut_off_unasked(lm: LanguageModel, embeds: Tensor) -> None:
    state = lm.allocate_state(2, TOKENS)
    lm.prefill(embeds[:, :5], state)
    with torch.no_grad():
        for use in (lm.step, lm.prefill):
            with pytest.raises(ValueError, match=r"holds gradients .* detach_\(\) it before"):
                use(embeds[:, 5] if use == lm.step else embeds[:, 5:], state)
    for copied in (
        state.clone,
        lambda: pickle.dumps(state),
        lambda: lm.allocate_state(2, 9).copy_from(state),
    ):
        with pytest.raises(ValueError, match=r"holds gradients .* detach_\(\) it before"):
            copied()
    state.reset()
    with torch.no_grad():
        assert torch.equal(lm.prefill(embeds, state), lm.prefill(embeds, lm.allocate_state(2, TOKENS)))


@torch.no_grad()
@pytest.mark.parametrize(
    ("setting", "lm"),
    [
        *(("fastest", lm) for lm in ("mamba2", "mamba", "mobile_llm", "llama")),
        *(("torch", lm) for lm in ("mamba2", "mamba")),
    ],
    indirect=True,
)
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_a_compiled_graph_keeps_a_state(lm: LanguageModel, embeds: Tensor) -> None:
    """Of pieces of which some tokens are masked, and of steps, without a break."""
    mask = torch.arange(TOKENS) % 5 != torch.tensor([[1], [0]])
    torch.compiler.reset()
    prefill, step = (torch.compile(f, fullgraph=True, backend="eager") for f in (lm.prefill, lm.step))
    compiled, state = (lm.allocate_state(2, 30) for _ in range(2))
    # what is behind the tokens is not read
    for layer in compiled.layers:
        for name in layer.keys() & {"keys", "values"}:
            layer[name].fill_(torch.nan)
    for _ in range(2):
        hidden, expected = prefill(embeds, compiled, mask), lm.prefill(embeds, state, mask)
        assert_close(hidden[mask], expected[mask])
        assert_close(step(embeds[:, 0], compiled), lm.step(embeds[:, 0], state))
        assert_same(compiled, state)
        if state.grows:
            with pytest.raises(RuntimeError, match="tokens exceed the state's max_length 30: allocate more"):
                prefill(embeds, compiled)
            return


@pytest.mark.parametrize("lm", ["hybrid", "mamba", "mamba2_groups"], indirect=True)
def test_gradients_are_the_same_where_blocks_are_computed_again(lm: LanguageModel, embeds: Tensor) -> None:
    """Activation checkpointing that is not reentrant reads what autograd saved twice."""
    embeds.requires_grad_()
    hidden = lm.prefill(embeds)
    expected = gradients((hidden * seeds(hidden)).sum(), lm, embeds)
    assert isinstance(lm, StackedLM)
    for block in lm.blocks:
        vars(block)["forward"] = partial(checkpoint, block.forward, use_reentrant=False)
    again = lm.prefill(embeds)
    for one, other in zip(gradients((again * seeds(hidden)).sum(), lm, embeds), expected, strict=True):
        assert torch.equal(one, other)
