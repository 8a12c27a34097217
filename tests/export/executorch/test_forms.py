import pytest
import torch

from cobra.export.executorch.programs import example, lm_programs
from cobra.models.lm.base import LanguageModel
from tests.models.builders import LMS, VOCAB

TOKENS, ROOM = 8, 24
FORMS = (
    "mamba2", "mamba2_groups", "hybrid", "hybrid_without_mlp",
    "llama", "phi", "phi3", "qwen2", "stablelm", "mobile_llm_shared",
)  # fmt: skip


def run(lm: LanguageModel, ids: torch.Tensor, pieces: list[int]) -> torch.Tensor:
    """Logits behind ids (T,), read by `prefill` in pieces of so many tokens and by `step` behind them."""
    programs = lm_programs(lm, TOKENS, ROOM, embedding_bits=32)
    stack = programs["step"][0].stack
    memory = list(example(stack)[int(stack.positions) :])
    done, logits = 0, torch.empty(0)
    for size in [*pieces, *[1] * (len(ids) - sum(pieces))]:
        at = (torch.tensor([done], dtype=torch.int32),) if stack.positions else ()
        new = ids[done : done + size].int()
        if size > 1:
            # what is behind the tokens must not matter
            padded = torch.nn.functional.pad(new, (0, TOKENS - size), value=7)
            embeds, count = programs["embed"][0](padded), torch.tensor([size], dtype=torch.int32)
            logits, *changed = programs["prefill"][0](embeds, count, *at, *memory)
        else:
            logits, *changed = programs["step"][0](new, *at, *memory)
        buffers = [buffer for layout in stack.layouts for buffer in layout.values()]
        for index, (buffer, value) in enumerate(zip(buffers, changed, strict=True)):
            if buffer.grows:
                memory[index][:, done : done + size] = value[:, :size]
            else:
                memory[index] = value
        done += size
    return logits[0]


@pytest.mark.parametrize("name", FORMS)
@torch.inference_mode()
def test_programs_compute_what_the_model_does(name: str) -> None:
    torch.manual_seed(0)
    lm = LMS[name]().eval()
    for parameter in lm.parameters():
        # biases and D are zeros and ones as they are drawn, which hides them
        parameter.add_(0.1 * torch.randn_like(parameter))
    ids = torch.randint(VOCAB, (20,))
    expected = lm.head(lm.prefill(lm.embed(ids[None])))[0, -1]
    for pieces in ([8, 5, 7], [8, 3], []):
        logits = run(lm, ids, pieces)
        assert (logits - expected).norm() < 1e-5 * expected.norm()
