"""The kinds that need more tools, end to end: the oracle through the real agent on a real film, and its dreams beside that."""

import asyncio
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playhead.agent.embedded import EMBEDDED_PROFILE
from playhead.agent.video_agent import VideoAgent
from playhead.core.frames import FrameStore
from playhead.core.nouns import Clip, Task
from playhead.core.scoring import gold_boxes, is_right, spatial_iou
from playhead.core.trajectory import Trajectory
from playhead.core.video import content_hash
from playhead.memory.subtitles import sidecars
from playhead.train.data.oracle_policy import OraclePolicy
from playhead.train.embedded import dream
from playhead.train.embedded.codes import decode_code, frame_code, percept_at
from playhead.train.embedded.dream import Dreamer, tools_of
from playhead.world.film import write_film, write_srt
from playhead.world.observed import Hit, read
from playhead.world.questions import ALL_KINDS, KINDS, MORE_KINDS, make_tasks
from playhead.world.scene import COLOURS, CROP, cell_box, position_bin
from playhead.world.script import Cast, make_cast

SEED = 304
pytestmark = pytest.mark.timeout(600)  # a film is made and indexed first: seconds, minutes on a machine that is busy elsewhere


@pytest.fixture(scope="module")
def cast() -> Cast:
    made = make_cast(SEED, 4, rich=True)
    return replace(made, scene=replace(made.scene, fps=1))  # one frame a second is quickly filmed


@pytest.fixture(scope="module")
def played(cast: Cast, renderer: Any, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Task, Trajectory]]:
    """Every kind asked of the film, "subtitle" in both of its forms."""
    folder = tmp_path_factory.mktemp("rich")
    path = write_film(cast.scene, folder / "film.mp4")
    drawn = [t for draw in range(3) for t in make_tasks(cast, str(path), content_hash(path), draw, MORE_KINDS)]
    tasks = {t.id: t for t in [*make_tasks(cast, str(path), content_hash(path), kinds=KINDS), *drawn]}
    policy = OraclePolicy(renderer, FrameStore(folder / "frames"), tasks)
    unhurried = replace(EMBEDDED_PROFILE.budget, wall_s=None)  # a busy machine must not cut an episode short
    agent = VideoAgent(policy, profile=EMBEDDED_PROFILE, tools=tools_of(ALL_KINDS), budget=unhurried, home=folder / "home")

    async def play() -> list[tuple[Task, Trajectory]]:
        return [(t, await agent.arun(t, run_id=t.id)) for t in tasks.values()]

    return asyncio.run(play())


def test_the_oracle_solves_every_kind_with_the_real_tools(played: list[tuple[Task, Trajectory]]) -> None:
    assert {t.kind for t, _ in played} == set(ALL_KINDS)
    for task, trajectory in played:
        assert trajectory.error is None and is_right(task, trajectory.answer), (task.id, task.answer, trajectory.answer)
        assert not any(o.error for o in trajectory.observations), task.id
        assert trajectory.answer is not None and trajectory.answer.evidence
        if task.kind == "where":
            assert spatial_iou(trajectory.answer.boxes, gold_boxes(task)) > 0.6
    used = {c.name for t, run in played if t.kind in MORE_KINDS for turn in run.turns for c in turn.tool_calls}
    assert used == {"search_clips", "temporal_zoom", "search_subtitles", "crop_frame"}


