"""Collecting: any policy plays tasks through the agent that users get, and what is worth learning from becomes a set.

    playhead collect --data WORLD --model embedded --n 4 --keep correct,grounded --out DIR

    DIR/trajectories.jsonl   the set: scored, deduplicated, filtered; in the order of the tasks
    DIR/frames/              the pixels of every frame that is shown in it, by content hash
    DIR/card.json, card.md   what the set holds, and what each filter dropped
    DIR/episodes.jsonl       every episode as it ended: filtering again (another --keep) plays nothing again
    DIR/manifest.json        what was asked for; the same folder goes on with the same

Many episodes run on one event loop, so that the engine under the policy batches them. A run that was killed at any moment goes
on with the episodes that are missing; failed ones are tried again. Every episode's seed follows from its number, so the set is
the same in the end, up to the float noise of batching where a model samples.

The oracle is one of the policies (`oracle_policy`), so what it records is what the agent records of any model.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...agent.manner import Manner
from ...core.budget import Budget
from ...core.codec import to_plain
from ...core.errors import DataError
from ...core.frames import FrameStore
from ...core.nouns import Task
from ...core.trajectory import Trajectory
from ..embedded.dream import tools_of
from ..rewards import Rubric, world_rubric
from .card import Card, CardMaker
from .filters import Drop, Filter, Sieve, Verified, is_known
from .logbook import Logbook
from .oracle_policy import ORACLE, OraclePolicy
from .sets import copy_frames
from .verifier import EvidenceVerifier, verdicts

if TYPE_CHECKING:
    from ...agent.policies.loading import LoadOptions
    from ...agent.video_agent import VideoAgent

MIXED_FRAMES = (8, 8, 8, 32, 64)
"""How many frames an episode without tools sees, where a share of them is mixed in."""
VERIFY_AT_ONCE = 64

Score = Callable[[Trajectory], Trajectory]


@dataclass(frozen=True, kw_only=True, slots=True)
class Setup:
    """Who plays, and how.

    Raises:
        DataError: values that make no sense together.
    """

    model: str = "embedded"
    """As `VideoAgent` takes it, or "oracle"."""
    strategy: str = "tools"
    frames: int | None = None
    """Uniform frames of the strategy "direct"."""
    direct_share: float = 0.0
    """Share of the tasks that are asked without tools whatever the strategy, with 8, 32 or 64 frames."""
    n: int = 1
    """Episodes of each task."""
    seed: int = 0
    temperature: float = 0.0
    budget: Budget | None = None
    encoder: str = "embedded"
    load: LoadOptions | None = None
    slips: float = 0.0
    """How often the oracle looks at a wrong hit first."""
    tokenizer: Path | None = None
    """The checkpoint whose tokens the oracle speaks; None for the embedded model's."""

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise DataError(f"strategy {self.strategy!r} is unknown; take {' or '.join(STRATEGIES)}")
        if (self.frames is not None) != (self.strategy == "direct"):
            raise DataError("--frames belongs to --strategy direct, which needs it: how many uniform frames to show")
        if self.n < 1 or (self.frames is not None and self.frames < 1):
            raise DataError(f"--n and --frames are at least 1; got {self.n} and {self.frames}")
        if not (0 <= self.direct_share <= 1 and 0 <= self.slips <= 1):
            raise DataError(f"a share is in 0 to 1; got {self.direct_share} and {self.slips}")
        if self.slips and self.model != ORACLE:
            raise DataError("--slips is about the oracle's mistakes; other models make their own")

    @property
    def identity(self) -> dict[str, object]:
        """What may not change between two parts of one run. More tasks or a larger `n` add to it."""
        names = ("model", "strategy", "frames", "direct_share", "seed", "temperature", "encoder", "slips")
        identity: dict[str, object] = {name: getattr(self, name) for name in names}
        identity["budget"] = to_plain(self.budget)
        identity["load"] = None if self.load is None else {k: str(v) for k, v in to_plain(self.load).items()}
        identity["weights_sha256"] = _weights(self.model)
        return identity


STRATEGIES = ("tools", "direct")


