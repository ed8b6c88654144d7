"""Rerender: the tokens of a trajectory written anew by a renderer, from its messages.

    playhead data rerender SET --tokenizer CHECKPOINT --out DIR

For what has no tokens of ours: what a model behind a server said, conversations of other tools, thoughts that were written
afterwards; and for a learner of another family than the player. The result is exact for SFT: its
tokens are those that the renderer's model would be shown and would have to say, 1 in the mask where an assistant speaks. It
has no log-probs, since nobody sampled it, so nothing on-policy can be made of it.

    start(messages of turn 0) + encode(text 0 + end) + extend(...) + encode(text 1 + end) ...

Of a trajectory whose words were tokenised as a script's are, it gives the same tokens again (a property test).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from ...agent.renderers.chat import ChatRenderer
from ...core.errors import DataError
from ...core.nouns import Completion, FinishReason, Message, ToolSpec
from ...core.policy import Rendered
from ...core.trajectory import OnBad, Trajectory, Turn


def rerender(trajectory: Trajectory, renderer: ChatRenderer, tools: Sequence[ToolSpec]) -> Trajectory:
    """The trajectory in the renderer's tokens.

    Args:
        tools: those that the policy is told of.

    Raises:
        DataError: an assistant's text holds a token that no model may sample, or that ends its turn.
    """
    turns: list[Turn] = []
    for turn in trajectory.turns:
        delta = _delta(turn, turns[-1].completion.token_ids if turns else None, renderer, tools)
        ids = encode_said(turn.completion, renderer, f"trajectory {trajectory.id}, turn {turn.index}")
        said = replace(turn.completion, token_ids=ids, logprobs=(), exact=True, policy_version=0)
        turns.append(replace(turn, context_ids=delta.token_ids, context_frames=delta.frames, completion=said))
    made = replace(trajectory, turns=tuple(turns), exact=True)
    made.check()
    return made


def rerender_all(
    trajectories: Iterable[Trajectory],
    renderer: ChatRenderer,
    tools: Sequence[ToolSpec],
    on_bad: OnBad | None = None,
) -> Iterator[Trajectory]:
    """`rerender` of each; those in which no tool was called were told of none.

    Args:
        on_bad: told of every trajectory that cannot be written so, which is then left out; None to raise at the first.

    Raises:
        DataError: see `rerender`; or a trajectory has no turns.
    """
    for trajectory in trajectories:
        try:
            if not trajectory.turns:
                raise DataError(f"trajectory {trajectory.id}: it has no turns")
            called = any(turn.tool_calls for turn in trajectory.turns)
            made = rerender(trajectory, renderer, tools if called else ())
        except DataError as error:
            if on_bad is None:
                raise
            on_bad(error)
        else:
            yield made


def encode_said(completion: Completion, renderer: ChatRenderer, where: str) -> tuple[int, ...]:
    """The tokens of what an assistant said, closed unless it was cut.

    Raises:
        DataError: see `rerender`.
    """
    ids = renderer.encode(completion.text)
    forbidden = {*renderer.suppressed_token_ids, *renderer.stop_token_ids}
    bad = next((i for i in ids if i in forbidden), None)
    if bad is not None:
        raise DataError(f"{where}: the assistant's text holds {renderer.decode([bad])!r}, which only the template may write")
    return ids + renderer.encode(renderer.turn_ends[0]) if completion.finish_reason is FinishReason.STOP else ids


def _delta(turn: Turn, before: Sequence[int] | None, renderer: ChatRenderer, tools: Sequence[ToolSpec]) -> Rendered:
    messages, opening = _split(turn.context_messages)
    if before is None:
        delta = renderer.start(messages, tools)
    else:
        delta = renderer.extend(before, messages) if messages else Rendered(token_ids=())
    return Rendered(token_ids=delta.token_ids + renderer.encode(opening), frames=delta.frames)


def _split(messages: Sequence[Message]) -> tuple[Sequence[Message], str]:
    """(messages of others, what the agent put in the model's mouth after them)."""
    if messages and messages[-1].role == "assistant":
        return messages[:-1], messages[-1].text
    return messages, ""
