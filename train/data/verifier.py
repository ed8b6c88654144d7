"""The verifier: answers a task again from what an episode retrieved, and from nothing else.

It is shown the frames that the episode's tools returned (those inside what the answer cites, where there are any), in order of
time, and has no tools. If it comes to the same answer, the episode had found what proves it; a lucky guess is not
repeated. (TimeSearch-R's completeness self-verification, arXiv 2511.05489, as a filter.)
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ...agent.profile import Profile
from ...core.clip import Clip
from ...core.errors import ModelError
from ...core.nouns import Answer, FinishReason, Frame, Message
from ...core.policy import GenerateRequest, Policy, Sampling
from ...core.scoring import match_choice, parse_spans
from ...core.trajectory import Trajectory
from .filters import same_answer

MAX_FRAMES = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class EvidenceVerifier:
    """A `rewards.verify.Verifier` over a policy, which is asked greedily.

    The pixels of the episode's frames have to be in the store that the policy reads.
    """

    policy: Policy
    profile: Profile
    timeout_s: float = 120.0

    async def __call__(self, trajectory: Trajectory) -> Answer | None:
        """The answer from the retrieved frames alone; None when nothing was retrieved or nothing readable was said.

        Raises:
            ModelError: the policy failed.
        """
        frames = retrieved(trajectory)
        if not frames:
            return None
        messages = _question(trajectory, frames, self.profile.system)
        start = self.policy.renderer.start(messages, ())
        request = GenerateRequest(
            session=f"{trajectory.id}/verify",
            token_ids=start.token_ids,
            frames=start.frames,
            messages=messages,
            sampling=Sampling(max_tokens=self.profile.turn_tokens, timeout_s=self.timeout_s),
        )
        (said,) = await self.policy.generate([request])
        forget = getattr(self.policy, "forget", None)
        if forget is not None:
            forget(request.session)
        if said.finish_reason is FinishReason.ERROR:
            raise ModelError(f"the verifier {self.policy.name} failed: {said.text}")
        parsed = self.policy.renderer.parse(said.text, 0)
        if parsed.answer is None:
            return None
        task, video_id = trajectory.task, frames[0].video_id
        choice = match_choice(parsed.answer, task.choices) if task.choices else None
        return Answer(text=parsed.answer, choice=choice, evidence=parse_spans(parsed.evidence or "", video_id))


async def verdicts(
    verifier: EvidenceVerifier, trajectories: Iterable[Trajectory], workers: int = 8
) -> dict[str, bool]:
    """For each trajectory, by id: does the verifier come to the same answer? At most `workers` are asked at once."""
    gate = asyncio.Semaphore(workers)

    async def ask(trajectory: Trajectory) -> tuple[str, bool]:
        async with gate:
            again = await verifier(trajectory)
        return trajectory.id, same_answer(trajectory.task, trajectory.answer, again)

    return dict(await asyncio.gather(*(ask(t) for t in trajectories)))


def retrieved(trajectory: Trajectory) -> tuple[Frame, ...]:
    """The frames that the tools returned, each once and in order of time: those inside the cited clips, or all where none is
    there; thinned out evenly to 64."""
    shown = {(f.video_id, f.timestamp_s): f for o in trajectory.observations if o.error is None for f in o.frames}
    frames = [shown[key] for key in sorted(shown)]
    cited = trajectory.answer.evidence if trajectory.answer else ()
    inside = [f for f in frames if _inside(f, cited)]
    chosen = inside or frames
    every = -(-len(chosen) // MAX_FRAMES) or 1
    return tuple(chosen[::every])


def _inside(frame: Frame, clips: Sequence[Clip]) -> bool:
    return any(c.video_id == frame.video_id and c.contains(frame.timestamp_s) for c in clips)


def _question(trajectory: Trajectory, frames: Sequence[Frame], system: str) -> tuple[Message, ...]:
    """The question as it was asked, with the retrieved frames where the first look was."""
    asked = next(m for m in trajectory.turns[0].context_messages if m.role == "user")
    text = "".join(p for p in asked.content if isinstance(p, str))
    head, line, rest = text.partition("\n")  # the video's length stands in the first line
    user = Message(role="user", content=tuple(p for p in (head + line, *frames, rest) if p != ""))
    return (Message(role="system", content=(system,)), user) if system else (user,)