def test_a_dream_is_token_for_token_what_the_agent_records(
    played: list[tuple[Task, Trajectory]], cast: Cast, renderer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for what a search finds: that is taken from the record."""
    monkeypatch.setattr(dream, "NO_CHOICES", 0.0)
    dreamer = Dreamer(renderer, direct_share=0.0, slips=0.0, kinds=ALL_KINDS)
    for task, trajectory in played:
        found = [hits for m in trajectory.messages if m.role == "tool" and isinstance(hits := read(m), list)]
        monkeypatch.setattr(dream, "_search", lambda *_, found=found: [_moment(h) for h in found.pop(0)])
        dreamt = dreamer._episode(task, cast, random.Random(0))
        assert dreamt.token_ids_T == trajectory.token_ids, task.id
        assert dreamt.loss_mask_T == trajectory.loss_mask, task.id
        frames = [(f.timestamp_s, f.box, f.width, f.height) for f in dreamt.frames_F if f.box is None]
        recorded = [(f.timestamp_s, f.box, f.width, f.height) for f in trajectory.frames if f.box is None]
        assert [f[:2] for f in frames] == [f[:2] for f in recorded]
        assert [f.box for f in dreamt.frames_F] == [f.box for f in trajectory.frames]


def _moment(hit: Hit) -> Any:
    clip = Clip(video_id="dream", start_s=hit.start_s, end_s=hit.end_s)
    return dream._Moment(clip=clip, best_s=hit.frame.timestamp_s)


def test_the_subtitles_of_the_film_lie_in_it_and_may_lie_beside_it(played: list[tuple[Task, Trajectory]], cast: Cast) -> None:
    from playhead.core.video import Video
    from playhead.memory.subtitles import subtitles_of

    path = Path(played[0][0].video)
    inside = [(c.start_s, c.end_s, c.text) for c in subtitles_of(Video.open(path)).cues]
    assert inside == [(line.start_s, line.end_s, line.text) for line in cast.scene.lines]
    write_srt(cast.scene.lines, path.with_suffix(".srt"))
    assert len(sidecars(path)) == 1
    assert [(c.start_s, c.end_s, c.text) for c in subtitles_of(Video.open(path)).cues] == inside
    path.with_suffix(".srt").unlink()


@pytest.fixture(scope="module")
def dreams(renderer: Any) -> list[dream.Dream]:
    dreamer = Dreamer(renderer, direct_share=0.0, slips=0.3, kinds=ALL_KINDS)
    return [d for seed in range(25) for d in dreamer.dreams(seed)]


def test_old_kinds_are_dreamt_as_they_were(renderer: Any) -> None:
    """What is asked, seen and said is the same; only the list of tools and the size of the film differ."""
    plain, rich = Dreamer(renderer).dreams(3), Dreamer(renderer, kinds=ALL_KINDS).dreams(3)
    assert [d.kind for d in rich[: len(plain)]] == [d.kind for d in plain]
    for a, b in zip(plain, rich, strict=False):
        assert np.array_equal(a.codes_F, b.codes_F) and sum(a.loss_mask_T) == sum(b.loss_mask_T)
        assert renderer.decode(a.token_ids_T).split("<|im_start|>user")[1:] == (
            renderer.decode(b.token_ids_T).split("<|im_start|>user")[1:]
        )
    assert {d.kind for d in rich[len(plain) :]} <= {*MORE_KINDS, "drill", "opening"}


def test_new_dreams_keep_the_contract(dreams: list[dream.Dream], renderer: Any) -> None:
    more = [d for d in dreams if d.kind in MORE_KINDS]
    assert {d.kind for d in more} == set(MORE_KINDS)
    for d in more:
        images = [t == renderer.image_token_id for t in d.token_ids_T]
        assert sum(images) == 4 * len(d.frames_F) == 4 * len(d.codes_F)
        said = renderer.decode([t for t, m in zip(d.token_ids_T, d.loss_mask_T, strict=True) if m])
        assert "<tool_response>" not in said and said.endswith("<|im_end|>")
        assert "<answer>" in renderer.decode(d.token_ids_T)  # in a forced one, its opening is not trained on


def test_a_dreamt_crop_carries_the_small_digit_and_a_whole_frame_does_not(
    dreams: list[dream.Dream], renderer: Any
) -> None:
    read_off = 0
    for d in dreams:
        if d.kind != "small":
            continue
        percepts = [(f.box, decode_code(code)) for f, code in zip(d.frames_F, d.codes_F, strict=True)]
        crops = [p for box, p in percepts if box is not None]
        if not crops:  # the search missed, or the answer was forced
            continue
        (seen,) = crops
        assert seen is not None
        said = renderer.decode(d.token_ids_T).rsplit("<answer>", 1)[1].split("</answer>")[0]
        assert str(seen.digit - 1) == said
        read_off += 1
    assert read_off > 15
    scene = make_cast(SEED, 4, rich=True).scene
    for event in scene.events:
        t_s = event.start_s + 1
        x, y = event.position(t_s)
        sides = [side / 1000 for side in cell_box(position_bin(x), position_bin(y), CROP)]
        whole, crop = percept_at(event, t_s), decode_code(frame_code(scene, t_s, (sides[0], sides[1], sides[2], sides[3])))
        assert whole is not None and whole.digit == (0 if event.digit is None else 1 + event.digit)
        assert crop is not None and crop.digit == (0 if event.small_digit is None else 1 + event.small_digit)
        assert COLOURS[crop.colour] == event.colour


def test_words_that_decide_are_single_tokens(renderer: Any) -> None:
    from playhead.train.embedded.corpus import corpus
    from playhead.train.embedded.model import build_tokenizer
    from playhead.world.talk import WORDS

    tokenizer = build_tokenizer(corpus(8))
    for word in (*WORDS, "top", "bottom", "left", "right"):
        assert len(tokenizer.encode(word)) == len(tokenizer.encode(f" {word}")) == 1, word
