"""A checkpoint of the embedded architecture on recorded episodes, on a CPU, in minutes.

The vision tower stands still. Tokens that decide (yes or no, the next number of a count, a direction) count more, since a few
of them drown among copied ones; what follows a semicolon is the second name of a query, one token that decides all the rest.

    playhead train sft --recipe embedded_cpu --data DIR --init DIR --out DIR
    OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 -m playhead train sft ...            # shares the batches of every step
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...world.scene import BINS
from ..sft_run import SFTRun
from ..weights import LossWeights

DECISIONS = (
    " yes", " no", " one", " two", " three", " four", " five", " six", " left", " right", " up", " down", " same",
    *(f" {axis}{i}" for axis in "xy" for i in range(BINS)),
)  # fmt: skip


def embedded_cpu(*, init: str, data: Sequence[Path], out: Path) -> SFTRun:
    """Two batches of 8192 tokens a step, Muon and AdamW, bf16."""
    return SFTRun(
        recipe="embedded_cpu",
        init=init,
        data=tuple(data),
        out=out,
        weights=LossWeights(words=dict.fromkeys(DECISIONS, 3.0), after={";": 10.0}),
        batch_tokens=8192,
        passes=4.0,
        muon=2.5e-3,
        decay=0.6,
        trainer={
            "use_cpu": True,
            "bf16": True,
            "gradient_accumulation_steps": 2,
            "learning_rate": 1.5e-3,
            "warmup_steps": 0.05,
            "gradient_checkpointing": False,
            "logging_steps": 10,
        },
    )
