"""The formulas of the rewards, the rubric that weighs them, the verdicts it may need, and the command that explains them."""

import asyncio
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from playhead.cli import run
from playhead.core.box import Box
from playhead.core.clip import Clip
from playhead.core.nouns import Answer, StopReason, Task
from playhead.core.scoring import temporal_iou
from playhead.core.trajectory import Trajectory, read_trajectories, write_trajectories
from playhead.train.rewards import RUBRICS, Contrast, RewardContext, RewardError, Rubric, world_rubric
from playhead.train.rewards.answer import AnswerReward, OpenText
from playhead.train.rewards.contrast import contrast_of
from playhead.train.rewards.cost import LengthWindow, SoftOverlong, soft_overlong
from playhead.train.rewards.evidence import Completeness, EvidenceEvents, EvidenceRecall, Grounded, LastLook
from playhead.train.rewards.format import FormatReward
from playhead.train.rewards.spatial import boxes_iou
from playhead.train.rewards.temporal import (
    TemporalProximity,
    TimestampIoU,
    giou,
    hausdorff_s,
    matched,
    near_miss,
    proximity_sigma,
    timestamp_iou,
)
from playhead.train.rewards.text import repeated_share, rouge_l, rouge_mean, rouge_n
from playhead.train.rewards.tools import ToolNecessity
from playhead.train.rewards.verify import with_verdicts

CONTEXT = RewardContext(duration_s=1200.0)


def clip(start_s: float, end_s: float) -> Clip:
    return Clip(video_id="v", start_s=start_s, end_s=end_s)


def trl_free_soft_overlong(n: int, longest: int, cache: int) -> float:
    """As the paper writes it."""
    if n <= longest - cache:
        return 0.0
    return ((longest - cache) - n) / cache if n <= longest else -1.0


# Time.


def test_timestamp_iou_is_the_product_of_its_three_factors() -> None:
    """IoU 8/12, start 2 s and end 2 s off in 100 s."""
    assert timestamp_iou([clip(12, 22)], [clip(10, 20)], 100.0) == pytest.approx(8 / 12 * 0.98 * 0.98)
    assert timestamp_iou([clip(30, 40)], [clip(10, 20)], 100.0) == 0.0
    two = [clip(10, 20), clip(50, 60)]
    assert timestamp_iou(two, two, 100.0) == 1.0
    assert timestamp_iou([clip(10, 20)], two, 100.0) == pytest.approx(0.5 * 1.0 * 0.6)


spans = st.tuples(st.floats(0, 500), st.floats(0.5, 100)).map(lambda s: clip(s[0], s[0] + s[1]))


@settings(max_examples=50, deadline=None)
@given(a=spans, b=spans)
def test_generalised_ious_are_bounded_symmetric_and_one_only_for_the_same(a: Clip, b: Clip) -> None:
    assert -1 <= giou(a, b) <= a.iou(b) + 1e-9 and giou(a, b) == pytest.approx(giou(b, a))
    assert 0 <= near_miss(a, b) <= 1 and near_miss(a, b) == pytest.approx(near_miss(b, a))
    assert near_miss(a, a) == pytest.approx(1.0) == giou(a, a)
    assert hausdorff_s(a, b) == hausdorff_s(b, a) >= 0


@settings(max_examples=50, deadline=None)
@given(length=st.floats(1, 50), near=st.floats(0, 300), step=st.floats(1, 100))
def test_a_near_miss_rises_as_it_comes_closer(length: float, near: float, step: float) -> None:
    """Where the plain IoU is 0 for both."""
    gold = clip(500, 500 + length)
    closer, farther = (clip(gold.end_s + d, gold.end_s + d + length) for d in (near, near + step))
    assert gold.iou(closer) == gold.iou(farther) == 0
    assert near_miss(closer, gold) > near_miss(farther, gold) >= 0 and giou(closer, gold) > giou(farther, gold)


