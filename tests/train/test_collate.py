"""The collator and the one forward: what the sampler said of its tokens is what the trainer says of them.

A trajectory is recorded by the real engine (temperature 1, several turns, frames in the tools' replies), goes through samples
and collator, and its log-probs are computed again by the model's own forward over everything at once.
"""

import asyncio
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from playhead.agent.prompts import first_messages
from playhead.core.errors import DataError
from playhead.core.nouns import Frame, Message, Task
from playhead.core.policy import GenerateRequest, Sampling
from playhead.core.trajectory import Trajectory, Turn
from playhead.train.samples import TrainingSample, sample_of, truncate

torch = pytest.importorskip("torch")

TOLERANCE = 1e-4


def frame(t: float, width: int = 64, height: int = 64) -> Frame:
    return Frame(video_id="v", timestamp_s=t, sha256=f"{int(t * 1000):016x}", width=width, height=height)


@dataclass
class Recorded:
    """A loaded model and what its engine sampled."""

    policy: Any
    samples: list[TrainingSample]

    @property
    def model(self):
        return self.policy.model

    @property
    def renderer(self):
        return self.policy.renderer

    def collator(self, store=None, **how):
        from playhead.train.collate import SampleCollator

        return SampleCollator(self.renderer, store or self.policy.store, **how)

    def logprobs(self, samples, store=None, **how):
        from playhead.train.collate import sequence_logprobs

        with torch.no_grad():
            return sequence_logprobs(self.model, self.collator(store, **how)(samples))


async def record(policy, k: int, turns: int = 3) -> Trajectory:
    """An episode in which every reply of the model is answered by a tool with frames, whatever the reply was."""
    content = first_messages(100.0, (frame(1 + k), frame(2 + k, 90, 64))[: k + 1], f"What is {k}?")
    new = policy.renderer.start(content, ())
    ids, frames, done = (), (), []
    for index in range(turns):
        ids, frames = ids + new.token_ids, frames + new.frames
        sampling = Sampling(temperature=1.0, max_tokens=9 + k, seed=10 * k + index)
        (said,) = await policy.generate(
            [GenerateRequest(session=f"e{k}", token_ids=ids, frames=frames, messages=content, sampling=sampling)]
        )
        done.append(Turn(index=index, context_ids=new.token_ids, context_frames=new.frames, completion=said))
        ids += said.token_ids
        reply = ("Frames: ", frame(10 + 7 * index + k), frame(20 + index, 64, 96), " seen.")
        content = (Message(role="tool", content=reply),)
        new = policy.renderer.extend(said.token_ids, content)
    task = Task(id=f"t{k}", question="What?", video="v")
    return Trajectory(id=f"t{k}", group_id="g", task=task, turns=tuple(done), temperature=1.0)


@pytest.fixture(scope="module")
def recorded(family, store) -> Recorded:
    from playhead.agent.policies.transformers import TransformersPolicy

    policy = TransformersPolicy.load(family.folder, store)

    async def play():
        return await asyncio.gather(*(record(policy, k) for k in range(3)))

    renderer = policy.renderer
    return Recorded(policy, [sample_of(t, renderer, renderer.image_token_id) for t in asyncio.run(play())])


def worst(logprobs_T, sample: TrainingSample) -> float:
    """Largest difference from the recorded log-probs, over the sampled tokens."""
    mask = torch.tensor(sample.loss_mask_T, dtype=torch.bool)
    return float((logprobs_T[: len(mask)] - torch.tensor(sample.logprobs_T))[mask].abs().max())


def test_trainer_and_sampler_agree_on_every_token(recorded):
    logprobs = recorded.logprobs(recorded.samples)
    assert [worst(row, s) <= TOLERANCE for row, s in zip(logprobs, recorded.samples, strict=True)] == [True] * 3
    assert all(sum(s.loss_mask_T) > 15 and len(s.frames_F) > 4 for s in recorded.samples)
    assert min(min(s.logprobs_T) for s in recorded.samples) < -1  # there is something to be wrong about


@dataclass
class Disturbed:
    """A store in which one block of 16 x 16 pixels of one frame is another."""

    store: Any
    sha256: str

    def pixels(self, frame: Frame) -> np.ndarray:
        pixels = np.array(self.store.pixels(frame))
        if frame.sha256 == self.sha256:
            pixels[16:32, 16:32] = 255 - pixels[16:32, 16:32]
        return pixels


