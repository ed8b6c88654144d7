"""The world benchmark: tasks whose answers are known by construction, asked of an agent with tools or without.

    playhead world make --out DIR --videos 40 --minutes 20 --seed 1
    playhead eval world --data DIR --model embedded --strategy tools --out RUN
    playhead eval world --data DIR --model embedded --strategy direct --frames 32 --out RUN32

"tools" is the agent as users get it. "direct" shows the same model N uniform frames and gives it no tools, through the same
agent. Runs are resumable (see `Ledger`); with several workers each process takes whole videos, so that an index is built
once. `wall_s` of a result is the time of its episode while its neighbours ran: measure latency with one worker.
"""

from __future__ import annotations

import asyncio
import hashlib
import multiprocessing
import os
import platform
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from queue import Empty
from typing import TYPE_CHECKING, Any, Literal

from ..core.budget import Budget
from ..core.codec import to_plain
from ..core.errors import DataError, PlayheadError
from ..core.nouns import Task
from ..core.tasks import read_tasks
from ..core.trajectory import Trajectory, to_json
from .ledger import Ledger
from .report import summarise
from .results import TaskResult, failed, result_of

if TYPE_CHECKING:
    from ..agent.policies.loading import LoadOptions
    from ..agent.video_agent import VideoAgent

IDENTITY = (
    *("tasks_sha256", "limit", "model", "model_sha256", "load", "adapter_sha256"),
    *("encoder", "strategy", "frames", "budget", "seed", "temperature"),
)
_PACKAGES = ("torch", "transformers", "open_clip_torch", "faiss-cpu", "av", "langgraph", "numpy")


@dataclass(frozen=True, kw_only=True, slots=True)
class Setup:
    """What is measured. `frames` is the number of uniform frames of "direct"; None budgets are the agent's own."""

    model: str = "embedded"
    strategy: Literal["tools", "direct"] = "tools"
    frames: int | None = None
    encoder: str = "embedded"
    budget: Budget | None = None
    home: Path | None = None
    seed: int = 0
    temperature: float = 0.0
    load: LoadOptions | None = None

    def __post_init__(self) -> None:
        if self.strategy not in ("tools", "direct"):
            raise DataError(f"strategy {self.strategy!r} is unknown; take tools or direct")
        if (self.frames is not None) != (self.strategy == "direct"):
            raise DataError("--frames belongs to --strategy direct, which needs it: how many uniform frames to show")
        if self.frames is not None and self.frames < 1:
            raise DataError(f"--frames must be at least 1; got {self.frames}")

    def agent(self) -> VideoAgent:
        from ..agent.video_agent import VideoAgent

        direct = {"tools": (), "skim_frames": self.frames} if self.strategy == "direct" else {}
        return VideoAgent(
            self.model,
            budget=self.budget,
            encoder=self.encoder,
            home=self.home,
            seed=self.seed,
            temperature=self.temperature,
            load=self.load,
            **direct,
        )


def evaluate_world(
    data: Path,
    out: Path,
    setup: Setup,
    *,
    limit: int | None = None,
    workers: int = 1,
    on_result: Callable[[TaskResult, int, int], None] | None = None,
) -> tuple[dict[str, Any], list[TaskResult]]:
    """Run the tasks of `data` (a folder or a tasks.jsonl) that `out` has no result of; write and return the summary.

    Args:
        limit: only the first so many tasks, spread over the kinds.
        workers: processes, each with a model of its own.
        on_result: called with each new result, how many are done, and how many there are.

    Raises:
        DataError: bad tasks, or `out` holds a run of something else.
        ModelError: the model cannot be had.
    """
    if workers < 1:
        raise DataError(f"--workers must be at least 1; got {workers}")
    tasks = spread(read_tasks(data), limit)
    if not tasks:
        raise DataError(f"{data}: no task in it")
    manifest = make_manifest(data, setup, limit)
    with Ledger(out, manifest, IDENTITY) as ledger:

        def note(result: TaskResult, line: str | None) -> None:
            ledger.add(result, line)
            if on_result is not None:
                on_result(result, len(ledger.results), len(tasks))

        todo = [t for t in tasks if t.id not in ledger.results]
        if todo and workers == 1:
            asyncio.run(run_tasks(setup.agent(), todo, setup, note))
        elif todo:
            _run_processes(setup, todo, workers, note)
        results = [ledger.results[t.id] for t in tasks]
        summary = summarise(results, manifest)
        ledger.write("summary.json", summary)
    return summary, results


async def run_tasks(
    agent: VideoAgent, tasks: Sequence[Task], setup: Setup, note: Callable[[TaskResult, str | None], None]
) -> None:
    """Ask every task in turn and `note` each; an episode that fails is a wrong result with its reason, not a crash.

    Raises:
        DataError: a film is not the one that its tasks were made for.
    """
    for task in tasks:
        try:
            trajectory = await agent.arun(task)
        except PlayheadError as error:
            note(failed(task, str(error)), None)
        else:
            _check_film(task, trajectory)
            note(result_of(task, trajectory, with_tools=setup.strategy == "tools"), to_json(trajectory))


