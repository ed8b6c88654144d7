"""The oracle: solves every task of the world with the agent's real tools, writing its steps so that a model can learn them.

It is told the scene, so it reads each frame that a tool shows without error; all else it takes from the observations,
as a model must: which moments were found, what "After" a zoom names. Its thoughts are dense and mechanical: every hit
and every frame in order with its time, one token for a decision, intervals copied and never computed.

    750 red star yes        <- a search: the start of the hit, what its frame shows, is it the one asked for
    88 red ring no
    752 none                <- a zoom: the second, what is seen (x and y in fifths, the digit, where they matter)
    753 red star x1 y3
    from x1 to x4 right     <- a decision
    x1 left                 <- another: which half a column lies in
    752 lantern             <- what is said: the start of the line, the thing it names
    753 7                   <- a crop: the second, the small digit

Where a box has to be written (a crop to make, a place to cite), it is looked up by column and row in a short table
(`scene.cell_box`); nothing is reckoned.

`reply(messages)` is a pure function of what was said so far (and of the oracle's seed), so it can stand behind any
policy. With `slips`, it sometimes looks at a wrong hit first and recovers; `is_slip` tells such turns apart, so that
nobody is trained to make the mistake. Two bad habits are for reinforcement learning to find out. With `checks` it is more
thorough than it need be: it looks closely at hits that it has seen to be wrong before it goes on, which costs calls and
frames and changes no answer. With `guesses` it answers some questions without the closer look that they need, as teachers do
who are told the answer; whoever learns from it, and is told nothing, learns to guess.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..core.nouns import Frame, Message, Task
from .observed import Crop, Hit, Said, Zoom, read
from .scene import BINS, COLOURS, CROP, SHAPES, Event, Scene, cell_box, position_bin

OBJECT = 0.46
"""Width of the box that is cited for an object: objects are 0.40 to 0.48 wide."""
POSITIONS = ("motion", "where", "small")
"""Kinds for which the place of what is seen is told."""
LOOKING = ("motion", "when", "digit", "after", "where", "small")
"""Kinds that need a closer look at what was found."""
ORDINALS = ("one", "two", "three", "four", "five", "six")
_NAME = re.compile(rf"\b({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})\b")


@dataclass(frozen=True, kw_only=True, slots=True)
class Oracle:
    """A teacher for one task. `tools=False` is the single-pass teacher: it answers from the frames it is shown."""

    task: Task
    scene: Scene
    seed: int = 0
    tools: bool = True
    slips: float = 0.0
    checks: int = 0
    """At most so many wrong hits are looked at closely all the same; how many is drawn from 0 to `checks` for each task."""
    guesses: float = 0.0
    """Share of the tasks of kinds that need a closer look in which it takes none."""

    def reply(self, messages: Sequence[Message]) -> str:
        """The next assistant text."""
        if not self.tools:
            return self._answer(self._frame_lines(messages[-1].frames, quiet=True), self.task.answer or "", ())
        seen = [read(m) for m in messages if m.role == "tool"]
        if not seen:
            return _call("", "search_subtitles" if self._word else "search_clips", query=self._query, k=self._k)
        last = seen[-1]
        if isinstance(last, Said):
            return self._after_said(last)
        if isinstance(last, Crop):
            return self._after_crop(last, [s for s in seen if isinstance(s, Zoom)][-1])
        if isinstance(last, Zoom) and self._word:
            events = [self.scene.event_at(f.timestamp_s) for f in last.frames]
            shown = next((e.name for e in events if e), self.task.answer or "")
            return self._answer(self._frame_lines(last.frames), shown, [(last.start_s, last.end_s)])
        if isinstance(last, Zoom):
            return self._after_zoom(last, [s for s in seen if isinstance(s, list)][-1], seen)
        return self._after_search(last, seen)

    def is_slip(self, messages: Sequence[Message]) -> bool:
        """True when `reply(messages)` goes to a wrong hit on purpose."""
        seen = [read(m) for m in messages if m.role == "tool"]
        return self.tools and len(seen) == 1 and isinstance(seen[0], list) and self._slip_target(seen[0]) is not None

    # What is asked ------------------------------------------------------------------------------------------------

    @property
    def _names(self) -> tuple[str, ...]:
        return tuple(f"{c} {s}" for c, s in _NAME.findall(self.task.question))

    @property
    def _word(self) -> str:
        """What the question says that the subtitles say; empty where it asks for something else."""
        quoted = re.search(r'"(\w+)"', self.task.question)
        return quoted[1] if self.task.kind == "subtitle" and quoted else ""

    @property
    def _query(self) -> str:
        if self._word:
            return self._word
        if self.task.kind == "attribute":
            words = re.findall(r"[a-z]+", self.task.question.lower())
            return next(w for w in words if w in SHAPES or w in COLOURS)
        # No space: the second name is then the same token that a first name would be.
        return ";".join(self._names)

    @property
    def _k(self) -> int:
        return {"count": 6, "first": 2}.get(self.task.kind, 3)

    def _wanted(self, event: Event | None) -> bool:
        if event is None:
            return False
        if self.task.kind == "attribute":
            return self._query in (event.shape, event.colour)
        return event.name in self._names

    # Turns --------------------------------------------------------------------------------------------------------

    def _after_search(self, hits: list[Hit], seen: Sequence[object]) -> str:
        lines = self._verdicts(hits)
        found = self._found(hits)
        searches = sum(isinstance(s, list) for s in seen)
        if not found and searches < 3:
            return _call(_lines(lines), "search_clips", query=self._query, k=self._k + 3 * searches)
        checked = self._checked(hits)
        if checked:
            return self._zoom(lines, checked[0])
        return self._conclude(lines, found, self._slip_target(hits) if len(seen) == 1 else None)

    def _found(self, hits: Sequence[Hit]) -> list[Hit]:
        return [h for h in hits if self._wanted(self.scene.event_at(h.frame.timestamp_s))]

    def _wrong(self, hits: Sequence[Hit]) -> list[Hit]:
        return [h for h in hits if not self._wanted(self.scene.event_at(h.frame.timestamp_s))]

    def _verdicts(self, hits: Sequence[Hit]) -> list[str]:
        lines, count = [], 0
        for hit in hits:
            event = self.scene.event_at(hit.frame.timestamp_s)
            verdict = "yes" if self._wanted(event) else "no"
            if self.task.kind == "count" and verdict == "yes":
                verdict = ORDINALS[min(count, len(ORDINALS) - 1)]
                count += 1
            lines.append(f"{hit.start_s:.0f} {event.name if event else 'nothing'} {verdict}")
        return lines

    def _conclude(self, lines: list[str], found: list[Hit], slip: Hit | None = None) -> str:
        """What the hits are good for: an answer, or a closer look at the first that shows what is asked for (or at `slip`)."""
        cited = [(h.start_s, h.end_s) for h in found]
        if self.task.kind in ("attribute", "first", "count") or not found:
            return self._answer(lines, self._answer_from_hits(found), cited)
        if self._guesses:
            return self._answer(lines, self.task.answer or "", cited)
        if self.task.kind == "subtitle":
            where = {"start_s": found[0].start_s, "end_s": found[0].end_s}
            return _call(_lines(lines), "search_subtitles", query="", k=self._k, **where)
        return self._zoom(lines, slip or found[0])

    def _answer_from_hits(self, found: list[Hit]) -> str:
        if self.task.kind == "count":
            return str(len(found)) if found else (self.task.answer or "")
        event = self.scene.event_at(found[0].frame.timestamp_s) if found else None
        if event is None:
            return self.task.answer or ""
        if self.task.kind == "attribute":
            return event.colour if self._query == event.shape else event.shape
        return event.name

    def _checked(self, hits: list[Hit]) -> list[Hit]:
        """The hits that are looked at closely before the oracle concludes, in order: some of the wrong ones."""
        wrong = self._wrong(hits)
        if len(wrong) == len(hits) or self.task.kind == "subtitle":
            return []
        return wrong[: random.Random(f"checks-{self.seed}-{self.task.id}").randint(0, self.checks)]

    @property
    def _guesses(self) -> bool:
        draw = random.Random(f"guess-{self.seed}-{self.task.id}").random()
        return self.task.kind in LOOKING and draw < self.guesses

    def _slip_target(self, hits: list[Hit]) -> Hit | None:
        if self.task.kind not in LOOKING or self._guesses or self._checked(hits):
            return None
        wrong = self._wrong(hits)
        rng = random.Random(f"slip-{self.seed}-{self.task.id}")
        if not wrong or len(wrong) == len(hits) or rng.random() >= self.slips:
            return None
        return rng.choice(wrong)

    def _zoom(self, lines: list[str], hit: Hit) -> str:
        fps = 0.5 if self.task.kind == "after" else 1.0
        return _call(_lines(lines), "temporal_zoom", start_s=hit.start_s, end_s=hit.end_s, fps=fps)

    def _after_zoom(self, zoom: Zoom, hits: list[Hit], seen: Sequence[object]) -> str:
        lines, checked = self._frame_lines(zoom.frames), self._checked(hits)
        looks = [s for s in seen if isinstance(s, Zoom)]
        if len(looks) < len(checked):
            return self._zoom(lines, checked[len(looks)])
        if len(looks) == len(checked):
            return self._conclude(lines, self._found(hits))
        looks = looks[len(checked) :]
        events = [self.scene.event_at(f.timestamp_s) for f in zoom.frames]
        was_seen = any(self._wanted(self.scene.event_at(f.timestamp_s)) for s in looks for f in s.frames)
        if not was_seen:
            target = next((h for h in self._found(hits) if h.start_s != zoom.start_s), None)
            if target is None:
                return self._answer(lines, self.task.answer or "", [(zoom.start_s, zoom.end_s)])
            return self._zoom(lines, target)
        if self.task.kind == "after":
            return self._follow(lines, zoom, events, len(looks))
        span = _span(zoom, [self._wanted(e) for e in events])
        first, event = next((f, e) for f, e in zip(zoom.frames, events, strict=True) if e and self._wanted(e))
        if self.task.kind == "small":
            box = list(cell_box(*_bins(event, first.timestamp_s), CROP))
            return _call(_lines(lines), "crop_frame", time_s=first.timestamp_s, box=box)
        if self.task.kind == "where":
            return self._place(lines, event, first.timestamp_s, span)
        lines += self._decision(zoom, events)
        answer = f"{span[0]:.1f}-{span[1]:.1f}" if self.task.kind == "when" else self._fact(events)
        return self._answer(lines, answer, [span])

    def _place(self, lines: list[str], event: Event, t_s: float, span: tuple[float, float]) -> str:
        x, y = _bins(event, t_s)
        across, down = _side(x, "left", "right"), _side(y, "top", "bottom")
        box = ",".join(str(side) for side in cell_box(x, y, OBJECT))
        answer = f"{down} {across}" if "middle" not in (across, down) else self.task.answer or ""
        return self._answer([*lines, f"x{x} {across}", f"y{y} {down}"], answer, [span], f"{t_s:.1f}: {box}")

    def _after_crop(self, crop: Crop, zoom: Zoom) -> str:
        event = self.scene.event_at(crop.frame.timestamp_s)
        lines = frame_lines([crop.frame], self.scene, self.task.kind).splitlines()
        answer = str(event.small_digit) if event and event.small_digit is not None else self.task.answer or ""
        wanted = [self._wanted(self.scene.event_at(f.timestamp_s)) for f in zoom.frames]
        return self._answer(lines, answer, [_span(zoom, wanted)])

    def _after_said(self, said: Said) -> str:
        """To the moment at which the word is said; or, asked what is said, the answer."""
        if not said.lines:
            return self._answer([], self.task.answer or "", ())
        start_s, end_s, _ = said.lines[0]
        if self._word:
            return _call(f"{start_s:.0f} {self._word} yes\n", "temporal_zoom", start_s=start_s, end_s=end_s, fps=1.0)
        line = self.scene.line_at(start_s)
        word = line.word if line else self.task.answer or ""
        return self._answer([f"{start_s:.0f} {word}"], word, [(start_s, end_s)])

    def _follow(self, lines: list[str], zoom: Zoom, events: list[Event | None], looks: int) -> str:
        """The first other object after the one asked for; on to the next stretch while there is none."""
        start = next((i for i, e in enumerate(events) if self._wanted(e)), -1)
        other = next((i for i, e in enumerate(events) if i > start and e and not self._wanted(e)), None)
        if other is not None:
            end_s = zoom.frames[other + 1].timestamp_s if other + 1 < len(zoom.frames) else zoom.end_s
            follower = events[other]
            assert follower is not None
            return self._answer(lines, follower.name, [(zoom.frames[other].timestamp_s, end_s)])
        if zoom.after is None or looks >= 5:
            return self._answer(lines, self.task.answer or "", [(zoom.start_s, zoom.end_s)])
        return _call(_lines(lines), "temporal_zoom", start_s=zoom.after[0], end_s=zoom.after[1], fps=0.25)

    # Words --------------------------------------------------------------------------------------------------------

    def _frame_lines(self, frames: Sequence[Frame], quiet: bool = False) -> list[str]:
        shown = [f for f in frames if not quiet or self.scene.event_at(f.timestamp_s)]
        return frame_lines(shown, self.scene, self.task.kind).splitlines()

    def _decision(self, zoom: Zoom, events: list[Event | None]) -> list[str]:
        if self.task.kind != "motion":
            return []
        shown = [(e, f.timestamp_s) for e, f in zip(events, zoom.frames, strict=True) if e and self._wanted(e)]
        (x0, y0), (x1, y1) = _bins(*shown[0]), _bins(*shown[-1])
        event = shown[0][0]
        x_word = event.motion if event.motion in ("left", "right") else "same"
        y_word = event.motion if event.motion in ("up", "down") else "same"
        return [f"from x{x0} to x{x1} {x_word}", f"from y{y0} to y{y1} {y_word}"]

    def _fact(self, events: list[Event | None]) -> str:
        event = next(e for e in events if self._wanted(e))
        assert event is not None
        return event.motion if self.task.kind == "motion" else str(event.digit)

    def _answer(self, lines: list[str], answer: str, evidence: Sequence[tuple[float, float]], box: str = "") -> str:
        spans = "; ".join(f"{a:.1f}-{b:.1f}" for a, b in evidence)
        cited = f"\n<evidence>{spans}</evidence>" if spans else ""
        cited += f"\n<box>{box}</box>" if box else ""
        return f"<think>{_lines(lines)}</think>\n<answer>{answer}</answer>{cited}"


def describe(event: Event | None) -> str:
    """What a frame shows, in a phrase: the caption of a frame on which `event` is seen."""
    if event is None:
        return "nothing but the background"
    return f"a {event.name}" + (f" with the digit {event.digit}" if event.digit is not None else "")


def frame_lines(frames: Sequence[Frame], scene: Scene, kind: str) -> str:
    """Each frame in a line: its second, what it shows, and where (`POSITIONS`) or with which digit ("digit"). Of a crop, the
    second and the small digit."""
    lines = []
    for frame in frames:
        event = scene.event_at(frame.timestamp_s)
        if frame.box is not None:
            digit = None if event is None else event.small_digit
            lines.append(f"{frame.timestamp_s:.0f} {'none' if digit is None else digit}")
            continue
        text = f"{frame.timestamp_s:.0f} {event.name if event else 'none'}"
        if event and kind in POSITIONS:
            text += " x{} y{}".format(*_bins(event, frame.timestamp_s))
        if event and kind == "digit" and event.digit is not None:
            text += f" {event.digit}"
        lines.append(text)
    return _lines(lines)


def _lines(lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _call(thought: str, name: str, **arguments: str | float | list[int]) -> str:
    call = json.dumps({"name": name, "arguments": arguments})
    return f"<think>{thought}</think>\n<tool_call>\n{call}\n</tool_call>"


def _bins(event: Event, t_s: float) -> tuple[int, int]:
    x, y = event.position(t_s)
    return position_bin(x), position_bin(y)


def _side(cell: int, low: str, high: str) -> str:
    """Which side of the screen a column or row lies on."""
    return "middle" if cell == BINS // 2 else low if cell < BINS // 2 else high


def _span(zoom: Zoom, wanted: Sequence[bool]) -> tuple[float, float]:
    """From the first frame that shows it to the first that no longer does (or the end of the zoom)."""
    first = wanted.index(True)
    last = len(wanted) - 1 - list(reversed(wanted)).index(True)
    end_s = zoom.frames[last + 1].timestamp_s if last + 1 < len(wanted) else zoom.end_s
    return zoom.frames[first].timestamp_s, end_s
