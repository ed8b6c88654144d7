"""verl's agent loop, played by our agent: the same graph, tools and budget, verl's servers as the policy.

In verl's configuration:

    actor_rollout_ref.rollout.mode=async
    actor_rollout_ref.rollout.calculate_log_probs=True
    actor_rollout_ref.rollout.agent.agent_loop_config_path=playhead_agent.yaml
    data.train_files=tasks.parquet  data.return_raw_chat=True

    # playhead_agent.yaml
    - name: playhead
      _target_: playhead.train.recipes.verl.agent_loop.PlayheadAgentLoop
      rubric: world
      home: /data/playhead

What a trajectory becomes: its first context is the prompt, the rest the response; the mask is 1 where the policy
sampled; the frames of prompt and tools are the images, in the order of their placeholders; the rubric's reward comes
with it. A response too long for verl's `response_length` loses whole turns from its end, never half an image. An
episode that failed comes back with one masked token and no reward part, so it teaches nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from verl.experimental.agent_loop.agent_loop import (  # pyright: ignore[reportMissingImports]
    AgentLoopBase,
    AgentLoopMetrics,
    AgentLoopOutput,
)

from ....agent.profile import load_profile
from ....agent.video_agent import VideoAgent
from ....core.codec import from_plain
from ....core.frames import FrameStore
from ....core.home import cache_dir
from ....core.nouns import Task
from ....core.trajectory import Trajectory
from ...rewards import RUBRICS, RewardContext
from .policy import VerlPolicy


class PlayheadAgentLoop(AgentLoopBase):
    """One episode. What is shared between episodes (index, frames) lies under `home`."""

    def __init__(
        self,
        *args: Any,
        rubric: str = "world",
        home: str = "",
        encoder: str = "embedded",
        tools: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._tools = None if tools is None else tuple(tools)
        self._rubric = RUBRICS[rubric]()
        self._home, self._encoder = Path(home) if home else cache_dir(), encoder
        self._response_length = int(self.config.actor_rollout_ref.rollout.response_length)

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> Any:
        """Play the task of `extra_info`."""
        from ....agent.families import renderer_class

        task = from_plain(Task, json.loads(kwargs["extra_info"]["task"]), "verl row")
        folder = Path(str(self.config.actor_rollout_ref.model.path))
        model_type = json.loads((folder / "config.json").read_text())["model_type"]
        renderer = renderer_class(model_type)(self.processor)
        policy = VerlPolicy(self.server_manager, renderer, FrameStore(self._home / "frames"), sampling_params)
        agent = VideoAgent(
            policy, home=self._home, profile=load_profile(folder), encoder=self._encoder, tools=self._tools,
            temperature=float(sampling_params.get("temperature", 1.0)), top_p=float(sampling_params.get("top_p", 1.0)),
        )  # fmt: skip
        trajectory = await agent.arun(task)
        context = RewardContext()
        if trajectory.error is None:
            context = RewardContext(duration_s=agent.shelf.desk(task.video).video.duration_s)
        return self._output(self._rubric.score(trajectory, context), policy)

    def _output(self, trajectory: Trajectory, policy: VerlPolicy) -> Any:
        prompt, response, mask, logprobs, frames = parts_of(trajectory, self._response_length)
        if not response:
            end = policy.renderer.stop_token_ids[0]
            prompt, response, mask, logprobs, frames = prompt or [end], [end], [0], [0.0], frames if prompt else []
        from PIL import Image

        images = [Image.fromarray(policy.store.pixels(f)) for f in frames]
        usage = trajectory.usage
        spent = sum(t.completion.wall_s for t in trajectory.turns)
        tools = sum(o.wall_s for o in trajectory.observations)
        return AgentLoopOutput(
            prompt_ids=prompt,
            response_ids=response,
            response_mask=mask,
            response_logprobs=logprobs,
            multi_modal_data={"image": images} if images else {},
            reward_score=trajectory.reward or 0.0,
            num_turns=2 * len(trajectory.turns),
            metrics=AgentLoopMetrics(generate_sequences=spent, tool_calls=tools),
            extra_fields={
                "stop": trajectory.stop_reason.value,
                "error": trajectory.error or "",
                "frames": usage.frames,
                "reward_extra_info": dict(trajectory.reward_parts or {}),
            },
        )


def parts_of(trajectory: Trajectory, limit: int) -> tuple[list[int], list[int], list[int], list[float], list[Any]]:
    """(prompt, response, mask, log-probs, frames), the response at most `limit` tokens, cut after a whole turn."""
    if not trajectory.turns or trajectory.error is not None or not trajectory.exact:
        return [], [], [], [], []
    prompt = list(trajectory.turns[0].context_ids)
    response, mask, logprobs = [], [], []
    frames = list(trajectory.turns[0].context_frames)
    for i, turn in enumerate(trajectory.turns):
        context, said = list(turn.context_ids) if i else [], list(turn.completion.token_ids)
        if len(response) + len(context) + len(said) > limit:
            break
        response += context + said
        mask += [0] * len(context) + [int(not turn.completion.forced)] * len(said)
        logprobs += [0.0] * len(context) + (list(turn.completion.logprobs) or [0.0] * len(said))
        frames += list(turn.context_frames) if i else []
    return prompt, response, mask, logprobs, frames
