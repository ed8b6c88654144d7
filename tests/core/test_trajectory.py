"""Token arithmetic of trajectories, with small integers as tokens; JSON and back; budgets."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from playhead.core.budget import Budget, Usage
from playhead.core.clip import Clip
from playhead.core.codec import from_plain, to_plain
from playhead.core.errors import DataError
from playhead.core.nouns import Answer, Completion, Frame, Message, Observation, StopReason, Task, ToolCall
from playhead.core.policy import Sampling
from playhead.core.tasks import read_tasks, write_tasks
from playhead.core.trajectory import Trajectory, Turn, from_json, read_trajectories, to_json, write_trajectories

TASK = Task(id="t", question="what?", video="v.mp4", choices=("a", "b"), answer="a", meta={"seed": "7"})
tokens = st.lists(st.integers(0, 9), max_size=5).map(tuple)
words = st.text(max_size=8)


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    return Frame(video_id="v", timestamp_s=draw(st.floats(0, 1e4)), sha256=draw(words), width=8, height=8)


@st.composite
def turns(draw: st.DrawFn, index: int) -> Turn:
    ids, forced = draw(tokens), draw(st.booleans())
    shown = tuple(draw(st.lists(frames(), max_size=2)))
    logprobs = draw(st.sampled_from([(), tuple(-0.5 for _ in ids)]))
    start = draw(st.floats(0, 100))
    seen = Clip(video_id="v", start_s=start, end_s=start + draw(st.floats(0, 50)))
    return Turn(
        index=index,
        context_ids=draw(tokens),
        context_frames=shown,
        context_messages=(Message(role="user", content=(draw(words), *shown)),) if draw(st.booleans()) else (),
        completion=Completion(token_ids=ids, text=draw(words), logprobs=logprobs, forced=forced),
        tool_calls=(ToolCall(id="1", name=draw(words), arguments_json=draw(words)),),
        observations=(
            Observation(tool_call_id="1", content=(draw(words), *shown), clips=(seen,), error=draw(st.none() | words)),
        ),
    )


@st.composite
def trajectories(draw: st.DrawFn) -> Trajectory:
    return Trajectory(
        id=draw(words),
        group_id="g",
        task=TASK,
        turns=tuple(draw(turns(i)) for i in range(draw(st.integers(0, 3)))),
        answer=draw(st.none() | st.builds(Answer, text=words, choice=st.none() | st.integers(0, 3))),
        stop_reason=draw(st.sampled_from(StopReason)),
        reward_parts=draw(st.none() | st.dictionaries(words, st.floats(-1, 1), max_size=2)),
    )


@given(trajectories())
def test_the_mask_is_born_with_the_token(trajectory: Trajectory) -> None:
    ids, mask = trajectory.token_ids, trajectory.loss_mask
    assert len(ids) == len(mask)
    at = 0
    for turn in trajectory.turns:
        n, m = len(turn.context_ids), len(turn.completion.token_ids)
        assert ids[at : at + n] == turn.context_ids and not any(mask[at : at + n])
        assert ids[at + n : at + n + m] == turn.completion.token_ids
        assert mask[at + n : at + n + m] == (int(not turn.completion.forced),) * m
        at += n + m
    assert at == len(ids)


@given(trajectories())
def test_json_and_back(trajectory: Trajectory) -> None:
    line = to_json(trajectory)
    assert "\n" not in line and line.isascii()
    assert from_json(line) == trajectory


def test_files_from_before_top_p_was_written_say_nothing_of_it() -> None:
    old = json.loads(to_json(Trajectory(id="x", group_id="g", task=TASK, top_p=0.9)))
    assert from_json(json.dumps(old)).top_p == 0.9
    del old["top_p"]
    assert from_json(json.dumps(old)).top_p is None


@pytest.mark.parametrize("top_p", [0, 0.0, -0.1, 1.1, math.nan])
def test_a_share_that_leaves_nothing_to_draw_from_is_refused(top_p: float) -> None:
    with pytest.raises(ValueError, match=r"^top_p must be above 0 and at most 1; got [^\n]*$"):
        Sampling(top_p=top_p)


def test_lone_surrogates_of_a_model_survive(tmp_path: Path) -> None:
    odd = Trajectory(id="x", group_id="g", task=TASK, error="\ud800 \u2028")
    assert write_trajectories(tmp_path / "t.jsonl", [odd]) == 1
    assert list(read_trajectories(tmp_path / "t.jsonl")) == [odd]


@given(trajectories())
def test_evidence_is_what_tools_looked_at(trajectory: Trajectory) -> None:
    seen = trajectory.evidence_seen
    looked = [c for o in trajectory.observations if o.error is None for c in o.clips if c.duration_s > 0]
    assert all(any(s.start_s <= c.start_s and c.end_s <= s.end_s for s in seen) for c in looked)
    assert sum(s.duration_s for s in seen) <= sum(c.duration_s for c in looked) + 1e-6


def test_unscored_is_not_zero() -> None:
    bare = Trajectory(id="x", group_id="g", task=TASK)
    assert bare.reward is None
    assert Trajectory(id="x", group_id="g", task=TASK, reward_parts={"a": 0.5, "b": -0.25}).reward == 0.25


def _turn(index: int = 0, **how: object) -> Turn:
    values = {"index": index, "context_ids": (1,), "completion": Completion(token_ids=(2, 3), text="")} | how
    return Turn(**values)  # type: ignore[arg-type]


FRAME = Frame(video_id="v", timestamp_s=1.0, sha256="0", width=8, height=8)


@pytest.mark.parametrize(
    ("turn", "fault"),
    [
        (_turn(1), "index is 1"),
        (_turn(completion=Completion(token_ids=(2, 3), text="", logprobs=(-1.0,))), "1 log-probs for 2"),
        (_turn(context_messages=(Message(role="user", content=(FRAME,)),)), "show 1 frames, its tokens 0"),
    ],
)
def test_broken_invariants_name_the_turn(turn: Turn, fault: str) -> None:
    with pytest.raises(DataError, match=f"trajectory x, turn 0: .*{fault}"):
        Trajectory(id="x", group_id="g", task=TASK, turns=(turn,)).check()


def _broken(**change: object) -> str:
    return json.dumps(json.loads(to_json(Trajectory(id="x", group_id="g", task=TASK))) | change)


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        "7",
        "[" * 100_000,
        '{"schema_version": ' + "1" * 5000 + "}",
        _broken(schema_version=99),
        _broken(schema_version=None),
        _broken(task=None),
        _broken(turns=7),
        _broken(seed="1"),
        _broken(seed=True),
        _broken(temperature=10**400),
        _broken(stop_reason="bored"),
        _broken(stop_reason=[]),
        _broken(reward_parts={"a": "much"}),
        _broken(budget={"turns": -1}),
        _broken(answer={"text": "x", "evidence": [{"video_id": "v", "start_s": 2.0, "end_s": 1.0}]}),
        _broken(answer={"text": "x", "evidence": [{"video_id": "v", "start_s": math.nan, "end_s": 1.0}]}),
    ],
)
def test_bad_lines_are_named(line: str, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text("\n" + line + "\n")
    with pytest.raises(DataError, match=r"t\.jsonl:2"):
        list(read_trajectories(path))


def test_newer_fields_are_ignored_and_missing_ones_filled() -> None:
    data = to_plain(TASK)
    del data["meta"], data["kind"]
    assert from_plain(Task, data | {"later": 1}) == Task(
        id="t", question="what?", video="v.mp4", choices=("a", "b"), answer="a"
    )
    with pytest.raises(DataError, match="Task"):
        from_plain(Task, {"id": "t"})


def test_no_file_and_no_text(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        list(read_trajectories(tmp_path / "none.jsonl"))
    (tmp_path / "t.jsonl").write_bytes(b"\xff\xfe\n")
    with pytest.raises(DataError, match=r"t\.jsonl:1"):
        list(read_trajectories(tmp_path / "t.jsonl"))


def test_tasks_and_back(tmp_path: Path) -> None:
    tasks = [TASK, Task(id="\u2028", question="a\u2028b\x85c\ud800", video="/abs.mp4")]
    assert write_tasks(tmp_path / "tasks.jsonl", tasks) == 2
    back = read_tasks(tmp_path)
    assert [t.question for t in back] == [t.question for t in tasks]
    assert back[0].video == str((tmp_path / "v.mp4").resolve()) and back[1].video == "/abs.mp4"
    write_tasks(tmp_path / "tasks.jsonl", [TASK, TASK])
    with pytest.raises(DataError, match="stands twice"):
        read_tasks(tmp_path)


def test_budgets_are_hard() -> None:
    budget = Budget(turns=2, tool_calls=1, frames=None, context_tokens=10, sampled_tokens=None, wall_s=None)
    assert budget.exceeded(Usage()) is None
    assert budget.exceeded(Usage(turns=2)) is StopReason.MAX_TURNS
    assert budget.exceeded(Usage(tool_calls=1)) is StopReason.MAX_TOOL_CALLS
    assert budget.exceeded(Usage(context_tokens=11, turns=9)) is StopReason.CONTEXT_FULL
    assert budget.exceeded(Usage(frames=10**9, sampled_tokens=10**9, wall_s=1e9)) is None
    assert budget.left(Usage(turns=1), "turns") == 1 and budget.left(Usage(turns=5), "turns") == 0
    assert budget.left(Usage(), "frames") == math.inf


@pytest.mark.parametrize("bad", [{"turns": 0}, {"frames": -1}, {"wall_s": -0.5}, {"wall_s": math.nan}])
def test_senseless_budgets(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="budget"):
        Budget(**bad)  # type: ignore[arg-type]


@given(
    st.lists(
        st.builds(Usage, turns=st.integers(0, 9), frames=st.integers(0, 9), wall_s=st.integers(0, 9).map(float)),
        max_size=4,
    )
)
def test_usages_sum_by_field(usages: list[Usage]) -> None:
    total = sum(usages, Usage())
    assert total.turns == sum(u.turns for u in usages) and total.wall_s == sum(u.wall_s for u in usages)


def test_stop_reasons() -> None:
    assert StopReason.MAX_TURNS.is_truncated and StopReason.TIMEOUT.is_truncated
    assert not StopReason.ANSWERED.is_truncated and not StopReason.PARSE_ERROR.is_truncated
    assert StopReason.ERROR.is_error and not StopReason.ERROR.is_truncated
