"""Supervised training of the embedded Video-LMM's language model: on dreams, on recorded trajectories, or on a mixture.

The vision tower stands still, so a frame enters as its features: the tower's own for a recorded frame (computed once per
content hash), a percept code plus noise for a dreamed one. Only what the policy said is trained on; tokens that decide
(yes or no, the next number of a count, a direction) count more, since a few of them drown among copied ones. Muon for
matrices, AdamW for the rest, bf16 unless --no-bf16 (not every CPU is fast at it).

    python -m playhead.train.embedded.language --init DIR --out DIR --steps 1000                       # dreams only
    python -m playhead.train.embedded.language --init DIR --out DIR --steps 800 --trajectories DIR --dreams 0.4
    python -m playhead.train.embedded.language --init DIR --out DIR --steps 1000 --kinds all           # all ten kinds

    OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 -m playhead.train.embedded.language ...      # two processes share the batches

A step takes `GROUPS` batches, whatever the number of processes, so the run is the same on one and on two. It can be stopped
and started again: its state lies in OUT/state.pt, and its data follow from the step.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ...agent.policies.transformers import placeholder_runs, rope_positions
from ...agent.profile import save_profile
from ...agent.renderers.qwen3vl import Qwen3VLRenderer
from ...world.questions import KINDS, parse_kinds
from ...world.scene import BINS
from ...world.talk import WORDS
from ..group import leave_group
from ..muon import Muon
from .device import add_device
from .dream import Dreamer, profile_of
from .examples import Example, dream_example, recorded_examples

DECISIONS = (
    " yes", " no", " one", " two", " three", " four", " five", " six", " left", " right", " up", " down", " same",
    *(f" {axis}{i}" for axis in "xy" for i in range(BINS)),
)  # fmt: skip
PLACE_DECISIONS = (" top", " bottom", " middle")
TALK_DECISIONS = tuple(f" {word}" for word in WORDS)
DECISION_WEIGHT = 3.0
SECOND_NAME_WEIGHT = 10.0
"""For what follows a semicolon: the second name of a query, one token of a whole episode that decides all the rest."""
BATCH_TOKENS = 8192
GROUPS = 2
"""Batches of a step."""
POOL = 256
"""Examples drawn at a time, to be grouped by length."""
SEQUENCES, RICH_SEQUENCES = 17, 25
"""Sequences that are dreamt of one scene."""
NOISE = 0.05
"""Standard deviation of the noise on each component of a dreamed code (whose own are about 0.14)."""
TRAIN_SEED = 1_000_000
EVAL_SEED = 6_800_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Right-padded rows: B rows of T tokens, N image tokens in row-major order."""

    token_ids_BT: Tensor
    weight_BT: Tensor
    """Weight of the loss of each token as a target; 0 where it is not trained on."""
    position_ids_3BT: Tensor
    features_ND: Tensor

    def to(self, device: torch.device) -> Batch:
        return Batch(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})


@dataclass(frozen=True, slots=True)
class Collator:
    renderer: Qwen3VLRenderer
    weights_V: Tensor

    def __call__(self, examples: Sequence[Example]) -> Batch:
        longest = max(len(e.token_ids_T) for e in examples)
        ids = np.full((len(examples), longest), self.renderer.pad_token_id, dtype=np.int64)
        mask = np.zeros((len(examples), longest), dtype=np.float32)
        positions = np.zeros((3, len(examples), longest), dtype=np.int64)
        for row, e in enumerate(examples):
            n = len(e.token_ids_T)
            ids[row, :n], mask[row, :n] = e.token_ids_T, e.loss_mask_T
            runs = placeholder_runs(e.token_ids_T, e.frames_F, self.renderer)
            positions[:, row, :n] = rope_positions(
                n, runs, self.renderer.image_grids(e.frames_F), self.renderer.processor.image_processor.merge_size
            )
        token_ids = torch.from_numpy(ids)
        weight = torch.from_numpy(mask) * self.weights_V[token_ids]
        weight[:, 1:][token_ids[:, :-1] == self.renderer.encode(";")[0]] *= SECOND_NAME_WEIGHT
        return Batch(
            token_ids_BT=token_ids,
            weight_BT=weight,
            position_ids_3BT=torch.from_numpy(positions),
            features_ND=torch.cat([e.features_ND for e in examples]),
        )


