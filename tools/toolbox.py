"""Toolbox: the tools one agent may use, behind one call that never breaks on what a model writes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..core.nouns import Observation, ToolCall, ToolSpec
from ..core.video import Video
from .browse import browse
from .caption_frames import caption_frames
from .contract import TIME_LIMIT_S, Tool, ToolContext, failed
from .crop_frame import crop_frame
from .notebook import note, recall
from .search_clips import search_clips
from .search_subtitles import search_subtitles
from .temporal_zoom import temporal_zoom

FUNCTIONS = {
    f.__name__: f
    for f in (search_clips, temporal_zoom, caption_frames, search_subtitles, crop_frame, browse, recall, note)
}
NOTEBOOK_TOOLS = ("recall", "note")


class Toolbox:
    """Tools by name, in the order in which a model is told of them.

    Raises:
        ValueError: two tools of one name.
    """

    def __init__(self, tools: Iterable[Tool]):
        self.tools = tuple(tools)
        self._by_name = {tool.spec.name: tool for tool in self.tools}
        if len(self._by_name) < len(self.tools):
            raise ValueError(f"tools need different names; got {[tool.spec.name for tool in self.tools]}")

    @property
    def specs(self) -> tuple[ToolSpec, ...]:
        return tuple(tool.spec for tool in self.tools)

    def without(self, *names: str) -> Toolbox:
        """The same tools but those named."""
        return Toolbox(tool for tool in self.tools if tool.spec.name not in names)

    async def call(self, call: ToolCall, ctx: ToolContext) -> Observation:
        """Do the call. An unknown tool, bad arguments, a time outside the video or the time limit: an observation with
        an error that tells the model what is allowed.

        Raises:
            PlayheadError: what is not the model's fault, such as a file that broke.
        """
        tool = self._by_name.get(call.name)
        if tool is None:
            names = ", ".join(self._by_name) or "none"
            return failed(call, f"there is no tool called {call.name!r:.60}. The tools are: {names}.")
        return await tool.run(call, ctx)


def default_toolbox(names: Sequence[str] | None = None, *, time_limit_s: float = TIME_LIMIT_S) -> Toolbox:
    """The tools that come with playhead, or those named.

    Raises:
        ValueError: a name that no tool has.
    """
    for name in names or ():
        if name not in FUNCTIONS:
            raise ValueError(f"no tool is called {name!r}; there are {', '.join(FUNCTIONS)}")
    chosen = FUNCTIONS if names is None else names
    return Toolbox(Tool(FUNCTIONS[name], time_limit_s=time_limit_s) for name in chosen)


def tools_for(video: Video, *, notebook: bool = False, time_limit_s: float = TIME_LIMIT_S) -> Toolbox:
    """All tools that are of use with a video: `search_subtitles` where it has some, `recall` and `note` with a notebook."""
    from ..memory.subtitles import has_subtitles

    idle = () if notebook else NOTEBOOK_TOOLS
    idle = idle if has_subtitles(video) else (*idle, "search_subtitles")
    return default_toolbox(time_limit_s=time_limit_s).without(*idle)
