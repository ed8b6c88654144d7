"""`make model`: the embedded model from nothing, stage by stage. Each stage is a command of its own and can be resumed.

    perception   the vision tower learns to say what a frame shows              train.embedded.perception
    clip         the OpenCLIP model learns to find it                           train.embedded.clip
    dreams       the language model learns to ask, look and conclude about
                 seven kinds of questions, with codes for frames                train.embedded.language
    crops        the tower learns what a crop shows: small digits               train.embedded.perception
    more         words and dreams for three kinds more                          train.embedded.model, .language
    films        films to practise on: rich ones, and plain ones of seven kinds  world.make
    oracle       the oracle's episodes with the real agent on those films       train.data.collect
    practice     the language model on those, with real frames, and on dreams   train.embedded.language
    rl           the agent on questions never seen: what it finds out itself     train.recipes.world_rl
    publish      the checkpoint as it ships                                     train.embedded.publish

    python -m playhead.train [--work runs/model] [--only STAGE] [--device auto] [--smoke]

Two cores need some hours; perception and clip can run beside dreams (start the stages by hand with --only).
The trainers run on a GPU when PyTorch finds one (--device); that path has not been run yet, only written. Saved states are
read by way of the CPU, so a run should go on on either; films and the oracle's episodes are made on the CPU.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ..world.questions import ALL_KINDS, KINDS

FILMS, FILM_SEED, DRAWS = 48, 2_000_000, 4
FILM_MINUTES = (7.0, 8.0, 9.0) * 3 + (7.0, 8.0, 50.0)
PLAIN_FILMS, PLAIN_SEED, PLAIN_DRAWS = 60, 2_000_048, 3
LEAN = {
    "OMP_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "1000000000",
    "MALLOC_TRIM_THRESHOLD_": "1000000000",
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "512",
}
"""Bounds what the allocator and oneDNN keep for batches of ever new shapes: a process grew past 7 GB without it."""


def perception(work: Path, smoke: bool, device: str) -> None:
    from .embedded.perception import main

    main(["--out", str(work / "perception"), "--minutes", "36", "--device", device, *_smoke(smoke)])


def clip(work: Path, smoke: bool, device: str) -> None:
    from .embedded.clip import main

    main(["--out", str(work / "openclip"), "--minutes", "16", "--device", device, *_smoke(smoke)])


def dreams(work: Path, smoke: bool, device: str) -> None:
    from .embedded.corpus import corpus
    from .embedded.model import write_untrained

    start = work / "untrained"
    if not (start / "config.json").exists():
        write_untrained(start, work / "perception", corpus(10 if smoke else 300, KINDS))
    _language(start, work / "dreams", device, "--steps", _steps(900, smoke))


def crops(work: Path, smoke: bool, device: str) -> None:
    from .embedded.perception import main

    where = ["--init", str(work / "perception"), "--out", str(work / "crops"), "--device", device]
    main([*where, "--rich", "0.6", "--steps", _steps(3000, smoke), "--seed", "1100000", *_smoke(smoke)])


def more(work: Path, smoke: bool, device: str) -> None:
    from .embedded.corpus import corpus
    from .embedded.model import write_widened

    start = work / "widened"
    if not (start / "config.json").exists():
        write_widened(start, work / "dreams" / "checkpoint", work / "crops", corpus(10 if smoke else 300, ALL_KINDS))
    rates = ("--lr", "3e-3", "--adam-lr", "2e-3")
    _language(start, work / "more", device, "--kinds", "all", "--steps", _steps(420, smoke), *rates, "--seed", "1800000")


def films(work: Path, smoke: bool, device: str) -> None:
    from ..world.make import make_world

    videos, minutes = (1, (5.0,)) if smoke else (FILMS, FILM_MINUTES)
    make_world(work / "films", videos, minutes, FILM_SEED, draws=DRAWS, kinds=ALL_KINDS)
    plain, plain_minutes = (1, (5.0,)) if smoke else (PLAIN_FILMS, (7.0, 8.0, 9.0))
    make_world(work / "plain", plain, plain_minutes, PLAIN_SEED, draws=PLAIN_DRAWS)


def oracle(work: Path, smoke: bool, device: str) -> None:
    import asyncio

    from ..core.tasks import read_tasks
    from .data.collect import Setup, collect
    from .data.filters import parse_filters

    setup = Setup(
        model="oracle",
        encoder=f"local-dir:{work / 'openclip'}",
        tokenizer=work / "widened",
        direct_share=0.12,
        slips=0.08,
    )
    tasks = [*read_tasks(work / "films"), *read_tasks(work / "plain")]
    done = asyncio.run(collect(tasks, work / "oracle", setup, filters=parse_filters("correct")))
    print(*(f"{d.name}: {d.dropped} of {d.seen} dropped" for d in done.drops), f"{done.kept} kept", sep="\n", flush=True)
    if done.first_error is not None:
        print(f"the first episode that failed: {done.first_error}", flush=True)


def practice(work: Path, smoke: bool, device: str) -> None:
    how = ["--kinds", "all", "--trajectories", str(work / "oracle"), "--dreams", "0.5", "--seed", "1500000"]
    rates = ["--lr", "2.5e-3", "--adam-lr", "1.5e-3"]
    _language(work / "more" / "checkpoint", work / "practice", device, *how, *rates, "--steps", _steps(1000, smoke))


def rl(work: Path, smoke: bool, device: str) -> None:
    from .grpo.run import Films, carry_out
    from .recipes.world_rl import world_rl

    changes = {"steps": 2, "num_generations": 2, "per_device_train_batch_size": 4} if smoke else {}
    # Gold seconds are not paid for: after a teacher that looks where it must, that costs "attribute" and "first" (docs/log.md).
    recipe = world_rl(work / "rl", model=str(work / "practice" / "checkpoint"), seconds=0.0, **changes)
    recipe = replace(recipe, encoder=f"local-dir:{work / 'openclip'}")
    if smoke:
        recipe = replace(recipe, films=(Films(videos=1, minutes=(5.0,), seed=FILM_SEED, kinds=ALL_KINDS),))
    carry_out(recipe, work / "rl")


def publish(work: Path, smoke: bool, device: str) -> None:
    from .embedded.dream import profile_of
    from .embedded.publish import publish as write

    out = work / "embedded" if smoke else None
    write(work / "rl" / "final", work / "openclip", out, profile_of(ALL_KINDS))


def _smoke(smoke: bool) -> list[str]:
    return ["--smoke"] if smoke else []


def _steps(steps: int, smoke: bool) -> str:
    return "2" if smoke else str(steps)


def _language(start: Path, out: Path, device: str, *args: str) -> None:
    """`train.embedded.language` from `start`: two processes of one thread where there are two cores and no GPU, since small
    matrices gain little from a second thread. Both ways give the same run."""
    import torch

    alone = (os.cpu_count() or 1) < 2 or device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    how = [] if alone else ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    where = ["--init", str(start), "--out", str(out), "--device", device]
    command = [sys.executable, *how, "-m", "playhead.train.embedded.language", *where, *args]
    subprocess.run(command, env=os.environ | LEAN, check=True)


STAGES: dict[str, Callable[[Path, bool, str], None]] = {
    stage.__name__: stage for stage in (perception, clip, dreams, crops, more, films, oracle, practice, rl, publish)
}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        "python -m playhead.train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("runs/model"), help="folder for the stages' states")
    parser.add_argument("--only", choices=STAGES, action="append", help="run this stage (may be given again)")
    parser.add_argument("--smoke", action="store_true", help="a few steps of everything, to see that it runs")
    parser.add_argument("--device", default="auto", help="of the trainers: cpu, cuda; auto: cuda if there is one")
    args = parser.parse_args(argv)
    for name in args.only or STAGES:
        print(f"== {name}", flush=True)
        STAGES[name](args.work, args.smoke, args.device)


if __name__ == "__main__":
    main()