def decisions(kinds: Sequence[str]) -> tuple[str, ...]:
    """The words that decide in episodes of these kinds, each a token of a tokenizer made for them (`train.embedded.corpus`)."""
    places, talk = "where" in kinds, "subtitle" in kinds
    return (*DECISIONS, *(PLACE_DECISIONS if places else ()), *(TALK_DECISIONS if talk else ()))


def token_weights(renderer: Qwen3VLRenderer, size: int, kinds: Sequence[str] = KINDS) -> Tensor:
    """(V,) loss weights: 1, and more for tokens that decide.

    Raises:
        ValueError: the tokenizer was made for other kinds.
    """
    weights = torch.ones(size)
    for word in decisions(kinds):
        ids = renderer.encode(word)
        if len(ids) != 1:
            raise ValueError(f"{word!r} is no single token: the tokenizer was made for other kinds of questions")
        weights[ids[0]] = DECISION_WEIGHT
    return weights


@dataclass(frozen=True, slots=True)
class Crew:
    """The processes that train together (gloo); alone unless torchrun says otherwise."""

    rank: int = 0
    size: int = 1

    @classmethod
    def join(cls) -> Crew:
        size = int(os.environ.get("WORLD_SIZE", "1"))
        if size > 1:
            torch.distributed.init_process_group("gloo")
        return cls(int(os.environ.get("RANK", "0")), size)

    def gather(self, model: Any) -> None:
        """Sum of the gradients over all processes, in one message."""
        if self.size > 1:
            grads = [p.grad for p in model.parameters() if p.grad is not None]
            flat = torch.cat([g.flatten() for g in grads])
            torch.distributed.all_reduce(flat)
            for grad, total in zip(grads, flat.split([g.numel() for g in grads]), strict=True):
                grad.copy_(total.view_as(grad))


def stream(
    dreamer: Dreamer, recorded: Sequence[Example], dream_share: float, seed: int, crew: Crew, skip: int
) -> Iterator[list[Example]]:
    """Endless groups of examples of similar length, every `crew.size`-th one from `crew.rank` on; the same for the same
    seed, the first `skip` of all left out."""
    dream_seed, passed, step = seed, 0, 0
    rng = np.random.Generator(np.random.PCG64(seed))
    order: list[int] = []
    while True:
        pool: list[Example] = []
        while len(pool) < POOL:
            if recorded and rng.random() >= dream_share:
                if not order:
                    order, passed = list(rng.permutation(len(recorded))), passed + 1
                pool.append(recorded[order.pop()])
            else:
                # A scene gives so many sequences, so it is drawn as much less often.
                if not recorded or rng.random() < 1 / (RICH_SEQUENCES if dreamer.rich else SEQUENCES):
                    pool += [dream_example(d, NOISE, rng) for d in dreamer.dreams(dream_seed)]
                    dream_seed += 1
        groups = _groups(sorted(pool, key=lambda e: len(e.token_ids_T)))
        for i in rng.permutation(len(groups)):
            if step >= skip and step % crew.size == crew.rank:
                yield groups[i]
            step += 1


def _groups(ordered: list[Example]) -> list[list[Example]]:
    groups: list[list[Example]] = [[]]
    for example in ordered:
        if groups[-1] and len(example.token_ids_T) * (len(groups[-1]) + 1) > BATCH_TOKENS:
            groups.append([])
        groups[-1].append(example)
    return groups


