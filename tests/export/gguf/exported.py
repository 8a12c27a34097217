"""Small models exported to GGUF files, and the engine on them."""

from functools import partial
from pathlib import Path

import pytest
import torch
from tokenizers import AddedToken

from cobra.data.chat import Chat
from cobra.export.engines.gguf import GGUFEngine
from cobra.export.gguf.native_library import is_there
from cobra.export.write import export_model
from cobra.models.projectors.mamba_scan import SwiGLU
from cobra.models.vlm import CobraVLM
from cobra.pretrained import save_pretrained
from tests.data.sentencepiece_model import write_model
from tests.models.builders import ENCODERS, LMS, PROJECTORS

TOKENIZER = "cobra:data/shapes/tokenizer"
NO_LLAMA = "" if is_there() else "llama.cpp is not here: cobra export llama builds it"


def model(lm: str = "mamba2", encoder: str = "small_vit", projector: str = "mlp") -> CobraVLM:
    """A model whose weights are far from where they begin, so that every one of them matters."""
    torch.manual_seed(0)
    made = CobraVLM(ENCODERS[encoder], PROJECTORS[projector], partial(LMS[lm])).eval()
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.1)
    return made


def unseeing(monkeypatch: pytest.MonkeyPatch) -> CobraVLM:
    """One whose projector holds an operation that programs of pictures lack."""
    monkeypatch.setattr(SwiGLU, "forward", lambda self, x: x.tanh())
    return model(projector="mamba_scan")


def llama_chat(folder: Path, legacy: bool | None = None) -> Chat:
    """A chat on a SentencePiece model as LLaMA's repositories have it, in Vicuna's format."""
    settings = {} if legacy is None else {"legacy": legacy}
    return Chat(str(write_model(folder, **settings)), "cobra:data/templates/vicuna_v1.jinja")


def phi3_chat(folder: Path) -> Chat:
    """One as Phi-3's, whose special tokens swallow the spaces behind them."""
    chat = Chat(str(write_model(folder)), "cobra:data/templates/imp_phi3.jinja")
    special = ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
    added = [AddedToken(token, rstrip=True, normalized=False) for token in special]
    end = AddedToken("<|endoftext|>", normalized=False)
    chat.tokenizer.add_special_tokens({"additional_special_tokens": [*added, end]})
    chat.save(folder)
    return Chat(str(folder))


def export(made: CobraVLM, folder: Path, quant: str = "f32", chat: Chat | None = None) -> Path:
    """Its export."""
    save_pretrained(made, chat or Chat(TOKENIZER), folder / "model")
    export_model(folder / "model", "gguf", quant, folder / "out")
    return folder / "out"


def engine(made: CobraVLM, folder: Path, quant: str = "f32") -> GGUFEngine:
    """The engine on its export."""
    return GGUFEngine(export(made, folder, quant), context=512, threads=1)