def test_one_block_of_a_tools_frame_changes_what_comes_after_it_and_nothing_else(recorded, store):
    sample = recorded.samples[1]
    tool_frame = sample.frames_F[4]  # 2 of the skim, 2 of the first tool reply, then this
    shown_at = sample.turn_ends_K[1]
    (before,) = recorded.logprobs([sample])
    after, neighbour = recorded.logprobs([sample, recorded.samples[0]], Disturbed(store, tool_frame.sha256))
    assert worst(after, sample) > 100 * TOLERANCE
    assert torch.allclose(before[:shown_at], after[:shown_at], atol=TOLERANCE)
    assert worst(neighbour, recorded.samples[0]) <= TOLERANCE


def test_packed_samples_do_not_see_each_other(recorded):
    packed = recorded.logprobs(recorded.samples, pack=True)
    assert packed.shape == (1, sum(len(s.token_ids_T) for s in recorded.samples))
    at = 0
    for sample in recorded.samples:
        (alone,) = recorded.logprobs([sample])
        end = at + len(sample.token_ids_T)
        assert torch.allclose(packed[0, at + 1 : end], alone[1:], atol=TOLERANCE)
        assert worst(packed[0, at:end], sample) <= TOLERANCE
        at = end


def test_features_take_the_place_of_pixels(recorded):
    from playhead.train.features import VisionFeatures

    features = VisionFeatures(recorded.model, recorded.renderer)
    logprobs = recorded.logprobs(recorded.samples, features=features)
    assert torch.allclose(logprobs, recorded.logprobs(recorded.samples), atol=TOLERANCE)
    small = VisionFeatures(recorded.model, recorded.renderer, limit_bytes=0)
    assert torch.equal(logprobs, recorded.logprobs(recorded.samples, features=small))


def test_only_what_is_asked_for_is_computed(recorded):
    from playhead.train.collate import IGNORED, sequence_logprobs

    inputs = recorded.collator()(recorded.samples)
    where = inputs["labels"] != IGNORED
    with torch.no_grad():
        some, every = sequence_logprobs(recorded.model, inputs, where=where), sequence_logprobs(recorded.model, inputs)
    assert torch.allclose(some, every * where, atol=1e-6)
    assert not every[:, 0].any()


def test_labels_and_weights_stand_on_the_mask(recorded):
    sample = recorded.samples[0]
    length = len(sample.token_ids_T)
    heavy = replace(sample, weights_T=tuple(float(i % 3) for i in range(length)))
    inputs = recorded.collator()([sample, heavy])
    mask = torch.tensor(sample.loss_mask_T)
    assert ((inputs["labels"] != -100).int() == mask).all()
    assert (inputs["loss_weights"][0] == mask).all()
    assert (inputs["loss_weights"][1] == mask * torch.arange(length).remainder(3)).all()


def test_truncation_drops_whole_turns_and_counts_them(recorded):
    sample, renderer = recorded.samples[1], recorded.renderer
    first, second, end = sample.turn_ends_K
    collator = recorded.collator(max_tokens=end - 1)
    inputs = collator([sample])
    assert inputs["input_ids"].shape[1] == second
    assert collator.dropped.turns == 1
    assert worst(recorded.logprobs([sample], max_tokens=second)[0], replace(
        sample, loss_mask_T=sample.loss_mask_T[:second], logprobs_T=sample.logprobs_T[:second]
    )) <= TOLERANCE  # fmt: skip
    short, dropped = truncate(sample, first, renderer, renderer.image_token_id)
    assert short is not None and short.frames_F == sample.frames_F[:2] and dropped == 2
    assert truncate(sample, end, renderer, renderer.image_token_id) == (sample, 0)
    assert truncate(sample, first - 1, renderer, renderer.image_token_id) == (None, 3)
    with pytest.raises(DataError, match="sample t1: not even its first trained turn fits"):
        recorded.collator(max_tokens=first - 1)([sample])


def test_what_does_not_fit_is_refused_by_name(recorded):
    sample = recorded.samples[0]
    with pytest.raises(DataError, match=r"sample t0: .* placeholders do not fit"):
        recorded.collator()([recorded.samples[1], replace(sample, frames_F=sample.frames_F[:-1])])


def test_missing_pixels_are_refused_by_name(recorded, tmp_path):
    from playhead.core.frames import FrameStore

    with pytest.raises(DataError, match=r"sample t1: frame .* is not in"):
        recorded.collator(FrameStore(tmp_path))([recorded.samples[1]])
