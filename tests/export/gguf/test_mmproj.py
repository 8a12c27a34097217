"""mmproj files in libmtmd, which is what llama.cpp's own programs see with, against PyTorch."""

import ctypes
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from cobra.data.chat import Chat
from cobra.data.image import load_rgb
from cobra.data.processor import Processor
from cobra.data.record import Record, user
from cobra.data.token_ids import IMAGE_TEXT
from cobra.export.gguf import mtmd
from cobra.export.gguf.context import Context, open_weights
from cobra.export.gguf.llama import bindings
from cobra.export.gguf.mmproj import seen_by
from cobra.export.gguf.seen import CannotExpress
from cobra.export.manifest import read_manifest
from cobra.inference.conversation import Conversation
from cobra.models.projectors.base import Projector
from cobra.models.projectors.ldp import LDPProjector
from cobra.models.projectors.ldpv2 import LDPv2Projector
from cobra.models.projectors.linear import LinearProjector
from cobra.models.projectors.mlp import MLPProjector
from cobra.models.projectors.pixel_unshuffle import PixelUnshuffleProjector
from cobra.models.vision.base import VisionEncoder
from cobra.models.vision.fused import planes_of
from cobra.models.vision.pictures import Pictures
from cobra.models.vision.timm_encoder import TimmEncoder
from cobra.models.vlm import IMAGE_ID, CobraVLM
from tests.export.gguf.exported import NO_LLAMA, TOKENIZER, export, llama_chat, phi3_chat
from tests.models.builders import LMS, small_vit

_NO_MTMD = NO_LLAMA or ("" if mtmd.is_there() else "llama.cpp was built without libmtmd")
needs_mtmd = pytest.mark.skipif(bool(_NO_MTMD), reason=_NO_MTMD)

siglip = partial(
    TimmEncoder, "vit_base_patch16_siglip_384.webli", 384, pretrained=False, activation="gelu_tanh"
)
clip = partial(TimmEncoder, "vit_large_patch14_clip_336.openai", 336, pretrained=False, resize="letterbox")
# 27 patches a side, of which the last is not seen to its end
so400m = partial(
    TimmEncoder, "vit_so400m_patch14_siglip_384.webli", 384, pretrained=False, resize="letterbox"
)