def test_matching_keeps_the_order_and_charges_for_each_span_too_many() -> None:
    gold = [clip(0, 10), clip(20, 30)]
    assert matched(gold, gold, near_miss) == 1.0
    assert matched(gold[:1], gold, near_miss) == 0.5
    assert matched([*gold, clip(50, 60), clip(70, 80)], gold, near_miss) == 0.5
    assert matched([], gold, near_miss) == matched(gold, [], near_miss) == 0.0
    other = Clip(video_id="w", start_s=0, end_s=10)
    assert near_miss(other, gold[0]) == 0.0 and hausdorff_s(other, gold[0]) == math.inf and giou(other, gold[0]) == -1.0


def test_proximity_tightens_with_training_and_never_loosens() -> None:
    assert [proximity_sigma(p) for p in (0.0, 0.5, 0.7499, 0.75, 1.0)] == [
        4.0,
        2.0,
        pytest.approx(1.0, abs=1e-3),
        1.0,
        1.0,
    ]
    steps = [proximity_sigma(p / 100) for p in range(101)]
    assert steps == sorted(steps, reverse=True)


@settings(max_examples=50, deadline=None)
@given(off=st.floats(0, 100), early=st.floats(0, 1), late=st.floats(0, 1))
def test_the_same_span_is_worth_no_more_later_in_training(off: float, early: float, late: float) -> None:
    task = Task(id="a", question="?", video="a.mp4", answer="left", evidence=(clip(100, 106),))
    made = Trajectory(
        id="x", group_id="g", task=task, answer=Answer(text="left", evidence=(clip(100 + off, 106 + off),))
    )
    first, second = (TemporalProximity()(made, replace(CONTEXT, progress=p)) for p in sorted((early, late)))
    assert 0 <= second <= first + 1e-12 <= 1 + 1e-12


# Space.


def test_boxes_are_matched_one_to_one() -> None:
    left, right = (Box(video_id="v", x0=x, y0=0.0, x1=x + 0.4, y1=0.5, time_s=3.0) for x in (0.0, 0.5))
    half = Box(video_id="v", x0=0.0, y0=0.0, x1=0.2, y1=0.5, time_s=3.0)
    assert left.iou(right) == 0.0 and left.iou(half) == pytest.approx(0.5)
    assert boxes_iou([right, left], [left, right]) == 1.0
    assert boxes_iou([left, left], [left, right]) == 0.5  # the same box twice is one box
    assert boxes_iou([left], [left, right]) == 0.5 and boxes_iou([left, right, half], [left]) == pytest.approx(1 / 3)


# Words.


def test_rouge_by_hand() -> None:
    said, gold = list("abcdef"), list("abgdaf")
    assert rouge_n(said, gold, 1) == pytest.approx(2 * 4 / 12)
    assert rouge_n(said, gold, 2) == pytest.approx(2 * 1 / 10)
    assert rouge_l(said, gold) == pytest.approx(2 * 4 / 12)
    assert rouge_mean("red star", "The red star!") == 1.0 and rouge_mean("", "star") == 0.0
    assert rouge_mean("star", "red star") == pytest.approx(2 / 3)
    assert rouge_mean("red star " * 50, "red star") < 0.1  # precision


@settings(max_examples=40, deadline=None)
@given(a=st.text("ab c", max_size=30), b=st.text("ab c", max_size=30))
def test_rouge_is_bounded_and_symmetric(a: str, b: str) -> None:
    assert 0 <= rouge_mean(a, b) <= 1 and rouge_mean(a, b) == pytest.approx(rouge_mean(b, a))


def test_repetition_counts_ngrams_within_and_across_turns_but_not_over_their_seam() -> None:
    assert repeated_share([[1, 2, 3, 4]], 2) == 0.0
    assert repeated_share([[5, 5, 5, 5, 5]], 2) == 0.75
    assert repeated_share([[1, 2, 3], [1, 2, 3]], 3) == 0.5
    assert repeated_share([[1, 2], [3, 1, 2]], 2) == pytest.approx(1 / 3)
    assert repeated_share([[1]], 3) == repeated_share([], 3) == 0.0


