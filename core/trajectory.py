"""Trajectory: everything that happened in one episode, token by token; and its JSONL.

    context_0  completion_0  context_1  completion_1 ...
    0 0 0 0 0  1 1 1 1 1 1 1 0 0 0 0 0  1 1 1 1 1 1        <- loss_mask: born with the token, never rebuilt from text

Invariants (asserted in `Trajectory.check`):
- `context_ids` of a turn is only the delta since the last completion; deltas and completions in order are, byte for
  byte, what the policy saw;
- the mask is 1 exactly on tokens that the policy sampled: a completion that the agent forced has mask 0;
- log-probs are as many as the completion's tokens, or none;
- no pixels: frames by reference and hash.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

from .budget import Budget, Usage
from .clip import Clip, merge_clips
from .codec import from_plain, to_plain
from .errors import DataError, PlayheadError
from .nouns import Answer, Completion, Frame, Message, Observation, StopReason, Task, ToolCall

SCHEMA_VERSION = 1
Made = TypeVar("Made")
OnBad = Callable[[PlayheadError], None]
"""Told of a bad record that is skipped."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """One call of the policy: what was appended to its context, what it said, what the tools answered."""

    index: int
    context_ids: tuple[int, ...]
    """Only the tokens added since the last completion."""
    context_frames: tuple[Frame, ...] = ()
    """The frames whose placeholders stand in `context_ids`, in order."""
    context_messages: tuple[Message, ...] = ()
    """The same delta as messages: the log that prompts are projections of."""
    completion: Completion
    thought: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    observations: tuple[Observation, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Trajectory:
    """One episode. `reward` is None until somebody scored it: unscored is not zero."""

    id: str
    group_id: str
    task: Task
    turns: tuple[Turn, ...] = ()
    answer: Answer | None = None
    stop_reason: StopReason = StopReason.ANSWERED
    budget: Budget = field(default_factory=Budget)
    usage: Usage = field(default_factory=Usage)
    reward_parts: dict[str, float] | None = None
    error: str | None = None
    seed: int = 0
    model: str = ""
    exact: bool = True
    """False where the policy could not return the tokens it sampled; RL refuses such a trajectory."""
    temperature: float = 0.0
    """Log-probs are those at this temperature, before `top_p` cuts."""
    top_p: float | None = None
    """The share of the likeliest tokens that was drawn from; None where it was not written down."""
    schema_version: int = SCHEMA_VERSION

    @property
    def reward(self) -> float | None:
        """The weighted parts, summed; None when unscored."""
        return None if self.reward_parts is None else sum(self.reward_parts.values())

    @property
    def token_ids(self) -> tuple[int, ...]:
        return tuple(t for turn in self.turns for t in (*turn.context_ids, *turn.completion.token_ids))

    @property
    def loss_mask(self) -> tuple[int, ...]:
        """1 where the policy sampled the token, aligned with `token_ids`."""
        return tuple(
            bit
            for turn in self.turns
            for bit in (
                *(0 for _ in turn.context_ids),
                *(int(not turn.completion.forced) for _ in turn.completion.token_ids),
            )
        )

    @property
    def frames(self) -> tuple[Frame, ...]:
        """Every frame the policy was shown, in placeholder order (repeats included)."""
        return tuple(f for turn in self.turns for f in turn.context_frames)

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation as text and frames."""
        return tuple(
            m
            for turn in self.turns
            for m in (*turn.context_messages, Message(role="assistant", content=(turn.completion.text,)))
        )

    @property
    def observations(self) -> tuple[Observation, ...]:
        return tuple(o for turn in self.turns for o in turn.observations)

    @property
    def evidence_seen(self) -> tuple[Clip, ...]:
        """What the tools really looked at, from the environment's log: text in a completion cannot add to it."""
        return merge_clips(tuple(c for o in self.observations if o.error is None for c in o.clips))

    def check(self) -> None:
        """Assert the invariants that hold without a tokenizer.

        Raises:
            DataError: which turn of which trajectory breaks which rule.
        """
        for i, turn in enumerate(self.turns):
            where = f"trajectory {self.id}, turn {i}"
            if turn.index != i:
                raise DataError(f"{where}: its index is {turn.index}")
            n, m = len(turn.completion.token_ids), len(turn.completion.logprobs)
            if m not in (0, n):
                raise DataError(f"{where}: {m} log-probs for {n} sampled tokens")
            shown = tuple(f for message in turn.context_messages for f in message.frames)
            if turn.context_messages and shown != turn.context_frames:
                tokens = len(turn.context_frames)
                differ = f"{len(shown)} frames, its tokens {tokens}" if len(shown) != tokens else "other frames than its tokens"
                raise DataError(f"{where}: its messages show {differ}")


def new_id() -> str:
    return uuid4().hex[:16]


def to_json(trajectory: Trajectory) -> str:
    """One line of JSONL, in ASCII: a model can write lone surrogates, which no UTF-8 file holds."""
    return json.dumps(to_plain(trajectory), separators=(",", ":"))


def from_json(line: str, where: str = "trajectory") -> Trajectory:
    """The trajectory of one JSONL line.

    Raises:
        DataError: not JSON, a bad field, or a schema newer than this version can read; `where` names the place.
    """
    try:
        data = json.loads(line)
    except (ValueError, RecursionError) as error:  # also numbers of thousands of digits, and endless nesting
        raise DataError(f"{where}: not JSON ({error})") from None
    version = data.get("schema_version") if isinstance(data, dict) else None
    if type(version) is not int or not 1 <= version <= SCHEMA_VERSION:
        raise DataError(f"{where}: schema version {version!r}, this playhead reads 1 to {SCHEMA_VERSION}")
    trajectory = from_plain(Trajectory, data, where)
    try:
        trajectory.check()
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    return trajectory


def write_trajectories(path: Path, trajectories: Iterable[Trajectory]) -> int:
    """Write a JSONL file whole (beside, then renamed); returns how many were written."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    count = 0
    with beside.open("w", encoding="utf-8") as out:
        for trajectory in trajectories:
            out.write(to_json(trajectory) + "\n")
            count += 1
    beside.replace(path)
    return count


def read_trajectories(path: Path, on_bad: OnBad | None = None) -> Iterator[Trajectory]:
    """`read_each`, the trajectories themselves."""
    return read_each(path, lambda trajectory, _: trajectory, on_bad)


def read_each(path: Path, use: Callable[[Trajectory, str], Made], on_bad: OnBad | None = None) -> Iterator[Made]:
    """What `use` makes of each trajectory of a JSONL file and its place (file:line), one at a time; blank lines are skipped.

    Args:
        use: may raise PlayheadError of a record that is bad for its purpose.
        on_bad: told of every bad record, which is then skipped; None to raise at the first.

    Raises:
        DataError: the file is missing, or a line is bad (file and line are named).
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file of trajectories")
    with path.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            where = f"{path}:{number}"
            try:
                made = use(from_json(line, where), where)
            except PlayheadError as error:
                if on_bad is None:
                    raise
                on_bad(error)
            else:
                yield made
