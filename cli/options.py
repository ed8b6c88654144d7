"""What several commands read the same way: budgets, choices, counts; and where people's output goes.

Results go to stdout, everything said on the way to stderr, so that `--json` can be piped.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..core.budget import Budget
from ..core.errors import PlayheadError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from ..agent.policies.loading import LoadOptions

_PANEL = "How a local checkpoint is loaded"
Model = Annotated[
    str,
    typer.Option(
        help="embedded; a folder or hub id of a Qwen3-VL, Qwen2.5-VL or SmolVLM2 checkpoint; "
        "or http://HOST:PORT/v1#NAME for a model behind an OpenAI-compatible server."
    ),
]
Dtype = Annotated[str | None, typer.Option(help="auto, float32, bfloat16 or float16.", rich_help_panel=_PANEL)]
DeviceMap = Annotated[str | None, typer.Option(help="auto (all GPUs, then RAM), cpu, cuda:1, ...", rich_help_panel=_PANEL)]
Attention = Annotated[str | None, typer.Option(help="As transformers names it: sdpa, eager, ...", rich_help_panel=_PANEL)]
FourBit = Annotated[
    bool, typer.Option("--four-bit", help="NF4 weights; needs a GPU and playhead[4bit].", rich_help_panel=_PANEL)
]
Adapter = Annotated[str | None, typer.Option(help="Folder or hub id of a PEFT adapter.", rich_help_panel=_PANEL)]
CacheGb = Annotated[
    float | None, typer.Option(help="GB for attention caches; else a quarter of what is free.", rich_help_panel=_PANEL)
]

_SHORT = {
    "calls": "tool_calls",
    "context": "context_tokens",
    "tokens": "sampled_tokens",
    "models": "model_calls",
    "seconds": "wall_s",
}
_NAMES = ("turns", "calls", "frames", "context", "tokens", "models", "seconds")


class UsageProblem(PlayheadError):
    """A value on the command line that makes no sense."""


def parse_limits(text: str, option: str = "--budget") -> dict[str, float | int | None]:
    """`frames=64,seconds=20` as fields of a Budget; `none` lifts a limit.

    Raises:
        UsageProblem: an unknown name, whose message lists those there are, or a value that makes no sense.
    """
    values: dict[str, float | int | None] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        name, equals, value = (p.strip() for p in part.partition("="))
        field = _SHORT.get(name, name)
        if not equals or field not in Budget.__dataclass_fields__:
            raise UsageProblem(f"{option} {part!r}: write NAME=NUMBER with a name of {', '.join(_NAMES)}")
        try:
            values[field] = None if value == "none" else _limit(field, value)
        except ValueError as error:
            raise UsageProblem(f"{option} {part!r}: {error} (or none, for no limit)") from None
    return values


def _limit(field: str, text: str) -> float | int:
    """A limit in the words of the command line, which are not those of `Budget`.

    Raises:
        ValueError: what is wrong with it.
    """
    kind, what = (float, "a number") if field == "wall_s" else (int, "a whole number")
    try:
        value = kind(text)
    except ValueError:
        raise ValueError(f"{text!r} is not {what}") from None
    least = 1 if field == "turns" else 0
    if not value >= least:  # NaN is refused too
        raise ValueError(f"{text!r} is not {least} or more")
    return value


def parse_budget(text: str | None, base: Budget | None = None) -> Budget | None:
    """`frames=64,seconds=20` as a Budget; limits that are not named stay as in `base`; `none` lifts one.

    Raises:
        UsageProblem: an unknown name or a value that makes no sense.
    """
    if text is None:
        return None
    values, base = parse_limits(text), base or Budget()
    kept = {name: getattr(base, name) for name in Budget.__dataclass_fields__}
    return Budget(**{**kept, **values})


def parse_choices(text: str | None) -> tuple[str, ...]:
    """`red,green,blue` as choices; a text with `|` in it is split there instead, so that choices may hold commas.

    Raises:
        UsageProblem: one choice is no choice, and the same one twice neither.
    """
    if text is None:
        return ()
    choices = tuple(c.strip() for c in text.split("|" if "|" in text else ",") if c.strip())
    if len(choices) < 2 or len(set(choices)) < len(choices):
        raise UsageProblem(f"--choices needs at least two different ones, separated by commas or |; got {text!r}")
    return choices


def parse_load(
    model: str,
    *,
    dtype: str | None = None,
    device_map: str | None = None,
    attention: str | None = None,
    four_bit: bool = False,
    adapter: str | None = None,
    cache_gb: float | None = None,
) -> LoadOptions | None:
    """How the checkpoint is to be loaded; None where no flag says anything.

    Raises:
        UsageProblem: an unknown dtype, an empty value, caches of no size, or a model behind a server, which nothing here loads.
    """
    given: dict[str, Any] = {"dtype": dtype, "device_map": device_map, "attention": attention, "adapter": adapter}
    given = {name: value for name, value in given.items() if value is not None}
    texts = dict(given)
    given |= {} if cache_gb is None else {"cache_gb": cache_gb}
    flags = [f"--{name.replace('_', '-')}" for name in (*given, *(["four_bit"] if four_bit else []))]
    if not flags:
        return None
    if model.startswith(("http://", "https://")):
        raise UsageProblem(f"{', '.join(flags)}: for models loaded in this process; a server loads its own, so set it there")
    for name, value in texts.items():
        if not value.strip():
            raise UsageProblem(f"--{name.replace('_', '-')} is empty; leave it out or give a value")
    from ..agent.policies.loading import LoadOptions

    try:
        return LoadOptions(four_bit=four_bit, **given)
    except ValueError as error:
        raise UsageProblem(f"{', '.join(flags)}: {error}") from None


def progress_bar(said: Console, *, count: bool = False) -> Progress:
    """A bar for a share (or a count) that goes away when it is done; nothing where nobody watches."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    done = MofNCompleteColumn() if count else TextColumn("{task.percentage:3.0f}%")
    columns = (TextColumn("{task.description}"), BarColumn(), done, TimeRemainingColumn())
    return Progress(*columns, console=said, transient=True, disable=not said.is_terminal)


def quiet_loading(model: str) -> None:
    """No bar for reading weights that lie on this disk (a moment); a download keeps its own. Before transformers loads."""
    if model == "embedded" or Path(model).expanduser().is_dir():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def say(line: str, style: str | None = None) -> None:
    """A line of the result, whole: a path in it can be copied, brackets in it are no markup."""
    console().print(line, style=style, markup=False, soft_wrap=True)


def tell(line: str) -> None:
    """The same for how it goes, on stderr."""
    aside().print(line, markup=False, soft_wrap=True)


def console() -> Console:
    """Where people read results: stdout."""
    from rich.console import Console

    return Console(highlight=False)


def aside() -> Console:
    """Where people read how it goes: stderr."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)
