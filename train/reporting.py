"""Where the figures of a run go besides curve.jsonl: TensorBoard, trackio, Weights & Biases, by transformers' own callbacks.

    playhead train sft ... --report-to tensorboard      then: tensorboard --logdir OUT/state/runs

Nothing of these is ours but the check that their package is there before a model is loaded. trackio writes to its own folder
on this machine; wandb sends to its servers unless WANDB_MODE=offline, and then it writes ./wandb.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec

from ..core.errors import ModelError

PACKAGES = {"tensorboard": ("tensorboard", "tensorboardX"), "trackio": ("trackio",), "wandb": ("wandb",)}
"""What each needs: one of these."""


def check_reporters(report_to: str | Iterable[str] | None) -> None:
    """Is there what `report_to` (as transformers takes it) names?

    Raises: ModelError: nothing of that name, or its package is not installed; with the command that installs it.
    """
    names = [report_to] if isinstance(report_to, str) else list(report_to or ())
    for name in names:
        if name in ("none", "all"):
            continue
        if name not in PACKAGES:
            from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK as known

            if name not in known:
                raise ModelError(f"report_to {name!r} is unknown; take none, {', '.join(PACKAGES)}, or one of transformers'")
        elif not any(find_spec(package) for package in PACKAGES[name]):
            raise ModelError(f"report_to {name!r}: its package is not installed; pip install {PACKAGES[name][0]}")
