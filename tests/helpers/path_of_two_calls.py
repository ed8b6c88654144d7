"""A hand-made episode with real frames and real tokens: skims, calls two tools at once, zooms, answers."""

from __future__ import annotations

import numpy as np
from playhead.core.clip import Clip
from playhead.core.decoders.contract import DecodedFrame
from playhead.core.frames import FrameStore
from playhead.core.nouns import Answer, Completion, Message, Observation, Task
from playhead.core.trajectory import Trajectory, Turn
from playhead.tools.toolbox import default_toolbox
from playhead.train.data.rerender import rerender

TOOLS = default_toolbox(["search_clips", "temporal_zoom"]).specs
VIDEO_ID = "ab" * 32


def path_of_two_calls(store: FrameStore, renderer, number: int = 0, question: str = "Which <image> way?", video: str = "a.mp4"):
    """Thirteen frames in three looks; `question` holds a placeholder of other tools."""
    rng = np.random.default_rng(number)

    def frame(t: float):
        pixels = rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)
        return store.put(VIDEO_ID, DecodedFrame(timestamp_s=t, pixels=pixels))

    def call(name: str, arguments: str) -> str:
        return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'

    first = call("search_clips", '{"query": "red star", "k": 2}') + "\n" + call("search_clips", '{"query": "rot", "k": 1}')
    texts = [
        f"<think>12 none\n</think>\n{first}",
        "<think></think>\n" + call("temporal_zoom", '{"start_s": 96.0, "end_s": 100.04}'),
        "<think>97 red star\nfrom x1 to x3 right\n</think>\n<answer>right</answer>\n<evidence>96.0-100.0</evidence>",
    ]
    skim = ("Video of 200.0 seconds.\n", frame(12.04), frame(88.0), f"\n{question}\nOptions: (A) left (B) right")
    looks = [
        [Message(role="system", content=("Be brief.",)), Message(role="user", content=skim)],
        [
            Message(role="tool", content=("2 moments:\n90.0-102.0 ", frame(96.0), "\n10.0-22.0 ", frame(16.0), "\n")),
            Message(role="tool", content=("1 moment:\n90.0-102.0 ", frame(96.5), "\n")),
        ],
        [Message(role="tool", content=("8 frames from 96.0 to 100.0.\n", *(frame(96.0 + i / 2) for i in range(8))))],
    ]
    turns = []
    for i, (text, messages) in enumerate(zip(texts, looks, strict=True)):
        parsed = renderer.parse(text, i)
        results = looks[i + 1] if i + 1 < len(looks) else []
        seen = Clip(video_id=VIDEO_ID, start_s=96.0, end_s=100.0)
        observations = tuple(
            Observation(tool_call_id=c.id, content=m.content, clips=(seen,))
            for c, m in zip(parsed.tool_calls, results, strict=False)
        )
        turns.append(
            Turn(
                index=i,
                context_ids=(),
                context_frames=tuple(f for m in messages for f in m.frames),
                context_messages=tuple(messages),
                completion=Completion(token_ids=(), text=text),
                thought=parsed.thought,
                tool_calls=parsed.tool_calls,
                observations=observations,
            )
        )
    task = Task(
        id=f"task-{number}", question=question, video=video, choices=("left", "right"), answer="right",
        evidence=(Clip(video_id=VIDEO_ID, start_s=96.0, end_s=100.0),), kind="motion", source="by hand",
    )  # fmt: skip
    bare = Trajectory(
        id=f"path-{number}", group_id=task.id, task=task, turns=tuple(turns), model="hand",
        answer=Answer(text="right", choice=1, evidence=(Clip(video_id=VIDEO_ID, start_s=96.0, end_s=100.0),)),
    )  # fmt: skip
    return rerender(bare, renderer, TOOLS)
