"""The page: episodes as one self-contained HTML file, to be opened anywhere and sent to anyone.

    playhead view RUN/trajectories.jsonl --out page.html

For each question: the answer beside the truth (where it is known), the timeline of the whole video with what was looked at
in each step over the gold seconds, the same around the evidence, and every step with its thought, its call and its frames.

Everything that a model, a question or a file name says is escaped; the page loads nothing and its policy forbids it to.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from ..core.nouns import Frame, Observation, Task
from ..core.scoring import evidence_recall, is_right, match_choice, temporal_iou
from ..core.trajectory import Trajectory, Turn
from .thumbs import Thumbs, thumb_key
from .timeline import Lane, clock, duration_s, lanes, lens, ticks

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"

_TONES = ("skim", "search_clips", "temporal_zoom", "answer")


def build_page(trajectories: Sequence[Trajectory], thumbs: Thumbs, problems: Sequence[str] = ()) -> str:
    """The whole page as text.

    Args:
        thumbs: data URIs by `thumb_key`; a frame without one is shown as an empty box with its time.
        problems: lines for the head of the page, such as a video that is gone.
    """
    style, script = (Path(__file__).with_name(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    stories = "\n".join(_story(t, i, thumbs) for i, t in enumerate(trajectories))
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{escape(_POLICY)}">
<title>playhead: {len(trajectories)} question{"s" * (len(trajectories) != 1)}</title>
<style>{style}</style></head><body><main>
{_head(trajectories, problems)}
{stories}
<footer>made by playhead · times are seconds of the video, m:ss on the axes</footer>
</main><div id="big"><img alt=""></div><script>{script}</script></body></html>
"""


def _head(trajectories: Sequence[Trajectory], problems: Sequence[str]) -> str:
    videos = list(dict.fromkeys(t.task.video.rsplit("/", 1)[-1] for t in trajectories))
    models = ", ".join(dict.fromkeys(t.model for t in trajectories if t.model))
    known = [t for t in trajectories if is_known(t.task)]
    right = sum(is_right(t.task, t.answer) for t in known)
    names = ", ".join(videos[:3]) + (f" and {len(videos) - 3} more" if len(videos) > 3 else "")
    length = f" ({clock(duration_s(trajectories[0]))})" if len(videos) == 1 else ""
    score = f" · {right} of {len(known)} right" if known else ""
    toc = "".join(f'<a href="#q{i}">{escape(_short(t.task.question))}</a>' for i, t in enumerate(trajectories))
    legend = "".join(
        f'<span><i style="background:var(--{colour})"></i>{text}</span>'
        for colour, text in (
            ("gold-soft", "seconds that hold the answer"),
            ("skim", "skimmed frames"),
            ("search", "search hits"),
            ("zoom", "zoomed in"),
            ("cited", "evidence that the answer cites"),
        )
    )
    return (
        '<h1><span class="mark">▸</span> playhead</h1>'
        f'<p class="sub">{escape(names)}{length} · model {escape(models or "unnamed")}{score}</p>'
        + "".join(f'<p class="problem">{escape(line)}</p>' for line in problems)
        + f'<div class="legend">{legend}</div>'
        + (f'<nav class="toc">{toc}</nav>' if len(trajectories) > 1 else "")
    )


def is_known(task: Task) -> bool:
    """Is there a truth to show the answer beside?"""
    return bool(task.evidence) if task.kind == "when" else task.answer is not None


def _story(trajectory: Trajectory, number: int, thumbs: Thumbs) -> str:
    task = trajectory.task
    all_lanes = lanes(trajectory)
    closer = lens(trajectory)
    boards = _board(trajectory, all_lanes, 0.0, duration_s(trajectory), "The whole video")
    if closer is not None:
        boards += _board(trajectory, all_lanes, *closer, f"Closer: {clock(closer[0])} to {clock(closer[1])}")
    steps = "".join(_step(trajectory, turn, thumbs) for turn in trajectory.turns)
    return (
        f'<section class="story" id="q{number}"><div class="kind">{escape(task.kind)}</div>'
        f"<h2>{escape(task.question)}</h2>{_options(trajectory)}{_verdict(trajectory)}"
        f'{boards}<ol class="steps">{steps}</ol></section>'
    )


def _options(trajectory: Trajectory) -> str:
    task, answer = trajectory.task, trajectory.answer
    if not task.choices:
        return ""
    truth = match_choice(task.answer, task.choices) if task.answer else None
    said = None
    if answer is not None:
        said = answer.choice if answer.choice is not None else match_choice(answer.text, task.choices)
    chips = []
    for i, choice in enumerate(task.choices):
        classes = " ".join(name for name, on in (("said", i == said), ("truth", i == truth)) if on)
        chips.append(f'<span class="{classes}">{escape(choice)}</span>')
    return f'<div class="options">{"".join(chips)}</div>'


