"""A model's configuration is data: it runs no code, fetches nothing and asks nobody."""

from pathlib import Path
from typing import Any

import pytest

from cobra.convert.run import convert
from cobra.data.chat import Chat
from cobra.models.lm.transformer import TransformerLM
from cobra.pretrained import from_pretrained, save_pretrained
from tests.test_pretrained import TOKENIZER, change, tiny

SIZES: dict[str, Any] = {"vocab_size": 432, "d_model": 32, "n_layers": 2}


@pytest.fixture
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model beside code that leaves a file `ran`, with somebody at the keyboard who says yes."""
    folder = tmp_path / "model"
    save_pretrained(tiny("llama"), Chat(TOKENIZER), folder)
    (folder / "evil.py").write_text(
        "from pathlib import Path\nPath(__file__).with_name('ran').touch()\n"
        f"Path({str(folder / 'ran')!r}).touch()\n"
    )

    def says_yes(prompt: str = "") -> str:
        (folder / "asked").touch()
        return "y"

    monkeypatch.setattr("builtins.input", says_yes)
    return folder


@pytest.mark.parametrize("model_type", ["llama", "clip", "evil"])
@pytest.mark.parametrize(
    "options",
    [
        {"auto_map": {"AutoModelForCausalLM": "evil.Evil", "AutoConfig": "evil.Evil"}},
        {"attn_implementation": "evil/kernels"},
        {"quantization_config": {"quant_method": "gptq"}},
    ],
)
def test_options_of_a_transformer_run_no_code(saved: Path, options: dict, model_type: str) -> None:
    change(saved, "lm", model_type=model_type, options={**options, "_name_or_path": str(saved)})
    refusal = (
        rf"options .*'{next(iter(options))}'.* are not taken, only num_att|'{model_type}' is no language"
    )
    with pytest.raises(ValueError, match=refusal):
        from_pretrained(saved)
    with pytest.raises(ValueError, match=refusal):
        convert(str(saved), saved.parent / "out")
    with pytest.raises(ValueError, match=refusal):
        TransformerLM(**SIZES, model_type=model_type, options=options)
    assert not (saved / "ran").exists()
    assert not (saved / "asked").exists()


def test_a_window_that_is_switched_off_is_an_option(saved: Path) -> None:
    """Qwen1.5's configurations have one."""
    lm = TransformerLM(
        **SIZES,
        model_type="qwen2",
        options={"num_attention_heads": 4, "use_sliding_window": False, "sliding_window": 4},
    )
    assert lm.window is None
