"""A step of training at true size: forward, backward and AdamW, in autocast over fp32 weights.

The blocks of the language model compute their activations again in the backward pass.
"""

import torch
from torch import Tensor

from cobra.bench.build import random_vlm, weight_bytes
from cobra.bench.question import Question
from cobra.bench.subjects import Tree
from cobra.bench.systems.measure import System, measure
from cobra.bench.timing.case import Case, Stopwatch, dtype_of
from cobra.bench.timing.sample import Sample
from cobra.models.quantize import Quantization
from cobra.models.recompute import recompute
from cobra.models.vlm import IGNORE_ID, label_places

# a step whose optimizer states are there already
_SETTLING = 2


def train(
    vlm: Tree,
    quantization: Quantization,
    dtype: str,
    device: str,
    length: int,
    batch: int,
    state_dtype: str = "fp32",
) -> Case:
    """A step on as many pictures, each with `length` tokens of text, all of them labelled.

    The encoder is frozen, projector and language model learn. Operations are the model's own: those that
    checkpointing repeats do not count (MFU, arXiv 2204.02311, appendix B).

    Args:
        vlm: the model.
        quantization: must be none: packed weights do not learn.
        dtype: of autocast.
        device: where it runs.
        length: tokens of text a picture.
        batch: pictures.
        state_dtype: of what decodes; training keeps fp32.
    """
    if quantization != "none":
        raise ValueError(f"--quant {quantization}: packed weights do not learn; leave it at none")
    model = random_vlm(vlm, quantization, torch.float32, device).train()
    model.vision.eval()
    recompute(model, {"lm": 1})
    learned = [*model.projector.parameters(), *model.lm.parameters()]
    for parameter in learned:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(learned, lr=1e-5, fused=True)
    question = Question(model.vision.transform, model.num_image_tokens, device)
    ids, labels = _batch(question, length, batch, device)
    pictures, places = question.pictures(batch), label_places(labels)

    def run(count: int = 1) -> Sample:
        watch = Stopwatch(device)
        for _ in range(count):
            with torch.autocast(device, dtype_of(dtype), enabled=dtype != "float32"):
                loss = model.loss(model(ids, pictures), labels, places)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        watch.mark("step")
        return watch.sample()

    tokens, head = ids.numel(), 2 * model.lm.vocab_size * model.lm.d_model
    about = {
        "tokens": tokens,
        "step_flops": batch * training_flops(measure("", vlm), length, head) / tokens,
        "model_bytes": weight_bytes(model),
        "constant_state": True,
    }
    return Case(run, rehearsal=lambda: run(_SETTLING), about=about)


def training_flops(system: System, length: int, head: int) -> float:
    """Operations on a picture and its text: the encoder's forward; of the rest also backward, twice as much.

    Args:
        system: sizes and costs of the model.
        length: tokens of text.
        head: operations of the head on a token; it runs where there is a next one.
    """
    lm = (system.image_tokens + length) * system.lm.prefill_flops + (length - 1) * head
    return float(system.vision_flops + 3 * (system.projector_flops + lm))


def _batch(question: Question, length: int, batch: int, device: str) -> tuple[Tensor, Tensor]:
    """Ids and labels (batch, image tokens + length)."""
    places = question.ids[:, : question.image_tokens].expand(batch, -1)
    text = torch.randint(256, (batch, length), generator=torch.Generator().manual_seed(0)).to(device)
    return torch.cat([places, text], 1), torch.cat([torch.full_like(places, IGNORE_ID), text], 1)
