"""Dreams: episodes of the world played without a film, for teaching a policy before it meets pictures.

The oracle speaks, and where a tool would answer, its observation is made up from the scene (with the misses and
distractors of a real search) through the very functions that the tools use for their texts. Frames are placeholders
whose features are percept codes (`train.codes`): what the trained vision tower gives for a real frame, up to noise. So a
dreamed sequence is token for token what the agent would have recorded, at a thousandth of the cost.

    dream(seed, renderer) -> Dream(token_ids_T, weight_T, codes_F)
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..agent.prompts import CAPTION_PROMPT, FORCED_ANSWER, first_messages
from ..core.clip import Clip
from ..core.nouns import Frame, Message, Task, ToolSpec
from ..core.policy import Renderer
from ..core.sampling import fps_times, uniform_times
from ..tools.format import hits_content, zoom_content
from ..tools.toolbox import default_toolbox
from ..world.oracle import Oracle, describe, frame_lines
from ..world.questions import make_tasks
from ..world.scene import FILM_SIZE, Event, Scene
from ..world.script import HELD_OUT_SEED, Cast, make_cast
from .codes import frame_code

WINDOW_S, STRIDE_S = 12.0, 2.0
MAX_TURNS = 7
SKIM_FRAMES = 4
NO_CHOICES = 0.3
"""Share of episodes whose options are left out: people ask without any."""


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


class Dreamer:
    """Plays oracle episodes on made-up scenes and renders them with one renderer."""

    def __init__(self, renderer: Renderer, *, direct_share: float = 0.2, slips: float = 0.06) -> None:
        self.renderer = renderer
        self.tools: tuple[ToolSpec, ...] = default_toolbox().specs
        self.direct_share = direct_share
        self.slips = slips

    def dreams(self, seed: int) -> list[Dream]:
        """An episode for every task of the scene of `seed`."""
        if seed >= HELD_OUT_SEED:
            raise ValueError(f"seed {seed} is held out: train on seeds below {HELD_OUT_SEED}")
        rng = random.Random(f"dream-{seed}")
        cast = make_cast(seed, rng.uniform(8, 40))
        episodes = [self._episode(task, cast, rng) for task in make_tasks(cast, "dream.mp4", "dream")]
        openings = [self._opening(cast, rng) for _ in range(3)]
        return [*episodes, self._caption(cast, rng), self._drill(cast, rng), self._drill(cast, rng), *openings]

    def _opening(self, cast: Cast, rng: random.Random) -> Dream:
        """Only the first call of a "first" episode: its query names two objects, and the second name is one token in
        five hundred of the whole episode, too rare to be learnt there."""
        tasks = make_tasks(cast, "dream.mp4", "dream", draw=rng.randrange(1, 10**6))
        task = next(t for t in tasks if t.kind == "first")
        skim = _frames(uniform_times(cast.scene.duration_s, SKIM_FRAMES))
        messages = first_messages(cast.scene.duration_s, skim, task.question, task.choices)
        opening = self.renderer.start(messages, self.tools)
        call = self.renderer.encode(Oracle(task=task, scene=cast.scene).reply(messages) + "<|im_end|>")
        return Dream(
            kind="opening",
            token_ids_T=(*opening.token_ids, *call),
            loss_mask_T=(0,) * len(opening.token_ids) + (1,) * len(call),
            codes_F=np.stack([frame_code(cast.scene, f.timestamp_s) for f in opening.frames]),
            frames_F=opening.frames,
        )

    def _drill(self, cast: Cast, rng: random.Random) -> Dream:
        """Nothing but reading frames: ten of them, most with an object, each told in a line. Short, and nearly every
        token has to be looked up, so reading is learnt long before episodes are."""
        asked, kind = rng.choice((("List the objects.", "when"), ("Where are they?", "motion"), ("Read the digits.", "digit")))
        times = {float(rng.randrange(int(cast.scene.duration_s))) for _ in range(3)}
        for event in rng.sample(cast.scene.events, min(7, len(cast.scene.events))):
            times.add(float(rng.randint(int(event.start_s + 0.5), int(event.end_s - 0.5))))
        frames = _frames(sorted(times))
        opening = self.renderer.start([Message(role="user", content=(*frames, asked))], ())
        said = self.renderer.encode(f"<think>{frame_lines(frames, cast.scene, kind)}</think><|im_end|>")
        return Dream(
            kind="drill",
            token_ids_T=(*opening.token_ids, *said),
            loss_mask_T=(0,) * len(opening.token_ids) + (1,) * len(said),
            codes_F=np.stack([frame_code(cast.scene, f.timestamp_s) for f in frames]),
            frames_F=frames,
        )

    def _caption(self, cast: Cast, rng: random.Random) -> Dream:
        """One frame and what is on it, as `caption_frames` asks."""
        event = rng.choice((*cast.scene.events, None))
        frame = _frames([rng.uniform(event.start_s, event.end_s - 0.2) if event else 0.0])[0]
        opening = self.renderer.start([Message(role="user", content=(frame, CAPTION_PROMPT))], ())
        said = self.renderer.encode(describe(event) + "<|im_end|>")
        return Dream(
            kind="caption",
            token_ids_T=(*opening.token_ids, *said),
            loss_mask_T=(0,) * len(opening.token_ids) + (1,) * len(said),
            codes_F=frame_code(cast.scene, frame.timestamp_s)[None],
            frames_F=(frame,),
        )

    def _episode(self, task: Task, cast: Cast, rng: random.Random) -> Dream:
        direct = rng.random() < self.direct_share
        frames_n = rng.choice((8, 8, 8, 32, 64)) if direct else SKIM_FRAMES
        oracle = Oracle(task=task, scene=cast.scene, seed=rng.randrange(10**9), tools=not direct, slips=self.slips)
        skim = _frames(uniform_times(cast.scene.duration_s, frames_n))
        choices = () if rng.random() < NO_CHOICES else task.choices
        messages = list(first_messages(cast.scene.duration_s, skim, task.question, choices))
        opening = self.renderer.start(messages, () if direct else self.tools)
        ids, mask, frames = list(opening.token_ids), [0] * len(opening.token_ids), list(opening.frames)
        cut_after = rng.randint(1, 3) if rng.random() < 0.01 else MAX_TURNS
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
        codes = np.stack([frame_code(cast.scene, f.timestamp_s) for f in frames])
        return Dream(
            kind=task.kind, token_ids_T=tuple(ids), loss_mask_T=tuple(mask), codes_F=codes, frames_F=tuple(frames)
        )

    def _observe(self, text: str, cast: Cast, rng: random.Random) -> Message:
        call = json.loads(text.split("<tool_call>")[1].split("</tool_call>")[0])
        arguments = call["arguments"]
        if call["name"] == "search_clips":
            hits = _search(cast.scene, arguments["query"], arguments["k"], rng)
            content = hits_content(arguments["query"], hits, _frames([h.best_s for h in hits]))
        else:
            clip = Clip(video_id="dream", start_s=arguments["start_s"], end_s=arguments["end_s"])
            times = fps_times(clip.start_s, clip.end_s, arguments["fps"])
            content = zoom_content(clip, cast.scene.duration_s, _frames(times), 1 / arguments["fps"])
        return Message(role="tool", content=content)


def _frames(times_s: Sequence[float]) -> tuple[Frame, ...]:
    """Placeholders; at the film's frame rate, the frame shown at `t` began at the last eighth of a second."""
    return tuple(
        Frame(video_id="dream", timestamp_s=int(t * 8) / 8, sha256="", width=FILM_SIZE, height=FILM_SIZE) for t in times_s
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
