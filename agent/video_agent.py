"""VideoAgent: the door. Ask a question about a long video; get the answer, the seconds that prove it, and all steps.

    agent = VideoAgent("embedded")                      # or a folder, or a hub id, of a known family
    result = agent.ask("video.mp4", "When does the red star appear?")
    result.answer.text, result.answer.evidence, result.usage, result.trajectory

    async for event in agent.astream("video.mp4", "..."): ...        # every step as it happens
    trajectory = await agent.arun(task)                              # for evals and training: failures are data

With `checkpoints=FILE.sqlite` every step is saved, and a run that is asked for again under its `run_id` goes on where it
stopped (or, when it had ended, gives what it gave).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ..core.aio import in_thread, run_until_done
from ..core.budget import Budget, Usage
from ..core.errors import DataError, ModelError, PlayheadError
from ..core.home import cache_dir
from ..core.nouns import Answer, StopReason, Task
from ..core.policy import Policy, Sampling
from ..core.trajectory import Trajectory, new_id
from ..core.video import Video
from ..tools.contract import Tool
from ..tools.toolbox import Toolbox, tools_for
from .desk import Desk, Shelf
from .embedded import EMBEDDED
from .events import Event, Finished
from .manner import Manner
from .opening import open_encoder, open_notebook, open_policy, open_strategy, open_toolbox, with_skim
from .profile import Profile
from .streaming import indexing, streamed

if TYPE_CHECKING:
    from ..memory.encoder import Encoder
    from .episode import Episode, State
    from .policies.loading import LoadOptions
    from .scaling.strategy import Scaled, Strategy

_LOG = logging.getLogger("playhead")
NOTEBOOK_FILE = "notebook.sqlite"
INDEX_TOOL = "search_clips"
"""With this tool at hand the index is built before the clock starts: it is kept, and serves every later question."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """What `ask` gives back."""

    answer: Answer
    trajectory: Trajectory
    warnings: tuple[str, ...] = ()
    """What was wrong with the video, and what the model's profile wants users to know."""
    scaled: Scaled | None = None
    """All that a test-time scaling strategy did, where one was asked for; `trajectory` is then the run that it chose."""

    @property
    def usage(self) -> Usage:
        return (self.scaled or self.trajectory).usage

    @property
    def stop_reason(self) -> StopReason:
        return (self.scaled or self.trajectory).stop_reason


