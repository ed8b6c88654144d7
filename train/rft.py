"""Rejection-sampling fine-tuning: a model plays, what verifies is kept, it learns from that; and again, with the better one.

    playhead train rft --data TASKS --init CHECKPOINT --out DIR --rounds 2 --n 4

    DIR/rft.json             what was asked for
    DIR/round-1/set/         every episode of the model, and the set that was kept of them (`collect`), with its card
    DIR/round-1/sft/         the supervised run on it (`sft`); its checkpoint plays round 2
    DIR/round-1/done.json    what the round came to; written last
    DIR/checkpoint           a link to the last round's checkpoint

Every part goes on where it was stopped: the same command plays only the episodes that are missing, trains on from the last
saved state, and skips rounds that are done. What is kept is decided by filters (`filters`) and by `Cheapest`: of the good
episodes of a task the cheapest few, so that the model learns its own shortest ways and an easy task does not fill the set.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..core.codec import to_plain
from ..core.errors import DataError
from ..core.nouns import Task
from ..core.scoring import is_right
from ..core.tasks import read_tasks
from ..core.trajectory import Trajectory
from ..core.whole import write_json
from .data.collect import Setup, collect
from .data.filters import Filter, Verified, is_known, parse_filters
from .recipes import recipe
from .sft_run import SFTRun

SEEDS_A_ROUND = 1000
"""Episode i of round r has the run's seed plus this times r, plus i: no two rounds sample the same."""
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Cheapest:
    """A filter: of the episodes of a task that other filters keep, the `k` cheapest by frames, then turns, then sampled tokens.

    Episodes that said the same count once. (A verifier's verdicts come later and are not asked here.)
    """

    k: int
    among: tuple[Filter, ...] = ()

    @property
    def name(self) -> str:
        return "cheapest"

    def __call__(self, trajectory: Trajectory, group: Sequence[Trajectory]) -> bool:
        good = [t for t in group if all(keeps(t, group) for keeps in self.among if not isinstance(keeps, Verified))]
        unlike = {tuple(turn.completion.token_ids for turn in t.turns): t for t in reversed(good)}
        ranked = sorted(unlike.values(), key=lambda t: (t.usage.frames, t.usage.turns, t.usage.sampled_tokens, t.id))
        return trajectory.id in [t.id for t in ranked[: self.k]]


@dataclass(frozen=True, kw_only=True, slots=True)
class RFTRun:
    """Rounds of playing and learning.

    Raises:
        ValueError: a count below 1, a temperature that samples nothing new, or a scale that is not positive.
    """

    tasks: Path
    """A task file, or a folder with one."""
    init: str
    """Checkpoint folder that plays the first round."""
    out: Path
    rounds: int = 2
    n: int = 4
    """Episodes of each task in each round."""
    temperature: float = 1.0
    keep: str = "correct,grounded,format"
    """Filters, as `playhead collect --keep` takes them."""
    cheapest: int | None = 2
    """At most so many of a task, the cheapest; None for all that the filters keep."""
    recipe: str = "embedded_cpu"
    rate_scale: float = 0.2
    """Of the recipe's learning rates: it starts from a model that is trained already."""
    steps: int | None = None
    passes: float | None = 2.0
    """Over the kept set, in place of the recipe's own; `steps` instead of either."""
    anchor: tuple[Path, ...] = ()
    """More sets that every round learns from too, so that what was known is not forgotten."""
    from_init: bool = False
    """Every round learns from `init` on, in place of the model that played it (as STaR does)."""
    skip_bad: bool = False
    """Leave bad records out of what is learned from and count them; else the first one ends the run."""
    limit: int | None = None
    workers: int = 8
    seed: int = 0
    encoder: str = "embedded"
    changes: dict[str, Any] = field(default_factory=dict)
    """Further fields of the `SFTRun`."""

    def __post_init__(self) -> None:
        if min(self.rounds, self.n, self.workers, self.cheapest or 1, self.steps or 1) < 1:
            raise ValueError("rounds, n, workers, cheapest and steps must be at least 1")
        if self.temperature <= 0 or self.rate_scale <= 0 or (self.passes is not None and self.passes <= 0):
            raise ValueError(
                "temperature, rate_scale and passes must be positive: at temperature 0 every episode is the same"
            )

    def folder(self, number: int) -> Path:
        return self.out / f"round-{number}"

    def filters(self) -> tuple[Filter, ...]:
        """Raises: DataError: a filter of an unknown name."""
        found = parse_filters(self.keep)
        return found if self.cheapest is None else (*found, Cheapest(k=self.cheapest, among=found))


