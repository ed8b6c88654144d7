"""Filters: which trajectories of a set are worth learning from, and how many each one dropped.

A filter is a pure function of a trajectory and of its group (all finished trajectories of the same task, as they were played,
before any filter). So filters compose in any order, and only the counts depend on it:

    sieve = Sieve(parse_filters("correct,grounded,difficulty"))
    kept = sieve.sift(group)                    # once for each task
    sieve.drops                                 # (name, seen, dropped) of each filter

    correct[=IOU]        the answer is right; intervals from this IoU on (0.5)
    grounded[=SHARE]     this share (1) of the gold moments was looked at, and so was all that the answer cites
    format               every turn could be read, no call was refused, and the model itself ended it
    budget[=LIMITS]      no limit cut it; LIMITS such as frames:32+turns:4 are on top
    agreement[=SHARE]    more than this share (0.5) of its group gives the same answer (for tasks without a known one)
    difficulty[=LO-HI]   the group's pass rate is in the range; without one, neither 0 nor 1
    verified             asked again with only what was retrieved, a policy gives the same answer (see `verifier`)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ...core.budget import Budget, Usage
from ...core.clip import Clip
from ...core.errors import DataError
from ...core.nouns import Answer, StopReason, Task
from ...core.scoring import is_right, normalise, parse_spans, temporal_iou
from ...core.trajectory import Trajectory


class Filter(Protocol):
    @property
    def name(self) -> str: ...

    def __call__(self, trajectory: Trajectory, group: Sequence[Trajectory]) -> bool:
        """Keep it? `group` are all finished trajectories of its task, itself among them."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Drop:
    """What one filter did."""

    name: str
    seen: int = 0
    dropped: int = 0


@dataclass(slots=True)
class Sieve:
    """Filters in a row, with their counts over all groups so far."""

    filters: tuple[Filter, ...]
    _seen: list[int] = field(init=False)
    _dropped: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self._seen, self._dropped = [0] * len(self.filters), [0] * len(self.filters)

    def sift(self, candidates: Sequence[Trajectory], group: Sequence[Trajectory] | None = None) -> list[Trajectory]:
        """Those of `candidates` that every filter keeps; `group` is the whole group where they are only a part of it."""
        kept, group = list(candidates), candidates if group is None else group
        for i, keeps in enumerate(self.filters):
            before = len(kept)
            kept = [t for t in kept if keeps(t, group)]
            self._seen[i] += before
            self._dropped[i] += before - len(kept)
        return kept

    @property
    def drops(self) -> tuple[Drop, ...]:
        counts = zip(self.filters, self._seen, self._dropped, strict=True)
        return tuple(Drop(name=f.name, seen=seen, dropped=dropped) for f, seen, dropped in counts)


def is_known(task: Task) -> bool:
    """Is there a truth to hold an answer against?"""
    return bool(task.evidence) if task.kind == "when" else task.answer is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class Correct:
    """The answer is right. A task whose answer nobody knows is an error: it would drop out without a word."""

    iou: float = 0.5

    @property
    def name(self) -> str:
        return "correct"

    def __call__(self, trajectory: Trajectory, group: Sequence[Trajectory]) -> bool:
        if not is_known(trajectory.task):
            name = trajectory.task.id
            raise DataError(f"task {name} has no known answer: keep `agreement` or `verified` instead of `correct`")
        return is_right(trajectory.task, trajectory.answer, self.iou)


@dataclass(frozen=True, kw_only=True, slots=True)
class Grounded:
    """The tools really looked there (the environment's log says so, no text counts): at a share of the gold moments, and at
    everything that the answer cites. Without gold, what is cited has to exist."""

    share: float = 1.0

    @property
    def name(self) -> str:
        return "grounded"

    def __call__(self, trajectory: Trajectory, group: Sequence[Trajectory]) -> bool:
        gold, seen = trajectory.task.evidence, trajectory.evidence_seen
        cited = trajectory.answer.evidence if trajectory.answer else ()
        if not gold and not cited:
            return False
        looked = sum(_touched(g, seen) for g in gold) >= self.share * len(gold)
        return looked and all(_touched(c, seen) for c in cited)


def _touched(clip: Clip, seen: Sequence[Clip]) -> bool:
    return any(clip.overlap_s(s) > 0 for s in seen)


@dataclass(frozen=True, kw_only=True, slots=True)
class WellFormed:
    """Every turn before the last called tools, every call was accepted, and the model itself ended it with an answer."""

    @property
    def name(self) -> str:
        return "format"

    def __call__(self, trajectory: Trajectory, group: Sequence[Trajectory]) -> bool:
        if trajectory.stop_reason is not StopReason.ANSWERED:
            return False
        called = all(turn.tool_calls for turn in trajectory.turns[:-1])
        return called and all(o.error is None for o in trajectory.observations)


