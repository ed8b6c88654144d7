"""Processes that train together (torchrun): how one of them takes its leave."""

from __future__ import annotations

import sys
from typing import Any


def leave_group() -> None:
    """End this process's part in torch's process group, if it has one.

    torch asks for it: what gloo's threads still hold when the interpreter shuts down can abort the process, and torchrun then
    calls a run failed whose results are all there. For the end of a run that went well: after a failure the others may never
    come, and NCCL would wait for them.
    """
    dist: Any = sys.modules.get("torch.distributed")  # whoever is in a group has imported it
    if dist is not None and dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