def train_rft(run: RFTRun, say: Say = lambda _: None) -> dict[str, Any]:
    """Carry out all rounds that are not done; what each came to, and where the result is.

    Args:
        say: gets a line for each stage.

    Raises:
        DataError: bad tasks, `out` holds another run, or a round in which nothing was kept.
        ModelError: a model cannot be had.
    """
    _claim(run)
    filters, tasks = run.filters(), read_tasks(run.tasks)[: run.limit]
    model, done = run.init, []
    for number in range(1, run.rounds + 1):
        ended = run.folder(number) / "done.json"
        if ended.is_file():
            told = json.loads(ended.read_text(encoding="utf-8"))
            say(f"round {number}: done before ({told['kept']} kept)")
        else:
            told = _round(run, number, model, tasks, filters, say)
            write_json(ended, told)
        done.append(told)
        model = str(run.folder(number) / told["checkpoint"])
    _link(run.out / "checkpoint", Path(model))
    return {"rounds": done, "checkpoint": model}


def _check_anchor(run: RFTRun) -> None:
    """Sets of others are read before anything is played: a bad record in them should not cost a round.

    Raises: DataError: a bad record, or no good one.
    """
    if run.anchor:
        from ..agent.policies.loading import load_renderer
        from .episodes import read_episodes

        read_episodes(run.anchor, load_renderer(run.init), skip_bad=run.skip_bad)


def _round(
    run: RFTRun, number: int, model: str, tasks: Sequence[Task], filters: Sequence[Filter], say: Say
) -> dict[str, Any]:
    folder = run.folder(number)
    _check_anchor(run)
    say(f"round {number}: {len(tasks)} tasks, {run.n} episodes each, played by {model}")
    setup = Setup(
        model=model,
        n=run.n,
        seed=run.seed + SEEDS_A_ROUND * number,
        temperature=run.temperature,
        encoder=run.encoder,
    )
    made = asyncio.run(collect(tasks, folder / "set", setup, filters=filters, workers=run.workers))
    drops = {drop.name: drop.dropped for drop in made.drops}
    said = ", ".join(f"{n} {name}" for name, n in drops.items() if n) or "none"
    say(f"round {number}: {made.kept} episodes kept; dropped: {said}")
    if not made.kept:
        raise DataError(
            f"{folder / 'set'}: of {len(tasks) * run.n} episodes none was kept, so there is nothing to learn from; keep less "
            f"strictly, or play more of each task (--n)"
        )
    right, played = _pass_rate(run, number)
    sft = sft_run(run, number, model)
    from .sft import train_sft

    measured = train_sft(sft)
    say(f"round {number}: trained; {sft.checkpoint_dir}")
    return {
        "round": number, "played": played, "right": right, "kept": made.kept, "dropped": drops,
        "measured": measured, "checkpoint": str(sft.checkpoint_dir.relative_to(folder)),
    }  # fmt: skip


def sft_run(run: RFTRun, number: int, model: str) -> SFTRun:
    """The supervised run of a round whose episodes `model` played: the recipe, at a lower rate, over the kept set.

    Raises: ValueError: no recipe of that name.
    """
    folder = run.folder(number)
    base: SFTRun = recipe(run.recipe)(
        init=run.init if run.from_init else model, data=(folder / "set", *run.anchor), out=folder / "sft"
    )
    trainer = dict(base.trainer)
    if "learning_rate" in trainer:
        trainer["learning_rate"] *= run.rate_scale
    changes: dict[str, Any] = {"trainer": trainer, "muon": None if base.muon is None else base.muon * run.rate_scale}
    changes["skip_bad"] = run.skip_bad
    if run.passes is not None:
        changes["passes"] = run.passes
    if run.steps is not None:
        changes["steps"] = run.steps
    extra = dict(run.changes)
    changes["trainer"] = {**trainer, **extra.pop("trainer", {})}
    return replace(base, **{**changes, **extra})


def _pass_rate(run: RFTRun, number: int) -> tuple[int, int]:
    """(how many episodes of the round were right, how many were played and ended)."""
    from .pairs import read_groups

    groups = read_groups([run.folder(number) / "set"], on_bad=(lambda _: None) if run.skip_bad else None)
    whole = [t for group in groups for t in group if t.error is None]
    return sum(is_known(t.task) and is_right(t.task, t.answer) for t in whole), len(whole)


def _claim(run: RFTRun) -> None:
    """Write rft.json, or refuse a folder that holds another run; more rounds are the same run."""
    path, now = run.out / "rft.json", json.loads(json.dumps(to_plain(run), default=str))
    free = ("out", "rounds", "workers", "skip_bad")
    if path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        odd = [k for k in now if k not in free and before.get(k) != now[k]]
        if odd:
            raise DataError(
                f"{run.out}: holds a run with another {odd[0]}; choose another --out, or delete it to begin anew"
            )
    run.out.mkdir(parents=True, exist_ok=True)
    write_json(path, now)


def _link(path: Path, target: Path) -> None:
    """`path` as a relative link to `target`, replaced at once."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    beside.symlink_to(os.path.relpath(target, path.parent))
    beside.replace(path)