@settings(max_examples=40, deadline=None)
@given(n=st.integers(0, 3000), cache=st.integers(1, 500))
def test_soft_overlong_is_dapos(n: int, cache: int) -> None:
    assert soft_overlong(n, 1000, cache) == pytest.approx(trl_free_soft_overlong(n, 1000, cache))
    assert soft_overlong(n + 1, 1000, cache) <= soft_overlong(n, 1000, cache)


# Evidence, tools, and what a context has to give.


def test_evidence_is_what_the_log_says(make_task, make_trajectory) -> None:
    made = make_trajectory(make_task())  # looked at 102-103 and 96-112, cites 100-106
    assert EvidenceRecall()(made, CONTEXT) == EvidenceEvents()(made, CONTEXT) == Grounded()(made, CONTEXT) == 1.0
    assert LastLook()(made, CONTEXT) == pytest.approx(6 / 16)
    refused = make_trajectory(make_task(), refused=1)
    assert LastLook()(refused, CONTEXT) == pytest.approx(6 / 16)  # a call that failed is no look
    elsewhere = replace(made, answer=Answer(text="left", evidence=(clip(100, 106), clip(300, 306))))
    assert Grounded()(elsewhere, CONTEXT) == 0.5
    two = replace(make_task(), evidence=(clip(100, 106), clip(500, 506)))
    assert EvidenceEvents()(make_trajectory(two), CONTEXT) == EvidenceRecall()(make_trajectory(two), CONTEXT) == 0.5


@pytest.mark.parametrize(
    ("reward", "misses"),
    [
        (Completeness(), "verifier"),
        (TimestampIoU(), "duration"),
        (ToolNecessity(), "pass rate"),
        (AnswerReward(open_text=OpenText.JUDGE), "judge"),
        (RUBRICS["video_r1"]().parts[2].reward, "ordered and shuffled"),
    ],
)
def test_what_a_reward_misses_is_said_with_the_names_of_both(reward, misses, make_task, make_trajectory) -> None:
    task = replace(make_task(), choices=(), answer="to the left side")
    with pytest.raises(RewardError, match=rf"trajectory t-motion-0, reward {reward.name}: .*{misses}"):
        Rubric.of("one", [(reward, 1.0)]).score(make_trajectory(task, "right side"))


def test_completeness_needs_both_answers_right(make_task, make_trajectory) -> None:
    right, wrong = make_trajectory(make_task()), make_trajectory(make_task(), "right")
    values = [Completeness()(t, replace(CONTEXT, verified=v)) for t in (right, wrong) for v in (1.0, 0.0)]
    assert values == [1.0, 0.0, 0.0, 0.0]


def test_necessity_pays_for_tools_only_where_they_are_needed(make_task, make_trajectory) -> None:
    used = make_trajectory(make_task())
    unused = replace(used, turns=used.turns[-1:])
    easy, hard = (replace(CONTEXT, solved_without_tools=d) for d in (0.9, 0.0))
    reward = ToolNecessity()
    assert reward(used, hard) == 1.0 and reward(unused, hard) == 0.0
    assert reward(used, easy) == pytest.approx(0.1) and reward(unused, easy) == 0.9


def test_contrast_of_groups(make_task, make_trajectory) -> None:
    right, wrong = make_trajectory(make_task()), make_trajectory(make_task(), "right")
    broken = replace(right, error="the file is damaged")
    assert contrast_of([right, wrong, broken], [wrong, wrong]) == Contrast(ordered=0.5, shuffled=0.0)
    with pytest.raises(RewardError, match="same task"):
        contrast_of([right], [make_trajectory(make_task(number=1))])
    with pytest.raises(RewardError, match="at least one"):
        contrast_of([right], [broken])


def test_length_counts_what_was_sampled(make_task, make_trajectory) -> None:
    made = make_trajectory(make_task())  # three tokens
    assert LengthWindow(low=3, high=3)(made, CONTEXT) == 1.0 and LengthWindow(low=4, high=9)(made, CONTEXT) == 0.0
    assert SoftOverlong(max_tokens=3, cache_share=1.0)(made, CONTEXT) == -1.0


