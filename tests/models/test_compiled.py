"""Blocks in compiled graphs: the same losses and gradients, from a stated few graphs."""

from functools import partial
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from cobra.models.compiled import check_compiler, compile_blocks
from cobra.models.lm.mamba import MambaLM
from cobra.models.recompute import recompute
from cobra.models.vlm import IMAGE_ID, CobraVLM
from tests.models.builders import LMS, PROJECTORS, VOCAB, small_vit
from tests.train.test_module import run, stage


def vlm(layers: int = 3) -> CobraVLM:
    torch.manual_seed(0)
    torch._dynamo.reset()
    return CobraVLM(small_vit, PROJECTORS["linear"], partial(MambaLM, VOCAB, 32, layers))


def step(model: CobraVLM, length: int, packed: bool = False) -> list[Tensor]:
    """The loss of two rows, and its gradients."""
    torch.manual_seed(length)
    ids = torch.randint(1, 400, (2, length))
    ids[:, :16] = IMAGE_ID
    seq_idx = (torch.arange(length) > 18).int().expand(2, -1) if packed else None
    loss = model.loss(model(ids, torch.randn(2, 3, 32, 32), seq_idx), ids.clamp(min=0))
    return [loss, *torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad])]


def test_ragged_batches_of_all_blocks_share_a_few_graphs() -> None:
    """One of the first block, which has no residual, and one of all others; twice, as torch sees it."""
    plain, model, graphs = vlm(), vlm(), CompileCounterWithBackend("eager")
    compile_blocks(model, ["lm"], backend=graphs)
    recompute(model, {"lm": 1})
    assert model.state_dict().keys() == plain.state_dict().keys()
    for length in (20, 23, 27, 31, 29):
        torch.testing.assert_close(step(model, length), step(plain, length))
    assert 1 <= graphs.frame_count <= 4
    ops = {node.target for graph in graphs.graphs for node in graph.graph.nodes}
    assert any("selective_scan" in str(op) for op in ops), "the kernel is no operator of the graph"
    ids = torch.randint(1, 400, (1, 20))
    assert torch.equal(model.generate(ids, max_new_tokens=3), plain.generate(ids, max_new_tokens=3))
    assert graphs.frame_count <= 4


def test_a_part_without_blocks_is_refused() -> None:
    with pytest.raises(ValueError, match="compile names 'projector', which has no blocks: name some of"):
        compile_blocks(vlm(), ["projector"])


def test_a_machine_without_a_compiler_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import cpp_builder, exc

    def none() -> str:
        raise exc.InvalidCxxCompiler

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", none)
    with pytest.raises(ValueError, match=r"needs a C\+\+ compiler, e\.g\. g\+\+, and finds none"):
        check_compiler(torch.device("cpu"))
    monkeypatch.setattr("torch.utils._triton.has_triton", lambda: False)
    with pytest.raises(ValueError, match="needs Triton on cuda"):
        check_compiler(torch.device("cuda"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lm", "backend"), [("mamba", "inductor"), ("mamba2", "aot_eager"), ("qwen2", "aot_eager")]
)
def test_graphs_keep_losses_and_gradients_with_lora_packing_and_recomputing(lm: str, backend: str) -> None:
    def made() -> CobraVLM:
        torch.manual_seed(0)
        torch._dynamo.reset()
        model = CobraVLM(small_vit, PROJECTORS["linear"], LMS[lm])
        names = ["q_proj"] if lm == "qwen2" else ["in_proj"]
        torch.manual_seed(1)
        inject_adapter_in_model(LoraConfig(r=2, target_modules=names, init_lora_weights=False), model.lm)
        return model

    plain, model = made(), made()
    compile_blocks(model, ["lm"], backend)
    recompute(model, {"lm": 1})
    for length, packed in ((20, False), (29, True)):
        torch.testing.assert_close(
            step(model, length, packed), step(plain, length, packed), rtol=1e-4, atol=1e-5
        )


@pytest.mark.slow
def test_a_run_with_compiled_blocks_trains_as_one_without(tmp_path: Path) -> None:
    stages = [stage("a", ["projector", "lm"], lr=1e-4, steps=4)]
    plain = run(stages, tmp_path, model=vlm).state_dict()
    again = run(stages, tmp_path, model=vlm, compile=["lm"]).state_dict()
    torch.testing.assert_close(again, plain, rtol=1e-4, atol=1e-5)
