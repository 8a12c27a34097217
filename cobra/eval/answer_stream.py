"""A scene, what it was asked, and how sure the model was of each token of its answers."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from cobra.data.image import load_rgb
from cobra.data.processor import Processor
from cobra.eval.predictions import Prediction
from cobra.inference.conversation import Conversation
from cobra.models.sampling import Sampler
from cobra.models.vlm import CobraVLM

_RIGHT, _WRONG, _OTHER = "#1a7f37", "#cf222e", "#afb8c1"
# longest answer, its end included
_TOKENS = 4
# candidates below this share are not drawn
_SHOWN = 0.005


@dataclass
class Candidates:
    """Tokens that could come next, likeliest first, with their probabilities; the first was chosen."""

    texts: list[str]
    probabilities: list[float]


@dataclass
class _Watched(Sampler):
    """Greedy, and remembers the probabilities (V,) that it chose from."""

    seen: list[Tensor] = field(default_factory=list)

    def __call__(self, logits: Tensor) -> Tensor:
        """Logits (1, V) to token ids (1,)."""
        self.seen.append(logits[0].float().softmax(dim=-1))
        return super().__call__(logits)


def answer_stream(
    model: CobraVLM, processor: Processor, picture: Path, question: str, top: int = 3
) -> tuple[str, list[Candidates]]:
    """The answer to a question about a picture, and the `top` candidates for each of its tokens.

    In the precision of the weights: near a tie, a test under bf16 may have answered otherwise.
    """
    sampler = _Watched()
    conversation = Conversation(model, processor, max_new_tokens=_TOKENS, sampler=sampler)
    answer = "".join(conversation.ask(question, [picture]))
    return answer, [_candidates(processor, probs, top) for probs in sampler.seen]


def _candidates(processor: Processor, probs: Tensor, top: int) -> Candidates:
    values, ids = probs.topk(top)
    eos = processor.chat.eos_id
    texts = ["(end)" if i == eos else processor.chat.decode([i]).strip() or "(space)" for i in ids.tolist()]
    return Candidates(texts, values.tolist())


def first_scene(predictions: Sequence[Prediction]) -> list[Prediction]:
    """The questions about the picture that the first question is about; ids are `<picture>-<question>`."""
    picture = predictions[0].question_id.rpartition("-")[0]
    return [p for p in predictions if p.question_id.rpartition("-")[0] == picture]


def draw_answer_stream(
    model: CobraVLM, processor: Processor, picture: Path, asked: Sequence[Prediction], path: Path
) -> None:
    """Write a PNG: the picture on the left, a row a question, a group of bars a token of the answer.

    Args:
        model: answers, in evaluation mode.
        processor: the model's.
        picture: what is asked about.
        asked: the questions, with their true answers.
        path: where to write.
    """
    with torch.inference_mode():
        answers = [answer_stream(model, processor, picture, each.question) for each in asked]
    longest = max(len(tokens) for _, tokens in answers)
    figure = Figure(figsize=(4 + 2.4 * longest, 0.4 + 1.3 * len(asked)), layout="constrained")
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=[4, 2.4 * longest])[0]
    scene = left.subplots()
    scene.imshow(load_rgb(picture), interpolation="nearest")
    scene.set_axis_off()
    scene.set_anchor("N")
    rows = right.subfigures(len(asked), 1, squeeze=False)[:, 0]
    for row, prediction, (answer, tokens) in zip(rows, asked, answers, strict=True):
        is_right = answer in prediction.answers
        color = _RIGHT if is_right else _WRONG
        verdict = f"✓ {answer}" if is_right else f"✗ {answer}   (true: {' / '.join(prediction.answers)})"
        row.suptitle(f"{prediction.question}   {verdict}", color=color, x=0.01, ha="left", fontsize=11)
        for number, axes in enumerate(row.subplots(1, longest, squeeze=False)[0]):
            _draw_token(axes, tokens[number] if number < len(tokens) else None, color)
    figure.savefig(path, dpi=110)


def _draw_token(axes: Axes, token: Candidates | None, color: str) -> None:
    axes.set_axis_off()
    if token is None:
        return
    axes.set(xlim=(-0.7, 1.35), ylim=(len(token.texts) - 0.4, -0.6))
    for place, (text, probability) in enumerate(zip(token.texts, token.probabilities, strict=True)):
        if probability < _SHOWN:
            break
        axes.barh(place, probability, color=_OTHER if place else color, height=0.75)
        axes.text(-0.04, place, text, ha="right", va="center", fontsize=9)
        axes.text(probability + 0.03, place, f"{100 * probability:.0f} %", va="center", fontsize=8)