def loss_of(model: Any, batch: Batch, amp: bool) -> tuple[Tensor, Tensor, Tensor]:
    """(weighted mean loss, right (N,), weight (N,)) over the N trained tokens, where the model is."""
    batch = batch.to(model.device)
    lm = model.model.language_model
    is_image = batch.token_ids_BT == model.config.image_token_id
    with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=amp):
        embeds = lm.embed_tokens(batch.token_ids_BT)
        embeds = embeds.masked_scatter(is_image[..., None], batch.features_ND.to(embeds.dtype))
        hidden = lm(
            inputs_embeds=embeds, position_ids=batch.position_ids_3BT, attention_mask=None, use_cache=False
        ).last_hidden_state
        chosen = batch.weight_BT[:, 1:] > 0
        logits = model.lm_head(hidden[:, :-1][chosen])
    targets, weight = batch.token_ids_BT[:, 1:][chosen], batch.weight_BT[:, 1:][chosen]
    losses = functional.cross_entropy(logits.float(), targets, reduction="none")
    return (losses * weight).sum() / weight.sum(), logits.argmax(-1) == targets, weight


def schedule(step: int, steps: int, warmup: int = 40, decay: float = 0.6) -> float:
    """Linear warm-up, flat, then linear towards zero over the last `decay` of the run."""
    return min(1.0, (step + 1) / warmup, max(0.02, (steps - step) / (decay * steps)))


