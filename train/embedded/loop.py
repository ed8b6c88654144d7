"""The loop both trainers of the embedded model's eyes share: steps, a falling learning rate, measurements, going on.

A run's state (weights, optimisers, where it stands) lies in OUT/state.pt, written beside and renamed, read back as
tensors only. A run that is started again with the same folder goes on where it was; the frames it draws are those of
its seed, though a resumed run refills its stock of frames.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..muon import Muon
from .device import add_device
from .reels import Pool, Shoot, shoot

KEEP_EVERY_S = 120
WARM_UP = 0.01
"""Share of the run over which the learning rate rises."""


def arguments(module: str, description: str, seed: int) -> argparse.ArgumentParser:
    """The command line of a trainer."""
    p = argparse.ArgumentParser(f"python -m playhead.train.{module}", description=description.split("\n")[0])
    p.add_argument(
        "--out", type=Path, default=Path("runs") / module, help="folder for the weights and the state of the run"
    )
    p.add_argument("--minutes", type=float, default=30, help="how long to train; the learning rate follows the clock")
    p.add_argument("--steps", type=int, default=0, help="train for this many steps instead")
    p.add_argument("--batch", type=int, default=128, help="frames a step")
    p.add_argument("--fresh-frames", type=float, default=32, help="newly filmed frames a step")
    p.add_argument("--fill", type=int, default=60, help="reels filmed before the first step")
    p.add_argument("--rich", type=float, default=0.0, help="share of reels that are of rich films (small digits), 0 to 1")
    p.add_argument("--lr", type=float, default=1.5e-3)
    p.add_argument("--bf16-until", type=float, default=0.85, help="share of the run in bf16; 0 where that is slow")
    p.add_argument("--seed", type=int, default=seed, help="also the number of the first reel filmed")
    p.add_argument("--measure-every", type=int, default=1000, help="steps between measurements on validation frames")
    p.add_argument("--validation-reels", type=int, default=40)
    add_device(p)
    p.add_argument("--fresh", action="store_true", help="start anew even if a run can be resumed")
    p.add_argument("--smoke", action="store_true", help="a few steps, to see that everything runs")
    return p


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; --smoke shrinks everything."""
    args = parser.parse_args(argv)
    if args.smoke:
        args.steps, args.fill, args.validation_reels, args.batch = args.steps or 3, 1, 1, 16
    args.out.mkdir(parents=True, exist_ok=True)
    return args


def optimisers(module: nn.Module, args: argparse.Namespace, inside: str) -> list[torch.optim.Optimizer]:
    """Muon for the matrices whose name holds `inside`, AdamW for the rest."""
    matrices = [p for n, p in module.named_parameters() if inside in n and p.ndim == 2]
    chosen = {id(p) for p in matrices}
    rest = [p for p in module.parameters() if id(p) not in chosen]
    dtype = torch.bfloat16 if args.bf16_until > 0 else torch.float32
    adam = torch.optim.AdamW(rest, args.lr, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    return [Muon(matrices, args.lr, dtype=dtype), adam]


def rate(progress: float) -> float:
    """Share of the full learning rate: a short warm-up, then a straight line down to 1 %."""
    return min(1.0, progress / WARM_UP + 0.02) * max(0.01, 1 - progress)


def run(
    module: nn.Module,
    optims: Sequence[torch.optim.Optimizer],
    args: argparse.Namespace,
    loss_of: Callable[[Pool, np.random.Generator], Tensor],
    report: Callable[[dict[str, float]], dict[str, float]],
    film: Shoot = shoot,
) -> dict[str, float]:
    """Train `module` by the command line's `args`, or go on with it, and return the last metrics.

    `loss_of` draws a batch from the pool and gives its loss (called under autocast while the run is in bf16); `report`
    is given the figures of the run, measures and saves the module, and returns all metrics; `film` makes the reels. The
    module is already on `args.device`.
    """
    saved = args.out / "state.pt"
    state = {"step": 0, "elapsed": 0.0, "next_reel": 0}
    if saved.exists() and not args.fresh:
        state = _load(saved, module, optims)
    pool = Pool(args.seed, max(0, int(state["next_reel"]) - args.fill), fill=args.fill, film=film)
    began, kept = time.monotonic() - state["elapsed"], time.monotonic()
    while True:
        elapsed = time.monotonic() - began
        step = int(state["step"])
        progress = step / args.steps if args.steps else elapsed / (60 * args.minutes)
        last = progress >= 1
        metrics: dict[str, float] = {}
        if last or (step and step % args.measure_every == 0):
            figures = {
                "steps": step,
                "minutes": elapsed / 60,
                "frames_seen": step * args.batch,
                "frames_filmed": pool.filmed,
            }
            module.eval()
            metrics = report(figures)
            module.train()
            print(json.dumps({k: round(v, 4) for k, v in metrics.items()}), flush=True)
        if last or time.monotonic() - kept > KEEP_EVERY_S:
            kept = time.monotonic()
            state |= {"elapsed": elapsed, "next_reel": pool.next_reel}
            _save(saved, state, module, optims)
        if last:
            return metrics
        pool.refresh(args.fresh_frames)
        # Each step has draws of its own, so a resumed run goes on with those it would have made.
        with torch.autocast(args.device.type, torch.bfloat16, enabled=progress < args.bf16_until):
            loss = loss_of(pool, np.random.default_rng([args.seed, step]))
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        for optim in optims:
            for group in optim.param_groups:
                group["lr"] = args.lr * rate(progress)
            optim.step()
            optim.zero_grad()
        state["step"] = step + 1
        if (step + 1) % 100 == 0:
            print(f"step {step + 1}  loss {loss.item():.4f}  {elapsed / 60:.1f} min  {pool.filmed} frames", flush=True)


def _save(path: Path, state: dict[str, Any], module: nn.Module, optims: Sequence[torch.optim.Optimizer]) -> None:
    beside = path.with_suffix(".part")
    torch.save(state | {"module": module.state_dict(), "optims": [o.state_dict() for o in optims]}, beside)
    os.replace(beside, path)


def _load(path: Path, module: nn.Module, optims: Sequence[torch.optim.Optimizer]) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    module.load_state_dict(state.pop("module"))
    for optim, values in zip(optims, state.pop("optims"), strict=True):
        optim.load_state_dict(values)
    return state