def _check_film(task: Task, trajectory: Trajectory) -> None:
    """Gold seconds belong to the content that they were made for: with another film they would count for nothing."""
    for frame, gold in zip(trajectory.frames[:1], task.evidence[:1], strict=False):
        if frame.video_id != gold.video_id:
            raise DataError(f"{task.video}: not the film that task {task.id} is about; make the world again in another folder")


def spread(tasks: Sequence[Task], limit: int | None) -> list[Task]:
    """The first `limit` tasks, taken kind by kind in turn so that a small run has every kind; all where it is None."""
    if limit is None:
        return list(tasks)
    by_kind: dict[str, list[Task]] = {}
    for task in tasks:
        by_kind.setdefault(task.kind, []).append(task)
    queues = list(by_kind.values())
    rounds = max((len(q) for q in queues), default=0)
    return [q[i] for i in range(rounds) for q in queues if i < len(q)][: max(0, limit)]


def make_manifest(data: Path, setup: Setup, limit: int | None) -> dict[str, Any]:
    """What was measured, with what: enough to run it again, without a path of this machine's but the model's name."""
    from ..memory.encoder import load_encoder

    tasks_file = data / "tasks.jsonl" if data.is_dir() else data
    versions = {}
    for name in ("playhead", *_PACKAGES):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    load = to_plain(setup.load) if setup.load else None
    if load and load["adapter"]:
        load["adapter"] = str(load["adapter"])  # may be a Path
    return {
        "tasks_sha256": _sha256(tasks_file),
        "limit": limit,
        "model": setup.model,
        "model_sha256": _model_hash(setup.model),
        "load": load,
        "adapter_sha256": _model_hash(load["adapter"]) if load and load["adapter"] else None,
        "encoder": load_encoder(setup.encoder).fingerprint if setup.strategy == "tools" else None,
        "strategy": setup.strategy,
        "frames": setup.frames,
        "budget": to_plain(setup.budget) if setup.budget else None,
        "seed": setup.seed,
        "temperature": setup.temperature,
        "versions": {"python": platform.python_version(), **versions},
        "cores": os.cpu_count(),
    }


def _model_hash(model: str) -> str | None:
    """sha256 over the weights of a local checkpoint; None for a model that is only a name."""
    from ..agent.embedded import checkpoint_dir

    folder = checkpoint_dir() if model == "embedded" else Path(model).expanduser()
    weights = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    return hashlib.sha256("".join(_sha256(w) for w in weights).encode()).hexdigest() if weights else None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# Several processes: each gets whole videos and a share of the cores; results come back over one queue.


def shares(tasks: Sequence[Task], workers: int) -> list[list[Task]]:
    """The tasks split over at most `workers` lists of like length, every video's tasks in one list."""
    by_video: dict[str, list[Task]] = {}
    for task in tasks:
        by_video.setdefault(task.video, []).append(task)
    out: list[list[Task]] = [[] for _ in range(min(workers, len(by_video)))]
    for group in sorted(by_video.values(), key=len, reverse=True):
        min(out, key=len).extend(group)
    return out


def _work(setup: Setup, tasks: list[Task], queue: Any) -> None:
    """The body of a worker process: ("result", TaskResult, line), then ("end", reason or None)."""
    try:
        asyncio.run(run_tasks(setup.agent(), tasks, setup, lambda r, line: queue.put(("result", r, line))))
    except PlayheadError as error:
        queue.put(("end", str(error), None))
    else:
        queue.put(("end", None, None))


def _run_processes(
    setup: Setup, tasks: Sequence[Task], workers: int, note: Callable[[TaskResult, str | None], None]
) -> None:
    context = multiprocessing.get_context("spawn")  # a forked torch may hang
    queue = context.Queue()
    parts = shares(tasks, workers)
    with _threads_per_worker(len(parts)):
        processes = [context.Process(target=_work, args=(setup, part, queue), daemon=True) for part in parts]
        for process in processes:
            process.start()
    running = len(processes)
    while running:
        try:
            word, first, line = queue.get(timeout=1.0)
        except Empty:
            dead = [p for p in processes if p.exitcode not in (None, 0)]
            if dead:
                raise DataError(f"a worker died (exit code {dead[0].exitcode}); run the same command again to go on") from None
            continue
        if word == "result":
            note(first, line)
        elif first is not None:
            raise DataError(first)
        else:
            running -= 1


@contextmanager
def _threads_per_worker(workers: int):
    """Processes started inside take their share of the cores: more threads than cores make everybody slow."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // workers))
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before
