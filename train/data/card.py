"""The data card of a set: what is in it, what it cost, whose it is, and what was left out.

    playhead data stats DIR            the card of any set, made from its trajectories
    DIR/card.json, DIR/card.md         written beside a collected set, with what each filter dropped

Figures are of the trajectories that are in the set. A source is what its tasks say (`Task.source`); its licence is what their
`meta` says under "licence", and "not stated" where they say nothing: nobody's licence is guessed.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from statistics import fmean, median

from ...core.budget import Usage
from ...core.codec import to_plain
from ...core.scoring import is_right
from ...core.trajectory import SCHEMA_VERSION, Trajectory
from .filters import Drop, is_known

LICENCES = {"world": "Apache-2.0 (films and questions are made by playhead)"}
NOT_STATED = "not stated"


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """Of one number over the trajectories."""

    mean: float = 0.0
    median: float = 0.0
    most: float = 0.0
    total: float = 0.0

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        if not values:
            return cls()
        return cls(mean=fmean(values), median=float(median(values)), most=float(max(values)), total=float(sum(values)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """See the module. Counters are ordered by count."""

    trajectories: int
    tasks: int
    videos: int
    exact: int
    """How many can be trained on as they are."""
    with_logprobs: int
    """How many carry the sampler's log-probs."""
    right: int
    known: int
    """How many tasks' answers are known; `right` is of those."""
    kinds: dict[str, int]
    models: dict[str, int]
    ends: dict[str, int]
    tools: dict[str, int]
    refused_calls: int
    sources: dict[str, int]
    licences: dict[str, str]
    lengths: dict[str, Spread]
    """tokens, trained (those in the loss mask), turns, frames."""
    costs: dict[str, Spread]
    """The fields of `Usage`."""
    rewards: dict[str, Spread]
    """Each part, and their sum; of the trajectories that are scored."""
    drops: tuple[Drop, ...] = ()
    schema_version: int = SCHEMA_VERSION

    def write(self, folder: Path) -> None:
        """card.json and card.md (beside, then renamed)."""
        texts = {"card.json": json.dumps(to_plain(self), indent=2) + "\n", "card.md": self.markdown()}
        for name, text in texts.items():
            beside = folder / f".{name}.{os.getpid()}.part"
            beside.write_text(text, encoding="utf-8")
            beside.replace(folder / name)

    def markdown(self) -> str:
        """The card for people."""
        share = f"{self.right} of {self.known} with a known answer are right" if self.known else "no answer is known"
        lines = [
            "# Data card",
            "",
            f"{self.trajectories} trajectories of {self.tasks} tasks about {self.videos} videos; {share}. {self.exact} are "
            f"token-exact, {self.with_logprobs} carry log-probs. Schema version {self.schema_version}.",
        ]
        lines += _table("Sources", ("source", "trajectories", "licence"), [
            (name, n, self.licences[name]) for name, n in self.sources.items()
        ])  # fmt: skip
        for title, counts in (("Models", self.models), ("Kinds", self.kinds), ("Ends", self.ends), ("Tools", self.tools)):
            lines += _table(title, (title.lower().rstrip("s"), "count"), list(counts.items()))
        if self.refused_calls:
            lines += ["", f"{self.refused_calls} calls were refused."]
        for title, spreads in (("Lengths", self.lengths), ("Costs", self.costs), ("Rewards", self.rewards)):
            rows = [(k, f"{s.mean:.2f}", f"{s.median:.2f}", f"{s.most:.2f}", f"{s.total:.0f}") for k, s in spreads.items()]
            lines += _table(title, ("", "mean", "median", "most", "total"), rows)
        rows = [(d.name, d.seen, d.dropped, d.seen - d.dropped) for d in self.drops]
        lines += _table("Left out", ("filter", "seen", "dropped", "kept"), rows)
        return "\n".join(lines) + "\n"


@dataclass(slots=True)
class CardMaker:
    """Collects a card, one trajectory at a time, without holding them."""

    count: int = 0
    exact: int = 0
    with_logprobs: int = 0
    right: int = 0
    known: int = 0
    refused: int = 0
    tasks: set[str] = field(default_factory=set)
    videos: set[str] = field(default_factory=set)
    counters: dict[str, Counter[str]] = field(default_factory=dict)
    numbers: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    licences: dict[str, str] = field(default_factory=dict)

    def add(self, trajectory: Trajectory) -> None:
        task, turns = trajectory.task, trajectory.turns
        self.count += 1
        self.exact += trajectory.exact and bool(turns)
        self.with_logprobs += any(t.completion.logprobs for t in turns)
        if is_known(task):
            self.known += 1
            self.right += is_right(task, trajectory.answer)
        self.refused += sum(o.error is not None for o in trajectory.observations)
        self.tasks.add(task.id)
        self.videos.add(next((f.video_id for f in trajectory.frames), task.video))
        self._tally("kinds", task.kind)
        self._tally("models", trajectory.model or "unnamed")
        self._tally("ends", trajectory.stop_reason.value)
        self._tally("sources", task.source)
        self.licences[task.source] = task.meta.get("licence") or LICENCES.get(task.source, NOT_STATED)
        for call in (c for t in turns for c in t.tool_calls):
            self._tally("tools", call.name)
        lengths = {"tokens": len(trajectory.token_ids), "trained": sum(trajectory.loss_mask)}
        self._note("lengths", {**lengths, "turns": len(turns), "frames": len(trajectory.frames)})
        self._note("costs", {f.name: getattr(trajectory.usage, f.name) for f in fields(Usage)})
        if trajectory.reward_parts is not None:
            self._note("rewards", {**trajectory.reward_parts, "sum": trajectory.reward or 0.0})

    def card(self, drops: Iterable[Drop] = ()) -> Card:
        counts = {name: dict(counter.most_common()) for name, counter in self.counters.items()}
        spreads = {name: {k: Spread.of(v) for k, v in many.items()} for name, many in self.numbers.items()}
        return Card(
            trajectories=self.count,
            tasks=len(self.tasks),
            videos=len(self.videos),
            exact=self.exact,
            with_logprobs=self.with_logprobs,
            right=self.right,
            known=self.known,
            kinds=counts.get("kinds", {}),
            models=counts.get("models", {}),
            ends=counts.get("ends", {}),
            tools=counts.get("tools", {}),
            refused_calls=self.refused,
            sources=counts.get("sources", {}),
            licences=dict(self.licences),
            lengths=spreads.get("lengths", {}),
            costs=spreads.get("costs", {}),
            rewards=spreads.get("rewards", {}),
            drops=tuple(drops),
        )

    def _tally(self, name: str, what: str) -> None:
        self.counters.setdefault(name, Counter())[what] += 1

    def _note(self, name: str, values: dict[str, float]) -> None:
        for key, value in values.items():
            self.numbers.setdefault(name, {}).setdefault(key, []).append(float(value))


def _table(title: str, heads: Sequence[object], rows: Sequence[Sequence[object]]) -> list[str]:
    """A markdown table under a heading; nothing without rows."""
    if not rows:
        return []
    lines = [[str(c).replace("|", "\\|") for c in row] for row in (heads, *rows)]
    head, *rest = ("| " + " | ".join(cells) + " |" for cells in lines)
    return ["", f"## {title}", "", head, "|" + " --- |" * len(heads), *rest]
