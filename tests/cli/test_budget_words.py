"""A budget that makes no sense is refused in the words in which it was written, not in those of `Budget`."""

import pytest
from playhead.cli.options import UsageProblem, parse_budget, parse_limits
from playhead.core.budget import Budget


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("seconds=-1", "--budget 'seconds=-1': '-1' is not 0 or more (or none, for no limit)"),
        ("seconds=nan", "'nan' is not 0 or more"),
        ("seconds=soon", "'soon' is not a number (or none, for no limit)"),
        ("frames=64.0", "'64.0' is not a whole number (or none, for no limit)"),
        ("frames=8,tokens=-5", "--budget 'tokens=-5': '-5' is not 0 or more"),
        ("turns=0", "'0' is not 1 or more"),
    ],
)
def test_it_is_refused_in_the_words_it_was_written_in(text: str, says: str) -> None:
    for parse in (parse_budget, parse_limits):
        with pytest.raises(UsageProblem) as said:
            parse(text)
        assert says in str(said.value) and "wall_s" not in str(said.value) and "None" not in str(said.value)


def test_nothing_may_be_spent_and_anything_may() -> None:
    assert parse_budget("seconds=0,frames=0") == Budget(wall_s=0.0, frames=0)
    assert parse_budget("seconds=none,turns=none") == Budget(wall_s=None, turns=None)
