"""The four steps of an episode: skim, think, act, answer. Each takes the state and gives what changes in it.

skim looks at uniform frames; think is one call of the policy; act runs the calls of that turn at the same time; answer
reads the answer, or forces one when a limit was reached. A step knows nothing of the graph around it; what it raises becomes
the error of its trajectory there.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

from ..core.aio import in_thread
from ..core.budget import Usage
from ..core.nouns import Answer, FinishReason, Message, Observation, StopReason, ToolCall
from ..core.policy import Parsed
from ..core.sampling import thinned, uniform_times
from ..core.scoring import match_choice, parse_boxes, parse_spans
from ..core.trajectory import Turn
from ..tools.contract import failed
from . import prompts
from .allowance import ANSWER_TOKENS, shares, spend
from .captioner import PolicyCaptioner
from .confidence import answer_confidence as sure
from .episode import Episode, Pending, State, context_ids, generate, make_turn, spent, turn_seed
from .events import Answered, Called, Event, Forced, Misread, Observed, Skimmed, Thought

MAX_FAULTS = 2
"""So many unreadable turns in a row end in a forced answer."""

Emit = Callable[[Event], None]


# skim


async def skim(state: State, episode: Episode, emit: Emit) -> dict[str, Any]:
    """Uniform frames over the whole video, then the question."""
    video, renderer, task = episode.desk.video, episode.policy.renderer, state["task"]
    specs, system = episode.toolbox.specs, episode.profile.system
    question = task.question + episode.hint
    bare = prompts.first_messages(video.duration_s, (), question, task.choices, system)
    empty = len(renderer.start(bare, specs).token_ids)
    room = episode.allowance.frames(state["usage"], empty, episode.frame_tokens)
    if episode.times_s is None:
        times = uniform_times(video.readable_s, min(episode.profile.skim_frames, room))
    else:
        times = thinned(episode.times_s, room)
    frames = tuple(await in_thread(episode.context(room).frames_at, times)) if times else ()
    messages = prompts.first_messages(video.duration_s, frames, question, task.choices, system)
    start = renderer.start(messages, specs)
    emit(Skimmed(frames=frames))
    return {
        "pending": Pending(token_ids=start.token_ids, frames=start.frames, messages=messages),
        "usage": spend(state["usage"], frames=len(frames)),
    }


# think


async def think(state: State, episode: Episode, emit: Emit) -> dict[str, Any]:
    """One call of the policy, unless a limit leaves only the answer."""
    usage, allowance, pending = state["usage"], episode.allowance, state["pending"]
    context = len(context_ids(state, pending))
    reason = allowance.must_answer(usage, context)
    if reason is not None:
        return {"stop": reason}
    tokens = allowance.turn_tokens(usage, context, episode.profile.turn_tokens)
    completion = await generate(state, episode, pending, tokens, allowance.turn_seconds(usage))
    if completion is None or not completion.token_ids:
        return {"stop": StopReason.TIMEOUT, "usage": spend(usage, model_calls=1)}
    index = len(state["turns"])
    parsed = episode.policy.renderer.parse(completion.text, index)
    emit(Thought(turn=index, thought=parsed.thought, text=completion.text))
    turn = make_turn(index, pending, completion, parsed)
    update: dict[str, Any] = {
        "turns": (*state["turns"], turn),
        "pending": Pending(),
        "usage": spent(usage, turn, context),
    }
    if parsed.tool_calls or parsed.answer is not None:
        left = episode.budget.left
        no_more = parsed.tool_calls and min(left(update["usage"], n) for n in ("turns", "model_calls")) < 1
        return {**update, "faults": 0, "stop": StopReason.MAX_TURNS if no_more else None}
    return {**update, **_unreadable(cast(State, {**state, **update}), episode, parsed, emit)}


def _unreadable(state: State, episode: Episode, parsed: Parsed, emit: Emit) -> dict[str, Any]:
    """What follows a turn without call or answer: when it was cut, the forced answer; else a reminder."""
    turn, context = state["turns"][-1], len(context_ids(state, Pending()))
    error = parsed.error or "there is neither a tool call nor an answer."
    emit(Misread(turn=turn.index, error=error))
    if turn.completion.finish_reason is FinishReason.TIMEOUT:
        return {"stop": StopReason.TIMEOUT}
    if turn.completion.finish_reason is FinishReason.LENGTH:
        return {"stop": episode.allowance.must_answer(state["usage"], context) or StopReason.LENGTH}
    message = Message(role="user", content=(prompts.reminder(error, with_tools=bool(episode.toolbox.specs)),))
    delta = episode.policy.renderer.extend(turn.completion.token_ids, [message])
    if not episode.allowance.fits(context + len(delta.token_ids)):
        return {"stop": StopReason.CONTEXT_FULL}
    faults = state["faults"] + 1
    return {
        "pending": Pending(token_ids=delta.token_ids, messages=(message,)),
        "faults": faults,
        "stop": StopReason.PARSE_ERROR if faults >= MAX_FAULTS else None,
    }


# act


async def act(state: State, episode: Episode, emit: Emit) -> dict[str, Any]:
    """The calls of the last turn, all at once; what the budget does not allow is refused in words."""
    turn, usage, budget = state["turns"][-1], state["usage"], episode.budget
    context = len(context_ids(state, Pending()))
    calls = turn.tool_calls
    allowed = int(min(len(calls), budget.left(usage, "tool_calls")))
    room = episode.allowance.frames(usage, context, episode.frame_tokens)
    stop = None if allowed else StopReason.MAX_TOOL_CALLS
    if allowed and not room:
        allowed = 0
        stop = StopReason.MAX_FRAMES if budget.left(usage, "frames") < 1 else StopReason.CONTEXT_FULL
    what = "frames" if stop is StopReason.MAX_FRAMES else "tool calls"
    done, captioning = await _observe(state, episode, calls[:allowed], room, emit)
    refused = [failed(call, prompts.out_of(what)) for call in calls[allowed:]]
    observations, delta, cut = _fit(episode, context, turn, [*done, *refused])
    for observation in observations:
        emit(Observed(turn=turn.index, observation=observation))
    usage = spend(usage + captioning, tool_calls=allowed, frames=len(delta.frames))
    return {
        "turns": (*state["turns"][:-1], replace(turn, observations=observations)),
        "pending": delta,
        "usage": usage,
        "stop": StopReason.CONTEXT_FULL if cut else stop,
    }


async def _observe(
    state: State, episode: Episode, calls: Sequence[ToolCall], frames: int, emit: Emit
) -> tuple[list[Observation], Usage]:
    """(observations in the order of `calls`, what describing frames cost)."""
    usage, turn = state["usage"], state["turns"][-1].index
    seconds = episode.allowance.turn_seconds(usage)
    left = episode.budget.left(usage, "sampled_tokens") - ANSWER_TOKENS
    tokens = shares(int(min(1 << 20, max(0, left))), len(calls)) if calls else []
    captions = shares(episode.allowance.captions(usage), len(calls)) if calls else []
    captioners = [
        PolicyCaptioner(episode.policy, f"{episode.run_id}/{call.id}", turn_seed(state, turn), n, seconds, m)
        for call, n, m in zip(calls, tokens, captions, strict=True)
    ]

    async def one(call: ToolCall, share: int, captioner: PolicyCaptioner) -> Observation:
        emit(Called(turn=turn, call=call))
        try:
            async with asyncio.timeout(seconds):
                made = await episode.toolbox.call(call, episode.context(share, captioner))
        except TimeoutError:
            return failed(call, "it took longer than the time that is left. Answer now with what you have seen.")
        if len(made.frames) > share:
            return failed(call, f"it showed {len(made.frames)} frames where {share} were left.")
        return made

    parts = shares(frames, len(calls)) if calls else []
    done = await asyncio.gather(*(one(*three) for three in zip(calls, parts, captioners, strict=True)))
    return list(done), sum((c.spent for c in captioners), Usage())


def _fit(
    episode: Episode, context: int, turn: Turn, observations: Sequence[Observation]
) -> tuple[tuple[Observation, ...], Pending, bool]:
    """The observations as the next delta; whole ones give way to a sentence, the last first, until it fits the context."""
    kept, cut = list(observations), False
    for i in reversed(range(-1, len(kept))):
        messages = tuple(Message(role="tool", content=o.content) for o in kept)
        delta = episode.policy.renderer.extend(turn.completion.token_ids, messages)
        pending = Pending(token_ids=delta.token_ids, frames=delta.frames, messages=messages)
        if episode.allowance.fits(context + len(delta.token_ids)):
            return tuple(kept), pending, cut
        if i >= 0:
            short = replace(kept[i], content=(prompts.TOO_LONG,), clips=(), error="too long for the context")
            kept[i], cut = short, True
    return tuple(kept), Pending(), True


# answer


async def answer(state: State, episode: Episode, emit: Emit) -> dict[str, Any]:
    """Read the answer of the last turn, or force one."""
    if state["stop"] is None:
        turn = state["turns"][-1]
        parsed = episode.policy.renderer.parse(turn.completion.text, turn.index)
        cited, confidence = (parsed.evidence or "", parsed.boxes or ""), sure(turn.completion, episode.policy)
        given = _answer(state, episode, parsed.answer or "", cited, confidence)
        emit(Answered(answer=given))
        return {"answer": given, "stop": StopReason.ANSWERED}
    emit(Forced(reason=state["stop"]))
    update = await _force(state, episode, emit)
    emit(Answered(answer=update["answer"]))
    return update


async def _force(state: State, episode: Episode, emit: Emit) -> dict[str, Any]:
    """An answer whose opening the agent writes (context, never trained on) and whose text the policy samples.

    Where not even that is affordable, the answer is "unknown".
    """
    usage, allowance, unknown = state["usage"], episode.allowance, Answer(text="unknown", confidence=0.0)
    opening = _opening(state)
    if opening is None:
        return {"answer": unknown}
    pending = state["pending"]
    delta = Pending(
        token_ids=pending.token_ids + episode.policy.renderer.encode(opening),
        frames=pending.frames,
        messages=(*pending.messages, Message(role="assistant", content=(opening,))),
    )
    context = len(context_ids(state, delta))
    tokens = allowance.answer_tokens(usage, context)
    if tokens < 1:
        return {"answer": unknown}
    completion = await generate(state, episode, delta, tokens, allowance.answer_seconds(usage))
    if completion is None or not completion.token_ids:
        return {"answer": unknown, "usage": spend(usage, model_calls=1)}
    index = len(state["turns"])
    emit(Thought(turn=index, thought="", text=opening + completion.text))
    turn = make_turn(index, delta, completion, Parsed())
    said, _, rest = completion.text.partition("</answer>")
    said = re.split(r"<|\n", said.strip())[0].strip()
    spans, _, boxes = rest.partition("<box>")
    confidence = sure(completion, episode.policy, said) if said else None
    given = _answer(state, episode, said, (spans, boxes), confidence) if said else unknown
    return {
        "answer": given,
        "turns": (*state["turns"], turn),
        "pending": Pending(),
        "usage": spent(usage, turn, context),
    }


def _opening(state: State) -> str | None:
    """The forced opening that fits where the context stands; None when the model's turn is closed and nothing follows it."""
    if state["pending"].token_ids:
        return prompts.FORCED_ANSWER
    last = state["turns"][-1].completion if state["turns"] else None
    if last is None or last.finish_reason is FinishReason.STOP:
        return None
    thinking = "<think>" in last.text and "</think>" not in last.text
    return prompts.FORCED_ANSWER_AFTER_CUT if thinking else "\n<answer>"


def _answer(state: State, episode: Episode, text: str, cited: tuple[str, str], confidence: float | None) -> Answer:
    """`cited`: the texts in which spans and boxes are written."""
    video, choices = episode.desk.video, state["task"].choices
    return Answer(
        text=text.strip(),
        choice=match_choice(text, choices) if choices else None,
        evidence=parse_spans(cited[0], video.id, video.duration_s),
        confidence=confidence,
        boxes=parse_boxes(cited[1], video.id),
    )