def manner_of(setup: Setup, task: Task) -> Manner:
    """What the agent does differently for a task: the one place where a strategy is resolved."""
    rng = random.Random(f"collect-{task.id}")
    if rng.random() < setup.direct_share:
        return Manner(tools=False, skim_frames=rng.choice(MIXED_FRAMES))
    return Manner() if setup.strategy == "tools" else Manner(tools=False, skim_frames=setup.frames)


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One episode to play."""

    id: str
    task: Task
    seed: int
    manner: Manner


def jobs_of(tasks: Sequence[Task], setup: Setup) -> list[Job]:
    """`n` episodes of every task, in order; each is called TASK.NUMBER."""
    numbers = range(setup.n)
    manners = {t.id: manner_of(setup, t) for t in tasks}
    return [Job(id=f"{t.id}.{i}", task=t, seed=setup.seed + i, manner=manners[t.id]) for t in tasks for i in numbers]


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
    on_episode: Callable[[Trajectory, int, int], None] | None = None,
) -> Collected:
    """Play what `out` lacks, then write the set.

    Args:
        rubric: what trajectories of tasks with a known answer are scored by; the world's by default.
        workers: how many episodes run at once.
        agent: one that is there already, instead of the one that `setup` describes; frames are copied into `out`.
        verifier: whom the filter `verified` asks; the model itself by default.
        on_episode: called with each new episode, how many are done, and how many there are.

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

        def note(trajectory: Trajectory) -> None:
            if agent is not None:
                copy_frames(trajectory, agent.store, store)
            logbook.add(trajectory)
            if on_episode is not None:
                on_episode(trajectory, len(jobs) - len(todo) + logbook.added, len(jobs))

        if todo and player is not None:
            logbook.note_tools(player.toolbox.specs)
            await play(player, todo, workers, note)
        if verifier is None and player is not None:
            verifier = EvidenceVerifier(policy=player.policy, profile=player.profile)
        score = scorer(rubric or world_rubric())
        return await _write_set(logbook, jobs, tuple(filters), score, verifier, workers)


def make_agent(setup: Setup, jobs: Sequence[Job], out: Path) -> VideoAgent:
    """The agent of a setup; its frames go to `out`/frames, its clip indexes where all others are."""
    from ...agent.video_agent import VideoAgent

    how = {"budget": setup.budget, "encoder": setup.encoder, "frames": out / "frames", "temperature": setup.temperature}
    if setup.model != ORACLE:
        return VideoAgent(setup.model, load=setup.load, **how)
    from ...agent.embedded import EMBEDDED_PROFILE, checkpoint_dir
    from ...agent.policies.loading import load_renderer

    renderer = load_renderer(str(setup.tokenizer or checkpoint_dir()))
    store = FrameStore(out / "frames")
    policy = OraclePolicy(renderer, store, {j.id: j.task for j in jobs}, setup.slips)
    tools = tools_of({j.task.kind for j in jobs})
    return VideoAgent(policy, profile=EMBEDDED_PROFILE, tools=tools, **how)


async def play(agent: VideoAgent, jobs: Sequence[Job], workers: int, note: Callable[[Trajectory], None]) -> None:
    """Play the jobs, at most `workers` at once, and `note` each as it ends.

    Raises:
        DataError: a film is not the one that its tasks were made for.
    """
    queue = iter(jobs)

    async def work() -> None:
        for job in queue:
            said = await agent.arun(job.task, seed=job.seed, run_id=job.id, group_id=job.task.id, manner=job.manner)
            _check_film(said)
            note(said)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(workers, len(jobs))):
                group.create_task(work())
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None


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
    sieve, maker, failed, twice = Sieve(filters), CardMaker(), 0, 0
    first_error: str | None = None
    groups = _groups(jobs)
    with logbook.writing_set() as write:
        for group in groups:
            played = [logbook.read(j.id, j.task) for j in group]
            whole = [t for t in played if t is not None and t.error is None]
            first_error = first_error or next((t.error for t in played if t is not None and t.error), None)
            failed += len(played) - len(whole)
            new = _unlike(whole)
            twice += len(whole) - len(new)
            for trajectory in map(score, sieve.sift(new, whole)):
                write(trajectory)
                maker.add(trajectory)
    total = len(jobs)
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
        whole = [t for t in (logbook.read(j.id, j.task) for j in group) if t is not None and t.error is None]
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
    """The group without those whose sampled tokens are those of an earlier one."""
    said = {tuple(t.completion.token_ids for t in trajectory.turns): trajectory for trajectory in reversed(group)}
    first = {t.id for t in said.values()}
    return [t for t in group if t.id in first]


def _check_film(trajectory: Trajectory) -> None:
    """Gold seconds belong to the content that they were made for: with another film they would count for nothing."""
    task = trajectory.task
    for frame, gold in zip(trajectory.frames[:1], task.evidence[:1], strict=False):
        if frame.video_id != gold.video_id:
            raise DataError(f"{task.video}: not the film that task {task.id} is about; make the world again in another folder")


def _weights(model: str) -> str | None:
    """sha256 over the weights of a local checkpoint; None for a model that is only a name."""
    from ...agent.embedded import EMBEDDED, checkpoint_dir

    folder = checkpoint_dir() if model == EMBEDDED else Path(model).expanduser()
    weights = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    digest = hashlib.sha256()
    for path in weights:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest() if weights else None
