"""Jobs: who plays which tasks, and how. A job is one run of a strategy on one task.

    Setup(model="embedded", strategy="vote(tools,n=4)", n=2)      each task is asked twice, by four runs or fewer each time

A strategy is anything that `agent/scaling/spec.py` can read; "tools", the agent as it is, is the plainest.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ...agent.scaling.passes import Direct
from ...agent.scaling.spec import parse_strategy
from ...agent.scaling.strategy import Strategy
from ...core.budget import Budget
from ...core.codec import to_plain
from ...core.errors import DataError
from ...core.nouns import Task
from .oracle_policy import ORACLE

if TYPE_CHECKING:
    from ...agent.policies.loading import LoadOptions

MIXED_FRAMES = (8, 8, 8, 32, 64)
"""How many frames an episode without tools sees, where a share of them is mixed in."""

Limits = Mapping[str, int | float | None]
"""Fields of `Budget` that are set. What is not named is as much as the strategy needs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Setup:
    """Who plays, and how.

    Raises:
        StrategyError: there is no such strategy, or it has no such parameter.
        DataError: values that make no sense together.
        ModelError: an address that cannot be one.
    """

    model: str = "embedded"
    """As `VideoAgent` takes it, or "oracle"."""
    strategy: str = "tools"
    frames: int | None = None
    """With "direct", which is then short for "direct(frames=N)"."""
    direct_share: float = 0.0
    """Share of the tasks that are asked without tools whatever the strategy, with 8, 32 or 64 frames."""
    n: int = 1
    """Runs of the strategy on each task."""
    seed: int = 0
    temperature: float = 0.0
    limits: Limits = field(default_factory=dict)
    """Of all that one run of the strategy does."""
    encoder: str = "embedded"
    load: LoadOptions | None = None
    slips: float = 0.0
    """How often the oracle looks at a wrong hit first."""
    checks: int = 0
    """How many wrong hits the oracle looks at closely all the same, at most."""
    tokenizer: Path | None = None
    """The checkpoint whose tokens the oracle speaks; None for the embedded model's."""

    def __post_init__(self) -> None:
        if self.frames is not None and (self.strategy != "direct" or self.frames < 1):
            raise DataError(f"--frames belongs to --strategy direct, and must be at least 1; got {self.frames} frames")
        _ = self.plan  # an unknown strategy is refused at once
        if self.n < 1:
            raise DataError(f"--n must be at least 1; got {self.n}")
        if not (0 <= self.direct_share <= 1 and 0 <= self.slips <= 1):
            raise DataError(f"a share is in 0 to 1; got {self.direct_share} and {self.slips}")
        if self.checks < 0:
            raise DataError(f"--checks must be at least 0; got {self.checks}")
        if (self.slips or self.checks) and self.model != ORACLE:
            raise DataError("--slips and --checks are about the oracle's habits; other models have their own")
        try:
            replace(Budget(), **self.limits)
        except ValueError as error:
            raise DataError(f"--budget: {error}") from None
        if "://" in self.model:  # before a manifest keeps what it should not
            from ...agent.policies.openai.server import split_url

            split_url(self.model)

    @property
    def plan(self) -> Strategy:
        """The strategy itself."""
        return parse_strategy(self.strategy) if self.frames is None else Direct(frames=self.frames)

    @property
    def identity(self) -> dict[str, object]:
        """What may not change between two parts of one run. More tasks or a larger `n` add to it."""
        names = ("model", "direct_share", "seed", "temperature", "encoder", "slips")
        identity: dict[str, object] = {name: getattr(self, name) for name in names}
        if self.checks:  # no key at its default: sets begun before there was such a habit go on
            identity["checks"] = self.checks
        identity["strategy"] = str(self.plan)
        identity["budget"] = dict(self.limits) or None
        identity["load"] = None if self.load is None else {k: str(v) for k, v in to_plain(self.load).items()}
        identity["weights_sha256"] = _weights(self.model)
        return identity


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One run to play."""

    id: str
    task: Task
    seed: int
    strategy: Strategy


def jobs_of(tasks: Sequence[Task], setup: Setup) -> list[Job]:
    """`n` runs on every task, in order; each is called TASK.NUMBER."""
    plan, jobs = setup.plan, []
    for task in tasks:
        how = _direct(setup, task) or plan
        jobs += [Job(id=f"{task.id}.{i}", task=task, seed=setup.seed + i, strategy=how) for i in range(setup.n)]
    return jobs


def _direct(setup: Setup, task: Task) -> Direct | None:
    """How a task is asked that is one of the share without tools; a task is one of them or not in every set."""
    rng = random.Random(f"collect-{task.id}")
    return Direct(frames=rng.choice(MIXED_FRAMES)) if rng.random() < setup.direct_share else None


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
