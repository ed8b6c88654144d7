"""Qwen3-VL-8B on recorded episodes by LoRA: one 80 GB GPU; with four_bit=True (QLoRA) one of 24 GB.

    playhead train sft --recipe qwen3vl_8b_lora --data DIR --out DIR
    playhead train sft --recipe qwen3vl_8b_lora --data DIR --out DIR --four-bit      # then: playhead train merge
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..sft_run import LANGUAGE_LINEARS, SFTRun
from ..weights import LossWeights
from .qwen3vl_8b_sft import INIT


def qwen3vl_8b_lora(*, init: str = INIT, data: Sequence[Path], out: Path) -> SFTRun:
    """Rank 32 on every linear layer of the language model, 32 batches of up to 16,384 tokens a step, two passes."""
    return SFTRun(
        recipe="qwen3vl_8b_lora",
        init=init,
        data=tuple(data),
        out=out,
        weights=LossWeights(),
        batch_tokens=16_384,
        passes=2.0,
        max_tokens=16_384,
        keep_features=False,
        adapter={"r": 32, "lora_alpha": 64, "lora_dropout": 0.0, "target_modules": LANGUAGE_LINEARS},
        dtype="bfloat16",
        attention="sdpa",
        trainer={
            "bf16": True,
            "gradient_accumulation_steps": 32,
            "learning_rate": 1e-4,
            "lr_scheduler_type": "cosine",
            "warmup_steps": 0.05,
            "weight_decay": 0.0,
            "max_grad_norm": 1.0,
            "gradient_checkpointing": True,
            "gradient_checkpointing_kwargs": {"use_reentrant": False},
            "logging_steps": 5,
        },
    )
