"""Small episodes made by hand, for the rooms that read trajectories: integers as tokens, no model.

A room with fixtures of its own keeps them in its own conftest.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings
from playhead.core.budget import Usage
from playhead.core.clip import Clip
from playhead.core.nouns import Answer, Completion, Frame, Message, Observation, StopReason, Task, ToolCall
from playhead.core.trajectory import Trajectory, Turn

# What a run of the suite says depends on the code alone, so its examples are the same each time;
# `pytest --hypothesis-profile=fuzz` draws new ones, to look for what they miss.
settings.register_profile("same", derandomize=True)
settings.register_profile("fuzz", derandomize=False)
settings.load_profile("same")


def frame(t: float) -> Frame:
    return Frame(video_id="v", timestamp_s=t, sha256=f"{t}", width=64, height=64)


@pytest.fixture
def make_task() -> Callable[..., Task]:
    def make(kind: str = "motion", answer: str = "left", number: int = 0, video: str = "/films/a.mp4") -> Task:
        return Task(
            id=f"{kind}-{number}",
            question="Which way does the red star move?",
            video=video,
            choices=() if kind == "when" else ("left", "right"),
            answer=answer,
            evidence=(Clip(video_id="v", start_s=100.0, end_s=106.0),),
            kind=kind,
        )

    return make


@pytest.fixture
def make_trajectory() -> Callable[..., Trajectory]:
    """An episode that searches, zooms into 96-112 and answers `said`, citing 100-106; `refused` calls come back as errors."""

    def make(task: Task, said: str | None = "left", refused: int = 0) -> Trajectory:
        skim = Message(role="user", content=("Video of 1200.0 seconds.\n", frame(150.0), frame(450.0), "\nWhy?"))
        calls = [("search_clips", '{"query": "red star"}'), ("temporal_zoom", '{"start_s": 96, "end_s": 112}')]
        calls += [("temporal_zoom", '{"start_s": 9999}')] * refused
        turns, context = [], skim
        for i, (name, arguments) in enumerate(calls):
            call = ToolCall(id=f"c{i}", name=name, arguments_json=arguments)
            shown = (frame(102.0),) if i == 0 else (frame(100.0), frame(104.0))
            stretch = Clip(video_id="v", start_s=(102.0, 96.0)[i > 0], end_s=(103.0, 112.0)[i > 0])
            seen = Observation(tool_call_id=call.id, content=("text\n", *shown), clips=(stretch,))
            if i > 1:
                seen = Observation(tool_call_id=call.id, content=("The video ends at 1200.0.",), error="outside the video")
            turn = Turn(
                index=i,
                context_ids=(1, 2),
                context_frames=context.frames,
                context_messages=(context,),
                completion=Completion(token_ids=(10,), text=f"<think>look</think> {name}"),
                thought="look",
                tool_calls=(call,),
                observations=(seen,),
            )
            turns.append(turn)
            context = Message(role="tool", content=seen.content)
        last = Completion(token_ids=(11,), text=f"<answer>{said}</answer>")
        turns.append(
            Turn(
                index=len(turns),
                context_ids=(3,),
                context_frames=context.frames,
                context_messages=(context,),
                completion=last,
                thought="it moves <left>",
            )
        )
        cited = (Clip(video_id="v", start_s=100.0, end_s=106.0),)
        return Trajectory(
            id=f"t-{task.id}",
            group_id="g",
            task=task,
            turns=tuple(turns),
            answer=None if said is None else Answer(text=said, evidence=cited),
            stop_reason=StopReason.ANSWERED if said is not None else StopReason.MAX_TURNS,
            usage=Usage(turns=len(turns), tool_calls=len(calls), frames=5, sampled_tokens=30, wall_s=1.5),
            model="by hand",
        )

    return make


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one film of four minutes, the shortest there is, and its tasks."""
    from playhead.world.make import make_world

    return make_world(tmp_path_factory.mktemp("world"), videos=1, minutes=4, seed=41).parent
