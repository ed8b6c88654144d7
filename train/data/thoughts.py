"""Thoughts: chain of thought for a given path, written by a strong policy and kept only where it verifies.

    playhead data think SET --model http://127.0.0.1:8000/v1#BIG --tokenizer CHECKPOINT --out DIR

The path (calls, observations, answer) stays to the byte. For each turn the strong policy sees what was seen until then and the
step that follows, and writes the `<think>` that leads from one to the other. A trajectory is kept when

- every thought reads back: no tags inside, not empty, and turn, calls and answer parse as they did;
- the answer is right, where it is known;
- every verifier agrees: `Follows` asks a policy to go on after the last thought, and it has to come to the same answer;
  `verifier.EvidenceVerifier` asks from the retrieved frames alone.

What comes out is written by `rerender`: exact for SFT, mask 1 on the new tokens, no log-probs. Forced turns keep theirs.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from ...agent.renderers.chat import ChatRenderer
from ...core.errors import DataError, ModelError
from ...core.nouns import Answer, Completion, FinishReason, Message, StopReason, ToolSpec
from ...core.policy import GenerateRequest, Policy, Sampling
from ...core.scoring import is_right, match_choice
from ...core.trajectory import Trajectory, Turn
from .filters import is_known, same_answer
from .rerender import rerender

_TAG = re.compile(r"</?(?:think|tool_call|tool_response|tools|answer|evidence)>|<\|")
_THOUGHT = re.compile(r"<think>(.*?)</think>", re.S)

INSTRUCTION = (
    "Write the reasoning that leads from what has been seen so far to this next step:\n{step}\n"
    "Two to five sentences in the first person, naming times in seconds where they matter. Reason forward: do not say that the "
    "step was given, and use nothing that has not been seen yet. Write only <think>your reasoning</think>."
)


class Verifier(Protocol):
    """Answers the task of a trajectory again, in a way that shows whether the trajectory proves its answer."""

    async def __call__(self, trajectory: Trajectory) -> Answer | None: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Thinker:
    """A strong policy that writes thoughts. Each turn has `attempts`, every one with another seed."""

    policy: Policy
    attempts: int = 2
    max_tokens: int = 384
    most_chars: int = 2000
    temperature: float = 0.7
    timeout_s: float = 120.0

    async def write(self, trajectory: Trajectory, renderer: ChatRenderer) -> Trajectory | None:
        """The same path with new thoughts (tokens not yet written); None where a turn got none that reads back.

        Raises:
            ModelError: the policy failed.
        """
        turns: list[Turn] = []
        for turn in trajectory.turns:
            if turn.completion.forced:
                turns.append(turn)
                continue
            made = None
            for attempt in range(self.attempts):
                thought = await self._thought(trajectory.id, turns, turn, attempt)
                made = _with_thought(turn, thought, renderer, self.most_chars)
                if made is not None:
                    break
            if made is None:
                return None
            turns.append(made)
        return replace(
            trajectory,
            id=f"{trajectory.id}.thoughts",
            turns=tuple(turns),
            model=f"{self.policy.name}, thinking for {trajectory.model}",
        )

    async def _thought(self, name: str, before: Sequence[Turn], turn: Turn, attempt: int) -> str:
        asked = Message(role="user", content=(INSTRUCTION.format(step=_step(turn)),))
        messages = (*_history(before), *turn.context_messages, asked)
        sampling = Sampling(
            temperature=self.temperature, max_tokens=self.max_tokens, seed=1009 * turn.index + attempt, timeout_s=self.timeout_s
        )
        said = await _ask(self.policy, f"{name}/think{turn.index}.{attempt}", messages, (), sampling)
        found = _THOUGHT.search(said.text)
        if found is None and said.finish_reason is not FinishReason.STOP:
            return ""  # cut in the middle
        return (found[1] if found else said.text.replace("<think>", "")).strip()


@dataclass(frozen=True, kw_only=True, slots=True)
class Follows:
    """A `Verifier`: after everything that was seen and the last thought, to which answer does the policy come by itself?"""

    policy: Policy
    tools: tuple[ToolSpec, ...] = ()
    max_tokens: int = 128
    timeout_s: float = 120.0

    async def __call__(self, trajectory: Trajectory) -> Answer | None:
        last, task = trajectory.turns[-1], trajectory.task
        opening = f"<think>{last.thought}</think>\n"
        messages = (*_history(trajectory.turns[:-1]), *last.context_messages)
        called = any(t.tool_calls for t in trajectory.turns)
        sampling = Sampling(max_tokens=self.max_tokens, timeout_s=self.timeout_s)
        tools = self.tools if called else ()
        more = await _ask(self.policy, f"{trajectory.id}/follows", messages, tools, sampling, opening)
        said = self.policy.renderer.parse(opening + more.text, last.index).answer
        if said is None:
            return None
        return Answer(text=said, choice=match_choice(said, task.choices) if task.choices else None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Thoughts:
    """What came of it: the kept ones in order, and how many were lost to what."""

    kept: tuple[Trajectory, ...]
    lost: Counter[str]


async def write_thoughts(
    trajectories: Iterable[Trajectory],
    thinker: Thinker,
    renderer: ChatRenderer,
    tools: Sequence[ToolSpec],
    verifiers: Sequence[Verifier] = (),
    workers: int = 8,
) -> Thoughts:
    """Thoughts for all trajectories, at most `workers` at once.

    Args:
        renderer: that of the model that will learn them.
        tools: those that the paths' policy was told of.

    Raises:
        ModelError: a policy failed.
    """
    gate = asyncio.Semaphore(workers)

    async def one(trajectory: Trajectory) -> Trajectory | str:
        async with gate:
            return await _one(trajectory, thinker, renderer, tools, verifiers)

    done = await asyncio.gather(*(one(t) for t in trajectories))
    kept = tuple(d for d in done if isinstance(d, Trajectory))
    return Thoughts(kept=kept, lost=Counter(d for d in done if isinstance(d, str)))


async def _one(
    trajectory: Trajectory, thinker: Thinker, renderer: ChatRenderer, tools: Sequence[ToolSpec], verifiers: Sequence[Verifier]
) -> Trajectory | str:
    """The trajectory with thoughts, or why there is none."""
    if trajectory.answer is None or not trajectory.turns or trajectory.stop_reason is not StopReason.ANSWERED:
        return "no path to an answer"
    if is_known(trajectory.task) and not is_right(trajectory.task, trajectory.answer):
        return "wrong answer"
    thoughtful = await thinker.write(trajectory, renderer)
    if thoughtful is None:
        return "no thought that reads back"
    for verifier in verifiers:
        again = await verifier(thoughtful)
        if not same_answer(trajectory.task, trajectory.answer, again):
            return f"not verified ({type(verifier).__name__})"
    called = any(turn.tool_calls for turn in trajectory.turns)
    try:
        return rerender(thoughtful, renderer, tools if called else ())
    except DataError:
        return "tokens that no model may sample"


def _with_thought(turn: Turn, thought: str, renderer: ChatRenderer, most_chars: int) -> Turn | None:
    """The turn with another thought; None when it would not read back as the same step."""
    if not thought or len(thought) > most_chars or _TAG.search(thought):
        return None
    text = turn.completion.text
    _, closed, rest = text.partition("</think>")
    said = f"<think>{thought}</think>" + (rest if closed else f"\n{text}")
    before, after = renderer.parse(text, turn.index), renderer.parse(said, turn.index)
    steps = [(p.tool_calls, p.answer, p.evidence, p.error) for p in (before, after)]
    if steps[0] != steps[1] or after.error is not None:
        return None
    completion = replace(turn.completion, text=said, token_ids=(), logprobs=(), finish_reason=FinishReason.STOP)
    return replace(turn, completion=completion, thought=after.thought)


def _step(turn: Turn) -> str:
    """What follows the thought, as it was written."""
    _, closed, rest = turn.completion.text.partition("</think>")
    return (rest if closed else turn.completion.text).strip()


def _history(turns: Iterable[Turn]) -> tuple[Message, ...]:
    said = ((*t.context_messages, Message(role="assistant", content=(t.completion.text,))) for t in turns)
    return tuple(m for messages in said for m in messages)


async def _ask(
    policy: Policy,
    session: str,
    messages: tuple[Message, ...],
    tools: Sequence[ToolSpec],
    sampling: Sampling,
    opening: str = "",
) -> Completion:
    start = policy.renderer.start(messages, tools)
    said_before = (Message(role="assistant", content=(opening,)),) if opening else ()
    request = GenerateRequest(
        session=session,
        token_ids=start.token_ids + policy.renderer.encode(opening),
        frames=start.frames,
        messages=(*messages, *said_before),
        sampling=sampling,
        tools=tuple(tools),
    )
    (said,) = await policy.generate([request])
    forget = getattr(policy, "forget", None)
    if forget is not None:
        forget(session)
    if said.finish_reason is FinishReason.ERROR:
        raise ModelError(f"{policy.name} failed: {said.text}")
    return said
