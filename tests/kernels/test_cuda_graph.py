"""Steps replayed as a CUDA graph, on a stand-in for the GPU: what is captured, when, and on which memory."""

import warnings
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from cobra.kernels import cuda_graph, step_graph
from cobra.kernels.dispatch import use_backend
from cobra.kernels.ops import rms_norm
from cobra.kernels.reference import attention
from cobra.kernels.step_graph import StepGraph
from cobra.models.quantize import quantize_
from tests.kernels.cuda_stand_in import Gpu
from tests.models.builders import LMS, VOCAB


@pytest.fixture(autouse=True)
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gpu]:
    """A GPU, to whose graphs steps on the CPU go."""
    device = Gpu()
    device.install(monkeypatch)
    cuda_graph._stream.cache_clear()
    monkeypatch.setattr(cuda_graph, "_newest", {})
    monkeypatch.setitem(step_graph._RECORDERS, "cpu", cuda_graph.Recorder)
    monkeypatch.setattr(attention, "_is_read_at_once", lambda lengths: False)
    with use_backend("torch"), torch.inference_mode():
        yield device
    cuda_graph._stream.cache_clear()


def ids(*shape: int) -> Tensor:
    return torch.randint(VOCAB, shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", ["mamba", "mamba2", "llama", "phi", "mobile_llm"])
def test_replayed_steps_equal_steps(name: str, batch: int, gpu: Gpu) -> None:
    torch.manual_seed(0)
    lm = LMS[name]().eval()
    quantize_(lm, "int8" if name == "mamba" else "none")
    state = lm.allocate_state(batch, 20)
    lm.prefill(lm.embed(ids(batch, 5)), state, torch.arange(5) >= torch.arange(batch)[:, None])
    expected = state.clone()
    step = StepGraph(lambda token: lm.head(lm.step(lm.embed(token[:, None])[:, 0], state)))
    for token in ids(5, batch):
        right = lm.head(lm.step(lm.embed(token[:, None])[:, 0], expected))
        assert torch.equal(step(token), right)
    assert step.obstacle is None
    assert gpu.replays == 4
    assert torch.equal(state.memory, expected.memory)
    assert torch.equal(state.lengths, expected.lengths)
    # what the state holds is read where it lies
    state.reset()
    fresh = lm.head(lm.step(lm.embed(token[:, None])[:, 0], lm.allocate_state(batch, 1)))
    assert torch.equal(step(token), fresh)


def test_graphs_share_memory_and_keep_their_results(gpu: Gpu) -> None:
    steps = [StepGraph(lambda x, factor=factor: x * factor + 1) for factor in (2, 3)]  # type: ignore[misc]
    for number in range(4):
        results = [step(torch.full((2,), float(number))) for step in steps]
        assert [result.tolist() for result in results] == [[2 * number + 1] * 2, [3 * number + 1] * 2]
    assert gpu.replays == 6
    assert len({id(graph.memory) for graph in gpu.graphs}) == 1


def test_a_step_that_asks_is_called_and_told(gpu: Gpu) -> None:
    total = torch.zeros(1)

    def asks(x: Tensor) -> Tensor:
        total.add_(float(x.sum()))
        return total * x

    step = StepGraph(asks)
    for number in range(1, 4):
        assert torch.equal(step(torch.ones(2)), torch.full((2,), 2.0 * number))
    assert "waits for the device" in str(step.obstacle)
    assert gpu.replays == 0
    assert gpu.sync_debug_mode == 0


def test_a_capture_that_fails_has_run_nothing(gpu: Gpu) -> None:
    total, calls = torch.zeros(2), iter(range(9))

    def asks_later(x: Tensor) -> Tensor:
        total.add_(x)
        if next(calls):
            total.tolist()
        return total * 1

    step = StepGraph(asks_later)
    for number in range(1, 5):
        assert torch.equal(step(torch.ones(2)), torch.full((2,), float(number)))
    assert "its capture failed: CUDA error: operation not permitted" in str(step.obstacle)
    assert gpu.replays == 0


def test_a_kernel_that_is_not_warm_is_not_captured() -> None:
    calls = iter(range(9))
    step = StepGraph(lambda x: x.exp() if next(calls) else x.sin())
    step(torch.zeros(2))
    assert torch.equal(step(torch.zeros(2)), torch.ones(2))
    assert "cannot be loaded" in str(step.obstacle)


def test_what_others_take_part_in_is_not_captured(gpu: Gpu) -> None:
    library = torch.library.Library("c10d_functional_stand_in", "FRAGMENT")
    library.define("gather(Tensor x) -> Tensor")
    library.impl("gather", torch.clone, "CompositeExplicitAutograd")
    gather = torch.ops.c10d_functional_stand_in.gather
    cuda_graph_namespaces = (*cuda_graph._COLLECTIVES, "c10d_functional_stand_in")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuda_graph, "_COLLECTIVES", cuda_graph_namespaces)
        step = StepGraph(lambda x: gather(x) + 1)
        for _ in range(3):
            assert torch.equal(step(torch.ones(2)), torch.full((2,), 2.0))
    assert "may wait for other processes" in str(step.obstacle)
    assert gpu.replays == 0


def test_gradients_are_not_replayed(gpu: Gpu) -> None:
    with torch.inference_mode(False):
        step = StepGraph(lambda x: rms_norm(x, torch.ones(2)))
        step(torch.ones(1, 2))
    assert "without gradients" in str(step.obstacle)


def test_warnings_of_a_step_are_given(gpu: Gpu) -> None:
    def warns(x: Tensor) -> Tensor:
        warnings.warn("careful", stacklevel=1)
        return x + 1

    with pytest.warns(UserWarning, match="careful"):
        StepGraph(warns)(torch.ones(1))
