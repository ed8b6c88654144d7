"""`playhead ask`: the whole path, from a file and a question to an answer with its seconds."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import (
    Adapter,
    Attention,
    CacheGb,
    DeviceMap,
    Dtype,
    FourBit,
    Model,
    UsageProblem,
    aside,
    console,
    parse_budget,
    parse_choices,
    parse_load,
    progress_bar,
    quiet_loading,
    say,
    tell,
)

if TYPE_CHECKING:
    from rich.console import Console

    from ..agent.events import Decided, Finished
    from ..agent.scaling.strategy import Scaled, Strategy
    from ..agent.video_agent import Result, VideoAgent
    from ..core.nouns import Box
    from ..core.trajectory import Trajectory


def ask(
    video: Annotated[Path, typer.Argument(help="A video file.", metavar="VIDEO")],
    question: Annotated[str, typer.Argument(help="What you want to know.", metavar="QUESTION")],
    choices: Annotated[str | None, typer.Option(help="Possible answers: a,b,c (or a|b|c).")] = None,
    model: Model = "embedded",
    encoder: Annotated[str, typer.Option(help="embedded, or MODEL_NAME:/path/to/weights of OpenCLIP.")] = "embedded",
    budget: Annotated[
        str | None,
        typer.Option(help="Hard limits: frames=64,seconds=20; also turns, calls, context, tokens, models (its calls)."),
    ] = None,
    strategy: Annotated[
        str | None,
        typer.Option(help="Spend more on the question: vote, vote:n=16, refine(vote(tools,n=4)), ...; see docs/scaling.md."),
    ] = None,
    trace: Annotated[bool, typer.Option("--trace", help="Print every step as it happens.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
    save: Annotated[Path | None, typer.Option(help="Keep the trajectory in this JSONL file, for `playhead view`.")] = None,
    notebook: Annotated[
        Path | None, typer.Option(help="Notes and captions kept for later questions about the same video, in this file.")
    ] = None,
    dtype: Dtype = None,
    device_map: DeviceMap = None,
    attention: Attention = None,
    four_bit: FourBit = False,
    adapter: Adapter = None,
    cache_gb: CacheGb = None,
) -> None:
    """Ask a video of any length a question; the answer comes with the seconds that prove it.

    The agent sees a few frames of the whole video, then searches, zooms in and looks again until it can answer.

    The embedded model knows only playhead's own world (`playhead world make`): on other footage its answers mean nothing,
    and it says so. For real footage give --model a Qwen3-VL, Qwen2.5-VL or SmolVLM2 checkpoint, or the address of
    a server, and --encoder OpenCLIP weights.

    With --strategy the question is answered by a test-time scaling strategy, under one --budget for all that it does. Without a
    budget it may spend a plain run's as many times as it makes runs.

    With --notebook a model may write notes on the video and look up those of earlier questions; the file is made where there is
    none. The embedded model was not trained to: of it only the captions are kept.

    Examples:

        playhead ask film.mp4 "When does the red star appear?" --trace
        playhead ask film.mp4 "When does the red star appear?" --strategy vote --budget frames=64,seconds=20 --trace
        playhead ask film.mp4 "Which way does it move?" --choices left,right,up,down --json
        playhead ask match.mp4 "Who scores first?" --model /models/Qwen3-VL-8B-Instruct --budget frames=64,seconds=60
        playhead ask match.mp4 "Who scores first?" --model http://127.0.0.1:8000/v1#Qwen/Qwen3-VL-8B-Instruct
        playhead ask match.mp4 "And who last?" --model /models/Qwen3-VL-8B-Instruct --notebook match.sqlite
    """
    from ..agent.video_agent import VideoAgent
    from ..core.errors import ModelError
    from ..core.nouns import StopReason
    from ..core.video import Video
    from .note import embedded_only

    if not question.strip():
        raise UsageProblem("the question is empty; ask something")
    options = parse_choices(choices)
    scaling = None if strategy is None else _strategy(strategy)
    limits = parse_budget(budget)
    load = parse_load(
        model, dtype=dtype, device_map=device_map, attention=attention, four_bit=four_bit, adapter=adapter, cache_gb=cache_gb
    )
    for warning in Video.open(video).warnings:  # a bad file is refused before a model is loaded
        tell(f"playhead: {warning}")
    quiet_loading(model)
    agent = VideoAgent(model, budget=limits, encoder=encoder, load=load, notebook=notebook or False)
    if scaling is not None and budget is not None:  # what is not named is as much as the strategy needs
        agent.given_budget = parse_budget(budget, scaling.default_budget(agent.profile.budget))
    searches = agent.needs_index and (scaling is None or scaling.uses_tools)
    embedded_only(video, model=model == "embedded", encoder=searches and encoder == "embedded")
    end = asyncio.run(_run(agent, video, question, options, scaling, aside(), trace))
    trajectory, scaled = end.trajectory, end.result.scaled if end.result else None
    if save is not None:
        for kept in scaled.trajectories if scaled else (trajectory,):
            _append(save, kept)
    if as_json:
        console().print_json(json.dumps(as_plain(trajectory, scaled)))
    if trajectory.answer is None and trajectory.stop_reason is StopReason.ERROR:
        raise ModelError(trajectory.error or "the episode failed")
    if not as_json:
        _say_answer(trajectory, scaled)
    if trajectory.answer is None:
        raise typer.Exit(1)


def _strategy(text: str) -> Strategy:
    from ..agent.scaling.spec import parse_strategy

    return parse_strategy(text)


async def _run(
    agent: VideoAgent,
    video: Path,
    question: str,
    choices: tuple[str, ...],
    strategy: Strategy | None,
    said: Console,
    trace: bool,
) -> Finished:
    from ..agent.events import Decided, Finished, Indexing
    from ..demo.live import show

    end, decided = None, False
    with progress_bar(said) as bar:
        row = bar.add_task("indexing", total=1.0, visible=False)
        async for event in agent.astream(video, question, choices, strategy=strategy):
            if isinstance(event, Indexing):
                bar.update(row, completed=event.share, visible=event.share < 1)
            elif isinstance(event, Finished):
                end = event
            elif trace:
                decided = decided or isinstance(event, Decided)
                show(event, said)
    assert end is not None, "an episode ends with Finished"
    if trace and strategy is not None and not decided and end.result is not None:
        show(_in_short(end.result), said)
    return end


def _in_short(result: Result) -> Decided:
    """What a strategy came to that had nothing to decide on the way."""
    from ..agent.events import Decided

    scaled, usage = result.scaled, result.usage
    assert scaled is not None, "a strategy's result says what it did"
    return Decided(by=scaled.strategy, text=f"{scaled.why}, {usage.frames} frames: {result.answer.text}", at_s=usage.wall_s)


def as_plain(trajectory: Trajectory, scaled: Scaled | None = None) -> dict[str, Any]:
    """What `--json` prints: the answer, its evidence in seconds and boxes in thousandths (as `crop_frame` takes them), why the
    episode ended and what it cost. With a strategy the answer, the reason and the cost are those of all its runs."""
    from ..core.codec import to_plain

    whole = scaled or trajectory
    answer = whole.answer
    plan = {} if scaled is None else {"strategy": scaled.strategy, "why": scaled.why, "runs": len(scaled.trajectories)}
    return {
        "question": trajectory.task.question,
        "answer": answer.text if answer else None,
        "choice": answer.choice if answer else None,
        "confidence": answer.confidence if answer else None,
        "evidence": [[c.start_s, c.end_s] for c in answer.evidence] if answer else [],
        "boxes": [{"time_s": b.time_s, "box": _sides(b)} for b in answer.boxes] if answer else [],
        "looked_at": [[c.start_s, c.end_s] for c in trajectory.evidence_seen],
        "stop_reason": whole.stop_reason.value,
        "error": whole.error,
        "usage": to_plain(whole.usage),
        "model": trajectory.model,
        **plan,
    }


def _sides(box: Box) -> list[int]:
    from ..core.box import THOUSAND

    return [round(side * THOUSAND) for side in (box.x0, box.y0, box.x1, box.y1)]


def _say_answer(trajectory: Trajectory, scaled: Scaled | None) -> None:
    from ..demo.live import spans

    whole = scaled or trajectory
    answer, usage = whole.answer, whole.usage
    if answer is None:
        say(f"no answer ({trajectory.error or trajectory.stop_reason.value})")
    else:
        say(answer.text, style="bold")
        say(f"evidence: {spans(answer.evidence) or 'none cited'} (seconds)")
        if answer.boxes:
            boxes = "; ".join(b.text for b in answer.boxes)
            say(f"boxes: {boxes} (second: left,top,right,bottom in thousandths)")
    cost = f"{usage.turns} turns, {usage.tool_calls} calls, {usage.frames} frames, {usage.wall_s:.1f} s"
    say(f"{cost}, {whole.stop_reason.value.replace('_', ' ')}", style="dim")
    if scaled is not None:
        tokens = f"{usage.prefill_tokens} tokens prefilled, {usage.reused_tokens} reused, {usage.sampled_tokens} sampled"
        confidence = "" if answer is None or answer.confidence is None else f", confidence {answer.confidence:.2f}"
        runs = f"{len(scaled.trajectories)} runs, {usage.model_calls} model calls"
        say(f"{scaled.strategy}: {scaled.why}{confidence}; {runs}, {tokens}", style="dim")


def _append(path: Path, trajectory: Trajectory) -> None:
    from ..core.trajectory import to_json

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as out:
            out.write(to_json(trajectory) + "\n")
    except OSError as error:
        raise UsageProblem(f"--save {path}: cannot be written ({error.strerror or error})") from None
