"""Dreams: episodes of the world played without a film, for teaching a policy before it meets pictures.

The oracle speaks, and where a tool would answer, its observation is made up from the scene (with the misses and
distractors of a real search) through the very functions that the tools use for their texts. Frames are placeholders
whose features are percept codes (`codes`): what the trained vision tower gives for a real frame, up to noise. So a
dreamed sequence is token for token what the agent would have recorded, at a thousandth of the cost.

    Dreamer(renderer).dreams(seed) -> [Dream(token_ids_T, loss_mask_T, codes_F, frames_F), ...]

With kinds that need rich scenes (`world.questions.RICH_KINDS`) the same scenes are dreamt rich, and the policy is told of two
tools more; what is asked of the first seven kinds does not change by it.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...agent.embedded import EMBEDDED_PROFILE
from ...agent.profile import Profile
from ...agent.prompts import CAPTION_PROMPT, FORCED_ANSWER, first_messages
from ...core.clip import Clip
from ...core.nouns import Frame, Message, Part, Task, ToolSpec
from ...core.policy import Renderer
from ...core.sampling import fps_times, uniform_times
from ...tools.format import crop_content, hits_content, lines_content, zoom_content
from ...tools.toolbox import default_toolbox
from ...world.oracle import Oracle, describe, frame_lines
from ...world.questions import KINDS, RICH_KINDS, make_tasks
from ...world.scene import CROP, FAR, NEAR, Event, Line, Scene, cell_box, position_bin
from ...world.script import HELD_OUT_SEED, Cast, make_cast
from .codes import CODE_DIM, frame_code

WINDOW_S, STRIDE_S = 12.0, 2.0
MAX_TURNS = 8
SKIM_FRAMES = 4
MINUTES = (8, 75)
"""Lengths of the dreamt films: a model asked about a longer one meets times whose first digits it never wrote."""
NO_CHOICES = 0.3
"""Share of episodes whose options are left out: people ask without any."""
WHERE_DRILL = ("Where are they?", "motion")
DRILLS = (("List the objects.", "when"), WHERE_DRILL, ("Read the digits.", "digit"))
"""What is asked about frames that are to be read line by line, and the kind of question whose lines those are."""
JUMPS, JUMP_FRAMES = 4, 12
"""Drills of a scene whose objects jump, and the frames of each."""
RICH_TOOLS = EMBEDDED_PROFILE.tools or ()
TOOLS = tuple(name for name in RICH_TOOLS if name not in ("search_subtitles", "crop_frame"))


def tools_of(kinds: Iterable[str]) -> tuple[str, ...]:
    """The tools that a policy is told of which is trained on these kinds of questions."""
    return RICH_TOOLS if any(kind in RICH_KINDS for kind in kinds) else TOOLS


def profile_of(kinds: Iterable[str]) -> Profile:
    """How a policy wants to be asked that is trained on these kinds of questions."""
    return replace(EMBEDDED_PROFILE, tools=tools_of(kinds))


@dataclass(frozen=True, kw_only=True, slots=True)
class Dream:
    """One episode as training data: tokens, the weight of each token's loss (0 where the policy did not speak), and a
    (256,) code for each frame, in placeholder order."""

    kind: str
    token_ids_T: tuple[int, ...]
    loss_mask_T: tuple[int, ...]
    codes_F: np.ndarray
    frames_F: tuple[Frame, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Moment:
    """A hit that was never searched for; has what `hits_content` reads."""

    clip: Clip
    best_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class _Spoken:
    """A line of the subtitles; has what `lines_content` reads."""

    clip: Clip
    text: str


class Dreamer:
    """Plays oracle episodes on made-up scenes and renders them with one renderer."""

    def __init__(
        self,
        renderer: Renderer,
        *,
        direct_share: float = 0.2,
        slips: float = 0.06,
        checks: int = 0,
        guesses: float = 0.0,
        kinds: Sequence[str] = KINDS,
    ) -> None:
        self.renderer = renderer
        self.kinds = tuple(kinds)
        self.rich = any(kind in RICH_KINDS for kind in kinds)
        self.tools: tuple[ToolSpec, ...] = default_toolbox(tools_of(kinds)).specs
        self.direct_share = direct_share
        self.habits = {"slips": slips, "checks": checks, "guesses": guesses}

    def dreams(self, seed: int) -> list[Dream]:
        """An episode for every task of the scene of `seed`."""
        if seed >= HELD_OUT_SEED:
            raise ValueError(f"seed {seed} is held out: train on seeds below {HELD_OUT_SEED}")
        rng = random.Random(f"dream-{seed}")
        cast = make_cast(seed, rng.uniform(*MINUTES), rich=self.rich)
        tasks = make_tasks(cast, "dream.mp4", "dream", kinds=self.kinds)
        episodes = [self._episode(task, cast, rng) for task in tasks if task.kind in KINDS]
        openings = [self._opening(cast, rng) for _ in range(3)]
        old = [*episodes, self._caption(cast, rng), self._drill(cast, rng), self._drill(cast, rng), *openings]
        # Of their own random numbers, so that the kinds before them are dreamt as they always were.
        rng = random.Random(f"dream-jumps-{seed}")
        old += [self._jumps(cast.scene, rng) for _ in range(JUMPS)]
        rng = random.Random(f"dream-more-{seed}")
        more = [self._episode(task, cast, rng) for task in tasks if task.kind not in KINDS]
        if self.rich:
            more.append(self._crop_drill(cast, rng))
            more += [drill(cast, rng) for drill in (self._talk_drill, self._talk_drill, self._saying, self._saying)]
        return [*old, *more]

    def _opening(self, cast: Cast, rng: random.Random) -> Dream:
        """Only the first call of a "first" episode: its query names two objects, and the second name is one token in
        five hundred of the whole episode, too rare to be learnt there."""
        tasks = make_tasks(cast, "dream.mp4", "dream", draw=rng.randrange(1, 10**6))
        return self._first_call(next(t for t in tasks if t.kind == "first"), cast)

    def _drill(self, cast: Cast, rng: random.Random) -> Dream:
        """Nothing but reading frames: ten of them, most with an object, each told in a line. Short, and nearly every
        token has to be looked up, so reading is learnt long before episodes are."""
        asked, kind = rng.choice(DRILLS)
        times = {float(rng.randrange(int(cast.scene.duration_s))) for _ in range(3)}
        for event in rng.sample(cast.scene.events, min(7, len(cast.scene.events))):
            times.add(float(rng.randint(int(event.start_s + 0.5), int(event.end_s - 0.5))))
        frames = _frames(sorted(times), cast.scene)
        opening = self.renderer.start([Message(role="user", content=(*frames, asked))], ())
        said = self.renderer.encode(f"<think>{frame_lines(frames, cast.scene, kind)}</think><|im_end|>")
        return _dream("drill", cast.scene, (opening.token_ids, said), frames)

    def _jumps(self, scene: Scene, rng: random.Random) -> Dream:
        """A zoom into a stretch where each frame shows an object somewhere else, or another object, or none. In an episode
        the frame before tells nearly all of the next one, and a policy that goes by that reads "x0 x1 x2 x3" off an object that
        comes from the right; here only the frame of that very second tells."""
        step_s = rng.choice((1.0, 1.0, 2.0, 4.0))
        start_s = float(rng.randrange(int(scene.duration_s - JUMP_FRAMES * step_s)))
        times = [start_s + i * step_s for i in range(JUMP_FRAMES)]
        asked, kind = rng.choice((*DRILLS, WHERE_DRILL))
        one = rng.choice(scene.events) if rng.random() < 0.5 else None
        shown = [_anywhere(one or rng.choice(scene.events), t, rng) for t in times if rng.random() > 0.15]
        jumping = replace(scene, events=tuple(shown))
        frames = _frames(times, jumping)
        clip = Clip(video_id="dream", start_s=start_s, end_s=start_s + JUMP_FRAMES * step_s)
        content = (*zoom_content(clip, scene.duration_s, frames, step_s), asked)
        opening = self.renderer.start([Message(role="user", content=content)], ())
        said = self.renderer.encode(f"<think>{frame_lines(frames, jumping, kind)}</think><|im_end|>")
        return _dream("drill", jumping, (opening.token_ids, said), frames)

    def _crop_drill(self, cast: Cast, rng: random.Random) -> Dream:
        """Reading small digits: crops of objects, some of which carry none, each told in a line."""
        frames = []
        for event in rng.sample(cast.scene.events, min(8, len(cast.scene.events))):
            time_s = float(rng.randint(int(event.start_s + 0.5), int(event.end_s - 0.5)))
            x, y = event.position(time_s)
            box = cell_box(position_bin(x), position_bin(y), CROP)
            frames.append(_frames([time_s], cast.scene, box)[0])
        shown = tuple(sorted(frames, key=lambda f: f.timestamp_s))
        opening = self.renderer.start([Message(role="user", content=(*shown, "Read the small digits."))], ())
        said = self.renderer.encode(f"<think>{frame_lines(shown, cast.scene, 'small')}</think><|im_end|>")
        return _dream("drill", cast.scene, (opening.token_ids, said), shown)

    def _talk_drill(self, cast: Cast, rng: random.Random) -> Dream:
        """Reading what is said, and saying it again without the space before: each word is so rare in whole episodes that 400
        steps of them left it a constant guess."""
        lines = sorted(rng.sample(cast.scene.lines, min(6, len(cast.scene.lines))), key=lambda line: line.start_s)
        asked = Message(role="user", content=(*lines_content("lines", list(map(_spoken, lines))), "Read the lines."))
        opening = self.renderer.start([asked], ())
        read, words = "\n".join(f"{line.start_s:.0f} {line.word}" for line in lines), "\n".join(line.word for line in lines)
        said = self.renderer.encode(f"<think>{read}</think>\n<answer>{words}</answer><|im_end|>")
        return _dream("drill", cast.scene, (opening.token_ids, said), ())

    def _saying(self, cast: Cast, rng: random.Random) -> Dream:
        """Only the first call of a question that names a word: the query is that word."""
        drawn = (make_tasks(cast, "dream.mp4", "dream", draw=rng.randrange(1, 10**6), kinds=("subtitle",)) for _ in range(40))
        return self._first_call(next(t for (t,) in drawn if '"' in t.question), cast)

    def _first_call(self, task: Task, cast: Cast) -> Dream:
        skim = _frames(uniform_times(cast.scene.duration_s, SKIM_FRAMES), cast.scene)
        messages = first_messages(cast.scene.duration_s, skim, task.question, task.choices)
        opening = self.renderer.start(messages, self.tools)
        call = self.renderer.encode(Oracle(task=task, scene=cast.scene).reply(messages) + "<|im_end|>")
        return _dream("opening", cast.scene, (opening.token_ids, call), opening.frames)

    def _caption(self, cast: Cast, rng: random.Random) -> Dream:
        """One frame and what is on it, as `caption_frames` asks."""
        event = rng.choice((*cast.scene.events, None))
        frame = _frames([rng.uniform(event.start_s, event.end_s - 0.2) if event else 0.0], cast.scene)[0]
        opening = self.renderer.start([Message(role="user", content=(frame, CAPTION_PROMPT))], ())
        said = self.renderer.encode(describe(event) + "<|im_end|>")
        return _dream("caption", cast.scene, (opening.token_ids, said), (frame,))

    def _episode(self, task: Task, cast: Cast, rng: random.Random) -> Dream:
        direct = rng.random() < self.direct_share
        frames_n = rng.choice((8, 8, 8, 32, 64)) if direct else SKIM_FRAMES
        oracle = Oracle(task=task, scene=cast.scene, seed=rng.randrange(10**9), tools=not direct, **self.habits)
        skim = _frames(uniform_times(cast.scene.duration_s, frames_n), cast.scene)
        choices = () if rng.random() < NO_CHOICES else task.choices
        messages = list(first_messages(cast.scene.duration_s, skim, task.question, choices))
        opening = self.renderer.start(messages, () if direct else self.tools)
        ids, mask, frames = list(opening.token_ids), [0] * len(opening.token_ids), list(opening.frames)
        cut_after = rng.randint(1, 3) if rng.random() < 0.01 else MAX_TURNS - 1
        for turn in range(MAX_TURNS):
            slip, text = oracle.is_slip(messages), oracle.reply(messages)
            forced = turn >= cut_after and "<tool_call>" in text
            if forced:
                text = f"{FORCED_ANSWER}{task.answer}</answer>"
            completion = self.renderer.encode(text + "<|im_end|>")
            silent = len(self.renderer.encode(FORCED_ANSWER)) if forced else 0
            ids += completion
            mask += [0] * silent + [int(not slip)] * (len(completion) - silent)
            messages.append(Message(role="assistant", content=(text,)))
            if "<tool_call>" not in text:
                break
            answer = self._observe(text, cast, rng)
            messages.append(answer)
            delta = self.renderer.extend(completion, [answer])
            ids += delta.token_ids
            mask += [0] * len(delta.token_ids)
            frames += delta.frames
        return Dream(
            kind=task.kind,
            token_ids_T=tuple(ids),
            loss_mask_T=tuple(mask),
            codes_F=_codes(cast.scene, frames),
            frames_F=tuple(frames),
        )

    def _observe(self, text: str, cast: Cast, rng: random.Random) -> Message:
        call = json.loads(text.split("<tool_call>")[1].split("</tool_call>")[0])
        return Message(role="tool", content=observe(cast.scene, call["name"], call["arguments"], rng))


def observe(scene: Scene, name: str, arguments: dict[str, Any], rng: random.Random) -> tuple[Part, ...]:
    """What a tool would answer about the film of `scene`, byte for byte (but for what a search finds)."""
    if name == "search_clips":
        hits = _search(scene, arguments["query"], arguments["k"], rng)
        return hits_content(arguments["query"], hits, _frames([h.best_s for h in hits], scene))
    if name == "search_subtitles":
        return _subtitles(scene, **arguments)
    if name == "crop_frame":
        return crop_content(_frames([arguments["time_s"]], scene, arguments["box"])[0])
    clip = Clip(video_id="dream", start_s=arguments["start_s"], end_s=arguments["end_s"])
    times = fps_times(clip.start_s, clip.end_s, arguments["fps"])
    return zoom_content(clip, scene.duration_s, _frames(times, scene), 1 / arguments["fps"])


def _subtitles(scene: Scene, query: str, k: int, start_s: float = 0.0, end_s: float = 0.0) -> tuple[Part, ...]:
    """The lines with a word in them, or those of a stretch. (A word is said once in a film.)"""
    within = (start_s, end_s) if end_s else None
    found = [
        _spoken(line)
        for line in scene.lines
        if (not within or (line.start_s < within[1] and line.end_s > within[0]))
        and (not query or re.search(rf"\b{re.escape(query)}\b", line.text))
    ]
    return lines_content("lines", found[:k], query=query, within=within, more=len(found) > k)


def _spoken(line: Line) -> _Spoken:
    return _Spoken(clip=Clip(video_id="dream", start_s=line.start_s, end_s=line.end_s), text=line.text)


def _dream(kind: str, scene: Scene, said: tuple[Sequence[int], Sequence[int]], frames: tuple[Frame, ...]) -> Dream:
    """One exchange: what was asked, and the answer that is trained on."""
    opening, answer = said
    return Dream(
        kind=kind,
        token_ids_T=(*opening, *answer),
        loss_mask_T=(0,) * len(opening) + (1,) * len(answer),
        codes_F=_codes(scene, frames),
        frames_F=frames,
    )


def _anywhere(event: Event, t_s: float, rng: random.Random) -> Event:
    """The object of `event`, for one second somewhere on the screen."""
    x, y = rng.uniform(NEAR, FAR), rng.uniform(NEAR, FAR)
    return replace(event, start_s=t_s, end_s=t_s + 1, x0=x, y0=y, x1=x, y1=y)


def _codes(scene: Scene, frames: Sequence[Frame]) -> np.ndarray:
    """(F, 256)."""
    codes = [frame_code(scene, f.timestamp_s, f.box) for f in frames]
    return np.stack(codes) if codes else np.zeros((0, CODE_DIM), np.float32)


def _frames(times_s: Sequence[float], scene: Scene, box: Sequence[float] | None = None) -> tuple[Frame, ...]:
    """Placeholders; at the film's frame rate, the frame shown at `t` began at the last eighth of a second. `box` is in
    thousandths."""
    sides = None if box is None else (box[0] / 1000, box[1] / 1000, box[2] / 1000, box[3] / 1000)
    width = scene.size if sides is None else round(scene.size * (sides[2] - sides[0]))
    height = scene.size if sides is None else round(scene.size * (sides[3] - sides[1]))
    return tuple(
        Frame(video_id="dream", timestamp_s=int(t * 8) / 8, sha256="", width=width, height=height, box=sides) for t in times_s
    )


def _search(scene: Scene, query: str, k: int, rng: random.Random) -> list[_Moment]:
    """What a good but imperfect search finds: `k` moments for each of the queries between semicolons."""
    found: dict[float, _Moment] = {}
    for one in query.split(";"):
        scored = [(_match(e, one.split()) + rng.gauss(0, 0.15), _moment(scene, e, rng)) for e in scene.events]
        scored += [(rng.gauss(0, 0.1), _background(scene, rng)) for _ in range(6)]
        if rng.random() < 0.04:  # a miss: the best moment is not found
            scored.remove(max(scored, key=lambda s: s[0]))
        for _, moment in sorted(scored, key=lambda s: -s[0])[:k]:
            if all(abs(moment.best_s - t) >= WINDOW_S / 2 for t in found):
                found[moment.best_s] = moment
    return list(found.values())


def _match(event: Event, words: Sequence[str]) -> float:
    """1 when every word fits the event, half of that for half of them; a single word fits or does not."""
    return sum(w in (event.colour, event.shape) for w in words) / len(words)


def _moment(scene: Scene, event: Event, rng: random.Random) -> _Moment:
    first = int(event.start_s) + (event.start_s % 1 > 0)
    return _window(scene, float(rng.randint(first, max(first, int(event.end_s - 0.01)))))


def _background(scene: Scene, rng: random.Random) -> _Moment:
    while True:
        t_s = float(rng.randrange(int(scene.duration_s)))
        if all(t_s < e.start_s - 6 or t_s > e.end_s + 6 for e in scene.events):
            return _window(scene, t_s)


def _window(scene: Scene, best_s: float) -> _Moment:
    """The window of the clip index whose centre is nearest (see `memory.index`)."""
    last = (scene.duration_s - WINDOW_S) // STRIDE_S * STRIDE_S
    start_s = min(max(0.0, STRIDE_S * round((best_s - WINDOW_S / 2) / STRIDE_S)), last)
    return _Moment(clip=Clip(video_id="dream", start_s=start_s, end_s=start_s + WINDOW_S), best_s=best_s)
