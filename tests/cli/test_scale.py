"""How the command line writes several budgets and currencies."""

import pytest
from playhead.cli.options import UsageProblem
from playhead.cli.scale import parse_budgets, parse_costs
from playhead.evals.cost import Cost


@pytest.mark.parametrize(
    ("text", "means"),
    [
        (None, []),
        ("frames=16,frames=64", [{"frames": 16}, {"frames": 64}]),
        ("frames=64,seconds=20", [{"frames": 64, "wall_s": 20.0}]),
        ("frames=16,seconds=5 frames=64", [{"frames": 16, "wall_s": 5.0}, {"frames": 64}]),
        ("calls=2,frames=16,calls=4,frames=16", [{"tool_calls": 2, "frames": 16}, {"tool_calls": 4, "frames": 16}]),
        ("frames=none; models=3", [{"frames": None}, {"model_calls": 3}]),
    ],
)
def test_several_budgets(text: str | None, means: list) -> None:
    assert parse_budgets(text) == means


def test_a_bad_budget_is_named() -> None:
    with pytest.raises(UsageProblem, match="--budgets 'frames=many'"):
        parse_budgets("frames=16,frames=many")


def test_currencies() -> None:
    assert parse_costs("tokens, frames,tokens") == [Cost.TOKENS, Cost.FRAMES]
    for bad in ("", "gold"):
        with pytest.raises(UsageProblem, match="tokens, frames, sampled"):
            parse_costs(bad)
