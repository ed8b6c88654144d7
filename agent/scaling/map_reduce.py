"""map-reduce: every segment of the video is looked at by itself, then one answer is made of what was seen (MR. Video,
2504.16082).

There captions of segments are merged and questions are asked of the segments one by one. Here each segment is asked the
question (say=answers) or described (say=captions) from uniform frames of its own, all at the same time; the reducer reads
the notes in order of time and answers. Where it cannot be read, or the model follows no instructions, the segments'
answers vote by how sure they were.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from ...core.clip import Clip
from ...core.nouns import Message
from ...core.sampling import uniform_times
from .bench import Bench, Spent, seed_of
from .passes import said
from .purse import Least, Purse
from .strategy import Outcome, Strategy, check
from .tally import tally

DESCRIBE = "Describe what happens in this part of the video in one or two sentences, with times in seconds."
REDUCE = "Video of {length:.1f} seconds. Notes on its parts, in order of time:\n{notes}\n{question}\nAnswer from the notes in this form:\n<answer>your short answer</answer>\n<evidence>START-END</evidence>"  # noqa: E501
REDUCE_TOKENS = 256


@dataclass(frozen=True, kw_only=True)
class MapReduce(Strategy):
    segments: int = 8
    frames: int = 8
    """Of each segment."""
    say: Literal["answers", "captions"] = "answers"

    name = "map-reduce"
    help = "an answer or caption for every segment, then one answer from all of them"

    def __post_init__(self) -> None:
        check(self, segments=(1, 4096), frames=(1, 100_000))

    @property
    def runs(self) -> float:
        return 1.0 + self.segments * self.frames / 16

    def least(self, bench: Bench) -> Least:
        return {"frames": 1, "sampled_tokens": 48, "model_calls": 1}

    async def solve(self, bench: Bench, purse: Purse, seed: int) -> Outcome:
        clips = self._clips(bench)
        captions = self.say == "captions" and bench.knows_words
        job = self._caption if captions else self._ask
        jobs = [partial(job, bench, clip=clip, seed=seed_of(seed, i)) for i, clip in enumerate(clips)]
        # The reducer's share is kept back.
        came = await bench.each(purse, jobs, self.least(bench), of=len(jobs) + 1)
        done = [(clip, one) for clip, one in zip(clips, came, strict=False) if one is not None]
        notes = [(clip, one if isinstance(one, str) else said(one.answer)) for clip, one in done]
        bench.note(self.name, f"{len(done)} of {len(clips)} segments: {'; '.join(n for _, n in notes)[:200]}")
        if bench.knows_words and notes:
            try:
                reduced = await self._reduce(bench, purse, seed, notes)
            except Spent:
                reduced = None
            if reduced is not None:
                return reduced
        return self._vote(bench, purse, [one for _, one in done if isinstance(one, Outcome)])

    def _clips(self, bench: Bench) -> list[Clip]:
        length = bench.desk.video.readable_s
        cuts = [length * i / self.segments for i in range(self.segments + 1)]
        return [Clip(video_id=bench.desk.video.id, start_s=a, end_s=b) for a, b in itertools.pairwise(cuts)]

    def _times(self, clip: Clip) -> tuple[float, ...]:
        return tuple(clip.start_s + t for t in uniform_times(clip.duration_s, self.frames))

    async def _ask(self, bench: Bench, part: Purse, *, clip: Clip, seed: int) -> Outcome:
        run = await bench.episode(part, seed, tools=False, times_s=self._times(clip))
        outcome = bench.outcome(run)
        cited = outcome.answer.evidence or (clip,)
        return replace(outcome, answer=replace(outcome.answer, evidence=cited))

    async def _caption(self, bench: Bench, part: Purse, *, clip: Clip, seed: int) -> str:
        frames = await bench.frames(part, self._times(clip))
        message = Message(role="user", content=(*frames, DESCRIBE))
        run = await bench.say(part, [message], tokens=96, seed=seed)
        return " ".join(run.turns[-1].completion.text.rpartition("</think>")[2].split())

    async def _reduce(self, bench: Bench, purse: Purse, seed: int, notes: Sequence[tuple[Clip, str]]) -> Outcome | None:
        lines = "\n".join(f"{c.start_s:.1f}-{c.end_s:.1f}: {note}" for c, note in notes)
        (asked,) = bench.first_messages(())[-1:]
        question = asked.text.partition("\n")[2]
        text = REDUCE.format(length=bench.desk.video.duration_s, notes=lines, question=question)
        run = await bench.say(purse, [Message(role="user", content=(text,))], tokens=REDUCE_TOKENS, seed=seed)
        answer = bench.read("", run)
        return None if answer is None else bench.settle(run, answer, "reduced")

    def _vote(self, bench: Bench, purse: Purse, outcomes: Sequence[Outcome]) -> Outcome:
        if not outcomes:
            return bench.anytime(purse.short_of(self.least(bench)))
        sure = [o.answer.confidence or 0.0 for o in outcomes]
        best = tally([o.answer for o in outcomes], sure, bench.task.choices)[0]
        return replace(outcomes[best.speaker], answer=best.answer, why="segments voted")
