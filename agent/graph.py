"""The agent: a LangGraph of four nodes.

    skim -> think -> act -> think -> ... -> answer
              ^_______|        a reminder leads from think straight back to think

skim looks at uniform frames; think is one call of the policy; act runs the calls of that turn at the same time; answer
reads the answer, or forces one when a limit was reached. Every limit of the `Budget` is hard (see `allowance`), and every
episode that did not fail ends with an answer.

The state is small and holds no pixels: frozen dataclasses of tokens, texts and references, which a checkpointer
writes by an allow-list (`saving`), never by pickle. What cannot be written down (policy, tools, video) is the `Episode`,
LangGraph's runtime context. A step that fails becomes data: `stop` is ERROR and `error` one line. A run that was cut
after any node goes on from its checkpoint to the same answer, because each call's seed follows from run and turn.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any, cast

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import Command

from ..core.errors import ModelError
from ..core.nouns import StopReason
from .allowance import spend
from .episode import Episode, State
from .steps import Emit, act, answer, skim, think


@cache
def build_graph() -> Any:
    """The compiled graph; run it with `context=Episode(...)`."""
    return _graph().compile()


def build_saved_graph(checkpointer: BaseCheckpointSaver[str]) -> Any:
    """The same, saving its state after every node; the run's id is the thread id."""
    return _graph().compile(checkpointer=checkpointer)


def _graph() -> StateGraph[State, Episode]:
    graph = StateGraph(State, context_schema=Episode)
    for step in (skim, think, act):
        graph.add_node(step.__name__, _node(step), destinations=("think", "act", "answer", END))
    graph.add_node("answer", _node(answer), destinations=(END,))
    graph.add_conditional_edges(START, _first, ["skim", "think", "act", "answer", END])
    return graph


async def _first(state: State) -> str:  # async, or LangGraph starts a thread for it
    """A fresh episode begins with a skim; one that branches off from another goes on where it stands."""
    return _next(state) if state["turns"] or state["pending"].token_ids else "skim"


def _next(state: State) -> str:
    if state["error"] is not None or state["answer"] is not None:
        return END
    if state["stop"] is not None:
        return "answer"
    turns = state["turns"]
    if not turns or state["pending"].token_ids:
        return "think"
    # Nothing is pending after a turn that was read: it called tools, or it answered.
    return "act" if turns[-1].tool_calls else "answer"


def cut_short(state: State) -> dict[str, Any]:
    """The state of an episode that was cancelled; a call of the policy that was under way is counted."""
    begun = bool(state["turns"] or state["pending"].token_ids)
    calling = begun and _next(state) in ("think", "answer")
    return {**state, "stop": StopReason.TIMEOUT, "usage": spend(state["usage"], model_calls=int(calling))}


def _node(step: Callable[[State, Episode, Emit], Awaitable[dict[str, Any]]]) -> Callable[..., Awaitable[Command[Any]]]:
    """A step as a node: its time is counted, its failure becomes data, and it says where to go on (a conditional edge would
    be another runnable, which reads the state again)."""

    async def node(state: State, runtime: Runtime[Episode]) -> Command[Any]:
        started = time.monotonic()
        try:
            update = await step(state, runtime.context, runtime.stream_writer)
        except Exception as error:  # a bad rollout is data, and the batch goes on
            line = (str(error).strip().splitlines() or [""])[0]
            kind = "" if isinstance(error, ModelError) else f"{type(error).__name__}: "
            update = {"stop": StopReason.ERROR, "error": f"{step.__name__}: {kind}{line}", "usage": state["usage"]}
        update["usage"] = spend(update.get("usage", state["usage"]), wall_s=time.monotonic() - started)
        return Command(update=update, goto=_next(cast(State, {**state, **update})))

    node.__name__ = step.__name__
    return node
