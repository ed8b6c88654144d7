"""Strategy: one interface for everything that turns a question and a budget into an answer.

A strategy is a frozen value: its fields are its parameters, and their types are what a spec string may say (`spec.py`).
Whoever writes one implements `solve`, which asks through a `Bench` and pays from a `Purse`; so any strategy can stand
inside any other. `run` is the same for all: it opens the purse, keeps the books, and turns failures into data.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar

from ...core.budget import Budget, Usage
from ...core.errors import PlayheadError
from ...core.nouns import Answer, StopReason, Task
from ...core.trajectory import Trajectory
from ..events import Decided
from .purse import SUMMED, Least, Purse

if TYPE_CHECKING:
    from ..video_agent import VideoAgent
    from .bench import Bench

UNKNOWN = Answer(text="unknown", confidence=0.0)
"""The answer where the budget does not even pay for one look."""


class StrategyError(PlayheadError):
    """A strategy that does not exist, or a parameter that makes no sense."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What `solve` gives. `why` says in a word or two why it stopped; `trajectory` is the episode whose answer it is."""

    answer: Answer
    why: str
    trajectory: Trajectory | None = None
    stop: StopReason = StopReason.ANSWERED


@dataclass(frozen=True, kw_only=True, slots=True)
class Scaled:
    """What `Strategy.run` gives. `usage` is the sum of what was really spent, its `wall_s` the time that passed.

    `stop_reason` is ANSWERED where the strategy came to its own end, else the limit that ended it, or ERROR (then `error` says
    why, and `answer` is the best so far, None where no run had come to one). `chosen` is the id of the trajectory that the
    answer was taken from.
    """

    strategy: str
    task: Task
    answer: Answer | None
    stop_reason: StopReason
    why: str
    usage: Usage
    budget: Budget
    trajectories: tuple[Trajectory, ...]
    trace: tuple[Decided, ...]
    chosen: str | None = None
    error: str | None = None
    seed: int = 0

    @property
    def trajectory(self) -> Trajectory | None:
        """The episode that the answer was taken from."""
        return next((t for t in self.trajectories if t.id == self.chosen), None)


class Strategy(ABC):
    """Base of all strategies; subclasses are frozen, keyword-only dataclasses."""

    name: ClassVar[str]
    help: ClassVar[str]
    """A line for `--help` and for docs."""

    @abstractmethod
    async def solve(self, bench: Bench, purse: Purse, seed: int) -> Outcome:
        """Answer `bench.task`, spending no more than `purse` has. Always comes to an answer, UNKNOWN at worst."""

    @property
    def uses_tools(self) -> bool:
        """Whether the clip index may be needed."""
        return any(s.uses_tools for s in self.parts)

    @property
    def runs(self) -> float:
        """About how many plain runs of the agent it costs at most: what its default budget is reckoned from."""
        return 1.0

    def least(self, bench: Bench) -> Least:
        """What it needs to be worth starting."""
        return {"frames": 1, "sampled_tokens": 16, "model_calls": 1}

    @property
    def parts(self) -> tuple[Strategy, ...]:
        """The strategies inside."""
        inside = (getattr(self, f.name) for f in fields(self))  # pyright: ignore[reportArgumentType]
        return tuple(v for v in inside if isinstance(v, Strategy))

    def default_budget(self, one: Budget) -> Budget:
        """What it may spend where nobody says: `one` run's budget as many times as it runs."""
        scaled: dict[str, Any] = {}
        for name in (*SUMMED, "wall_s"):
            limit = getattr(one, name)
            scaled[name] = None if limit is None else type(limit)(limit * max(1.0, self.runs))
        return replace(one, **scaled)

    async def run(
        self,
        agent: VideoAgent,
        task: Task,
        budget: Budget | None = None,
        seed: int | None = None,
        tell: Callable[[Decided], None] | None = None,
        *,
        concurrency: int | asyncio.Semaphore = 8,
        run_id: str | None = None,
    ) -> Scaled:
        """Answer the task. What fails (the file, a tool, the policy) is on the result.

        Args:
            budget: hard, for all that is done together; None for the one that the agent was given, or else `default_budget`.
                Building the clip index is not on it: that is kept, and serves every later question.
            tell: hears of every decision as it is taken.
            concurrency: so many episodes at most are under way at once; a semaphore bounds those of several runs together.
            run_id: the n-th episode or call, by when it was started, is then called `RUN_ID-n`; None for random names.
        """
        from .bench import Bench, Spent

        budget = budget or agent.given_budget or self.default_budget(agent.budget)
        seed = agent.seed if seed is None else seed
        try:
            bench = await Bench.open(agent, task, tell, concurrency, index=self.uses_tools, run_id=run_id)
        except PlayheadError as error:
            return self._failed(task, budget, seed, str(error))
        purse, error = Purse(budget), None
        try:
            outcome = await asyncio.wait_for(self.solve(bench, purse, seed), budget.wall_s)
        except Spent as spent:
            outcome = bench.anytime(spent.reason)
        except TimeoutError:  # an episode comes back in time by itself; this is for what did not
            outcome = bench.anytime(StopReason.TIMEOUT)
        except PlayheadError as failure:
            outcome, error = bench.anytime(StopReason.ERROR), str(failure)
        if outcome.stop is StopReason.ERROR and error is None and bench.errors:
            error = bench.errors[-1]
        if not bench.answered and (error or bench.errors):
            return self._failed(task, budget, seed, error or bench.errors[0], bench, purse)
        return Scaled(
            strategy=str(self),
            task=task,
            answer=outcome.answer,
            stop_reason=outcome.stop,
            why=outcome.why if error is None else "error",
            usage=purse.usage,
            budget=budget,
            trajectories=tuple(bench.trajectories),
            trace=tuple(bench.trace),
            chosen=outcome.trajectory.id if outcome.trajectory else None,
            error=error,
            seed=seed,
        )

    def _failed(
        self, task: Task, budget: Budget, seed: int, error: str, bench: Bench | None = None, purse: Purse | None = None
    ) -> Scaled:
        return Scaled(
            strategy=str(self),
            task=task,
            answer=None,
            stop_reason=StopReason.ERROR,
            why="error",
            usage=purse.usage if purse else Usage(),
            budget=budget,
            trajectories=tuple(bench.trajectories) if bench else (),
            trace=tuple(bench.trace) if bench else (),
            error=error,
            seed=seed,
        )

    def __str__(self) -> str:
        """The spec that makes this strategy again: `vote(tools,n=8)`."""
        said = []
        for f in fields(self):  # pyright: ignore[reportArgumentType]
            value = getattr(self, f.name)
            if isinstance(value, Strategy):
                said.append(str(value))
            elif value != _default(f) and isinstance(value, (int, float, str)):
                said.append(f"{f.name}={_number(value) if isinstance(value, float) else value}")
        return f"{self.name}({','.join(said)})" if said else self.name


def _number(value: float) -> str:
    """As short as reads back the same; what is absurdly long is cut."""
    try:
        short = f"{value:g}"
        text = short if float(short) == value else repr(value)
    except OverflowError:
        text = str(value)
    return text if len(text) <= 24 else f"{text[:20]}..."


def _default(f: Any) -> Any:
    return f.default if f.default is not MISSING else f.default_factory()


def check(what: Strategy, **ranges: tuple[float, float]) -> None:
    """Raises: StrategyError: a parameter outside its range, in one line."""
    for name, (low, high) in ranges.items():
        value = getattr(what, name)
        if not low <= value <= high:
            raise StrategyError(f"{what.name}: {name} must be between {low:g} and {high:g}; got {_number(value)}")
