"""Which of two episodes is preferred, why, and what is left out of the choice."""

from dataclasses import replace
from pathlib import Path

import pytest
from playhead.core.budget import Usage
from playhead.core.clip import Clip
from playhead.core.errors import DataError
from playhead.core.nouns import Answer, Completion, StopReason
from playhead.core.trajectory import Trajectory, write_trajectories
from playhead.train.pairs import PairRules, Reason, episodes_file, make_pairs, read_groups


@pytest.fixture
def play(make_task, make_trajectory):
    """An episode of its own tokens: right or wrong, grounded or lucky, with a bill."""

    def make(
        name: str,
        *,
        right: bool = True,
        lucky: bool = False,
        frames: int = 10,
        turns: int = 3,
        number: int = 0,
        **changes,
    ) -> Trajectory:
        made = make_trajectory(make_task(number=number), "left" if right else "right")
        if lucky:  # it cites what no tool has looked at
            made = replace(
                made, answer=Answer(text=made.answer.text, evidence=(Clip(video_id="v", start_s=700.0, end_s=706.0),))
            )
        said = replace(made.turns[-1], completion=Completion(token_ids=tuple(name.encode()), text=name))
        usage = Usage(turns=turns, frames=frames)
        return replace(made, id=name, turns=(*made.turns[:-1], said), usage=usage, **changes)

    return make


def ids(made) -> list[tuple[str, str, Reason]]:
    return [(p.chosen.id, p.rejected.id, p.reason) for p in made.pairs]


def test_right_over_wrong_takes_the_grounded_and_the_cheap_first(play) -> None:
    group = [
        play("wrong", right=False),
        play("lucky", lucky=True, frames=1),
        play("dear", frames=10),
        play("cheap", frames=9),
    ]
    made = make_pairs([group], PairRules(reasons=(Reason.RIGHT,)))
    assert ids(made) == [("cheap", "wrong", Reason.RIGHT)]  # one wrong one, so one pair
    more = [*group, play("wrong2", right=False), play("wrong3", right=False)]
    assert ids(make_pairs([more], PairRules(reasons=(Reason.RIGHT,)))) == [
        ("cheap", "wrong", Reason.RIGHT),
        ("dear", "wrong2", Reason.RIGHT),
    ]
    assert len(make_pairs([more], PairRules(reasons=(Reason.RIGHT,), per_reason=9)).pairs) == 3


def test_grounded_over_lucky_needs_both_right(play) -> None:
    rules = PairRules(reasons=(Reason.GROUNDED,))
    group = [play("lucky", lucky=True), play("good"), play("lucky and wrong", lucky=True, right=False)]
    assert ids(make_pairs([group], rules)) == [("good", "lucky", Reason.GROUNDED)]
    assert make_pairs([group[:1] + group[2:]], rules).without == 1


def test_cheap_over_dear_needs_a_clear_difference_and_no_more_turns(play) -> None:
    rules = PairRules(reasons=(Reason.CHEAP,))
    assert ids(make_pairs([[play("a", frames=20), play("b", frames=15)]], rules)) == [("b", "a", Reason.CHEAP)]
    assert make_pairs([[play("a", frames=20), play("b", frames=16)]], rules).pairs == []
    assert make_pairs([[play("a", frames=20), play("b", frames=5, turns=4)]], rules).pairs == []
    assert make_pairs([[play("a", frames=20, lucky=True), play("b", frames=5)]], rules).pairs == []
    four = [play(n, frames=f) for n, f in (("d", 40), ("a", 4), ("c", 30), ("b", 8))]
    assert ids(make_pairs([four], rules)) == [("a", "d", Reason.CHEAP), ("b", "c", Reason.CHEAP)]


def test_what_cannot_be_learned_from_is_left_out_and_counted(play) -> None:
    group = [
        play("right"), play("inexact", right=False, exact=False), play("failed", right=False, error="gone"),
        replace(play("silent", right=False), turns=()),
        replace(play("right"), id="the same again"), play("wrong", right=False),
        play("forced", stop_reason=StopReason.MAX_TURNS),
    ]  # fmt: skip
    made = make_pairs([group, [play("alone", number=1)]])
    assert ids(made) == [("right", "wrong", Reason.RIGHT)]  # what was forced to answer is no example
    assert made.left_out == {"not token-exact": 1, "failed": 1, "nothing sampled": 1, "said the same as another": 1}
    assert made.plain() == {
        "pairs": 1, "groups": 2, "groups_without_a_pair": 1, "left_out": dict(made.left_out),
        "by_reason": {"right over wrong": 1, "grounded over lucky": 0, "cheap over dear": 0},
    }  # fmt: skip


def test_groups_of_several_tasks_or_of_unknown_answers_are_refused(play, make_task) -> None:
    with pytest.raises(DataError, match="several tasks"):
        make_pairs([[play("a"), play("b", number=1)]])
    unknown = replace(make_task(), answer=None)
    with pytest.raises(DataError, match="motion-0 has no known answer"):
        make_pairs([[replace(play("a"), task=unknown), replace(play("b"), task=unknown)]])
    for bad in ({"reasons": ()}, {"per_reason": 0}, {"cheap_ratio": 1.0}):
        with pytest.raises(ValueError, match="pairs need"):
            PairRules(**bad)


def test_groups_come_from_what_was_played_where_that_is_there(play, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder, name in ((one, "trajectories.jsonl"), (one, "episodes.jsonl"), (two, "trajectories.jsonl")):
        folder.mkdir(exist_ok=True)
        kept = [play(f"{folder.name}-{i}", number=i % 2) for i in range(4 if name == "episodes.jsonl" else 2)]
        again = [replace(kept[0], seed=7)] if name == "episodes.jsonl" else []  # tried again: the later one counts
        write_trajectories(folder / name, [*kept, *again])
    groups = list(read_groups([one, two]))
    assert [[t.id for t in g] for g in groups] == [["one-0", "one-2", "two-0"], ["one-1", "one-3", "two-1"]]
    assert groups[0][0].seed == 7 and episodes_file(two) == two / "trajectories.jsonl"
    with pytest.raises(DataError, match="no trajectories there"):
        episodes_file(tmp_path / "nowhere")