def _verdict(trajectory: Trajectory) -> str:
    task, answer, usage = trajectory.task, trajectory.answer, trajectory.usage
    known = is_known(task)
    tone = ("right" if is_right(task, answer) else "wrong") if known else ""
    said = escape(answer.text) if answer else "none"
    cited = "; ".join(_span(c.start_s, c.end_s) for c in answer.evidence) if answer and answer.evidence else "nothing"
    overlap = ""
    if task.evidence and answer:
        overlap = f" <small>IoU {temporal_iou(answer.evidence, task.evidence):.2f}</small>"
    seen = ""
    if task.evidence:
        recall = evidence_recall(trajectory.evidence_seen, task.evidence)
        seen = f"<div><dt>looked at</dt><dd>{recall:.0%} <small>of the seconds that hold the answer</small></dd></div>"
    truth = ""
    if known:
        gold = "; ".join(_span(c.start_s, c.end_s) for c in task.evidence)
        words = "" if task.kind == "when" or task.answer is None else escape(task.answer)
        truth = f"<div><dt>truth</dt><dd>{words} <small>{gold}</small></dd></div>"
    end = trajectory.stop_reason.value.replace("_", " ")
    why = f'<p class="refused">{escape(trajectory.error)}</p>' if trajectory.error else ""
    cost = f"{usage.wall_s:.1f} s <small>{usage.turns} turns, {usage.tool_calls} calls, {usage.frames} frames, {end}</small>"
    return (
        f'<dl class="verdict"><div><dt>answer</dt><dd class="{tone}">{said}</dd></div>{truth}'
        f"<div><dt>evidence cited</dt><dd>{cited}{overlap}</dd></div>{seen}<div><dt>cost</dt><dd>{cost}</dd></div></dl>{why}"
    )


def _span(start_s: float, end_s: float) -> str:
    return f"{start_s:.1f} to {end_s:.1f}"


def _board(trajectory: Trajectory, all_lanes: Sequence[Lane], start_s: float, end_s: float, caption: str) -> str:
    def left(t_s: float) -> float:
        return 100 * (t_s - start_s) / max(end_s - start_s, 1e-6)

    def bar(css: str, a_s: float, b_s: float, title: str) -> str:
        a_s, b_s = max(a_s, start_s), min(b_s, end_s)
        where = f"left:{left(a_s):.3f}%;width:{left(b_s) - left(a_s):.3f}%"
        return f'<div class="{css}" style="{where}" title="{escape(title)}"></div>' if a_s < b_s else ""

    gold = "".join(
        bar("gold", c.start_s, c.end_s, f"holds the answer: {_span(c.start_s, c.end_s)}") for c in trajectory.task.evidence
    )
    rows = []
    for lane in all_lanes:
        marks = "".join(bar("m", m.start_s, m.end_s, _span(m.start_s, m.end_s)) for m in lane.marks if m.frame is None)
        for mark in lane.marks:
            if mark.frame is not None and start_s <= mark.start_s <= end_s:
                marks += f'<div class="f" style="left:{left(mark.start_s):.3f}%" title="{mark.start_s:.1f} s"></div>'
        tone = lane.kind if lane.kind in _TONES else "other"  # a model may call a tool anything
        step = "" if lane.turn is None else f' data-step="{lane.turn}"'
        rows.append(
            f'<div class="name" title="{escape(lane.label)}">{escape(lane.label)}</div>'
            f'<div class="lane {tone}"{step}>{gold}{marks}</div>'
        )
    axis = "".join(
        f'<b class="{"first" if left(t) < 2 else "last" if left(t) > 98 else ""}" style="left:{left(t):.3f}%">{clock(t)}</b>'
        for t in ticks(start_s, end_s)
    )
    return (
        f'<div class="board"><div class="caption">{escape(caption)}</div>{"".join(rows)}'
        f'<div></div><div class="axis">{axis}</div></div>'
    )


def _step(trajectory: Trajectory, turn: Turn, thumbs: Thumbs) -> str:
    gold = trajectory.task.evidence
    seen = {o.tool_call_id: o for o in turn.observations}
    body = []
    if turn.index == 0 and turn.context_frames:
        body.append('<p class="call">a first look at the whole video</p>' + _strip(turn.context_frames, gold, thumbs))
    if turn.thought.strip():
        body.append(f'<p class="thought">{escape(turn.thought.strip())}</p>')
    elif not turn.tool_calls:
        body.append(f'<p class="thought">{escape(turn.completion.text.strip())}</p>')
    for call in turn.tool_calls:
        tone = call.name if call.name in ("search_clips", "temporal_zoom") else "other"
        body.append(f'<p class="call {tone}"><b>{escape(call.name)}</b> {escape(call.arguments_json)}</p>')
        observation = seen.get(call.id)
        if observation is not None:
            body.append(_observation(observation, gold, thumbs))
    if trajectory.answer is not None and turn.index == len(trajectory.turns) - 1:
        body.append(f'<p class="call answer"><b>answer</b> {escape(trajectory.answer.text)}</p>')
    name = "forced" if turn.completion.forced else f"turn {turn.index + 1}"
    return f'<li class="step" data-step="{turn.index}"><div class="n">{name}</div><div>{"".join(body)}</div></li>'


def _observation(observation: Observation, gold: Sequence, thumbs: Thumbs) -> str:
    if observation.error is not None:
        return f'<p class="refused">{escape(observation.text or observation.error)}</p>'
    read = f"<details><summary>what the model read</summary><pre>{escape(observation.text)}</pre></details>"
    return _strip(observation.frames, gold, thumbs) + read


def _strip(frames: Sequence[Frame], gold: Sequence, thumbs: Thumbs) -> str:
    figures = []
    for frame in frames:
        uri = thumbs.get(thumb_key(frame))
        ratio = f"--ratio:{frame.width}/{frame.height}"
        picture = f'<img alt="" src="{uri}">' if uri else '<div class="none"></div>'
        inside = ' class="in"' if any(c.contains(frame.timestamp_s) for c in gold) else ""
        figures.append(f'<figure{inside} style="{ratio}">{picture}<figcaption>{frame.timestamp_s:.1f}</figcaption></figure>')
    return f'<div class="strip">{"".join(figures)}</div>' if figures else ""


def _short(text: str, limit: int = 44) -> str:
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"
