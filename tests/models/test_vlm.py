"""The whole model: every projector with every encoder, splicing, loss, generation."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from cobra.models.sampling import Sampler
from cobra.models.vision.pictures import ONE_TILE, Layout, Picture, Pictures, Pixels
from cobra.models.vlm import IGNORE_ID, IMAGE_ID, CobraVLM
from tests.models.builders import ENCODERS, LMS, PROJECTORS


def build(encoder: str = "small_vit", projector: str = "linear", lm: str = "mamba2") -> CobraVLM:
    torch.manual_seed(0)
    return CobraVLM(ENCODERS[encoder], PROJECTORS[projector], LMS[lm]).eval()


def pictures_of(model: CobraVLM, *widths: int) -> list[Picture]:
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (40, width, 3), dtype=np.uint8)) for width in widths]
    return [model.vision.transform(image) for image in images]


def pixels_of(model: CobraVLM, count: int) -> Pixels:
    pixels = Pictures.stack(pictures_of(model, *[50] * count)).pixels
    assert pixels is not None
    return pixels


def prompt(model: CobraVLM, text: list[int], layout: Layout = ONE_TILE) -> list[int]:
    return [text[0]] + [IMAGE_ID] * model.num_image_tokens(layout) + text[1:]


@pytest.mark.parametrize("projector", sorted(PROJECTORS))
@pytest.mark.parametrize("encoder", sorted(ENCODERS))
def test_every_projector_runs_forward_and_backward_on_every_encoder(encoder: str, projector: str) -> None:
    if encoder == "fused":  # the two towers must agree on the number of patches
        pytest.importorskip("timm")
    model = build(encoder, projector)
    pictures = pictures_of(model, 50, 90)
    first, second = (prompt(model, [1, 2, 3], picture.layout) for picture in pictures)
    ids = torch.tensor([first + [4] * (len(second) - len(first)), second])
    hidden = model(ids, Pictures.stack(pictures))
    model.loss(hidden, ids.masked_fill(ids == IMAGE_ID, IGNORE_ID)).backward()
    without = {
        name for name, p in model.named_parameters() if p.grad is None and not name.startswith("vision")
    }
    assert not without
    assert any(p.grad is not None for p in model.vision.parameters())


def test_image_tokens_replace_placeholders_in_reading_order() -> None:
    model = build()
    ids = torch.tensor([prompt(model, [1, 2]), prompt(model, [3, 4])])
    pixels = pixels_of(model, 2)
    assert isinstance(pixels, torch.Tensor)
    spliced = model.splice(ids, pixels)
    expected = model.projector(model.vision(pixels))
    torch.testing.assert_close(spliced[:, 1:-1], expected)
    torch.testing.assert_close(spliced[:, -1], model.lm.embed(torch.tensor([2, 4])))


def test_fused_features_keep_the_order_of_the_encoders() -> None:
    model = build("fused")
    pixels = pixels_of(model, 1)
    assert isinstance(pixels, list | tuple)
    features, first = model.vision(pixels), model.vision.get_submodule("encoders.0")
    torch.testing.assert_close(features[..., : first.embed_dim], first(pixels[0]))


def test_loss_counts_labelled_positions_only() -> None:
    model = build()
    ids = torch.tensor([[1, 2, 3, 4]])
    labels = torch.tensor([[IGNORE_ID, IGNORE_ID, 3, 4]])
    hidden = model(ids)
    expected = torch.nn.functional.cross_entropy(model.lm.head(hidden[0, 1:3]), torch.tensor([3, 4]))
    torch.testing.assert_close(model.loss(hidden, labels), expected)


@pytest.mark.parametrize("lm", ["mamba2", "llama"])
def test_a_loss_in_pieces_has_the_same_value_and_gradients(lm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(lm=lm)
    labels = torch.randint(0, 400, (3, 20)).masked_fill(torch.rand(3, 20) < 0.4, IGNORE_ID)
    hidden = torch.randn(3, 20, model.lm.d_model, requires_grad=True)
    kept: list[int] = []

    def loss_and_gradients() -> list[torch.Tensor]:
        kept.clear()
        inputs = [hidden, *model.lm.parameters()]
        with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
            loss = model.loss(hidden, labels)
        return [loss, *(g for g in torch.autograd.grad(loss, inputs, allow_unused=True) if g is not None)]

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.numel() if tensor.shape[-1:] == (model.lm.vocab_size,) else 0)
        return tensor

    whole = loss_and_gradients()
    assert max(kept) > 20 * model.lm.vocab_size
    monkeypatch.setattr("cobra.models.vlm._LOGITS", 7 * model.lm.vocab_size + 1)
    pieces = loss_and_gradients()
    assert max(kept) == 0
    assert len(pieces) == len(whole) > 2
    torch.testing.assert_close(pieces, whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("left", [True, False])
@pytest.mark.parametrize("lm", sorted(LMS))
def test_a_ragged_batch_answers_like_its_single_prompts(lm: str, left: bool) -> None:
    model = build(lm=lm)
    rows = [prompt(model, [1, 2, 3, 7, 9]), prompt(model, [4, 5])]
    width = max(map(len, rows))
    ids, mask = torch.zeros(2, width, dtype=torch.long), torch.zeros(2, width, dtype=torch.bool)
    for i, row in enumerate(rows):
        there = slice(width - len(row), width) if left else slice(len(row))
        ids[i, there], mask[i, there] = torch.tensor(row), True
    pixels = pixels_of(model, 2)
    assert isinstance(pixels, torch.Tensor)
    together = model.generate(ids, pixels, mask, max_new_tokens=6)
    apart = [
        model.generate(torch.tensor([row]), pixels[i : i + 1], max_new_tokens=6) for i, row in enumerate(rows)
    ]
    assert together.tolist() == torch.cat(apart).tolist()
    with torch.no_grad():
        logits = model.lm.head(model.lm.prefill(model.splice(ids, pixels), mask=mask))
        for i, row in enumerate(rows):
            single = model.lm.head(model(torch.tensor([row]), pixels[i : i + 1]))[0]
            torch.testing.assert_close(logits[i, mask[i]], single, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("lm", sorted(LMS))
def test_greedy_decoding_equals_rereading_the_whole_sequence(lm: str) -> None:
    model = build(lm=lm)
    ids, pixels = torch.tensor([prompt(model, [1, 2, 3])]), pixels_of(model, 1)
    answer = model.generate(ids, pixels, max_new_tokens=5)
    for _ in range(5):
        with torch.no_grad():
            best = model.lm.head(model(ids, pixels)[:, -1]).argmax(-1)
        ids = torch.cat([ids, best[:, None]], 1)
    assert answer.tolist() == ids[:, -5:].tolist()


def test_generation_stops_when_every_row_has_ended() -> None:
    model = build()
    ids = torch.tensor([[1, 2], [3, 4]])
    free = model.generate(ids, max_new_tokens=8)
    eos = int(free[0, 2])
    stopped = model.generate(ids, max_new_tokens=8, eos_id=eos)
    ends = [row.index(eos) if eos in row else 8 for row in free.tolist()]
    assert stopped.shape[1] == min(8, max(ends) + 1)
    for row, end in zip(stopped.tolist(), ends, strict=True):
        assert set(row[end:]) <= {eos}


def test_a_stream_can_be_continued_from_its_state() -> None:
    model = build()
    ids = torch.tensor([[1, 2, 3]])
    whole = model.generate(ids, max_new_tokens=6)
    state = model.lm.allocate_state(1, 16)
    first = torch.stack(list(model.stream(ids, max_new_tokens=3, state=state)), 1)
    # the last token has been produced but not read
    rest = torch.stack(list(model.stream(first[:, -1:], max_new_tokens=3, state=state)), 1)
    assert torch.cat([first, rest], 1).tolist() == whole.tolist()


def test_filters_keep_what_they_promise() -> None:
    logits = torch.tensor([[4.0, 3.0, 2.0, 1.0, -5.0]]).repeat(2, 1)
    sampler = partial(Sampler, temperature=1.0)
    probs = logits.softmax(-1)[0]
    assert (sampler(top_k=2).filtered(logits) > 0).sum(-1).tolist() == [2, 2]
    nucleus = int((probs.cumsum(0) < 0.9).sum()) + 1
    assert (sampler(top_p=0.9).filtered(logits) > 0).sum(-1).tolist() == [nucleus] * 2
    assert (sampler(min_p=0.2).filtered(logits) > 0).sum(-1).tolist() == [
        int((probs >= 0.2 * probs[0]).sum())
    ] * 2
    draws = sampler(generator=torch.Generator().manual_seed(0))
    counts = torch.bincount(torch.cat([draws(logits) for _ in range(2000)]), minlength=5) / 4000
    torch.testing.assert_close(counts, probs, rtol=0, atol=0.03)
    assert Sampler()(logits).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"temperature": -1.0}, r"temperature -1\.0 must be finite, it and top_k 0 at least 0"),
        ({"temperature": math.nan}, "temperature nan must be finite"),
        ({"temperature": math.inf}, "temperature inf must be finite"),
        ({"top_p": 0.0}, r"top_p 0\.0 in \(0, 1\]"),
        ({"top_p": math.nan}, r"top_p nan in \(0, 1\]"),
        ({"min_p": math.nan}, r"min_p nan in \[0, 1\]"),
    ],
)
def test_a_filter_that_cannot_be_is_named_with_its_value(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sampler(**wrong)  # type: ignore[arg-type]


def test_the_description_of_a_model_rebuilds_it() -> None:
    from cobra.config.build import build as rebuild

    model = build("fused", "pixel_unshuffle", "llama")
    again = rebuild(model.config())()
    assert again.config() == model.config()
    assert {n: p.shape for n, p in again.named_parameters()} == {
        n: p.shape for n, p in model.named_parameters()
    }


@pytest.mark.parametrize("learns", ["vision", "projector"])
def test_a_batch_of_text_alone_gives_what_learns_before_the_lm_a_gradient_of_zeros(learns: str) -> None:
    model = build().train().requires_grad_(False)
    part = model.parts()[learns].requires_grad_(True)
    ids = torch.arange(1, 7)[None]
    model.loss(model(ids), ids).backward()
    assert all(p.grad is not None and not p.grad.any() for p in part.parameters())
