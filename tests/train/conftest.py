"""The embedded model's renderer, and the tiny checkpoints of every family that the agent's tests make."""

from pathlib import Path

import numpy as np
import pytest
from colour_films import red_film as film
from playhead.agent.prompts import first_messages
from playhead.agent.renderers.qwen3vl import Qwen3VLRenderer
from playhead.core.decoders.contract import DecodedFrame
from playhead.core.frames import FrameStore
from playhead.core.nouns import Completion, Frame, Message, Task
from playhead.core.trajectory import Trajectory, Turn, write_trajectories
from playhead.train.embedded.model import build_processor, build_tokenizer
from tiny_checkpoints import checkpoint, family, store

__all__ = ["checkpoint", "family", "film", "store"]


@pytest.fixture(scope="session")
def renderer() -> Qwen3VLRenderer:
    """The embedded model's renderer over a tokenizer that has seen little: names and numbers are whole tokens anyway."""
    return Qwen3VLRenderer(build_processor(build_tokenizer(["When does it appear?", "Which way does it move?"])))


def _shown(frames: FrameStore, t: float) -> Frame:
    pixels = np.random.default_rng(int(t)).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    return frames.put("v", DecodedFrame(timestamp_s=t, pixels=pixels))


def _episode(renderer: Qwen3VLRenderer, frames: FrameStore, k: int) -> Trajectory:
    """A call, frames in the tool's reply, an answer; some episodes have a turn more."""
    messages, turns = first_messages(60.0, (_shown(frames, k), _shown(frames, 30 + k)), f"What is {k}?"), []
    new = renderer.start(messages, ())
    call = '<think>look</think>\n<tool_call>\n{"name": "temporal_zoom", "arguments": {}}\n</tool_call><|im_end|>'
    for index, text in enumerate([call] * (1 + k % 3) + [f"<think>seen</think>\n<answer>{k % 2}</answer><|im_end|>"]):
        said = Completion(token_ids=renderer.encode(text), text=text)
        turns.append(Turn(index=index, context_ids=new.token_ids, context_frames=new.frames, completion=said))
        messages = (Message(role="tool", content=("Frames: ", _shown(frames, 10 + index + k), " seen.")),)
        new = renderer.extend(said.token_ids, messages)
    task = Task(id=f"t{k}", question="What?", video="v.mp4", answer=str(k % 2))
    return Trajectory(id=f"t{k}", group_id="g", task=task, turns=tuple(turns), model="by hand")


@pytest.fixture(scope="session")
def recorded_set(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `playhead collect` leaves it: twelve episodes in the tokens of `checkpoint`, and their frames."""
    folder = tmp_path_factory.mktemp("set")
    renderer, frames = Qwen3VLRenderer.from_checkpoint(checkpoint), FrameStore(folder / "frames")
    write_trajectories(folder / "trajectories.jsonl", [_episode(renderer, frames, k) for k in range(12)])
    return folder
