"""From trajectory to sample: token arithmetic with small integers, and every invariant broken once."""

from dataclasses import replace

import pytest
from playhead.core.errors import DataError
from playhead.core.nouns import Completion, Frame, Task
from playhead.core.trajectory import Trajectory, Turn
from playhead.train.samples import check_sample, sample_of

IMAGE = 9
FRAME = Frame(video_id="v", timestamp_s=1.0, sha256="f", width=2, height=2)


class TwoTokensAFrame:
    """All that samples ask of a renderer."""

    def frame_tokens(self, frame: Frame) -> int:
        return 2


def trajectory(**changes) -> Trajectory:
    turns = (
        Turn(index=0, context_ids=(1, IMAGE, IMAGE, 2), context_frames=(FRAME,),
             completion=Completion(token_ids=(3, 4), text="", logprobs=(-0.5, -0.25), policy_version=2)),
        Turn(index=1, context_ids=(5, IMAGE, IMAGE, 6, IMAGE, IMAGE), context_frames=(FRAME, FRAME),
             completion=Completion(token_ids=(7,), text="", logprobs=(-1.0,), policy_version=3)),
    )  # fmt: skip
    task = Task(id="t", question="q", video="v", kind="open")
    return replace(Trajectory(id="x", group_id="g", task=task, turns=turns), **changes)


def make(t: Trajectory):
    return sample_of(t, TwoTokensAFrame(), IMAGE)  # type: ignore[arg-type]


def test_deltas_and_completions_in_order():
    sample = make(trajectory())
    assert sample.token_ids_T == (1, 9, 9, 2, 3, 4, 5, 9, 9, 6, 9, 9, 7)
    assert sample.loss_mask_T == (0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 1)
    assert sample.logprobs_T == (0, 0, 0, 0, -0.5, -0.25, 0, 0, 0, 0, 0, 0, -1.0)
    assert sample.frames_F == (FRAME,) * 3
    assert (sample.policy_version_min, sample.policy_version_max) == (2, 3)


def test_a_forced_completion_is_seen_but_not_trained_on():
    turns = trajectory().turns
    forced = replace(turns[0], completion=replace(turns[0].completion, forced=True))
    assert make(trajectory(turns=(forced, turns[1]))).loss_mask_T == (0,) * 12 + (1,)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"exact": False}, "not those sampled"),
        ({"turns": ()}, "no turns"),
    ],
)
def test_what_cannot_be_trained_on_is_refused_by_name(changes, message):
    with pytest.raises(DataError, match=f"trajectory x.*{message}"):
        make(trajectory(**changes))


def test_a_frame_too_few_is_an_error_that_names_the_sample():
    turns = trajectory().turns
    with pytest.raises(DataError, match=r"sample x: image placeholders do not fit its frames: 3 groups .* 2 frames"):
        make(trajectory(turns=(turns[0], replace(turns[1], context_frames=(FRAME,)))))


def test_a_sampled_placeholder_is_an_error():
    turns = trajectory().turns
    bad = replace(turns[1], context_ids=(5, IMAGE, IMAGE, 6), completion=Completion(token_ids=(IMAGE, IMAGE), text=""))
    with pytest.raises(DataError, match="inside the loss mask"):
        make(trajectory(turns=(turns[0], bad)))


def test_mask_and_logprobs_must_fit():
    sample = make(trajectory())
    with pytest.raises(DataError, match="12 mask bits"):
        check_sample(replace(sample, loss_mask_T=sample.loss_mask_T[:-1]), TwoTokensAFrame(), IMAGE)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="nothing in it was sampled"):
        check_sample(replace(sample, loss_mask_T=(0,) * 13), TwoTokensAFrame(), IMAGE)  # type: ignore[arg-type]
