"""Preference pairs from groups of trajectories of one task, and why each is one.

    right over wrong       the chosen one is right and ended by itself, the rejected one is wrong
    grounded over lucky    both are right; only the chosen one looked where the answer lies, and at all that it cites
    cheap over dear        both are right and grounded; the chosen one took clearly fewer frames, and no more turns

Both of a pair are token-exact episodes of the same task, and differ in what was sampled. Within a reason an episode
stands in one pair at most, so a group with one lucky winner does not become eight copies of it. Groups are read from the
folders that `playhead collect` writes: from `episodes.jsonl` (everything that was played, failures too) where it is, for
a set that was filtered has lost its bad examples.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from ..core.errors import DataError
from ..core.nouns import StopReason
from ..core.scoring import is_right
from ..core.trajectory import OnBad, Trajectory, read_each
from .data.filters import Grounded, is_known

PLAYED, KEPT = "episodes.jsonl", "trajectories.jsonl"


class Reason(str, Enum):
    """Why one is preferred; the value is what the command line takes."""

    RIGHT = "right"
    GROUNDED = "grounded"
    CHEAP = "cheap"

    @property
    def says(self) -> str:
        return {"right": "right over wrong", "grounded": "grounded over lucky", "cheap": "cheap over dear"}[self.value]


@dataclass(frozen=True, kw_only=True, slots=True)
class PairRules:
    """Which pairs to make.

    Raises:
        ValueError: no reason, a limit below 1, or a ratio outside (0, 1).
    """

    reasons: tuple[Reason, ...] = (Reason.RIGHT, Reason.GROUNDED, Reason.CHEAP)
    per_reason: int = 2
    """Pairs of one group for one reason."""
    cheap_ratio: float = 0.75
    """The cheap one shows at most this share of the dear one's frames."""

    def __post_init__(self) -> None:
        if not self.reasons or self.per_reason < 1 or not 0 < self.cheap_ratio < 1:
            raise ValueError(
                f"pairs need a reason, at least one a group and a ratio in (0, 1); got {len(self.reasons)} reasons, "
                f"{self.per_reason} and {self.cheap_ratio}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """Two episodes of one task."""

    chosen: Trajectory
    rejected: Trajectory
    reason: Reason

    @property
    def id(self) -> str:
        return f"{self.chosen.id}>{self.rejected.id}"


@dataclass(kw_only=True, slots=True)
class Pairs:
    """Pairs, and the counts of what they were made from."""

    pairs: list[Pair] = field(default_factory=list)
    groups: int = 0
    without: int = 0
    """Groups that gave no pair."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Episodes that could not be half of a pair, by what is wrong with them."""

    @property
    def by_reason(self) -> dict[str, int]:
        counts = Counter(pair.reason for pair in self.pairs)
        return {reason.says: counts[reason] for reason in Reason}

    def plain(self) -> dict[str, object]:
        """The counts, for people and JSON."""
        return {
            "pairs": len(self.pairs), "by_reason": self.by_reason, "groups": self.groups,
            "groups_without_a_pair": self.without, "left_out": dict(self.left_out),
        }  # fmt: skip


def make_pairs(groups: Iterable[Sequence[Trajectory]], rules: PairRules | None = None) -> Pairs:
    """The pairs of all groups, in order.

    Raises:
        DataError: a group of several tasks, or of a task whose answer nobody knows.
    """
    rules, made = rules or PairRules(), Pairs()
    for group in groups:
        made.groups += 1
        usable = _usable(group, made.left_out)
        found = list(_pairs_of(usable, rules)) if len(usable) > 1 else []
        made.pairs += found
        made.without += not found
    return made


def read_groups(
    folders: Sequence[Path],
    *,
    check: Callable[[Trajectory, str], object] | None = None,
    on_bad: OnBad | None = None,
) -> Iterator[list[Trajectory]]:
    """The episodes of each task, over all folders; of two with one id in one folder the later one counts.

    Args:
        check: what is asked of each episode that could be half of a pair, with the file and line where it stands; raises
            where it is bad (those that are left out anyway may lack tokens and frames, and are not asked).
        on_bad: told of every bad record, which is then skipped; None to raise at the first.

    Raises:
        DataError: a folder without trajectories, or a bad record, by file and line.
    """

    def checked(trajectory: Trajectory, where: str) -> Trajectory:
        if check is not None and unusable(trajectory) is None:
            check(trajectory, where)
        return trajectory

    groups: dict[str, list[Trajectory]] = {}
    for folder in folders:
        latest = {t.id: t for t in read_each(episodes_file(folder), checked, on_bad)}
        for trajectory in latest.values():
            groups.setdefault(trajectory.task.id, []).append(trajectory)
    yield from groups.values()


def episodes_file(folder: Path) -> Path:
    """What was played, or else the set; a file is itself.

    Raises:
        DataError: neither is there.
    """
    found = [path for path in (folder / PLAYED, folder / KEPT, folder) if path.is_file()]
    if not found:
        raise DataError(f"{folder}: no trajectories there; `playhead collect --n 4` makes groups of them")
    return found[0]


def unusable(trajectory: Trajectory) -> str | None:
    """Why an episode can be no half of a pair; None where it can."""
    if trajectory.error is not None or trajectory.stop_reason.is_error:
        return "failed"
    if not trajectory.exact:
        return "not token-exact"
    return None if any(trajectory.loss_mask) else "nothing sampled"


def is_lucky(trajectory: Trajectory) -> bool:
    """Did it not look where the answer lies, or cite what it never saw?"""
    return not Grounded()(trajectory, (trajectory,))


def _usable(group: Sequence[Trajectory], left_out: Counter[str]) -> list[Trajectory]:
    """Those that can be trained on, each string of sampled tokens once."""
    tasks = {t.task.id: t.task for t in group}
    if len(tasks) > 1:
        raise DataError(f"a group of several tasks ({', '.join(sorted(tasks)[:3])}): pairs are of one")
    for task in tasks.values():
        if not is_known(task):
            raise DataError(f"task {task.id} has no known answer, so nobody can say which of its episodes is better")
    usable: dict[tuple[tuple[int, ...], ...], Trajectory] = {}
    for t in group:
        said, wrong = tuple(turn.completion.token_ids for turn in t.turns), unusable(t)
        if wrong is not None:
            left_out[wrong] += 1
        elif said in usable:
            left_out["said the same as another"] += 1
        else:
            usable[said] = t
    return list(usable.values())


def _pairs_of(group: Sequence[Trajectory], rules: PairRules) -> Iterator[Pair]:
    right = [t for t in group if is_right(t.task, t.answer) and t.stop_reason is StopReason.ANSWERED]
    wrong = [t for t in group if not is_right(t.task, t.answer)]
    good = sorted((t for t in right if not is_lucky(t)), key=_cost)
    lucky = sorted((t for t in right if is_lucky(t)), key=_cost)
    for reason in rules.reasons:
        if reason is Reason.RIGHT:
            found = list(zip([*good, *lucky], wrong, strict=False))
        elif reason is Reason.GROUNDED:
            found = list(zip(good, lucky, strict=False)) if good and good[0].task.evidence else []
        else:
            found = _cheap_over_dear(good, rules.cheap_ratio)
        for chosen, rejected in found[: rules.per_reason]:
            yield Pair(chosen=chosen, rejected=rejected, reason=reason)


def _cheap_over_dear(good: Sequence[Trajectory], ratio: float) -> list[tuple[Trajectory, Trajectory]]:
    """The cheapest with the dearest, and so on inwards, as long as the difference is clear."""
    found = []
    for cheap, dear in zip(good[: len(good) // 2], reversed(good), strict=False):
        if cheap.usage.frames <= ratio * dear.usage.frames and cheap.usage.turns <= dear.usage.turns:
            found.append((cheap, dear))
    return found


def _cost(trajectory: Trajectory) -> tuple[int, int, int]:
    usage = trajectory.usage
    return usage.frames, usage.turns, usage.sampled_tokens
