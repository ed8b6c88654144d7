"""Bench: where strategies work. It runs episodes and single completions for one question, charges a purse for each, and
keeps all trajectories and the trace of decisions.

`episode` is the agent itself, in some `Manner`. `complete` is one call of the policy beside it (a verdict, a caption, a
critique), kept as a trajectory of one turn. Both raise `Spent` where the purse has nothing left to ask with. Runs of one
prompt that are started together share its prefill in the engine; at most `concurrency` are under way.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from math import inf
from typing import TYPE_CHECKING, Any, Self, TypeVar

from ...core.aio import in_thread
from ...core.budget import Usage
from ...core.errors import ModelError
from ...core.nouns import Answer, Completion, FinishReason, Frame, Message, StopReason, Task
from ...core.policy import GenerateRequest, Sampling
from ...core.scoring import match_choice, parse_boxes, parse_spans
from ...core.trajectory import Trajectory, Turn, new_id
from .. import prompts
from ..confidence import answer_confidence
from ..desk import Desk
from ..events import Decided
from ..manner import Manner
from .purse import Least, Purse, planned
from .strategy import UNKNOWN, Outcome, Strategy
from .tally import tally

if TYPE_CHECKING:
    from ..video_agent import VideoAgent


T = TypeVar("T")


class Spent(Exception):
    """The purse has nothing left for what was to come. Never leaves the strategies."""

    def __init__(self, reason: StopReason) -> None:
        super().__init__(reason.value)
        self.reason = reason


@dataclass(slots=True)
class _Log:
    trajectories: list[Trajectory] = field(default_factory=list)
    trace: list[Decided] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
    run_id: str | None = None
    numbers: Iterator[int] = field(default_factory=count)


@dataclass(frozen=True, kw_only=True)
class Bench:
    agent: VideoAgent
    task: Task
    desk: Desk
    gate: asyncio.Semaphore
    manner: Manner = field(default_factory=Manner)
    tell: Callable[[Decided], None] | None = None
    log: _Log = field(default_factory=_Log)

    @classmethod
    async def open(
        cls,
        agent: VideoAgent,
        task: Task,
        tell: Callable[[Decided], None] | None,
        concurrency: int | asyncio.Semaphore,
        *,
        index: bool,
        run_id: str | None = None,
    ) -> Self:
        """Raises: VideoError: the video cannot be read."""
        desk = await in_thread(agent.shelf.desk, task.video)
        if index and agent.needs_index:
            await in_thread(desk.lazy_index.ready)
        gate = asyncio.Semaphore(max(1, concurrency)) if isinstance(concurrency, int) else concurrency
        return cls(agent=agent, task=task, desk=desk, gate=gate, tell=tell, log=_Log(run_id=run_id))

    def varied(self, **changes: Any) -> Bench:
        """The same bench whose episodes differ in some fields of their `Manner`; books are kept together."""
        return replace(self, manner=replace(self.manner, **changes))

    @property
    def knows_words(self) -> bool:
        """Whether the model follows instructions. One with habits of its own (no system prompt in its profile) was trained to
        answer questions in one form, and other requests mean nothing to it."""
        return bool(self.agent.profile.system)

    # Asking.

    async def episode(self, purse: Purse, seed: int, **changes: Any) -> Trajectory:
        """One run of the agent, within what the purse has. A run that fails is on the log, without an answer.

        Raises:
            Spent: there is nothing left to ask with.
        """
        name = self._next_id()
        async with self.gate:
            if purse.ended is not None:
                raise Spent(purse.ended)
            manner = replace(self.manner, **{"budget": purse.plan(), **changes})
            if manner.start is not None:
                manner = self._branching(manner, seed)
            how = {"seed": seed, "run_id": name, "group_id": self.task.id, "manner": manner}
            trajectory = await self.agent.arun(self.task, **how, cut=partial(self._book, purse))
        return self._book(purse, trajectory)

    def _branching(self, manner: Manner, seed: int) -> Manner:
        """A branch pays anew, but its turns follow those that it inherits.

        Raises:
            Spent: it inherits all the turns that an episode may have.
        """
        assert manner.start is not None and manner.budget is not None
        left = manner.budget.left(Usage(turns=len(manner.start["turns"])), "turns")
        if left < 1:
            raise Spent(StopReason.MAX_TURNS)
        turns = None if left == inf else int(left)
        return replace(manner, start={**manner.start, "seed": seed}, budget=replace(manner.budget, turns=turns))

    def _book(self, purse: Purse, trajectory: Trajectory) -> Trajectory:
        purse.spend(trajectory.usage)
        self.log.trajectories.append(trajectory)
        return trajectory

    async def say(
        self,
        purse: Purse,
        messages: Sequence[Message],
        *,
        opening: str = "",
        tokens: int = 64,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Trajectory:
        """What the policy says to these messages, beginning behind `opening`; no tools. Kept as a trajectory of one turn.

        Raises:
            Spent: no call, no token or no room in the context is left for it.
            ModelError: the policy failed.
        """
        start = self.agent.policy.renderer.start(messages, ())
        ids = start.token_ids + (self.agent.policy.renderer.encode(opening) if opening else ())
        said = (*messages, Message(role="assistant", content=(opening,))) if opening else tuple(messages)
        turn = Turn(index=0, context_ids=ids, context_frames=start.frames, context_messages=said, completion=_NOTHING)
        return await self.go_on(purse, (turn,), tokens=tokens, temperature=temperature, seed=seed)

    async def go_on(
        self, purse: Purse, turns: Sequence[Turn], *, tokens: int, temperature: float = 0.0, seed: int = 0
    ) -> Trajectory:
        """`turns` with the completion of the last one sampled anew behind its context; kept as a trajectory.

        Raises:
            Spent, ModelError: as in `say`.
        """
        ids = [t for turn in turns for t in (*turn.context_ids, *turn.completion.token_ids)]
        room, name = purse.budget.left(Usage(context_tokens=len(ids)), "context_tokens"), self._next_id()
        async with self.gate:
            if purse.ended is not None or room < 1:
                raise Spent(purse.ended or StopReason.CONTEXT_FULL)
            seconds = purse.plan().wall_s
            sampling = Sampling(
                temperature=temperature,
                top_p=self.agent.top_p,
                max_tokens=int(min(tokens, room, purse.left("sampled_tokens"))),
                seed=seed % (1 << 31),
                timeout_s=None if seconds is None else planned(seconds),
            )
            completion = await self._generate(name, turns, ids, sampling, seconds, purse)
        made = replace(turns[-1], completion=completion)
        return self._keep(name, (*turns[:-1], made), len(ids), temperature, seed, purse)

    async def _generate(
        self,
        name: str,
        turns: Sequence[Turn],
        ids: Sequence[int],
        sampling: Sampling,
        seconds: float | None,
        purse: Purse,
    ) -> Completion:
        messages: list[Message] = []
        for i, turn in enumerate(turns):
            messages += turn.context_messages
            if i + 1 < len(turns):
                messages.append(Message(role="assistant", content=(turn.completion.text,)))
        request = GenerateRequest(
            session=name,
            token_ids=tuple(ids),
            frames=tuple(f for turn in turns for f in turn.context_frames),
            messages=tuple(messages),
            sampling=sampling,
        )
        try:
            (completion,) = await asyncio.wait_for(self.agent.policy.generate([request]), seconds)
        except TimeoutError:
            purse.spend(Usage(model_calls=1))
            raise Spent(StopReason.TIMEOUT) from None
        except asyncio.CancelledError:
            purse.spend(Usage(model_calls=1))
            raise
        finally:
            forget = getattr(self.agent.policy, "forget", None)
            if forget is not None:
                forget(request.session)
        if completion.finish_reason is FinishReason.ERROR:
            purse.spend(Usage(model_calls=1))
            raise ModelError(f"{self.agent.policy.name} failed: {completion.text}")
        return completion

    def _keep(
        self, name: str, turns: Sequence[Turn], context: int, temperature: float, seed: int, purse: Purse
    ) -> Trajectory:
        completion = turns[-1].completion
        usage = Usage(
            turns=1,
            model_calls=1,
            sampled_tokens=len(completion.token_ids),
            prefill_tokens=completion.prefill_tokens,
            reused_tokens=completion.reused_tokens,
            context_tokens=context + len(completion.token_ids),
            wall_s=completion.wall_s,
        )
        purse.spend(usage)
        trajectory = Trajectory(
            id=name,
            group_id=self.task.id,
            task=self.task,
            turns=tuple(turns),
            budget=purse.budget,
            usage=usage,
            seed=seed,
            model=self.agent.policy.name,
            exact=self.agent.policy.exact and all(turn.completion.exact for turn in turns),
            temperature=temperature,
            top_p=self.agent.top_p,
        )
        self.log.trajectories.append(trajectory)
        return trajectory

    async def frames(self, purse: Purse, times_s: Sequence[float]) -> tuple[Frame, ...]:
        """The frames at these times, as many of them as the purse has, to be shown with `say`."""
        times = list(times_s)[: int(min(len(times_s), purse.left("frames")))]
        episode = self.agent.episode(self.desk, new_id(), self.manner)
        try:
            shown = await in_thread(episode.context(len(times)).frames_at, times) if times else []
        finally:
            episode.texts.close()
        purse.spend(Usage(frames=len(shown)))
        return tuple(shown)

    def _next_id(self) -> str:
        return new_id() if self.log.run_id is None else f"{self.log.run_id}-{next(self.log.numbers)}"

    # Several at once.

    async def fan(
        self, strategy: Strategy, purse: Purse, seeds: Sequence[int], *, of: int | None = None
    ) -> list[Outcome | None]:
        """`strategy` once for each seed; see `each`."""
        jobs = [partial(_solve, strategy, self, seed=seed) for seed in seeds]
        return await self.each(purse, jobs, strategy.least(self), of=of)

    async def each(
        self, purse: Purse, jobs: Sequence[Callable[[Purse], Awaitable[T]]], least: Least, *, of: int | None = None
    ) -> list[T | None]:
        """The jobs at the same time, each with one of `of` parts of the purse; None where its part paid for nothing.

        Only as many are started as the purse affords at `least` each, but one in any case.
        """
        of = max(len(jobs), of or 0)
        jobs = jobs[: max(1, purse.affords(least))]
        parts = [purse.part(of - i, least) for i in range(len(jobs))]

        async def one(part: Purse, job: Callable[[Purse], Awaitable[T]]) -> T | None:
            with part:
                try:
                    return await job(part)
                except Spent:
                    return None

        try:
            return list(await asyncio.gather(*map(one, parts, jobs)))
        finally:
            for part in parts:
                part.close()

    # What was said.

    def first_messages(self, frames: Sequence[Frame], hint: str = "") -> tuple[Message, ...]:
        """The question as an episode opens with it."""
        task, system = self.task, self.agent.profile.system
        return prompts.first_messages(self.desk.video.duration_s, frames, task.question + hint, task.choices, system)

    def answer_of(self, text: str, evidence: str, confidence: float | None, boxes: str = "") -> Answer:
        """What an episode makes of the texts of `<answer>`, `<evidence>` and `<box>`."""
        video, choices = self.desk.video, self.task.choices
        return Answer(
            text=text.strip(),
            choice=match_choice(text, choices) if choices else None,
            evidence=parse_spans(evidence, video.id, video.duration_s),
            confidence=confidence,
            boxes=parse_boxes(boxes, video.id),
        )

    def read(self, head: str, said: Trajectory) -> Answer | None:
        """The answer in a completion that went on from `head`; None where there is none."""
        completion = said.turns[-1].completion
        parsed = self.agent.policy.renderer.parse(head + completion.text, 0)
        if not parsed.answer:
            return None
        sure = answer_confidence(completion, self.agent.policy, parsed.answer)
        return self.answer_of(parsed.answer, parsed.evidence or "", sure, parsed.boxes or "")

    # The books.

    def note(self, by: str, text: str) -> None:
        """A decision, for people."""
        said = Decided(by=by, text=text, at_s=time.monotonic() - self.log.started)
        self.log.trace.append(said)
        if self.tell is not None:
            self.tell(said)

    @property
    def trajectories(self) -> list[Trajectory]:
        return self.log.trajectories

    @property
    def trace(self) -> list[Decided]:
        return self.log.trace

    @property
    def errors(self) -> list[str]:
        return [t.error for t in self.log.trajectories if t.error is not None]

    @property
    def answered(self) -> list[Trajectory]:
        return [t for t in self.log.trajectories if t.answer is not None]

    def outcome(self, trajectory: Trajectory, why: str = "one run") -> Outcome:
        """What a single episode came to."""
        answer = trajectory.answer or UNKNOWN
        stop = trajectory.stop_reason
        return Outcome(
            answer=answer, why=why if stop is StopReason.ANSWERED else stop.value, trajectory=trajectory, stop=stop
        )

    def settle(self, said: Trajectory, answer: Answer, why: str) -> Outcome:
        """`answer` as what a kept completion came to."""
        settled = replace(said, answer=answer)
        self.log.trajectories[[t.id for t in self.log.trajectories].index(said.id)] = settled
        return Outcome(answer=answer, why=why, trajectory=settled)

    def anytime(self, stop: StopReason) -> Outcome:
        """The best answer so far: what most of the episodes say, the surer ones counting more."""
        runs = self.answered
        groups = tally([t.answer for t in runs if t.answer], None, self.task.choices)
        if not groups:
            return Outcome(answer=UNKNOWN, why="budget", stop=stop)
        best = groups[0]
        return Outcome(answer=best.answer, why="budget", trajectory=runs[best.speaker], stop=stop)


_NOTHING = Completion(token_ids=(), text="")


def seed_of(seed: int, i: int) -> int:
    """The i-th of a strategy's own random seeds; the first is `seed` itself, so that one run is the plain run."""
    return (seed + i * 1_000_003) % (1 << 31)


async def _solve(strategy: Strategy, bench: Bench, part: Purse, *, seed: int) -> Outcome:
    return await strategy.solve(bench, part, seed)
