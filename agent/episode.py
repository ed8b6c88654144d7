"""Episode and State: what one run works with, and what of it a checkpoint holds.

The state is small and holds no pixels: frozen dataclasses of tokens, texts and references. What cannot be written down
(policy, tools, video) is the `Episode`, LangGraph's runtime context. History is the concatenation of every turn's delta and
completion; nothing else ever goes to the policy.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import cached_property
from typing import TypedDict

from ..core.budget import Budget, Usage
from ..core.errors import ModelError
from ..core.nouns import Answer, Completion, FinishReason, Frame, Message, StopReason, Task
from ..core.policy import GenerateRequest, Parsed, Policy, Sampling
from ..core.trajectory import Turn
from ..memory.text import TextMemory
from ..tools.contract import ToolContext, frame_size
from ..tools.toolbox import Toolbox
from . import prompts
from .allowance import Allowance, spend
from .captioner import PolicyCaptioner
from .desk import Desk
from .profile import Profile

FRAME_TEXT_TOKENS = 16
"""Room for the timestamp and the marks around a frame's placeholders, when reckoning what fits."""
MESSAGE_TOKENS = 24
"""Room for the marks around a message, when reckoning what fits."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pending:
    """What the policy will see next: the delta since its last completion."""

    token_ids: tuple[int, ...] = ()
    frames: tuple[Frame, ...] = ()
    messages: tuple[Message, ...] = ()


class State(TypedDict):
    """What a checkpoint holds."""

    task: Task
    seed: int
    turns: tuple[Turn, ...]
    pending: Pending
    usage: Usage
    stop: StopReason | None
    answer: Answer | None
    error: str | None
    faults: int
    """Unreadable turns in a row."""


def fresh_state(task: Task, seed: int) -> State:
    return State(
        task=task, seed=seed, turns=(), pending=Pending(), usage=Usage(), stop=None, answer=None, error=None, faults=0
    )


@dataclass(frozen=True, kw_only=True)
class Episode:
    """What one run works with."""

    run_id: str
    policy: Policy
    toolbox: Toolbox
    desk: Desk
    texts: TextMemory
    profile: Profile
    budget: Budget
    temperature: float = 0.0
    top_p: float = 1.0
    times_s: tuple[float, ...] | None = None
    """What to look at first; None for uniform times."""
    hint: str = ""
    """Written behind the question."""
    notebook: TextMemory | None = None
    """What is kept across questions; None keeps nothing."""
    shuffled: bool = False
    """Frames shown together come in a wrong order."""

    @cached_property
    def allowance(self) -> Allowance:
        encode = self.policy.renderer.encode
        notice = len(encode(prompts.TOO_LONG)) + MESSAGE_TOKENS
        return Allowance(self.budget, len(encode(prompts.FORCED_ANSWER)), notice)

    @cached_property
    def frame_tokens(self) -> int:
        """Context tokens that one more frame takes, about."""
        video = self.desk.video
        width, height = frame_size(video, self.profile.max_side) or (video.width, video.height)
        frame = Frame(video_id=video.id, timestamp_s=0.0, sha256="", width=width, height=height)
        return self.policy.renderer.frame_tokens(frame) + FRAME_TEXT_TOKENS

    def context(self, frames: int, captioner: PolicyCaptioner | None = None) -> ToolContext:
        """What a tool call works with, `frames` being its share of the frames that are left."""
        return ToolContext(
            video=self.desk.video,
            store=self.desk.store,
            index=self.desk.index,
            texts=self.texts,
            captioner=captioner,
            frames_left=lambda: frames,
            max_side=self.profile.max_side,
            notebook=self.notebook,
            shuffled=self.shuffled,
        )


async def generate(
    state: State, episode: Episode, delta: Pending, tokens: int, seconds: float | None
) -> Completion | None:
    """One completion after history and `delta`; None when it did not come in time.

    Raises:
        ModelError: the policy says that it failed.
    """
    turns = state["turns"]
    history = [m for t in turns for m in (*t.context_messages, Message(role="assistant", content=(t.completion.text,)))]
    request = GenerateRequest(
        session=episode.run_id,
        token_ids=context_ids(state, delta),
        frames=(*(f for t in turns for f in t.context_frames), *delta.frames),
        messages=(*history, *delta.messages),
        sampling=Sampling(
            temperature=episode.temperature,
            top_p=episode.top_p,
            max_tokens=tokens,
            seed=turn_seed(state, len(turns)),
            # A little less than we wait, so that what was sampled until then comes back.
            timeout_s=None if seconds is None else max(0.0, 0.95 * seconds - 0.05),
        ),
        tools=episode.toolbox.specs,
    )
    try:
        async with asyncio.timeout(seconds):  # `wait_for` would make a task of it
            (completion,) = await episode.policy.generate([request])
    except TimeoutError:
        return None
    if completion.finish_reason is FinishReason.ERROR:
        raise ModelError(f"{episode.policy.name} failed: {completion.text}")
    return completion


def context_ids(state: State, delta: Pending) -> tuple[int, ...]:
    ids: list[int] = []
    for turn in state["turns"]:
        ids += turn.context_ids
        ids += turn.completion.token_ids
    return (*ids, *delta.token_ids)


def make_turn(index: int, delta: Pending, completion: Completion, parsed: Parsed) -> Turn:
    return Turn(
        index=index,
        context_ids=delta.token_ids,
        context_frames=delta.frames,
        context_messages=delta.messages,
        completion=completion,
        thought=parsed.thought,
        tool_calls=parsed.tool_calls,
    )


def spent(usage: Usage, turn: Turn, context: int) -> Usage:
    said = turn.completion
    return spend(
        usage,
        turns=1,
        model_calls=1,
        sampled_tokens=len(said.token_ids),
        prefill_tokens=said.prefill_tokens,
        reused_tokens=said.reused_tokens,
        context=context + len(said.token_ids),
    )


def turn_seed(state: State, turn: int) -> int:
    """Every turn of every run has its own random numbers, the same when it is run again."""
    return (state["seed"] * 1_000_003 + turn * 7_919 + 1) % (1 << 31)
