"""The grammar of specs, and the one line that says what was wrong."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from playhead.agent.scaling.spec import STRATEGIES, parse_strategies, parse_strategy
from playhead.agent.scaling.strategy import StrategyError
from playhead.core.budget import Budget
from playhead.core.errors import PlayheadError


@pytest.mark.parametrize(
    ("spec", "again"),
    [
        ("tools", "tools"),
        (" vote ", "vote(tools)"),
        ("vote:n=4, temperature=0.5", "vote(tools,n=4,temperature=0.5)"),
        ("vote(n=4)", "vote(tools,n=4)"),
        ("refine( widen(direct, frames=4), rounds=3 )", "refine(widen(direct,frames=4),rounds=3)"),
        ("early-exit(tools,vote(tools,n=16),sure=0.5)", "early-exit(tools,vote(tools,n=16),sure=0.5)"),
        ("vote(early=no)", "vote(tools,early=False)"),
        ("best-of-n:judge=yes-no", "best-of-n(tools,judge=yes-no)"),
        ("tools()", "tools"),
    ],
)
def test_specs_are_read_and_written(spec: str, again: str) -> None:
    strategy = parse_strategy(spec)
    assert str(strategy) == again and parse_strategy(again) == strategy


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_default_survives_its_own_spec(name: str) -> None:
    strategy = parse_strategy(name)
    assert strategy.name == name and parse_strategy(str(strategy)) == strategy
    assert strategy.help and strategy.runs >= 1
    budget = strategy.default_budget(Budget())
    assert budget.frames is not None and budget.frames >= 128 and budget.turns == 8


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("", "name is expected"),
        ("voting", "there are direct, glance"),
        ("vote:m=3", "it has n, temperature"),
        ("tools:n=3", "it has none"),
        ("vote:n=many", "must be a number"),
        ("vote:n=0", "n must be between 1"),
        ("vote:n=3,n=4", "twice"),
        ("vote:weight=much", "one of none, confidence"),
        ("vote:early=perhaps", "yes or no"),
        ("vote(tools", "closing bracket"),
        ("vote(tools,direct)", "direct is too many"),
        ("tools(direct)", "no strategy inside"),
        ("vote(tools) n=3", "cannot be read"),
        ("vote:tools", "NAME=VALUE"),
        ("vote:n=", "a value for n"),
        ("vote(" * 20, "too deep"),
        ("__import__('os')", "name is expected"),
        ("best-of-n:external=x", "it has n"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(spec: str, says: str) -> None:
    with pytest.raises(StrategyError, match=says) as said:
        parse_strategy(spec)
    assert "\n" not in str(said.value) and isinstance(said.value, PlayheadError)


def test_lists() -> None:
    several = parse_strategies("tools, vote:n=4,temperature=0.5 refine(vote(tools,n=2),rounds=1);direct")
    assert [str(s) for s in several] == [
        "tools", "vote(tools,n=4,temperature=0.5)", "refine(vote(tools,n=2),rounds=1)", "direct",
    ]  # fmt: skip
    with pytest.raises(StrategyError, match="no strategy is named"):
        parse_strategies(" ,")


@given(st.text(alphabet="votedirec-n(),:=0.5 \n", max_size=40))
def test_no_text_breaks_it(text: str) -> None:
    try:
        strategy = parse_strategy(text)
    except StrategyError as error:
        assert "\n" not in str(error)
    else:
        assert parse_strategy(str(strategy)) == strategy