class VideoAgent:
    """An agent around one model. Safe for many runs at once on one event loop.

    Args:
        model: "embedded", a folder or hub id of a Qwen3-VL, Qwen2.5-VL or SmolVLM2 checkpoint, `http://HOST:PORT/v1#NAME`
            for a model behind an OpenAI-compatible server, or a `Policy`.
        budget: what an episode may spend; None for the model's own default.
        tools: names of playhead's tools, or `Tool`s; () for none; None for those that the model's profile names, or else all
            that are of use with the video asked about.
        encoder: what the clip index is embedded with: an `Encoder`, or a spec for `memory.encoder.load_encoder`.
        skim_frames: uniform frames shown first; None for the model's own default.
        home: where indexes and frames are kept; None for `core.home.cache_dir()`.
        frames: another folder for the frames, such as that of the set of trajectories they belong to.
        seed, temperature, top_p: how the policy samples; temperature 0 is greedy.
        checkpoints: an SQLite file in which every step of every run is saved.
        profile: how the model wants to be asked; None for what lies beside its weights.
        device: "cpu" or "cuda"; None to choose.
        load: type, device map, attention, 4-bit, adapter, memory for caches of a model that runs in this process; None for
            the usual.
        notebook: keep notes and descriptions for later questions about the same video, in an SQLite file under `home` (True) or
            in the one given; without it every question starts with an empty head, as measuring needs it.
        report: gets a line when something on disk had to be rebuilt; None for the log.

    Raises:
        ModelError: the model cannot be had.
        DataError: the notebook cannot be opened.
        ValueError: a tool of an unknown name, or a `top_p` that is no share.
    """

    def __init__(
        self,
        model: str | Policy = EMBEDDED,
        *,
        budget: Budget | None = None,
        tools: Sequence[str | Tool] | None = None,
        encoder: str | Encoder = "embedded",
        skim_frames: int | None = None,
        home: Path | None = None,
        frames: Path | None = None,
        seed: int = 0,
        temperature: float = 0.0,
        top_p: float = 1.0,
        checkpoints: Path | None = None,
        profile: Profile | None = None,
        device: str | None = None,
        load: LoadOptions | None = None,
        notebook: bool | Path = False,
        report: Callable[[str], None] | None = None,
    ) -> None:
        Sampling(top_p=top_p)  # refused here, not in the middle of an episode
        home = cache_dir() if home is None else home
        self.policy, self.store, own = open_policy(model, frames or home / "frames", device, load)
        self.profile = profile or own
        chosen = self.profile.tools if tools is None else tools
        self.toolbox, self._tools_by_video = open_toolbox(chosen), chosen is None
        self.notebook = open_notebook(home / NOTEBOOK_FILE if notebook is True else notebook)
        if skim_frames is not None:
            self.profile = with_skim(self.profile, skim_frames)
        self.budget, self.given_budget = budget or self.profile.budget, budget
        self.seed, self.temperature, self.top_p = seed, temperature, top_p
        self.checkpoints = checkpoints
        self.shelf = Shelf(self.store, lambda: open_encoder(encoder, device), home / "index", report or _LOG.warning)

    def ask(
        self,
        video: str | Path,
        question: str,
        choices: Sequence[str] = (),
        *,
        run_id: str | None = None,
        strategy: str | Strategy | None = None,
    ) -> Result:
        """Answer one question.

        Args:
            strategy: how to spend more compute on it: a spec such as "vote(tools,n=8)" (docs/scaling.md), or a `Strategy`. The
                agent's budget, where it was given one, then bounds all that is done together.

        Raises:
            VideoError: the video cannot be read.
            ModelError: the episode ended in an error.
            StrategyError: there is no such strategy or parameter.
        """
        return run_until_done(self._ask(video, question, choices, run_id, strategy))

    async def astream(
        self,
        video: str | Path,
        question: str,
        choices: Sequence[str] = (),
        *,
        run_id: str | None = None,
        strategy: str | Strategy | None = None,
    ) -> AsyncIterator[Event]:
        """Every step as it happens, or with a strategy every decision that it takes; `Finished` comes last.

        Raises:
            VideoError: the video cannot be read.
            StrategyError: there is no such strategy or parameter.
        """
        task = Task(id=run_id or new_id(), question=question, video=str(video), choices=tuple(choices))
        chosen = open_strategy(strategy)
        desk = await in_thread(self.shelf.desk, task.video)
        if chosen is not None:
            from .scaling.stream import scaled_events

            if chosen.uses_tools and self.needs_index:
                async for event in indexing(desk):
                    yield event
            async for event in scaled_events(self, task, chosen):
                yield event
            return
        async for event in self._events(task, desk, run_id or new_id(), self.seed, "", Manner()):
            yield event

    async def arun(
        self,
        task: Task,
        *,
        seed: int | None = None,
        run_id: str | None = None,
        group_id: str = "",
        manner: Manner | None = None,
        cut: Callable[[Trajectory], object] | None = None,
    ) -> Trajectory:
        """One episode as data. Whatever fails (the file, a tool, the policy) is on the trajectory, with stop reason ERROR.

        Args:
            manner: how this episode differs from the agent's usual one.
            cut: gets the episode as far as it went, with stop reason TIMEOUT, where it is cancelled.

        Raises:
            DataError: `run_id` is the id of a saved run of another task.
        """
        run_id, seed, manner = run_id or new_id(), self.seed if seed is None else seed, manner or Manner()
        trajectory: Trajectory | None = None
        state: dict[str, Any] = {}
        try:
            desk = await in_thread(self.shelf.desk, task.video)
            async for event in self._events(task, desk, run_id, seed, group_id, manner, state, listening=False):
                if isinstance(event, Finished):
                    trajectory = event.trajectory
        except asyncio.CancelledError:
            if cut is not None and state:
                from .graph import cut_short

                cut(self._trajectory(task, run_id, seed, group_id, cut_short(cast("State", state)), manner))
            raise
        except DataError:
            raise
        except PlayheadError as error:
            failed = {"stop": StopReason.ERROR, "error": str(error)}
            return self._trajectory(task, run_id, seed, group_id, failed, manner)
        assert trajectory is not None, "an episode always finishes"
        return trajectory

    async def _ask(
        self,
        video: str | Path,
        question: str,
        choices: Sequence[str],
        run_id: str | None,
        strategy: str | Strategy | None,
    ) -> Result:
        async for event in self.astream(video, question, choices, run_id=run_id, strategy=strategy):
            if isinstance(event, Finished):
                if event.result is None:
                    raise ModelError(event.trajectory.error or "the episode failed")
                return event.result
        raise AssertionError("an episode always finishes")

    async def _events(
        self,
        task: Task,
        desk: Desk,
        run_id: str,
        seed: int,
        group_id: str,
        manner: Manner,
        state: dict[str, Any] | None = None,
        *,
        listening: bool = True,
    ) -> AsyncIterator[Event]:
        """`state` is filled with that of the episode as it goes on."""
        from .episode import fresh_state
        from .graph import build_graph, build_saved_graph
        from .saving import open_saver

        if manner.tools and self.needs_index:
            async for event in indexing(desk):
                yield event
        # Captions belong to their run, so that no run sees what another one wrote; they are saved where the run is.
        await in_thread(self.toolbox_for, desk.video)  # reads subtitles, once
        episode = self.episode(desk, run_id, manner)
        state = {} if state is None else state
        try:
            async with open_saver(self.checkpoints) as saver:
                graph = build_graph() if saver is None else build_saved_graph(saver)
                start = fresh_state(task, seed) if manner.start is None else manner.start
                async for event in streamed(graph, episode, start, saved=saver is not None, listening=listening):
                    if isinstance(event, dict):
                        state.update(event)
                    else:
                        yield event
        finally:
            episode.texts.close()
            forget = getattr(self.policy, "forget", None)
            if forget is not None:
                forget(run_id)
        trajectory = self._trajectory(task, run_id, seed, group_id, state, manner)
        result = None
        if trajectory.answer is not None:
            warnings = (*desk.video.warnings, *filter(None, [self.profile.notice]))
            result = Result(answer=trajectory.answer, trajectory=trajectory, warnings=warnings)
        yield Finished(trajectory=trajectory, result=result)

    @property
    def needs_index(self) -> bool:
        return any(spec.name == INDEX_TOOL for spec in self.toolbox.specs)

    def toolbox_for(self, video: Video) -> Toolbox:
        """The tools of an episode about `video`."""
        return tools_for(video, notebook=self.notebook is not None) if self._tools_by_video else self.toolbox

    def episode(self, desk: Desk, run_id: str, manner: Manner) -> Episode:
        """What one run works with; its `texts` are to be closed."""
        from ..memory.text import TextMemory
        from .episode import Episode

        profile = self.profile
        if manner.skim_frames is not None:
            profile = with_skim(profile, manner.skim_frames)
        if manner.turn_tokens is not None:
            profile = replace(profile, turn_tokens=manner.turn_tokens)
        texts = ":memory:" if self.checkpoints is None else self.checkpoints.parent / f"{run_id}.texts.sqlite"
        return Episode(
            run_id=run_id,
            policy=self.policy,
            toolbox=self.toolbox_for(desk.video) if manner.tools else Toolbox(()),
            desk=desk,
            texts=TextMemory(texts),
            notebook=self.notebook,
            profile=profile,
            budget=manner.budget or self.budget,
            temperature=self.temperature if manner.temperature is None else manner.temperature,
            top_p=self.top_p,
            times_s=manner.times_s,
            hint=manner.hint,
            shuffled=manner.shuffled,
        )

    def _trajectory(
        self, task: Task, run_id: str, seed: int, group_id: str, state: dict[str, Any], manner: Manner
    ) -> Trajectory:
        return Trajectory(
            id=run_id,
            group_id=group_id or task.id,
            task=task,
            turns=state.get("turns", ()),
            answer=state.get("answer"),
            stop_reason=state["stop"],
            budget=manner.budget or self.budget,
            usage=state.get("usage", Usage()),
            error=state.get("error"),
            seed=seed,
            model=self.policy.name,
            exact=self.policy.exact and all(turn.completion.exact for turn in state.get("turns", ())),
            temperature=self.temperature if manner.temperature is None else manner.temperature,
            top_p=self.top_p,
        )
