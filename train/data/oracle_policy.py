"""The oracle as a policy: on a task of the world it says what the teacher would say, so it collects like any model.

    playhead collect --data WORLD --model oracle --out DIR

It draws nothing at random and keeps no state: what it says follows from the request (whose session names the task) alone, so
any number of its episodes run side by side. Turns in which it slips on purpose are marked as forced, so nobody is trained to
make the mistake. It reports no log-probs, since nothing was sampled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from ...agent.policies.scripted import ScriptedPolicy
from ...core.errors import DataError
from ...core.frames import FrameStore
from ...core.nouns import Completion, Task
from ...core.policy import GenerateRequest, Renderer
from ...world.oracle import Oracle
from ...world.scene import Scene
from ...world.script import HELD_OUT_SEED, scene_of

ORACLE = "oracle"


class OraclePolicy:
    """A `Policy` that knows the scenes.

    Args:
        renderer: the renderer whose tokens are spoken.
        store: where the frames of its episodes are.
        tasks: the task of every run; a session is called like its run, or RUN-NUMBER.
        slips: how often it looks at a wrong hit first, in [0, 1].
        checks: how many wrong hits it looks at closely all the same, at most.

    Raises:
        DataError: a task that is not of the world, or whose seed is held out.
    """

    exact = True
    name = ORACLE

    def __init__(
        self, renderer: Renderer, store: FrameStore, tasks: Mapping[str, Task], slips: float = 0.0, checks: int = 0
    ) -> None:
        for task in tasks.values():
            _check(task)
        self.renderer, self.store = renderer, store
        self._tasks, self._slips, self._checks = tasks, slips, checks
        self._script = ScriptedPolicy(renderer, self._say, name=self.name)

    async def generate(self, requests: Sequence[GenerateRequest]) -> list[Completion]:
        said = await self._script.generate(requests)
        slips = [self._oracle(r).is_slip(r.messages) for r in requests]
        return [replace(c, forced=True) if slip else c for c, slip in zip(said, slips, strict=True)]

    def _say(self, request: GenerateRequest) -> str:
        return self._oracle(request).reply(request.messages)

    def _oracle(self, request: GenerateRequest) -> Oracle:
        run = request.session if request.session in self._tasks else request.session.rpartition("-")[0]
        task = self._tasks[run]
        seed = int(task.meta["seed"])
        scene = _scene(tuple(sorted(task.meta.items())))
        how = {"slips": self._slips, "checks": self._checks}
        return Oracle(task=task, scene=scene, seed=seed, tools=bool(request.tools), **how)


@lru_cache(maxsize=64)
def _scene(meta: tuple[tuple[str, str], ...]) -> Scene:
    return scene_of(dict(meta))


def _check(task: Task) -> None:
    try:
        seed, _ = int(task.meta["seed"]), float(task.meta["minutes"])
    except (KeyError, ValueError):
        raise DataError(f"task {task.id} is not of the world (its meta has no seed): the oracle knows no answer") from None
    if seed >= HELD_OUT_SEED:
        raise DataError(f"task {task.id}: world seed {seed} is held out; train on seeds below {HELD_OUT_SEED}")
