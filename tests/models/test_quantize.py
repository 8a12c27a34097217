"""Quantized language models compute what the plain ones do with the weights that packing left."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cobra.kernels.ops import pack_w4, pack_w8, unpack_w4, unpack_w8
from cobra.models.lm.base import LanguageModel
from cobra.models.lm.mamba import FusedLinear
from cobra.models.lm.transformer import TransformerLM
from cobra.models.packed import PackedEmbedding, PackedLinear
from cobra.models.quantize import Quantization, matrices_on_meta, quantize_
from tests.models.builders import LMS, VOCAB


def through_int4(weight: Tensor) -> Tensor:
    width = weight.shape[1]
    packed, scales = pack_w4(F.pad(weight, (0, -width % 32)), 32)
    return unpack_w4(packed, scales, 32)[:, :width]


ROUNDED: dict[Quantization, Callable[[Tensor], Tensor]] = {
    "bf16": lambda weight: weight.bfloat16().float(),
    "int8": lambda weight: unpack_w8(*pack_w8(weight))[:, : weight.shape[1]],
    "int4": through_int4,
}


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(params=sorted(LMS))
def make(request: pytest.FixtureRequest) -> Callable[[], LanguageModel]:
    def build() -> LanguageModel:
        torch.manual_seed(0)
        return LMS[request.param]().eval()

    return build


def with_rounded_weights(lm: LanguageModel, quantization: Quantization) -> LanguageModel:
    for module in lm.modules():
        if isinstance(module, FusedLinear):
            module.weight.data = module.weight.bfloat16().float()
        elif isinstance(module, nn.Linear | nn.Embedding):
            module.weight.data = ROUNDED[quantization](module.weight)
    return lm


def logits(lm: LanguageModel, ids: Tensor, read_at_once: int) -> Tensor:
    """Logits (B, T, V); what is not read at once is read in steps."""
    embeds, state = lm.embed(ids), lm.allocate_state(*ids.shape)
    hidden = [lm.prefill(embeds[:, :read_at_once], state)]
    hidden += [lm.step(embeds[:, i], state)[:, None] for i in range(read_at_once, ids.shape[1])]
    return torch.cat([lm.head(part) for part in hidden], 1)


@pytest.mark.parametrize("quantization", sorted(ROUNDED))
def test_a_quantized_model_is_the_plain_one_with_rounded_weights(
    make: Callable[[], LanguageModel], quantization: Quantization
) -> None:
    plain, quantized = with_rounded_weights(make(), quantization), make()
    quantize_(quantized, quantization)
    assert not any(type(module) in (nn.Linear, nn.Embedding) for module in quantized.modules())
    ids = torch.randint(VOCAB, (2, 15))
    expected = plain.head(plain.prefill(plain.embed(ids)))
    # activations are rounded to 16 bits where the packed kernels run
    tolerance = 3e-4 * expected.abs().max().item()
    for read_at_once in (13, 3):
        actual = logits(quantized, ids, read_at_once)
        torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance)
    one = logits(quantized, ids[1:], 3)
    torch.testing.assert_close(one, expected[1:], rtol=0, atol=tolerance)


def test_a_head_that_shares_the_embeddings_weight_is_packed_with_it() -> None:
    lm = LMS["llama"]()
    causal_lm: Any = lm.causal_lm
    causal_lm.get_output_embeddings().weight = causal_lm.get_input_embeddings().weight
    quantize_(lm, "int8")
    embedding, head = causal_lm.get_input_embeddings(), causal_lm.get_output_embeddings()
    assert isinstance(embedding, PackedEmbedding)
    assert isinstance(head, PackedLinear)
    assert embedding.matrix is head.matrix


def test_a_model_built_on_meta_gets_random_weights_and_the_right_small_parameters(
    make: Callable[[], LanguageModel],
) -> None:
    plain = make()
    torch.manual_seed(0)
    with matrices_on_meta():
        lm = type(plain)(**plain.init_args)
    linears = [m for m in lm.modules() if isinstance(m, nn.Linear | nn.Embedding)]
    assert all(m.weight.is_meta for m in linears)
    quantize_(lm, "int4")
    assert not any(tensor.is_meta for tensor in [*lm.parameters(), *lm.buffers()])
    names = {name for name, p in plain.named_parameters() if p.dim() == 1}
    assert names <= {name for name, _ in [*lm.named_parameters(), *lm.named_buffers()]}
    ids = torch.randint(VOCAB, (1, 4))
    assert logits(lm, ids, 2).isfinite().all()


def test_a_model_in_bf16_keeps_its_activations(make: Callable[[], LanguageModel]) -> None:
    plain, quantized = with_rounded_weights(make(), "bf16"), make().bfloat16()
    quantize_(quantized, "bf16")
    ids = torch.randint(VOCAB, (2, 15))
    expected, actual = logits(plain, ids, 13), logits(quantized, ids, 13)
    assert actual.dtype == torch.bfloat16
    assert (actual.float() - expected).abs().max() <= 0.03 * expected.abs().max()


def test_a_recurrent_state_in_bf16_changes_little() -> None:
    torch.manual_seed(0)
    lm, ids = LMS["mamba2"]().eval(), torch.randint(VOCAB, (1, 15))
    expected, before = logits(lm, ids, 7), lm.allocate_state(1, 0).nbytes
    lm.set_state_dtype("bf16")
    assert lm.allocate_state(1, 0).nbytes < 0.7 * before
    actual = logits(lm, ids, 7)
    assert not torch.equal(actual, expected)
    assert (actual - expected).abs().max() <= 0.01 * expected.abs().max()


def test_a_head_stays_tied_to_its_embedding_on_meta() -> None:
    with matrices_on_meta():
        lm: Any = TransformerLM(
            VOCAB, 32, 2, "llama", {"num_attention_heads": 4, "tie_word_embeddings": True}
        )
    quantize_(lm, "int4")
    causal_lm = lm.causal_lm
    assert causal_lm.get_input_embeddings().matrix is causal_lm.get_output_embeddings().matrix


def test_an_unknown_quantization_is_refused(make: Callable[[], LanguageModel]) -> None:
    with pytest.raises(ValueError, match="'int3' but must be one of"):
        quantize_(make(), "int3")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="group is 48"):
        quantize_(make(), "int4", 48)
