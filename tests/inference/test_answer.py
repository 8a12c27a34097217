"""Answers on the command line, with a quantized model."""

import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from cobra.cli import main
from cobra.config.build import build
from cobra.data.chat import Chat
from cobra.inference.conversation import Conversation
from cobra.models.lm.base import LanguageModel
from cobra.models.lm.mamba2 import Mamba2LM
from cobra.models.lm.state import State
from cobra.models.lm.transformer import TransformerLM
from cobra.models.quantize import quantize_
from cobra.models.vlm import CobraVLM
from cobra.pretrained import WEIGHTS, from_pretrained, save_pretrained
from tests.models.builders import ENCODERS, HYBRID, PROJECTORS

QUESTION = ("--prompt", "what is it?", "--max-new-tokens", "8", "--max-length", "300")
LLAMA = {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 64}
LMS: dict[str, Callable[[], LanguageModel]] = {
    "mamba2": partial(Mamba2LM, 512, 64, 2, d_state=16, head_dim=16),
    "hybrid": build(HYBRID),
    "transformer": partial(TransformerLM, 512, 64, 2, "llama", LLAMA),
}


@pytest.fixture(params=sorted(LMS))
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    torch.manual_seed(0)
    model = CobraVLM(ENCODERS["small_vit"], PROJECTORS["pixel_unshuffle"], LMS[request.param])
    save_pretrained(model, Chat("cobra:data/shapes/tokenizer"), tmp_path)
    Image.linear_gradient("L").resize((48, 32)).save(tmp_path / "picture.png")
    return tmp_path


def test_generate_answers_with_the_quantized_model(
    saved: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = [str(saved / name) for name in ("picture.png", "other picture.png")]
    Image.linear_gradient("L").rotate(90).save(pictures[1])
    images = [word for picture in pictures for word in ("--image", picture)]
    options = ("--quant", "int4", "--group-size", "64", *images)
    monkeypatch.setattr(sys, "argv", ["cobra", "generate", "--ckpt", str(saved), *QUESTION, *options])
    main()
    model, processor = from_pretrained(saved)
    plain = "".join(Conversation(model, processor, 300, 8).ask("what is it?", pictures))
    quantize_(model.lm, "int4", 64)
    expected = "".join(Conversation(model, processor, 300, 8).ask("what is it?", pictures))
    assert capsys.readouterr().out == expected + "\n"
    # random weights, so that the loss shows
    assert expected != plain


def test_generate_answers_in_a_dtype(
    saved: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        sys, "argv", ["cobra", "generate", "--ckpt", str(saved), *QUESTION, "--dtype", "bf16"]
    )
    with monkeypatch.context() as patch:
        seen: list[torch.dtype] = []
        prefill = LanguageModel.prefill

        def noted(lm: LanguageModel, embeds: torch.Tensor, *rest: Any) -> torch.Tensor:
            seen.append(embeds.dtype)
            return prefill(lm, embeds, *rest)

        patch.setattr(LanguageModel, "prefill", noted)
        main()
    assert seen == [torch.bfloat16]
    model, processor = from_pretrained(str(saved), dtype=torch.bfloat16)
    expected = "".join(Conversation(model, processor, 300, 8).ask("what is it?"))
    assert capsys.readouterr().out == expected + "\n"


def test_a_recurrent_state_is_narrowed_and_a_transformer_has_none(
    saved: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    allocate, dtypes = LanguageModel.allocate_state, set[torch.dtype]()

    def noted(*args: Any, **options: Any) -> State:
        state = allocate(*args, **options)
        dtypes.add(state.layers[0]["ssm"].dtype)
        return state

    monkeypatch.setattr(LanguageModel, "allocate_state", noted)
    options = ("--state-dtype", "bf16")
    monkeypatch.setattr(sys, "argv", ["cobra", "generate", "--ckpt", str(saved), *QUESTION, *options])
    if "Transformer" in (saved / "config.json").read_text():
        with pytest.raises(SystemExit, match="a TransformerLM has no recurrent state"):
            main()
    else:
        main()
        assert dtypes == {torch.bfloat16}


def test_logits_that_are_no_numbers_are_no_empty_answer(
    saved: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Finite weights that overflow."""
    weights = load_file(saved / WEIGHTS)
    norms = [name for name in weights if re.search(r"lm\.(norm_f|causal_lm\.model\.norm)\.weight", name)]
    save_file(weights | {name: torch.full_like(weights[name], 3e38) for name in norms}, saved / WEIGHTS)
    monkeypatch.setattr(sys, "argv", ["cobra", "generate", "--ckpt", str(saved), *QUESTION])
    with pytest.raises(SystemExit, match=r"logits of rows \[0\] at new token 1 are not finite"):
        main()
    assert not capsys.readouterr().out.strip()
