"""Collecting: any policy plays tasks through the agent that users get, and what is worth learning from becomes a set.

    playhead collect --data WORLD --model embedded --n 4 --keep correct,grounded --out DIR

    DIR/trajectories.jsonl   the set: scored, deduplicated, filtered; in the order of the tasks
    DIR/frames/              the pixels of every frame that is shown in it, by content hash
    DIR/card.json, card.md   what the set holds, and what each filter dropped
    DIR/episodes.jsonl       every episode as it ended: filtering again (another --keep) plays nothing again
    DIR/manifest.json        what was asked for; the same folder goes on with the same

Every task is asked by `n` runs of a strategy (`jobs`), and what each leaves is its episodes (`play`): one of "tools", three of
"vote(tools,n=3)". Many run on one event loop, so that the engine under the policy batches them. After a kill at any moment the
same command goes on with the runs that are missing; failed ones are tried again. A run's seed follows from its number, so the
set is the same in the end, up to the float noise of batching where a model samples.

The oracle is one of the policies (`oracle_policy`), so what it records is what the agent records of any model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...core.errors import DataError
from ...core.frames import FrameStore
from ...core.nouns import Frame, Task
from ...core.trajectory import Trajectory
from ..embedded.dream import tools_of
from ..rewards import Rubric, world_rubric
from .card import Card, CardMaker
from .filters import Drop, Filter, Sieve, Verified, is_known
from .jobs import Job, Setup, jobs_of
from .logbook import Logbook
from .oracle_policy import ORACLE, OraclePolicy
from .play import play
from .sets import copy_frames
from .verifier import EvidenceVerifier, verdicts

if TYPE_CHECKING:
    from ...agent.video_agent import VideoAgent

VERIFY_AT_ONCE = 64

Score = Callable[[Trajectory], Trajectory]


@dataclass(frozen=True, kw_only=True, slots=True)
class Collected:
    """What came of it."""

    path: Path
    kept: int
    drops: tuple[Drop, ...]
    """In order: failed, twice, then each filter."""
    card: Card
    first_error: str | None = None


async def collect(
    tasks: Sequence[Task],
    out: Path,
    setup: Setup,
    *,
    filters: Sequence[Filter] = (),
    rubric: Rubric | None = None,
    workers: int = 8,
    agent: VideoAgent | None = None,
    verifier: EvidenceVerifier | None = None,
    on_run: Callable[[Sequence[Trajectory], int, int], None] | None = None,
) -> Collected:
    """Play what `out` lacks, then write the set.

    Args:
        rubric: what trajectories of tasks with a known answer are scored by; the world's by default.
        workers: how many episodes run at once.
        agent: one that is there already, instead of the one that `setup` describes; frames are copied into `out`.
        verifier: whom the filter `verified` asks; the model itself by default.
        on_run: called with the episodes of each new run, how many runs are done, and how many there are.

    Raises:
        DataError: bad tasks, a folder that holds something else, a film that is not the tasks' own.
        ModelError: the model cannot be had.
    """
    if workers < 1:
        raise DataError(f"--workers must be at least 1; got {workers}")
    jobs, store = jobs_of(tasks, setup), FrameStore(out / "frames")
    with Logbook(out, setup.identity) as logbook:
        todo = [j for j in jobs if not logbook.is_done(j.id)]
        player = agent
        if todo or (verifier is None and any(isinstance(f, Verified) for f in filters)):
            player = agent or make_agent(setup, jobs, out)

        def note(episodes: list[Trajectory]) -> None:
            if agent is not None:
                for trajectory in episodes:
                    copy_frames(trajectory, agent.store, store)
            logbook.add(episodes)
            if on_run is not None:
                on_run(episodes, len(jobs) - len(todo) + logbook.added, len(jobs))

        if todo and player is not None:
            logbook.note_tools(player.toolbox.specs)
            await play(player, todo, setup.limits, workers, note)
        if verifier is None and player is not None:
            verifier = EvidenceVerifier(policy=player.policy, profile=player.profile)
        score = scorer(rubric or world_rubric())
        return await _write_set(logbook, jobs, tuple(filters), score, verifier, workers)


def make_agent(setup: Setup, jobs: Sequence[Job], out: Path) -> VideoAgent:
    """The agent of a setup; its frames go to `out`/frames, its clip indexes where all others are."""
    from ...agent.video_agent import VideoAgent

    how = {"encoder": setup.encoder, "frames": out / "frames", "temperature": setup.temperature}
    if setup.model != ORACLE:
        return VideoAgent(setup.model, load=setup.load, **how)
    from ...agent.embedded import EMBEDDED_PROFILE, checkpoint_dir
    from ...agent.policies.loading import load_renderer

    renderer = load_renderer(str(setup.tokenizer or checkpoint_dir()))
    store = FrameStore(out / "frames")
    policy = OraclePolicy(renderer, store, {j.id: j.task for j in jobs}, setup.slips, setup.checks)
    tools = tools_of({j.task.kind for j in jobs})
    return VideoAgent(policy, profile=EMBEDDED_PROFILE, tools=tools, **how)


def scorer(rubric: Rubric) -> Score:
    """Scores what can be scored; a trajectory whose task has no known answer stays unscored."""

    def score(trajectory: Trajectory) -> Trajectory:
        return rubric.score(trajectory) if is_known(trajectory.task) else trajectory

    return score


async def _write_set(
    logbook: Logbook,
    jobs: Sequence[Job],
    filters: tuple[Filter, ...],
    score: Score,
    verifier: EvidenceVerifier | None,
    workers: int,
) -> Collected:
    filters = tuple([await _asked(f, filters, logbook, jobs, verifier, workers) for f in filters])
    sieve, maker, total, failed, twice = Sieve(filters), CardMaker(), 0, 0, 0
    first_error: str | None = None
    groups = _groups(jobs)
    with logbook.writing_set() as write:
        for group in groups:
            played = [t for j in group for t in logbook.read(j.id, j.task)]
            whole = [t for t in played if t.error is None]
            first_error = first_error or next((t.error for t in played if t.error), None)
            total += len(played)
            failed += len(played) - len(whole)
            new = _unlike(whole)
            twice += len(whole) - len(new)
            for trajectory in map(score, sieve.sift(new, whole)):
                write(trajectory)
                maker.add(trajectory)
    ends = (Drop(name="failed", seen=total, dropped=failed), Drop(name="twice", seen=total - failed, dropped=twice))
    drops = (*ends, *sieve.drops)
    card = maker.card(drops)
    card.write(logbook.root)
    return Collected(
        path=logbook.set_path, kept=card.trajectories, drops=drops, card=card, first_error=first_error
    )


async def _asked(
    which: Filter,
    filters: Sequence[Filter],
    logbook: Logbook,
    jobs: Sequence[Job],
    verifier: EvidenceVerifier | None,
    workers: int,
) -> Filter:
    """A `Verified` filter with its verdicts; those that are missing are asked for, of what all other filters keep."""
    if not isinstance(which, Verified) or verifier is None:
        return which
    others = Sieve(tuple(f for f in filters if not isinstance(f, Verified)))
    known, todo = dict(which.verdicts) or logbook.verdicts(verifier.policy.name), []

    async def ask() -> None:
        assert verifier is not None
        new = await verdicts(verifier, todo, workers)
        logbook.add_verdicts(verifier.policy.name, new)
        known.update(new)
        todo.clear()

    for group in _groups(jobs):
        whole = [t for j in group for t in logbook.read(j.id, j.task) if t.error is None]
        todo += [t for t in others.sift(whole) if t.id not in known]
        if len(todo) >= VERIFY_AT_ONCE:
            await ask()
    if todo:
        await ask()
    return Verified(verdicts=known)


def _groups(jobs: Sequence[Job]) -> list[list[Job]]:
    groups: dict[str, list[Job]] = {}
    for job in jobs:
        groups.setdefault(job.task.id, []).append(job)
    return list(groups.values())


def _unlike(group: Sequence[Trajectory]) -> list[Trajectory]:
    """The group without those that were shown the frames of an earlier one and sampled its tokens."""

    def both(trajectory: Trajectory) -> tuple[tuple[Frame, ...], tuple[tuple[int, ...], ...]]:
        return trajectory.frames, tuple(t.completion.token_ids for t in trajectory.turns)

    said = {both(trajectory): trajectory for trajectory in reversed(group)}
    first = {t.id for t in said.values()}
    return [t for t in group if t.id in first]
