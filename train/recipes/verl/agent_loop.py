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
with it, its parts and whether the answer is right (`acc`). A response too long for verl's `response_length` loses whole
turns from its end, never half an image. Log-probs are all there or, without `calculate_log_probs`, not sent: a made-up
0.0 would say that a token was certain.

An episode that failed, or that verl could not hold (`parts_of`), is raised to the trainer of `trainer.use_v1` (verl's
default): that counts the session as failed and trains on the rest of its group, or on another group in its place. The
trainer before it (`use_v1=False`) would lose the whole batch, so it gets one masked token and a reward of 0: nothing of
it is trained on, but the 0 is in the mean and the deviation of its group.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
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
from ....core.errors import ModelError
from ....core.frames import FrameStore
from ....core.home import cache_dir
from ....core.nouns import Frame, Task
from ....core.scoring import is_right
from ....core.trajectory import Trajectory, Turn
from ...rewards import RUBRICS, RewardContext
from .policy import VerlPolicy


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Tokens that verl has room for: its `prompt_length` and `response_length`."""

    prompt: int
    response: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """A trajectory as verl takes it: `mask` and `logprobs` belong to `response`, `frames` to both, in the order of their
    placeholders. Log-probs of what was not sampled are 0.0, as verl writes them; the mask is 0 there."""

    prompt: list[int]
    response: list[int]
    mask: list[int]
    logprobs: list[float] | None
    frames: list[Frame]


class PlayheadAgentLoop(AgentLoopBase):
    """One episode. What is shared between episodes (index, frames) lies under `home`.

    Args:
        rubric: what rewards, by its name in `RUBRICS`.
        encoder: of the clip index.
        tool_names: which tools; None for the profile's. (verl passes tools of its own as `tools`; they are not ours.)
    """

    def __init__(
        self,
        *args: Any,
        rubric: str = "world",
        home: str = "",
        encoder: str = "embedded",
        tool_names: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._tools = None if tool_names is None else tuple(tool_names)
        self._rubric = RUBRICS[rubric]()
        self._home, self._encoder = Path(home) if home else cache_dir(), encoder
        rollout = self.config.actor_rollout_ref.rollout
        self._limits = Limits(prompt=int(rollout.prompt_length), response=int(rollout.response_length))

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> Any:
        """Play the task of `extra_info`.

        Raises:
            ModelError: there is nothing to learn from, and verl's trainer goes on without this session.
        """
        task = from_plain(Task, json.loads(kwargs["extra_info"]["task"]), "verl row")
        policy, trajectory = await self._play(task, sampling_params)
        logprobs = bool(sampling_params.get("logprobs"))
        try:
            parts = parts_of(trajectory, self._limits, logprobs=logprobs)
        except ModelError as error:
            if "session_id" in kwargs:  # the trainer of `use_v1` numbers the sessions of a group
                raise ModelError(f"task {task.id}: {error}") from None
            trajectory = replace(trajectory, error=str(error), reward_parts=None)
            parts = _nothing(policy.renderer.stop_token_ids[0], logprobs=logprobs)
        return self._output(trajectory, parts, policy)

    async def _play(self, task: Task, sampling_params: dict[str, Any]) -> tuple[VerlPolicy, Trajectory]:
        """The episode, scored."""
        from ....agent.families import renderer_class

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
        return policy, self._rubric.score(trajectory, context)

    def _output(self, trajectory: Trajectory, parts: Parts, policy: VerlPolicy) -> Any:
        from PIL import Image

        images = [Image.fromarray(policy.store.pixels(f)) for f in parts.frames]
        spent = sum(t.completion.wall_s for t in trajectory.turns)
        tools = sum(o.wall_s for o in trajectory.observations)
        return AgentLoopOutput(
            prompt_ids=parts.prompt,
            response_ids=parts.response,
            response_mask=parts.mask,
            response_logprobs=parts.logprobs,
            multi_modal_data={"images": images} if images else {},
            reward_score=trajectory.reward or 0.0,
            num_turns=2 * len(trajectory.turns),
            metrics=AgentLoopMetrics(generate_sequences=spent, tool_calls=tools),
            extra_fields={
                "stop": trajectory.stop_reason.value,
                "error": trajectory.error or "",
                "frames": trajectory.usage.frames,
                "min_global_steps": min(policy.versions, default=None),
                "max_global_steps": max(policy.versions, default=None),
                "reward_extra_info": self._reward_info(trajectory),
            },
        )

    def _reward_info(self, trajectory: Trajectory) -> dict[str, float]:
        """The same names for every sample, since verl reads all samples by the names of the first: 0 where nothing was
        scored. Of `acc` verl's validation knows that a session without a result is a 0."""
        given = trajectory.reward_parts
        parts = {part.reward.name: given[part.reward.name] if given else 0.0 for part in self._rubric.parts}
        return {**parts, "acc": float(bool(given) and is_right(trajectory.task, trajectory.answer))}


def parts_of(trajectory: Trajectory, limits: Limits, *, logprobs: bool) -> Parts:
    """The trajectory in verl's terms, the response cut after the last whole turn that there is room for.

    Args:
        logprobs: verl wants them.

    Raises:
        ModelError: it failed, it is not what was sampled, there is no room for its first turn, or log-probs are missing.
    """
    if trajectory.error is not None:
        raise ModelError(trajectory.error)
    if not trajectory.turns:
        raise ModelError(f"the policy said nothing ({trajectory.stop_reason.value})")
    if not trajectory.exact:
        raise ModelError("its tokens are not known to be those that were sampled")
    prompt = list(trajectory.turns[0].context_ids)
    if len(prompt) > limits.prompt:
        raise ModelError(f"its prompt has {len(prompt)} tokens, more than rollout.prompt_length={limits.prompt}")
    kept = _that_fit(trajectory.turns, limits.response)
    response, mask, given, frames = [], [], [], list(trajectory.turns[0].context_frames)
    for i, turn in enumerate(kept):
        context, said = list(turn.context_ids) if i else [], turn.completion
        if logprobs and not said.logprobs and not said.forced:
            raise ModelError(f"turn {i}: rollout.calculate_log_probs is on, and the server gave no log-probs")
        response += [*context, *said.token_ids]
        mask += [0] * len(context) + [int(not said.forced)] * len(said.token_ids)
        given += [0.0] * len(context) + (list(said.logprobs) or [0.0] * len(said.token_ids))
        frames += list(turn.context_frames) if i else []
    return Parts(prompt=prompt, response=response, mask=mask, logprobs=given if logprobs else None, frames=frames)


def _that_fit(turns: Sequence[Turn], limit: int) -> Sequence[Turn]:
    """The first turns whose response has at most `limit` tokens.

    Raises:
        ModelError: not even one.
    """
    total = 0
    for i, turn in enumerate(turns):
        total += len(turn.completion.token_ids) + (len(turn.context_ids) if i else 0)
        if total > limit and not i:
            raise ModelError(f"its first turn has {total} tokens, more than rollout.response_length={limit}")
        if total > limit:
            return turns[:i]
    return turns


def _nothing(token: int, *, logprobs: bool) -> Parts:
    """What stands for an episode without anything to learn from, where verl must have one: a token that is not trained on."""
    return Parts(prompt=[token], response=[token], mask=[0], logprobs=[0.0] if logprobs else None, frames=[])
