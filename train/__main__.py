"""`make model`: the embedded model from nothing, stage by stage. Each stage is a command of its own and can be resumed.

    perception   the vision tower learns to say what a frame shows            train.embedded.perception
    clip         the OpenCLIP model learns to find it                         train.embedded.clip
    dreams       the language model learns to ask, look and conclude          train.embedded.language, frames as codes
    films        films to practise on                                         world.make
    oracle       the oracle's episodes with the real agent on those films     train.data.collect
    practice     the language model on those, with real frames, and on dreams train.embedded.language
    publish      the checkpoint as it ships                                   train.embedded.publish

    python -m playhead.train [--work runs/model] [--edition plain] [--only STAGE] [--device auto] [--smoke]

Editions: "plain" knows the first seven kinds of questions; "rich" all ten, with `search_subtitles` and `crop_frame`, and takes
longer. Each wants a --work of its own. The rich one has not been trained as a whole yet.

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
from dataclasses import dataclass
from pathlib import Path

from ..world.questions import ALL_KINDS, KINDS


@dataclass(frozen=True, kw_only=True, slots=True)
class Edition:
    """What the model is to know."""

    kinds: tuple[str, ...]
    rich_reels: float = 0.0
    """Share of the vision tower's and of the OpenCLIP model's frames that are of rich films."""
    longer: float = 1.0
    """How many times longer than the plain edition its stages take."""


EDITIONS = {"plain": Edition(kinds=KINDS), "rich": Edition(kinds=ALL_KINDS, rich_reels=0.35, longer=1.4)}
FILMS, FILM_MINUTES, FILM_SEED, DRAWS = 100, (7.0, 8.0, 9.0), 2_000_000, 3
LEAN = {
    "OMP_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "1000000000",
    "MALLOC_TRIM_THRESHOLD_": "1000000000",
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "512",
}
"""Bounds what the allocator and oneDNN keep for batches of ever new shapes: a process grew past 7 GB without it."""


def perception(work: Path, smoke: bool, device: str, edition: Edition) -> None:
    from .embedded.perception import main

    main([*_eyes(work / "perception", 36, device, edition), *(["--smoke"] if smoke else [])])


def clip(work: Path, smoke: bool, device: str, edition: Edition) -> None:
    from .embedded.clip import main

    main([*_eyes(work / "openclip", 16, device, edition), *(["--smoke"] if smoke else [])])


def _eyes(out: Path, minutes: float, device: str, edition: Edition) -> list[str]:
    minutes, rich = minutes * edition.longer, edition.rich_reels
    return ["--out", str(out), "--minutes", f"{minutes:g}", "--rich", f"{rich:g}", "--device", device]


def dreams(work: Path, smoke: bool, device: str, edition: Edition) -> None:
    from .embedded.corpus import corpus
    from .embedded.model import write_untrained

    start = work / "untrained"
    if not (start / "config.json").exists():
        write_untrained(start, work / "perception", corpus(10 if smoke else 300, edition.kinds))
    where = ["--init", str(start), "--out", str(work / "dreams"), "--device", device, "--kinds", ",".join(edition.kinds)]
    _language([*where, "--steps", "2" if smoke else f"{900 * edition.longer:.0f}"], device)


def films(work: Path, smoke: bool, device: str, edition: Edition) -> None:
    from ..world.make import make_world

    videos, minutes = (1, (5.0,)) if smoke else (FILMS, FILM_MINUTES)
    make_world(work / "films", videos, minutes, FILM_SEED, draws=DRAWS, kinds=edition.kinds)


def oracle(work: Path, smoke: bool, device: str, edition: Edition) -> None:
    import asyncio

    from ..core.tasks import read_tasks
    from .data.collect import Setup, collect
    from .data.filters import parse_filters

    setup = Setup(
        model="oracle",
        encoder=f"local-dir:{work / 'openclip'}",
        tokenizer=work / "untrained",
        direct_share=0.12,
        slips=0.08,
    )
    tasks = read_tasks(work / "films")
    done = asyncio.run(collect(tasks, work / "oracle", setup, filters=parse_filters("correct")))
    print(*(f"{d.name}: {d.dropped} of {d.seen} dropped" for d in done.drops), f"{done.kept} kept", sep="\n", flush=True)
    if done.first_error is not None:
        print(f"the first episode that failed: {done.first_error}", flush=True)


def practice(work: Path, smoke: bool, device: str, edition: Edition) -> None:
    where = ["--init", str(work / "dreams" / "checkpoint"), "--out", str(work / "practice"), "--device", device]
    how = ["--trajectories", str(work / "oracle"), "--dreams", "0.4", "--lr", "2.5e-3", "--adam-lr", "1.5e-3"]
    how += ["--kinds", ",".join(edition.kinds), "--seed", "1500000"]
    _language([*where, *how, "--steps", "2" if smoke else f"{500 * edition.longer:.0f}"], device)


def publish(work: Path, smoke: bool, device: str, edition: Edition) -> None:
    from .embedded.dream import profile_of
    from .embedded.publish import publish as write

    out = work / "embedded" if smoke else None
    write(work / "practice" / "checkpoint", work / "openclip", out, profile_of(edition.kinds))


def _language(args: Sequence[str], device: str) -> None:
    """`train.embedded.language` with these arguments: two processes of one thread where there are two cores and no GPU, since
    small matrices gain little from a second thread. Both ways give the same run."""
    import torch

    alone = (os.cpu_count() or 1) < 2 or device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    how = [] if alone else ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run([sys.executable, *how, "-m", "playhead.train.embedded.language", *args], env=os.environ | LEAN, check=True)


STAGES: dict[str, Callable[[Path, bool, str, Edition], None]] = {
    stage.__name__: stage for stage in (perception, clip, dreams, films, oracle, practice, publish)
}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        "python -m playhead.train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("runs/model"), help="folder for the stages' states")
    parser.add_argument("--only", choices=STAGES, action="append", help="run this stage (may be given again)")
    parser.add_argument("--smoke", action="store_true", help="a few steps of everything, to see that it runs")
    parser.add_argument("--device", default="auto", help="of the trainers: cpu, cuda; auto: cuda if there is one")
    parser.add_argument("--edition", choices=EDITIONS, default="plain", help="plain: seven kinds of questions; rich: all ten")
    args = parser.parse_args(argv)
    for name in args.only or STAGES:
        print(f"== {name}", flush=True)
        STAGES[name](args.work, args.smoke, args.device, EDITIONS[args.edition])


if __name__ == "__main__":
    main()