@dataclass(frozen=True, kw_only=True, slots=True)
class WithinBudget:
    """No limit cut it short, and it spent at most `budget` (None there: no limit)."""

    budget: Budget

    @property
    def name(self) -> str:
        return "budget"

    def __call__(self, trajectory: Trajectory, group: Sequence[Trajectory]) -> bool:
        if trajectory.stop_reason.is_truncated:
            return False
        spent, limits = trajectory.usage, self.budget
        names = [n for n in Budget.__dataclass_fields__ if hasattr(spent, n)]
        return all(limit is None or getattr(spent, n) <= limit for n in names for limit in [getattr(limits, n)])


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """More than a share of the group gives the same answer."""

    share: float = 0.5

    @property
    def name(self) -> str:
        return "agreement"

    def __call__(self, trajectory: Trajectory, group: Sequence[Trajectory]) -> bool:
        same = sum(same_answer(trajectory.task, trajectory.answer, other.answer) for other in group)
        return same > self.share * len(group)


def same_answer(task: Task, one: Answer | None, other: Answer | None) -> bool:
    """Do two answers to a task say the same? Intervals do from an IoU of 0.5 on; no answer is like no other."""
    if one is None or other is None:
        return False
    if task.kind == "when":
        return temporal_iou(parse_spans(one.text, ""), parse_spans(other.text, "")) >= 0.5
    if task.choices and one.choice is not None and other.choice is not None:
        return one.choice == other.choice
    return normalise(one.text) == normalise(other.text)


@dataclass(frozen=True, kw_only=True, slots=True)
class Difficulty:
    """The share of the group that is right lies in [low, high]; by default neither always nor never right."""

    low: float | None = None
    high: float | None = None

    @property
    def name(self) -> str:
        return "difficulty"

    def __call__(self, trajectory: Trajectory, group: Sequence[Trajectory]) -> bool:
        if not is_known(trajectory.task):
            raise DataError(f"task {trajectory.task.id} has no known answer, so its difficulty is not known either")
        rate = sum(is_right(t.task, t.answer) for t in group) / max(1, len(group))
        above = rate > 0 if self.low is None else rate >= self.low
        return above and (rate < 1 if self.high is None else rate <= self.high)


@dataclass(frozen=True, kw_only=True, slots=True)
class Verified:
    """A verifier gave the same answer. `verdicts` are those that were asked for before, by trajectory id; none is no."""

    verdicts: Mapping[str, bool] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return "verified"

    def __call__(self, trajectory: Trajectory, group: Sequence[Trajectory]) -> bool:
        return self.verdicts.get(trajectory.id, False)


def parse_filters(text: str | None) -> tuple[Filter, ...]:
    """`correct,grounded=0.5,difficulty=0.1-0.9` as filters, in that order.

    Raises:
        DataError: an unknown name, the same one twice, or a value that makes no sense; the message lists the names.
    """
    filters: list[Filter] = []
    for part in filter(None, (p.strip() for p in (text or "").split(","))):
        name, _, value = (p.strip() for p in part.partition("="))
        make = _FILTERS.get(name)
        if make is None:
            raise DataError(f"no filter is called {name!r}; there are {', '.join(_FILTERS)}")
        try:
            filters.append(make(value))
        except (ValueError, TypeError) as error:
            raise DataError(f"filter {part!r}: {error}") from None
    names = [f.name for f in filters]
    if len(set(names)) < len(names):
        raise DataError(f"each filter once; got {', '.join(names)}")
    return tuple(filters)


def _share(value: str, default: float) -> float:
    share = float(value) if value else default
    if not 0 <= share <= 1:
        raise ValueError(f"a share is in 0 to 1; got {value}")
    return share


def _none(value: str) -> None:
    if value:
        raise ValueError("it takes no value")


def _plain(make: Callable[[], Filter]) -> Callable[[str], Filter]:
    def build(value: str) -> Filter:
        _none(value)
        return make()

    return build


def _budget(value: str) -> WithinBudget:
    limits: dict[str, float | int | None] = dict.fromkeys(Budget.__dataclass_fields__)
    for part in filter(None, value.split("+")):
        name, _, number = part.partition(":")
        if name not in limits or name not in Usage.__dataclass_fields__:
            raise ValueError(f"no limit is called {name!r}; there are {', '.join(limits)}")
        limits[name] = float(number) if name == "wall_s" else int(number)
    return WithinBudget(budget=Budget(**limits))  # pyright: ignore[reportArgumentType]


def _difficulty(value: str) -> Difficulty:
    if not value:
        return Difficulty()
    low, dash, high = value.partition("-")
    if not dash:
        raise ValueError("write LOW-HIGH, such as 0.1-0.9")
    return Difficulty(low=_share(low, 0.0), high=_share(high, 1.0))


_FILTERS: dict[str, Callable[[str], Filter]] = {
    "correct": lambda value: Correct(iou=_share(value, 0.5)),
    "grounded": lambda value: Grounded(share=_share(value, 1.0)),
    "format": _plain(WellFormed),
    "budget": _budget,
    "agreement": lambda value: Agreement(share=_share(value, 0.5)),
    "difficulty": _difficulty,
    "verified": _plain(Verified),
}
