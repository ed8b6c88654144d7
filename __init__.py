"""playhead: reasoning over long videos with tools.

    from playhead import VideoAgent
    result = VideoAgent("embedded").ask("video.mp4", "When does the red star appear?")

The public names are loaded when they are first used, so `import playhead` costs milliseconds and loads no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .agent.policies.loading import LoadOptions
    from .agent.video_agent import Result, VideoAgent
    from .core.budget import Budget, Usage
    from .core.clip import Clip
    from .core.errors import DataError, IndexingError, ModelError, PlayheadError, VideoError
    from .core.nouns import Answer, Frame, Observation, StopReason, Task, ToolCall, ToolSpec
    from .core.tasks import read_tasks
    from .core.trajectory import Trajectory, Turn, read_trajectories, write_trajectories
    from .core.video import Video
    from .memory.index import ClipIndex

__version__ = "0.1.0"

_HOMES = {
    "agent.policies.loading": ("LoadOptions",),
    "agent.video_agent": ("VideoAgent", "Result"),
    "core.budget": ("Budget", "Usage"),
    "core.clip": ("Clip",),
    "core.errors": ("PlayheadError", "VideoError", "ModelError", "DataError", "IndexingError"),
    "core.nouns": ("Answer", "Frame", "Observation", "StopReason", "Task", "ToolCall", "ToolSpec"),
    "core.tasks": ("read_tasks",),
    "core.trajectory": ("Trajectory", "Turn", "read_trajectories", "write_trajectories"),
    "core.video": ("Video",),
    "memory.index": ("ClipIndex",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Answer",
    "Budget",
    "Clip",
    "ClipIndex",
    "DataError",
    "Frame",
    "IndexingError",
    "LoadOptions",
    "ModelError",
    "Observation",
    "PlayheadError",
    "Result",
    "StopReason",
    "Task",
    "ToolCall",
    "ToolSpec",
    "Trajectory",
    "Turn",
    "Usage",
    "Video",
    "VideoAgent",
    "VideoError",
    "__version__",
    "read_tasks",
    "read_trajectories",
    "write_trajectories",
]


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{home}", __name__), name)
    globals()[name] = value  # the next use finds it without asking again
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
