"""Reliability and ECE against values worked out by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from playhead.evals.calibration import calibrate


def test_by_hand() -> None:
    # Two bins: 0.2 said twice, right once (gap 0.3); 0.9 said three times, always right (gap 0.1); one says nothing.
    answers = [(0.2, True), (0.2, False), (0.9, True), (0.9, True), (0.9, True), (None, True)]
    made = calibrate(answers, bins=2)
    assert made.ece == pytest.approx((2 * 0.3 + 3 * 0.1) / 5)
    assert made.brier == pytest.approx((0.64 + 0.04 + 3 * 0.01) / 5)
    assert (made.n, made.without, [b.n for b in made.bins]) == (5, 1, [2, 3])
    low, high = made.bins
    assert (low.low, low.high, low.accuracy) == (0.0, 0.5, 0.5) and (high.accuracy, high.accuracy_high) == (1.0, 1.0)
    assert low.accuracy_low < 0.5 < low.accuracy_high


def test_the_ends_and_nothing() -> None:
    made = calibrate([(1.0, True), (0.0, False)])
    assert made.ece == 0.0 and made.brier == 0.0 and [b.low for b in made.bins] == [0.0, 0.9]
    none = calibrate([(None, True)])
    assert (none.n, none.ece, none.brier, none.bins) == (0, None, None, ())
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        calibrate([(1.1, True)])
    with pytest.raises(ValueError, match="at least one bin"):
        calibrate([], bins=0)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1), st.integers(1, 20))
def test_an_error_is_between_zero_and_one(answers: list[tuple[float, bool]], bins: int) -> None:
    made = calibrate(answers, bins)
    assert made.ece is not None and 0.0 <= made.ece <= 1.0
    assert sum(b.n for b in made.bins) == len(answers)
    assert all(b.low <= b.confidence + 1e-9 and b.confidence <= b.high + 1e-9 for b in made.bins)
