"""Live: an episode in a terminal, step by step as it happens. One function from an event to lines; no state but the clock.

Texts of the model and of questions are printed as plain text: markup in them is not obeyed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..agent.events import Answered, Called, Decided, Event, Forced, Misread, Observed, Skimmed, Thought
from ..core.clip import Clip
from ..core.nouns import Frame, Observation, ToolCall

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

MAX_LINES = 14
"""A longer thought is cut in the terminal; the page and the trajectory have all of it."""


def show(event: Event, console: Console) -> None:
    """Print what happened; progress of indexing and the end are left to the caller."""
    for line in lines(event):
        console.print(line, soft_wrap=True)


def lines(event: Event) -> Iterable[Text]:
    """The lines for an event; none for `Indexing` and `Finished`."""
    from rich.text import Text

    if isinstance(event, Skimmed):
        yield Text.assemble(("  skim   ", "bold"), f"{len(event.frames)} frames at {_times(event.frames)} s")
    elif isinstance(event, Thought):
        thought = (event.thought or "").strip().splitlines()
        for line in thought[:MAX_LINES]:
            yield Text(f"         {line}", style="dim")
        if len(thought) > MAX_LINES:
            yield Text(f"         ... {len(thought) - MAX_LINES} more lines", style="dim")
    elif isinstance(event, Called):
        yield Text.assemble(("  act    ", "bold cyan"), (event.call.name, "cyan"), f" {arguments(event.call)}")
    elif isinstance(event, Observed):
        yield from _observed(event.observation)
    elif isinstance(event, Misread):
        yield Text.assemble(("  again  ", "bold yellow"), event.error)
    elif isinstance(event, Forced):
        yield Text.assemble(("  stop   ", "bold yellow"), f"budget used up ({event.reason.value}): it must answer now")
    elif isinstance(event, Decided):
        yield Text.assemble((f"  {event.by:<11}", "bold cyan"), f"{event.text}  ({event.at_s:.1f} s)")
    elif isinstance(event, Answered):
        cited = spans(event.answer.evidence)
        yield Text.assemble(
            ("  answer ", "bold green"), (event.answer.text, "bold"), f"  evidence {cited} s" if cited else "  no evidence"
        )


def _observed(observation: Observation) -> Iterable[Text]:
    from rich.text import Text

    if observation.error is not None:
        yield Text.assemble(("  see    ", "bold red"), (observation.text or observation.error, "red"))
        return
    frames = observation.frames
    said = f"{len(frames)} frames at {_times(frames)} s" if frames else observation.text.strip().splitlines()[0]
    yield Text.assemble(("  see    ", "bold magenta"), f"{said}  ({observation.wall_s:.2f} s)")


def arguments(call: ToolCall) -> str:
    """The arguments of a call, as people read them; the raw text where it is not JSON."""
    try:
        values = json.loads(call.arguments_json)
    except json.JSONDecodeError:
        return call.arguments_json
    return ", ".join(f"{k}={v}" for k, v in values.items()) if isinstance(values, dict) else call.arguments_json


def spans(clips: Iterable[Clip]) -> str:
    """Clips as "start-end; start-end" in seconds."""
    return "; ".join(f"{c.start_s:.1f}-{c.end_s:.1f}" for c in clips)


def _times(frames: tuple[Frame, ...], most: int = 8) -> str:
    times = [f"{f.timestamp_s:.1f}" for f in frames]
    return ", ".join(times) if len(times) <= most else ", ".join([*times[: most - 2], "...", times[-1]])

