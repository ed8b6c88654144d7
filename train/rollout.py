"""Rollouts: groups of episodes by our agent, each a different draw of the same question.

    groups = await rollout_groups(agent, tasks, group_size=8, seed=step)

All episodes run at once on one event loop. Their requests meet in the engine, so the prompt of a group is computed
once, and while one episode waits for a tool the others sample.

Invariants:
- a rollout's random numbers follow from (seed, task, number) alone, so a run that is repeated or resumed plays the
  same ones;
- every rollout ends, in a trajectory or in a `Failure`: what raises, hangs or is not token-exact is left out of its
  group, and counted; nothing of it reaches its neighbours;
- a policy that cannot say which tokens it sampled is refused before anything runs.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..agent.manner import Manner
from ..agent.video_agent import VideoAgent
from ..core.errors import ModelError
from ..core.nouns import Task
from ..core.policy import Policy
from ..core.trajectory import Trajectory

AT_ONCE = 64
"""Episodes under way at once: the engine takes as many sequences."""
LIMIT_S = 600.0
"""Seconds after which a rollout counts as hung, where nobody says otherwise."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """A rollout that gave nothing to learn from."""

    rollout_id: str
    task_id: str
    error: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """The rollouts of one task."""

    task: Task
    trajectories: tuple[Trajectory, ...]
    """The sound ones, in the order of their numbers."""
    failures: tuple[Failure, ...] = ()


def check_exact(policy: Policy) -> None:
    """Raises: ModelError: the policy's trajectories cannot be trained on; it is named."""
    if not policy.exact:
        raise ModelError(
            f"{policy.name}: this policy does not return the tokens and log-probs that it sampled, so reinforcement learning "
            "cannot use it; load the checkpoint in this process, or ask a server that returns its tokens"
        )


def rollout_seed(seed: int, task_id: str, number: int) -> int:
    """31 bits that are the same wherever the same rollout is played, and unlike those of any other."""
    digest = hashlib.blake2b(f"{seed}\0{task_id}\0{number}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little") >> 1


async def rollout_groups(
    agent: VideoAgent,
    tasks: Sequence[Task],
    group_size: int,
    *,
    seed: int,
    limit_s: float = LIMIT_S,
    at_once: int = AT_ONCE,
    manner: Manner | None = None,
) -> list[Group]:
    """`group_size` episodes of every task, one group a task, in their order.

    Args:
        agent: samples at its own temperature; its policy is exact.
        seed: of this round of rollouts.
        limit_s: seconds that one rollout may take from its start; what takes longer is a failure.
        at_once: rollouts under way at once; those of a group start together.
        manner: in which these rollouts differ from the agent's usual ones (shuffled frames, no tools): to be compared with, not
            trained on.

    Raises:
        ModelError: the policy is not exact.
        ValueError: an empty group or a limit that is not positive.
    """
    check_exact(agent.policy)
    if group_size < 1 or at_once < 1 or not limit_s > 0:
        raise ValueError(
            f"group_size and at_once must be 1 or more, limit_s positive; got {group_size}, {at_once}, {limit_s}"
        )
    places = asyncio.Semaphore(at_once)
    how: dict[str, Any] = {} if manner is None else {"manner": manner}

    async def one(task: Task, number: int) -> Trajectory | Failure:
        async with places:
            return await _play(agent, task, seed, number, limit_s, how)

    played = await asyncio.gather(*(one(task, number) for task in tasks for number in range(group_size)))
    return [_group(task, played[i * group_size : (i + 1) * group_size]) for i, task in enumerate(tasks)]


async def _play(
    agent: VideoAgent, task: Task, seed: int, number: int, limit_s: float, how: dict[str, Any]
) -> Trajectory | Failure:
    own = rollout_seed(seed, task.id, number)
    rollout_id = f"{task.id}-{number}-{own:08x}"

    def failed(error: str) -> Failure:
        return Failure(rollout_id=rollout_id, task_id=task.id, error=error)

    try:
        done = await asyncio.wait_for(
            agent.arun(task, seed=own, run_id=rollout_id, group_id=f"{task.id}-{seed}", **how), limit_s
        )
    except TimeoutError:
        return failed(f"no end after {limit_s:.0f} s")
    except Exception as error:  # one rollout's failure, whatever it is, is not the run's
        return failed(f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}")
    if done.error is not None:
        return failed(done.error)
    if not done.exact:
        return failed("its tokens are not known to be those that were sampled")
    if not any(done.loss_mask):
        return failed("nothing was sampled in it")
    return done


def _group(task: Task, played: Sequence[Trajectory | Failure]) -> Group:
    return Group(
        task=task,
        trajectories=tuple(p for p in played if isinstance(p, Trajectory)),
        failures=tuple(p for p in played if isinstance(p, Failure)),
    )
