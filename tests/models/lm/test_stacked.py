"""What a stack refuses, and what it writes down of itself."""

from functools import partial
from typing import Any

import pytest

from cobra.config.build import build
from cobra.models.lm.attention import Attention
from cobra.models.lm.mamba import MambaMixer
from cobra.models.lm.mamba2 import Mamba2Mixer
from cobra.models.lm.stacked import StackedLM
from tests.models.builders import HYBRID, LMS

attention = partial(Attention, n_heads=2, n_kv_heads=1)


@pytest.mark.parametrize("name", ["hybrid", "hybrid_without_mlp"])
def test_its_description_is_its_yaml_with_every_default(name: str) -> None:
    lm = LMS[name]()
    described = lm.config()
    assert build(described)().config() == described
    mixers = described["init_args"]["mixers"]
    assert [mixer["class_path"] for mixer in mixers] == [
        mixer["class_path"] for mixer in HYBRID["init_args"]["mixers"]
    ]
    assert "d_model" not in mixers[0]["init_args"]
    assert (described["init_args"]["mlp"] is None) == ("without" in name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mixers": []}, "no mixers"),
        ({"mixers": [lambda width: LMS["mamba"]()]}, "a block holds Mixers, not a MambaLM"),
        (
            {"mixers": [MambaMixer], "mlp": Mamba2Mixer},
            r"two call a buffer the same: \['conv', 'ssm', 'conv'",
        ),
        ({"mixers": [partial(attention, n_heads=3)]}, "d_model 32 must be a multiple of twice n_heads 3"),
        (
            {"mixers": [partial(attention, n_heads=4, n_kv_heads=3)]},
            "n_heads 4 must be a multiple of n_kv_heads 3",
        ),
    ],
)
def test_what_makes_no_stack_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StackedLM(64, 32, **arguments)
