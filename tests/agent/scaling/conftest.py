"""A policy that says what a test tells it, as surely as the test says; and one agent around it, for all tests."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
from playhead.agent.embedded import EMBEDDED_PROFILE
from playhead.agent.policies.scripted import ScriptedPolicy
from playhead.agent.profile import Profile
from playhead.agent.scaling.spec import parse_strategy
from playhead.agent.scaling.strategy import Scaled
from playhead.agent.video_agent import VideoAgent
from playhead.core.budget import Budget
from playhead.core.nouns import Completion, Task
from playhead.core.policy import GenerateRequest

SEARCH = '<think>where</think>\n<tool_call>\n{"name": "search_clips", "arguments": {"query": "red", "k": 2}}\n</tool_call>'
_ZOOM_CALL = '{"name": "temporal_zoom", "arguments": {"start_s": 26, "end_s": 38, "fps": 1.0}}'
ZOOM = f"<think>there</think>\n<tool_call>\n{_ZOOM_CALL}\n</tool_call>"
NO_LIMIT = Budget(turns=8, tool_calls=None, frames=None, context_tokens=None, sampled_tokens=None, wall_s=None)


def say(answer: str, evidence: str = "30.0-34.0", thought: str = "so") -> str:
    return f"<think>{thought}</think>\n<answer>{answer}</answer>\n<evidence>{evidence}</evidence>"


class Speaker(ScriptedPolicy):
    """Replies are texts, or (text, probability of every token of it)."""

    def __init__(self, renderer, reply: Callable[[GenerateRequest], str | tuple[str, float]]) -> None:
        self.asked: list[GenerateRequest] = []
        self._p = 1.0
        self._said = reply
        super().__init__(renderer, self._text)

    def _text(self, request: GenerateRequest) -> str:
        self.asked.append(request)
        said = self._said(request)
        text, self._p = said if isinstance(said, tuple) else (said, 0.5)
        return text

    def _reply(self, request: GenerateRequest) -> Completion:
        made = super()._reply(request)
        return replace(made, logprobs=(math.log(self._p),) * len(made.token_ids))


@dataclass
class Lab:
    """Runs a strategy on the film; `asked` are the requests that reached the policy."""

    agent: VideoAgent
    film: str
    asked: list[GenerateRequest] = field(default_factory=list)

    def run(self, spec, reply, *, budget=NO_LIMIT, choices=("green", "red"), words=False, seed=0, question="Which?") -> Scaled:
        strategy = parse_strategy(spec) if isinstance(spec, str) else spec
        speaker = reply if hasattr(reply, "generate") else Speaker(self.agent.policy.renderer, reply)
        self.agent.policy, self.asked = speaker, getattr(speaker, "asked", [])
        self.agent.profile = replace(EMBEDDED_PROFILE, system=Profile().system if words else "")
        task = Task(id="t", question=question, video=self.film, choices=choices)
        scaled = asyncio.run(strategy.run(self.agent, task, budget, seed))
        for trajectory in scaled.trajectories:
            trajectory.check()
        return scaled


@pytest.fixture(scope="session")
def lab(renderer, encoder, film, tmp_path_factory) -> Lab:
    home = tmp_path_factory.mktemp("scaling")
    policy = ScriptedPolicy(renderer, ["-"])
    return Lab(VideoAgent(policy, encoder=encoder, home=home, profile=EMBEDDED_PROFILE), str(film))


@pytest.fixture(scope="session")
def words():
    """What the scripts say."""
    return {"search": SEARCH, "zoom": ZOOM, "say": say}
