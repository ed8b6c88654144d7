"""Collect: the rollouts of one step, from tasks to batches.

    draw tasks -> play them -> score -> drop groups without signal -> (draw again, a bounded number of times) ->
    advantages -> batches

Every process plays its share of the tasks. What is collective (outcomes, counts) happens once per round, so processes
whose episodes take other times or turns wait for each other only there, and all leave with the same number of
batches.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ...agent.manner import Manner
from ...agent.video_agent import VideoAgent
from ...core.aio import run_until_done
from ...core.errors import PlayheadError
from ...core.scoring import is_right
from ...core.trajectory import Trajectory
from ..collate import SampleCollator
from ..data.verifier import EvidenceVerifier
from ..rewards.context import RewardContext
from ..rewards.contrast import contrast_of
from ..rewards.verify import Verifier, with_verdicts
from ..rollout import Failure, Group, rollout_groups
from ..samples import TrainingSample
from .advantages import has_signal, standard_deviation
from .batches import Batch, make_batch, row_factor, samples_with_advantages, split, trained_tokens
from .crew import Crew
from .curriculum import Curriculum
from .figures import Tally, knows
from .plan import Plan


@dataclass(slots=True)
class Round:
    """What one process collected for a step."""

    batches: list[Batch]
    items: float
    """Trained tokens over all processes."""
    figures: dict[str, float]
    trajectories: list[Trajectory] = field(default_factory=list)
    """All sound ones, for looking at."""
    failures: list[Failure] = field(default_factory=list)
    """Of all processes."""


class Collector:
    """Plays, scores and batches.

    Args:
        agent: whose policy is the sampler; its store holds the frames.
        collator: for the trained model.
    """

    def __init__(
        self, agent: VideoAgent, collator: SampleCollator, curriculum: Curriculum, plan: Plan, crew: Crew
    ) -> None:
        self.agent, self.collator, self.curriculum, self.plan, self.crew = agent, collator, curriculum, plan, crew
        self.verifier: Verifier | None = None
        if plan.verify:
            self.verifier = EvidenceVerifier(policy=agent.policy, profile=agent.profile)
        self._spare: TrainingSample | None = None

    def collect(self, step: int, progress: float) -> Round:
        """The batches of `step`, none where no process has ever had a rollout to show; `progress` in [0, 1] says how far the
        run is."""
        kept: list[Group] = []
        everything: list[Group] = []
        tally, asked = Tally(), self.plan.groups * self.crew.size
        for refill in range(self.plan.refills + 1):
            groups = self._play(asked, step, progress, tally)
            everything += groups
            kept += [g for g in groups if self._teaches(g)]
            missing = self.plan.groups * self.crew.size - sum(self.crew.all(len(kept)))
            if missing <= 0 or refill == self.plan.refills:
                break
            asked = missing
            if self.crew.rank == 0:
                tally.counts["groups/refilled"] += missing
        tally.counts["groups/kept"] += len(kept)
        tally.counts["groups/without_signal"] += len(everything) - len(kept)
        batches, items = self._batches(kept, everything)
        tallies = self.crew.all(tally)
        return Round(
            batches=batches,
            items=items,
            figures=sum(tallies[1:], tallies[0]).figures(),
            trajectories=[t for g in everything for t in g.trajectories],
            failures=[f for theirs in self.crew.all([f for g in everything for f in g.failures]) for f in theirs],
        )

    def _play(self, asked: int, step: int, progress: float, tally: Tally) -> list[Group]:
        """This process's share of `asked` tasks, scored; the curriculum hears of all."""
        tasks = self.crew.mine(self.curriculum.draw(asked))
        began = time.monotonic()
        # The number of the draw is in the seed: a task that comes again is played anew.
        seed = self.plan.args.seed * 1_000_003 + self.curriculum.draws
        size, limit = self.plan.group_size, self.plan.rollout_limit_s
        how = {"seed": seed, "limit_s": limit, "at_once": self.plan.at_once}
        played = run_until_done(rollout_groups(self.agent, tasks, size, **how))
        beside: list[list[Group | None]] = []
        for number, manner in (
            (self.plan.shuffled, Manner(shuffled=True)),
            (self.plan.without_tools, Manner(tools=False)),
        ):
            how["seed"] += 1
            some = run_until_done(rollout_groups(self.agent, tasks, number, manner=manner, **how)) if number else None
            beside.append([*(some or [None] * len(played))])
        groups = [self._score(group, progress, *others) for group, *others in zip(played, *beside, strict=True)]
        tally.seconds += time.monotonic() - began
        tally.add_groups(groups)
        mine = [(g.task.id, share) for g in groups if (share := _share_right(g)) is not None]
        self.curriculum.note(outcome for theirs in self.crew.all(mine) for outcome in theirs)
        return groups

    def _score(self, group: Group, progress: float, shuffled: Group | None, bare: Group | None) -> Group:
        """Every trajectory with its reward.

        Args:
            shuffled: rollouts of the same task on shuffled frames.
            bare: rollouts of the same task without tools.
        """

        async def score(trajectory: Trajectory) -> Trajectory | Failure:
            try:
                duration_s = self.agent.shelf.desk(trajectory.task.video).video.duration_s
                context = RewardContext(
                    duration_s=duration_s,
                    progress=progress,
                    contrast=shuffled and contrast_of(group.trajectories, shuffled.trajectories),
                    solved_without_tools=_share_right(bare) if bare is not None else None,
                )
                context = await with_verdicts(trajectory, context, verifier=self.verifier, judge=self.plan.judge)
                return self.plan.rubric.score(trajectory, context)
            except PlayheadError as error:
                return Failure(rollout_id=trajectory.id, task_id=group.task.id, error=f"not scored: {error}")

        async def score_all() -> list[Trajectory | Failure]:
            return await asyncio.gather(*map(score, group.trajectories))

        done = run_until_done(score_all())
        return replace(
            group,
            trajectories=tuple(d for d in done if isinstance(d, Trajectory)),
            failures=(*group.failures, *(d for d in done if isinstance(d, Failure))),
        )

    def _teaches(self, group: Group) -> bool:
        rewards = [t.reward for t in group.trajectories if t.reward is not None]
        return len(rewards) > 1 and (self.plan.keep_without_signal or has_signal(rewards))

    def _batches(self, kept: Sequence[Group], everything: Sequence[Group]) -> tuple[list[Batch], float]:
        plan, crew, renderer = self.plan, self.crew, self.collator.renderer
        rewards = crew.all([t.reward for g in kept for t in g.trajectories])
        spread = standard_deviation([r for theirs in rewards for r in theirs if r is not None])
        groups = [g.trajectories for g in kept]
        samples = samples_with_advantages(groups, renderer, plan.scale, batch_std=spread, credit=plan.credit)
        spare = self._spare_sample(samples, everything)
        if spare is None:
            return [], 0.0
        observations, image = plan.observations, renderer.image_token_id
        counts = crew.all((len(samples), trained_tokens(samples, image, observations=observations)))
        rows, items = sum(n for n, _ in counts), sum(n for _, n in counts)
        parts = plan.steps_per_generation
        batches = []
        for part in split(samples, parts):
            factor = row_factor(plan.args.loss_type, len(part), parts * crew.size, rows)
            how = {"teaches": bool(part), "observations": observations}
            batches.append(make_batch(part or [spare], self.collator, factor, **how))
        return batches, float(items)

    def _spare_sample(self, samples: Sequence[TrainingSample], everything: Sequence[Group]) -> TrainingSample | None:
        """A sample that can go through the model where a process has none: short, with frames, from here or from another;
        None where all of them never had one."""
        if samples:
            self._spare = min(samples, key=lambda s: len(s.token_ids_T))
        elif self._spare is None:
            found = [[t] for g in everything for t in g.trajectories[:1]]
            made = samples_with_advantages(found[:1], self.collator.renderer, self.plan.scale, batch_std=0.0)
            self._spare = made[0] if made else None
        offered = [s for s in self.crew.all(self._spare) if s is not None]
        return self._spare or next(iter(offered), None)


def _share_right(group: Group) -> float | None:
    known = [t for t in group.trajectories if knows(t)]
    return sum(is_right(t.task, t.answer) for t in known) / len(known) if known else None
