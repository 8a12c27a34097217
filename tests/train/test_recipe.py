"""A checkpoint knows the recipe of its run."""

from typing import Any

import pytest
from torch import nn

from cobra.data.record import Record, assistant, user
from cobra.data.source import Source
from cobra.train.objectives.next_token import NextToken
from cobra.train.recipe import check_recipe, describe, go_on
from cobra.train.schedule import Supply, make_plan
from cobra.train.stages import Stage
from tests.train.test_data import data_of
from tests.train.test_module import stage


class Said(Source):
    """Records that answer in one way, the last in another; one without an answer cannot be read."""

    def __init__(self, size: int = 4, first: str = "yes", last: str = "no") -> None:
        self.size, self.answers = size, {0: first, size - 1: last}

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Record:
        answer = self.answers.get(index, "so")
        if not answer:
            raise ValueError("no answer")
        return Record(str(index), [user("so?"), assistant(answer)])


def recipe(stages: list[Stage], accumulate: int = 1, devices: int = 1, **data: Any) -> Any:
    held = Supply({name: Said(10) for name in ("noise", "other")}, devices)
    plan = make_plan(stages, held, accumulate)
    objectives: list[nn.Module] = [NextToken(None) for _ in stages]  # type: ignore[arg-type]
    return describe(plan, objectives, {"seed": 0, **data}, accumulate, devices)


STAGES = [stage("a", ["lm"]), stage("b", ["lm"], steps=5)]


@pytest.mark.parametrize(
    ("now", "message"),
    [
        (recipe(STAGES, accumulate=2), "accumulate_grad_batches was 1 and is 2"),
        (recipe(STAGES, devices=2), "devices was 1 and is 2"),
        (recipe(STAGES, seed=1), "data.seed was 0 and is 1"),
        (recipe([STAGES[0], stage("b", ["lm"], steps=6)]), "stages.1.steps was 5 and is 6"),
        (
            recipe([STAGES[0], stage("b", ["lm"], steps=5, batch_size=3)]),
            "stages.1.batch_size was 2 and is 3",
        ),
        (recipe([STAGES[0], stage("b", ["lm"], steps=5, lr=1.0)]), "stages.1.lr was 0.01 and is 1.0"),
        (
            recipe([STAGES[0], stage("b", ["lm"], steps=5, data={"other": 1.0})]),
            "stages.1.data.noise was 1.0 and is None; stages.1.data.other was None and is 1.0",
        ),
        (recipe(STAGES[:1]), "stages.1.name was b and is None.* and 7 more"),
    ],
)
def test_another_plan_is_refused_with_both_values(now: Any, message: str) -> None:
    with pytest.raises(
        ValueError, match=rf"^a\.ckpt is of a run with another plan: {message}\. .*--change_plan"
    ):
        check_recipe(recipe(STAGES), now, "a.ckpt")


def test_what_changes_no_weight_is_no_other_plan() -> None:
    same = [stage("a", ["lm"], steps=None, epochs=0.4), stage("b", ["lm"], steps=5, validate=False)]
    check_recipe(recipe(STAGES), recipe(same), "a.ckpt")


def test_a_checkpoint_that_does_not_say_its_plan_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a\.ckpt does not say .*--change_plan"):
        check_recipe(None, recipe(STAGES), "a.ckpt")
    with pytest.raises(ValueError, match=r"a\.ckpt holds weights without the state of a training run"):
        go_on({"state_dict": {}, "global_step": 3}, 4, 1, "a.ckpt")
    with pytest.raises(
        ValueError, match=r"a\.ckpt is of step 3, and the stages have 2 steps: give them more"
    ):
        go_on({"loops": {"fit_loop": {}}, "global_step": 3}, 2, 1, "a.ckpt")


def test_other_data_have_another_identity() -> None:
    def identity(*said: Any, **options: Any) -> dict[str, Any]:
        sources = {"said": lambda: Said(*said), "idle": lambda: Said(9)}
        data = data_of(train=sources, **options)
        data.stages = [stage("a", ["lm"], data={"said": 1.0})]
        return data.identity()

    # a bad sample at either end is no reason not to start
    kinds = [identity(*said) for said in ((4,), (5,), (4, "ja"), (4, "yes", "nein"), (4, ""), (4, "yes", ""))]
    kinds += [identity(4, seed=1), identity(4, blind=True), identity(4, max_length=99)]
    assert identity(4) == kinds[0]
    assert all(kinds.count(kind) == 1 for kind in kinds)
    assert list(kinds[0]["train"]) == ["said"]
