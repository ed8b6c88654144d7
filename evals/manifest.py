"""Setup: what is measured, and the manifest that says so.

A strategy is anything that `agent/scaling/spec.py` can read: "tools", "direct:frames=32", "vote(tools,n=8)".
"""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.budget import Budget
from ..core.codec import to_plain
from ..core.errors import DataError

if TYPE_CHECKING:
    from ..agent.policies.loading import LoadOptions
    from ..agent.scaling.strategy import Strategy
    from ..agent.video_agent import VideoAgent

IDENTITY = (
    *("tasks_sha256", "limit", "model", "model_sha256", "load", "adapter_sha256"),
    *("encoder", "strategy", "limits", "seed", "temperature", "tools"),
)
"""What must be the same in all parts of a run. A manifest from before a key was one counts as None there."""
_PACKAGES = ("torch", "transformers", "open_clip_torch", "faiss-cpu", "av", "langgraph", "numpy")

Limits = Mapping[str, int | float | None]
"""Fields of `Budget` that are set. What is not named is as much as the strategy needs."""


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What is measured.

    Args:
        strategy: a spec; `frames` with "direct" is short for "direct(frames=N)".
        limits: hard limits of all that is done for one question.
        home: where indexes are kept; None for the usual place.
        concurrency: so many runs of one question are under way at once.
        tools: what the agent may use; None for the model's own.

    Raises:
        StrategyError: there is no such strategy.
        DataError: frames without "direct", a limit that is none, or a tool of an unknown name.
        ModelError: a server's address that is none or holds a password: no manifest may.
    """

    model: str = "embedded"
    strategy: str | Strategy = "tools"
    frames: int | None = None
    encoder: str = "embedded"
    limits: Limits = field(default_factory=dict)
    home: Path | None = None
    seed: int = 0
    temperature: float = 0.0
    concurrency: int = 8
    load: LoadOptions | None = None
    tools: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.frames is not None and (self.strategy != "direct" or self.frames < 1):
            raise DataError(f"--frames belongs to --strategy direct, and must be at least 1; got {self.frames} frames")
        try:
            Budget(**dict(self.limits))  # pyright: ignore[reportArgumentType]
            if self.tools is not None:
                from ..tools.toolbox import default_toolbox

                default_toolbox(self.tools)
        except ValueError as error:
            raise DataError(str(error)) from None
        if "://" in self.model:
            from ..agent.policies.openai.server import split_url

            split_url(self.model)
        _ = self.plan  # an unknown strategy is refused at once

    @cached_property
    def plan(self) -> Strategy:
        """The strategy itself."""
        from ..agent.scaling.passes import Direct
        from ..agent.scaling.spec import parse_strategy

        if not isinstance(self.strategy, str):
            return self.strategy
        return parse_strategy(self.strategy) if self.frames is None else Direct(frames=self.frames)

    def budget_of(self, agent: VideoAgent) -> Budget:
        """What a question may spend."""
        return replace(self.plan.default_budget(agent.profile.budget), **self.limits)

    def agent(self) -> VideoAgent:
        from ..agent.video_agent import VideoAgent

        return VideoAgent(
            self.model,
            encoder=self.encoder,
            home=self.home,
            seed=self.seed,
            temperature=self.temperature,
            load=self.load,
            tools=self.tools,
        )


def make_manifest(data: Path, setup: Setup, limit: int | None) -> dict[str, Any]:
    """What was measured, with what: enough to run it again, without a path of this machine's but the model's name."""
    tasks_file = data / "tasks.jsonl" if data.is_dir() else data
    versions = {}
    for name in ("playhead", *_PACKAGES):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    load = _load(setup.load)
    return {
        "tasks_sha256": _sha256(tasks_file),
        "limit": limit,
        "model": setup.model,
        "model_sha256": _model_hash(setup.model),
        "load": load,
        "adapter_sha256": _model_hash(load["adapter"]) if load and load["adapter"] else None,
        "encoder": _fingerprint(setup),
        "strategy": str(setup.plan),
        "limits": dict(setup.limits),
        "seed": setup.seed,
        "temperature": setup.temperature,
        "tools": None if setup.tools is None else list(setup.tools),
        "versions": {"python": platform.python_version(), **versions},
        "cores": os.cpu_count(),
    }


def _load(options: LoadOptions | None) -> dict[str, Any] | None:
    """What of it a result depends on; None for the usual."""
    said = {} if options is None else to_plain(options)
    said.pop("cache_gb", None)  # caches change the work, never the result
    if said.get("adapter"):
        said["adapter"] = str(said["adapter"])  # may be a Path
    return said if any(said.values()) else None


def manifest_like(manifest: Mapping[str, Any], setup: Setup) -> dict[str, Any]:
    """`manifest`, for a setup that differs in strategy and limits only: large weights are hashed once."""
    encoder = manifest["encoder"] if setup.plan.uses_tools else None
    return {**manifest, "encoder": encoder, "strategy": str(setup.plan), "limits": dict(setup.limits)}


def _fingerprint(setup: Setup) -> str | None:
    from ..memory.encoder import load_encoder

    return load_encoder(setup.encoder).fingerprint if setup.plan.uses_tools else None


def _model_hash(model: str) -> str | None:
    """sha256 over the weights of a local checkpoint; None for a model that is only a name."""
    from ..agent.embedded import checkpoint_dir

    folder = checkpoint_dir() if model == "embedded" else Path(model).expanduser()
    weights = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    return hashlib.sha256("".join(_sha256(w) for w in weights).encode()).hexdigest() if weights else None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
