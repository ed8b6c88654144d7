"""Figures of a step: what the rollouts of all processes did, as one flat dictionary of numbers.

    reward, reward/std, reward/PART      as the rubric gave them
    right                                share of right answers
    answered, stop/REASON                how episodes ended
    calls, calls/TOOL, calls_failed/TOOL a rollout; share of that tool's calls that came back as an error
    turns, frames, tokens/sampled, tokens/context, tokens/reused
    evidence                             share of the gold seconds that the tools looked at
    rollouts/sound, rollouts/failed, groups/kept, groups/without_signal, groups/refilled
    seconds/rollout, seconds/tools       wall time of rollouts and verdicts; sum over tool calls, which overlap

A `Tally` is what one process has: sums and counts only, so that those of several processes add up.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ...core.scoring import evidence_recall, is_right
from ...core.trajectory import Trajectory
from ..rollout import Group


@dataclass(slots=True)
class Tally:
    """Sums over rollouts, by name; `sums` are divided by the number of sound rollouts, `counts` stay counts."""

    sums: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)
    failed_calls: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    """Wall time of the rollouts: the longest of all processes."""

    def add_groups(self, groups: Iterable[Group]) -> None:
        for group in groups:
            self.counts["rollouts/failed"] += len(group.failures)
            for trajectory in group.trajectories:
                self._add(trajectory)

    def _add(self, t: Trajectory) -> None:
        assert t.reward is not None, "figures are of scored rollouts"
        usage = t.usage
        self.counts["rollouts/sound"] += 1
        self.sums.update(
            {
                "reward": t.reward,
                "reward/square": t.reward**2,
                "right": float(knows(t) and is_right(t.task, t.answer)),
                "answered": float(t.stop_reason.value == "answered"),
                f"stop/{t.stop_reason.value}": 1.0,
                "calls": usage.tool_calls,
                "turns": usage.turns,
                "frames": usage.frames,
                "tokens/sampled": sum(t.loss_mask),
                "tokens/context": len(t.token_ids),
                "tokens/reused": usage.reused_tokens,
                "evidence": evidence_recall(t.evidence_seen, t.task.evidence),
                "seconds/tools": sum(o.wall_s for o in t.observations),
            }
        )
        self.sums.update({f"reward/{name}": value for name, value in (t.reward_parts or {}).items()})
        for turn in t.turns:
            for call, seen in zip(turn.tool_calls, turn.observations, strict=False):
                self.calls[call.name] += 1
                self.failed_calls[call.name] += seen.error is not None

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            sums=_plus(self.sums, other.sums),
            counts=_plus(self.counts, other.counts),
            calls=_plus(self.calls, other.calls),
            failed_calls=_plus(self.failed_calls, other.failed_calls),
            seconds=max(self.seconds, other.seconds),
        )

    def figures(self) -> dict[str, float]:
        """See the module."""
        sound = self.counts["rollouts/sound"]
        out = {name: value / max(1, sound) for name, value in sorted(self.sums.items())}
        square, mean = out.pop("reward/square", 0.0), out.get("reward", 0.0)
        out["reward/std"] = math.sqrt(max(0.0, square - mean**2))
        if "seconds/tools" in out:
            out["seconds/tools"] = float(self.sums["seconds/tools"])
        for tool, count in sorted(self.calls.items()):
            out[f"calls/{tool}"] = count / max(1, sound)
            out[f"calls_failed/{tool}"] = self.failed_calls[tool] / count
        out |= {name: float(value) for name, value in sorted(self.counts.items())}
        out.setdefault("rollouts/sound", 0.0)
        out["seconds/rollout"] = self.seconds
        return out


def knows(trajectory: Trajectory) -> bool:
    """Is the answer to its task known?"""
    task = trajectory.task
    return bool(task.evidence) if task.kind == "when" else task.answer is not None


def _plus(a: Mapping[str, float], b: Mapping[str, float]) -> Counter[str]:
    # Counter's own + drops what is not positive, and a reward may be negative.
    total: Counter[str] = Counter(a)
    total.update(b)
    return total