def optimisers(model: Any, lr: float, adam_lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for embeddings and norms."""
    matrices, rest = [], []
    for name, p in model.named_parameters():
        if p.requires_grad:
            (matrices if p.ndim == 2 and ".layers." in name else rest).append(p)
    adam = torch.optim.AdamW(rest, adam_lr, betas=(0.9, 0.98), weight_decay=0.0)
    return [Muon(matrices, lr, dtype=torch.bfloat16), adam]


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--init", type=Path, required=True, help="checkpoint folder to start from")
    parser.add_argument("--out", type=Path, required=True, help="where state, curve and checkpoint go")
    parser.add_argument("--trajectories", type=Path, help="folder written by `playhead collect`")
    parser.add_argument("--dreams", type=float, default=1.0, help="share of dreams among the examples")
    parser.add_argument("--direct", type=float, default=0.2, help="share of the dreamt episodes that have no tools")
    parser.add_argument("--checks", type=int, default=0, help="wrong hits that the dreamt oracle looks at, at most")
    parser.add_argument(
        "--guesses", type=float, default=0.0, help="share of the dreams that need a closer look in which it takes none"
    )
    parser.add_argument(
        "--kinds", type=_kinds, default=KINDS, help="what is dreamt of: seven, all, or names (with the tokenizer made for them)"
    )
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--total", type=int, default=0, help="length of the learning-rate schedule, when not --steps")
    parser.add_argument("--lr", type=float, default=5e-3, help="of Muon")
    parser.add_argument("--adam-lr", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=TRAIN_SEED, help="first world seed of the dreams")
    add_device(parser)
    parser.add_argument("--no-bf16", action="store_true")
    return parser


def _kinds(text: str) -> tuple[str, ...]:
    try:
        return parse_kinds(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def main(argv: Sequence[str] | None = None) -> None:
    args = arguments().parse_args(argv)
    from transformers import Qwen3VLForConditionalGeneration

    torch.manual_seed(0)
    renderer = Qwen3VLRenderer.from_checkpoint(args.init)
    model = Qwen3VLForConditionalGeneration.from_pretrained(args.init, dtype=torch.float32).to(args.device)
    model.model.visual.requires_grad_(False)
    recorded, held_out = [], []
    if args.trajectories:
        recorded, held_out = recorded_examples(args.trajectories, model, renderer)
    dreams = [d for s in range(12) for d in Dreamer(renderer, kinds=args.kinds).dreams(EVAL_SEED + s)]
    measured = {"recorded": held_out, "dream": [dream_example(d, 0.0, np.random.default_rng(0)) for d in dreams]}
    collator = Collator(renderer, token_weights(renderer, model.lm_head.out_features, args.kinds))
    train(model, collator, recorded, measured, args)


def train(
    model: Any, collator: Collator, recorded: Sequence[Example], measured: dict[str, list[Example]], args: argparse.Namespace
) -> None:
    optimizers = optimisers(model, args.lr, args.adam_lr)
    step = _resume(args.out, model, optimizers)
    crew = Crew.join()
    habits = {"direct_share": args.direct, "checks": args.checks, "guesses": args.guesses}
    dreamer = Dreamer(collator.renderer, kinds=args.kinds, **habits)
    examples = stream(dreamer, recorded, args.dreams, args.seed, crew, step * GROUPS)
    assert GROUPS % crew.size == 0, f"{crew.size} processes cannot share {GROUPS} batches"
    began, tokens, last = time.time(), 0, ""
    while step < args.steps:
        for optimizer, rate in zip(optimizers, (args.lr, args.adam_lr), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * schedule(step, args.total or args.steps)
        for batch in [collator(next(examples)) for _ in range(GROUPS // crew.size)]:
            loss, right, _ = loss_of(model, batch, not args.no_bf16)
            (loss / GROUPS).backward()
            tokens += batch.token_ids_BT.numel()
            last = f"loss {loss.item():.4f} right {right.float().mean():.4f}"
        crew.gather(model)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        step += 1
        if crew.rank:
            continue
        if step % 20 == 0:
            speed = tokens / (time.time() - began)
            print(f"step {step} {last} tokens/s {speed:.0f}", flush=True)
        if step % 100 == 0 or step == args.steps:
            _measure(args.out, model, collator, measured, {"step": step, "seconds": round(time.time() - began)})
            _save(args.out, model, collator.renderer, optimizers, step)
            save_profile(profile_of(args.kinds), args.out / "checkpoint")
    leave_group()


@torch.no_grad()
def evaluate(model: Any, examples: Sequence[Example], collator: Callable[[Sequence[Example]], Batch]) -> dict[str, float]:
    """Teacher-forced accuracy: of all tokens, of deciding ones, and per kind the share of episodes without a wrong token."""
    scores: dict[str, list[float]] = {}
    for example in examples:
        _, right, weight = loss_of(model, collator([example]), False)
        scores.setdefault("tokens", []).append(right.float().mean().item())
        if (weight > 1).any():
            scores.setdefault("decisions", []).append(right[weight > 1].float().mean().item())
        scores.setdefault(f"whole {example.kind}", []).append(float(right.all()))
    return {name: round(sum(v) / len(v), 4) for name, v in sorted(scores.items())}


def _measure(
    out: Path, model: Any, collator: Collator, measured: dict[str, list[Example]], head: dict[str, float]
) -> None:
    scores = {name: evaluate(model, examples, collator) for name, examples in measured.items() if examples}
    line = json.dumps({**head, **scores})
    print(line, flush=True)
    with (out / "curve.jsonl").open("a") as curve:
        curve.write(line + "\n")


def _resume(out: Path, model: Any, optimizers: list[torch.optim.Optimizer]) -> int:
    """Load the state of an earlier run into model and optimisers; returns its step, 0 when there is none."""
    out.mkdir(parents=True, exist_ok=True)
    if not (out / "state.pt").exists():
        return 0
    state = torch.load(out / "state.pt", map_location="cpu", weights_only=True)
    model.load_state_dict(state["model"])
    for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    return int(state["step"])


def _save(out: Path, model: Any, renderer: Qwen3VLRenderer, optimizers: list[torch.optim.Optimizer], step: int) -> None:
    beside = out / f".state.{os.getpid()}.part"
    torch.save({"model": model.state_dict(), "optimizers": [o.state_dict() for o in optimizers], "step": step}, beside)
    beside.replace(out / "state.pt")
    model.save_pretrained(out / "checkpoint")
    renderer.processor.save_pretrained(out / "checkpoint")


if __name__ == "__main__":
    main()
