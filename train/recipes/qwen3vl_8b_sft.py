"""Qwen3-VL-8B on recorded episodes: all weights of the language model, on a node of eight 80 GB GPUs.

    accelerate launch --config_file train/accelerate/fsdp2.yaml -m playhead \\
        train sft --recipe qwen3vl_8b_sft --data DIR --out DIR
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..sft_run import SFTRun
from ..weights import LossWeights

INIT = "Qwen/Qwen3-VL-8B-Instruct"


def qwen3vl_8b_sft(*, init: str = INIT, data: Sequence[Path], out: Path) -> SFTRun:
    """Batches of up to 24,576 tokens, 64 of them a step on eight GPUs; AdamW at 1e-5, three passes."""
    return SFTRun(
        recipe="qwen3vl_8b_sft",
        init=init,
        data=tuple(data),
        out=out,
        weights=LossWeights(),
        batch_tokens=24_576,
        passes=3.0,
        max_tokens=24_576,
        keep_features=False,
        dtype="float32",  # the master weights; bf16 alone would lose updates this small
        attention="sdpa",
        measure_every=100,
        trainer={
            "bf16": True,
            "gradient_accumulation_steps": 8,
            "learning_rate": 1e-5,
            "lr_scheduler_type": "cosine",
            "warmup_steps": 0.05,
            "weight_decay": 0.0,
            "max_grad_norm": 1.0,
            "gradient_checkpointing": True,
            "gradient_checkpointing_kwargs": {"use_reentrant": False},
            "logging_steps": 5,
        },
    )