@pytest.mark.parametrize("bad", [{"progress": 1.5}, {"verified": -0.1}, {"judged": float("nan")}, {"duration_s": 0.0}])
def test_a_context_outside_its_bounds_is_refused(bad) -> None:
    with pytest.raises(ValueError, match="must be"):
        RewardContext(**bad)


# The rubric.


def test_parts_are_logged_weighted_and_their_sum_is_the_reward(make_task, make_trajectory) -> None:
    scored = world_rubric(cited=0.1, turns=0.05).score(make_trajectory(make_task()), CONTEXT)
    assert scored.reward_parts == {
        "answer": 1.0, "evidence_events": 0.2, "format": 0.0, "temporal_iou": pytest.approx(0.1),
        "cost_frames": pytest.approx(-0.1 * 5 / 64), "cost_turns": pytest.approx(-0.05 * 3 / 8),
    }  # fmt: skip
    assert scored.reward == pytest.approx(sum(scored.reward_parts.values()))


def test_gold_seconds_are_paid_where_asked_for(make_task, make_trajectory) -> None:
    trajectory = make_trajectory(make_task())
    usual, paid = world_rubric().score(trajectory, CONTEXT), world_rubric(seconds=0.25).score(trajectory, CONTEXT)
    part = paid.reward_parts["evidence_recall"]
    assert part == pytest.approx(0.25 * EvidenceRecall()(trajectory, CONTEXT)) and part > 0
    assert paid.reward == pytest.approx(usual.reward + part) and "evidence_recall" not in usual.reward_parts


def test_a_failed_rollout_stays_unscored(make_task, make_trajectory) -> None:
    broken = replace(make_trajectory(make_task(), None), error="the file is damaged", stop_reason=StopReason.ERROR)
    assert world_rubric().score(broken, CONTEXT).reward is None
    cut = make_trajectory(make_task(), None)  # the model's own fault: scored
    assert world_rubric().score(cut, CONTEXT).reward == pytest.approx(0.2)


def test_every_reward_says_its_range_and_its_source() -> None:
    """And is in the table of docs/rewards.md."""
    import inspect
    import pkgutil
    from importlib import import_module

    from playhead.train import rewards

    found = {}
    for info in pkgutil.iter_modules(rewards.__path__):
        module = import_module(f"{rewards.__name__}.{info.name}")
        for name, cls in inspect.getmembers(module, inspect.isclass):
            if cls.__module__ == module.__name__ and hasattr(cls, "__dataclass_fields__") and "__call__" in vars(cls):
                found[name] = cls
    assert len(found) >= 24
    table = (Path(rewards.__file__).parents[2] / "docs" / "rewards.md").read_text(encoding="utf-8")
    for name, cls in found.items():
        said = inspect.getdoc(cls)
        assert "Source: " in said or "urs" in said, f"{name} does not say where it is from"
        assert f"`{cls().name}`" in table, f"{name} is not in docs/rewards.md"


@pytest.mark.parametrize("name", RUBRICS)
def test_in_every_rubric_right_beats_wrong(name: str, make_task, make_trajectory) -> None:
    context = replace(CONTEXT, verified=1.0, contrast=Contrast(ordered=0.5, shuffled=0.25))
    task = replace(make_task("when", answer="100-106"))
    right, wrong = make_trajectory(task, "100-106"), make_trajectory(task, "700-706")
    scores = [RUBRICS[name]().score(t, context).reward for t in (right, wrong)]
    assert None not in scores and scores[0] > scores[1]  # type: ignore[operator]


def test_a_rubric_refuses_what_it_could_not_log() -> None:
    answer = AnswerReward()
    for parts in ([], [(answer, 1.0), (answer, 0.5)], [(answer, math.inf)]):
        with pytest.raises(ValueError, match=r"different names|finite"):
            Rubric.of("bad", parts)


def test_a_reward_that_is_no_number_is_an_error(make_task, make_trajectory) -> None:
    class Broken:
        """Divides by nothing."""

        name = "broken"

        def __call__(self, trajectory: Trajectory, context: RewardContext) -> float:
            return math.nan

    with pytest.raises(RewardError, match="reward broken: it came to nan"):
        Rubric.of("one", [(Broken(), 1.0)]).score(make_trajectory(make_task()))