@pytest.fixture(autouse=True)
def small_towers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Towers of their kind with three small blocks."""
    sizes = {"embed_dim": 64, "depth": 4, "num_heads": 2}
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda *name, **options: create(*name, **{**options, **sizes}))


def model(vision: Callable[[], VisionEncoder], projector: Callable[[int, int], Projector]) -> CobraVLM:
    torch.manual_seed(0)
    made = CobraVLM(vision, projector, LMS["mamba2"]).eval()
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.1)
    return made


def seen_by_stock(folder: Path, *pictures: Path) -> list[NDArray[np.float32]]:
    """Image tokens of pictures."""
    weights = open_weights(folder / "lm.gguf")
    program = mtmd.StockPictures(folder / "mmproj.gguf", weights)
    found = [program(picture) for picture in pictures]
    program.close()
    bindings().llama_model_free(weights)
    return found


def rms(found: NDArray, expected: Tensor) -> float:
    return float(np.linalg.norm(found - expected.numpy()) / expected.norm())


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    noise = np.random.default_rng(0).integers(0, 255, (70, 90, 3), np.uint8)
    Image.fromarray(noise).save(path := tmp_path / "picture.png")
    return path


def square(made: CobraVLM, picture: Path, path: Path) -> Path:
    """The square that a model sees of a picture."""
    (plane,) = planes_of(made.vision.transform)
    plane.square(load_rgb(picture)).save(path)
    return path


def tokens_of(made: CobraVLM, picture: Path) -> Tensor:
    with torch.inference_mode():
        return made.image_tokens(Pictures.stack([made.vision.transform(Image.open(picture))]))


@needs_mtmd
@pytest.mark.export
@pytest.mark.parametrize(("quant", "rounding"), [("f32", 1e-3), ("f16", 1.5e-3)])
@pytest.mark.parametrize("projector", [MLPProjector, LinearProjector, LDPProjector, LDPv2Projector])
def test_stock_llama_cpp_sees_what_the_model_sees(
    projector: type[Projector], quant: str, rounding: float, picture: Path, tmp_path: Path
) -> None:
    made = model(siglip, projector)
    out = export(made, tmp_path, quant)
    expected = tokens_of(made, picture)
    # a picture is squashed as by the model's own transform, to the last bit
    plain, squashed = seen_by_stock(out, picture, square(made, picture, tmp_path / "square.png"))
    np.testing.assert_array_equal(plain, squashed)
    assert rms(plain, expected) < rounding
    assert read_manifest(out).contents.parity["mmproj_image_tokens"] < rounding


@needs_mtmd
@pytest.mark.export
def test_bars_are_what_llama_cpp_does_otherwise(picture: Path, tmp_path: Path) -> None:
    made = model(so400m, MLPProjector)
    contents = read_manifest(out := export(made, tmp_path, "f32")).contents
    assert any("bars of the colour (127, 127, 127)" in sentence for sentence in contents.missing)
    assert contents.parity["mmproj_image_tokens"] > 1e-2
    assert contents.parity["mmproj_image_tokens_of_the_square"] < 1e-3
    (found,) = seen_by_stock(out, square(made, picture, tmp_path / "square.png"))
    assert rms(found, tokens_of(made, picture)) < 1e-3


class ClassLast(nn.Module):
    """A tower as llama.cpp runs it (#25814): patches, then the class; places in order; the first row lost."""

    def __init__(self, vision: TimmEncoder) -> None:
        super().__init__()
        self.tower = vision.tower

    def forward(self, pixels: Tensor) -> Tensor:
        tower = self.tower
        rows = torch.cat([tower.patch_embed(pixels), tower.cls_token], 1) + tower.pos_embed
        return tower.blocks(tower.norm_pre(rows))[:, 1:]


@needs_mtmd
@pytest.mark.export
@pytest.mark.parametrize("projector", [MLPProjector, LDPv2Projector])
def test_a_clip_tower_is_seen_with_llama_cpp_s_order_of_its_class_token(
    projector: type[Projector], picture: Path, tmp_path: Path
) -> None:
    made = model(clip, projector)
    contents = read_manifest(out := export(made, tmp_path, "f32")).contents
    assert any("#25814" in sentence for sentence in contents.missing)
    (pixels,) = made.vision.transform(Image.open(picture)).tiles
    assert isinstance(pixels, Tensor)
    assert isinstance(made.vision, TimmEncoder)
    with torch.inference_mode():
        expected = made.projector(ClassLast(made.vision)(pixels[None]))[0]
    (found,) = seen_by_stock(out, square(made, picture, tmp_path / "square.png"))
    assert rms(found, expected) < 1e-3


@needs_mtmd
@pytest.mark.export
def test_the_whole_stock_path_answers_as_the_model_does(picture: Path, tmp_path: Path) -> None:
    made = model(siglip, MLPProjector)
    out = export(made, tmp_path, "f32")
    conversation = Conversation(made, Processor.of(made, Chat(TOKENIZER)), max_new_tokens=24)
    "".join(conversation.ask("how many circles?", [picture]))
    weights = open_weights(out / "lm.gguf")
    program, context = mtmd.StockPictures(out / "mmproj.gguf", weights), Context(weights, 1024, 1, 1, True)
    lib = mtmd.mtmd()
    chunks = program.chunks(b"<|user|><__media__> how many circles?<|assistant|>", picture)
    read = bindings().llama_pos()
    assert not lib.mtmd_helper_eval_chunks(
        program.context, context._context, chunks, 0, 0, 256, True, ctypes.byref(read)
    )
    said = [int(context._logits(-1).argmax())]
    while len(said) < len(conversation.said[-1]):
        said.append(int(context.read(np.array([said[-1]])).argmax()))
    assert said == conversation.said[-1]
    assert len(set(said)) > 1
    lib.mtmd_input_chunks_free(chunks)
    program.close()
    context.close()
    bindings().llama_model_free(weights)


def said_in(chunks: object) -> list[int]:
    """Token ids of all words in chunks."""
    lib, ids, count = mtmd.mtmd(), [], ctypes.c_size_t()
    for number in range(lib.mtmd_input_chunks_size(chunks)):
        chunk = lib.mtmd_input_chunks_get(chunks, number)
        if lib.mtmd_input_chunk_get_type(chunk) == lib.MTMD_INPUT_CHUNK_TYPE_TEXT:
            tokens = lib.mtmd_input_chunk_get_tokens_text(chunk, ctypes.byref(count))
            ids += tokens[: count.value]
    return ids


@needs_mtmd
@pytest.mark.export
@pytest.mark.parametrize("written", [llama_chat, phi3_chat])
def test_words_around_a_picture_are_cut_as_the_model_reads_them(
    written: Callable[[Path], Chat], picture: Path, tmp_path: Path
) -> None:
    made, chat = model(siglip, MLPProjector), written(tmp_path / "tokenizer")
    out = export(made, tmp_path, "f32", chat)
    asked = [user("What is it?", 1)]
    example = Processor.of(made, chat).encode(Record("r", asked, [picture]), prompt=True)
    rendered = "".join(segment.text for segment in chat.segments([asked[0].as_dict()], prompt=True))
    weights = open_weights(out / "lm.gguf")
    program = mtmd.StockPictures(out / "mmproj.gguf", weights)
    chunks = program.chunks(rendered.replace(IMAGE_TEXT, "<__media__>").encode(), picture)
    assert said_in(chunks) == [token for token in example.ids if token != IMAGE_ID]
    mtmd.mtmd().mtmd_input_chunks_free(chunks)
    program.close()
    bindings().llama_model_free(weights)


@pytest.mark.parametrize(
    ("vision", "projector", "why"),
    [
        (small_vit, MLPProjector, "no encoder like SmallViT"),
        (siglip, PixelUnshuffleProjector, "no projector like PixelUnshuffle"),
        (so400m, LDPv2Projector, "24 × 24 patches, and these are 729"),
        (siglip, partial(LDPv2Projector, side=14), "12 × 12 tokens, not 14 × 14"),
        (partial(siglip, drop_first=True), MLPProjector, "drop_first"),
        (partial(TimmEncoder, "vit_small_patch14_dinov2.lvd142m", 224, False), MLPProjector, "ls1.gamma"),
        (
            partial(TimmEncoder, "vit_small_patch14_reg4_dinov2.lvd142m", 224, False),
            MLPProjector,
            "class token",
        ),
    ],
)
def test_what_llama_cpp_lacks_is_named(
    vision: Callable[[], VisionEncoder], projector: Callable[[int, int], Projector], why: str
) -> None:
    with torch.device("meta"), pytest.raises(CannotExpress, match=why):
        seen_by(CobraVLM(vision, projector, LMS["mamba2"]))
