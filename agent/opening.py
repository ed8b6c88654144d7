"""What a `VideoAgent` is made of, from what its user wrote: the policy, tools, encoder, notebook and strategy of that name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..core.errors import ModelError
from ..core.frames import FrameStore
from ..core.policy import Policy
from ..tools.contract import Tool
from ..tools.toolbox import Toolbox, default_toolbox
from .embedded import EMBEDDED, EMBEDDED_PROFILE, checkpoint_dir
from .profile import PROFILE_FILE, Profile, load_profile

if TYPE_CHECKING:
    from ..memory.encoder import Encoder
    from ..memory.text import TextMemory
    from .policies.loading import LoadOptions
    from .scaling.strategy import Strategy


def open_policy(
    model: str | Policy, frames: Path, device: str | None, load: LoadOptions | None
) -> tuple[Policy, FrameStore, Profile]:
    """(the policy, the store that holds its frames, its profile)."""
    if load is not None and (not isinstance(model, str) or model.startswith(("http://", "https://"))):
        raise ModelError("load options are for models that are loaded in this process, by folder or hub id")
    if not isinstance(model, str):
        store = getattr(model, "store", None)
        return model, store if isinstance(store, FrameStore) else FrameStore(frames), Profile()
    store = FrameStore(frames)
    if model.startswith(("http://", "https://")):
        from .policies.openai import OpenAIPolicy

        return OpenAIPolicy.from_url(model, store), store, Profile()
    folder = checkpoint_dir() if model == EMBEDDED else Path(model).expanduser()
    if model == EMBEDDED and not (folder / "config.json").is_file():
        raise ModelError(f"the embedded model is not in {folder}; `make model` trains it")
    from .policies.transformers import TransformersPolicy

    name = model if model == EMBEDDED or not folder.is_dir() else str(folder)
    source = folder if model == EMBEDDED else model
    policy = TransformersPolicy.load(source, store, device=device, name=name, options=load)
    if model == EMBEDDED and not (folder / PROFILE_FILE).is_file():
        return policy, store, EMBEDDED_PROFILE
    return policy, store, load_profile(folder)


def open_toolbox(tools: Sequence[str | Tool] | None) -> Toolbox:
    if tools is None:
        return default_toolbox()
    return Toolbox(t for tool in tools for t in ([tool] if isinstance(tool, Tool) else default_toolbox([tool]).tools))


def open_notebook(path: Path | Literal[False]) -> TextMemory | None:
    from ..memory.text import TextMemory

    return TextMemory(path) if path else None


def open_strategy(strategy: str | Strategy | None) -> Strategy | None:
    if not isinstance(strategy, str):
        return strategy
    from .scaling.spec import parse_strategy

    return parse_strategy(strategy)


def open_encoder(spec: str | Encoder, device: str | None) -> Encoder:
    from ..memory.encoder import load_encoder

    return load_encoder(spec, device=device or "cpu") if isinstance(spec, str) else spec


def with_skim(profile: Profile, skim_frames: int) -> Profile:
    if skim_frames < 0:
        raise ValueError(f"skim_frames must be 0 or more; got {skim_frames}")
    return replace(profile, skim_frames=skim_frames)