# Verdicts.


def test_verdicts_are_gathered_before_and_stand_in_the_context(make_task, make_trajectory) -> None:
    async def verifier(trajectory: Trajectory) -> Answer | None:
        assert trajectory.evidence_seen
        return Answer(text="left")

    async def judge(trajectory: Trajectory) -> float:
        return 0.5

    made = make_trajectory(make_task())
    context = asyncio.run(with_verdicts(made, CONTEXT, verifier=verifier, judge=judge))
    assert (context.verified, context.judged, context.duration_s) == (1.0, 0.5, 1200.0)
    blind = replace(made, turns=made.turns[-1:])
    assert asyncio.run(with_verdicts(blind, CONTEXT, verifier=verifier)).verified == 0.0


def test_a_judge_that_is_down_or_out_of_bounds_is_an_error_and_no_zero(make_task, make_trajectory) -> None:
    async def down(trajectory: Trajectory) -> float:
        await asyncio.Event().wait()
        raise AssertionError

    async def proud(trajectory: Trajectory) -> float:
        return 7.0

    made = make_trajectory(make_task())
    with pytest.raises(RewardError, match="no verdict"):
        asyncio.run(with_verdicts(made, CONTEXT, judge=down, timeout_s=0.01))
    with pytest.raises(RewardError, match=r"the judge said 7\.0"):
        asyncio.run(with_verdicts(made, CONTEXT, judge=proud))


# The command.


@pytest.fixture
def recorded(tmp_path: Path, make_task: Callable[..., Task], make_trajectory: Callable[..., Trajectory]) -> Path:
    path = tmp_path / "trajectories.jsonl"
    broken = replace(make_trajectory(make_task(number=2)), error="gone", stop_reason=StopReason.ERROR)
    write_trajectories(path, [make_trajectory(make_task()), make_trajectory(make_task(number=1), "right"), broken])
    return path


def test_explain_prints_the_parts(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["rewards", "explain", str(recorded)]) == 0
    out = capsys.readouterr().out
    assert "evidence_events" in out and "unscored" in out and "+1.192" in out and "2 episodes" in out
    assert run(["rewards", "explain", str(recorded), "--id", "motion-1", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["parts"]["answer"] == 0.0 and said["reward"] == pytest.approx(sum(said["parts"].values()))


@pytest.mark.parametrize(
    ("rubric", "part", "lacks"),
    [("timesearch", "completeness", "needs a verifier"), ("video_r1", "temporal_contrast", "shuffled")],
)
def test_explain_tells_what_no_recorded_episode_holds(recorded, capsys, rubric: str, part: str, lacks: str) -> None:
    assert run(["rewards", "explain", str(recorded), "--rubric", rubric]) == 0
    assert "not known" in capsys.readouterr().out
    assert run(["rewards", "explain", str(recorded), "--rubric", rubric, "--id", "motion-1", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    (name,) = [n for n in said["lacks"] if part in n]
    assert lacks in said["lacks"][name] and said["parts"][name] is None
    assert said["reward"] == pytest.approx(sum(v for v in said["parts"].values() if v is not None))
    with pytest.raises(RewardError, match="reward "):  # training does not go on without it
        RUBRICS[rubric]().score(next(read_trajectories(recorded)))


def test_explain_says_what_it_misses_in_one_line(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for args, says in (
        (["--rubric", "nonsense"], "take one of world"),
        (["--id", "nobody"], "no episode of id 'nobody'"),
    ):
        assert run(["rewards", "explain", str(recorded), *args]) == 2
        err = capsys.readouterr().err
        assert says in err and err.count("\n") == 1


def test_the_plain_iou_is_cores(make_task, make_trajectory) -> None:
    made = make_trajectory(make_task())
    value = RUBRICS["open_o3"]().score(made, CONTEXT).reward_parts["temporal_iou"]  # type: ignore[index]
    assert value == temporal_iou(made.answer.evidence, made.task.evidence) == 1.0
    assert FormatReward()(made, CONTEXT) == 0.0  # its calls are no calls
