"""Training the embedded CLIP model: a small OpenCLIP model that finds this world's objects from words.

For each sentence of a batch, every frame that answers it must score above every frame that does not: the loss is the
softmax of each answering frame against all others (P. Khosla et al. 2020, "Supervised contrastive learning", with other
positives left out of the denominator). Frames come from `reels`, sentences from `queries`, and pixels go
through the preprocessing of `memory.encoder`. The weights that ship lie in models/embedded/openclip.

    python -m playhead.train.embedded.clip --out DIR --minutes 25
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from .codes import Percept
from .loop import arguments, optimisers, parse, run
from .queries import Query, plain_queries, query_text, random_query
from .reels import INPUT_SIZE, Pool, Reel, mixed, validation_reels

EMBEDDED = Path(__file__).resolve().parents[2] / "models" / "embedded" / "openclip"
CONFIG: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 128,
        "vision_cfg": {"image_size": INPUT_SIZE, "patch_size": 16, "width": 192, "layers": 4, "head_width": 64},
        "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
    },
    "preprocess_cfg": {
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "interpolation": "bicubic",
        "resize_mode": "squash",
    },
}
"""The file open_clip_config.json."""
MAX_SCALE = 100.0
"""Bound of the learnt factor on cosines, as in CLIP."""


def build_model() -> Any:
    """A fresh open_clip CLIP model in fp32."""
    import open_clip

    return open_clip.CLIP(**CONFIG["model_cfg"])


def build_tokenizer() -> Any:
    """OpenCLIP's own byte-pair tokenizer, cut to this model's context."""
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer(context_length=CONFIG["model_cfg"]["text_cfg"]["context_length"])


def save_model(model: nn.Module, folder: Path, metrics: dict[str, float]) -> None:
    """Write open_clip_config.json, open_clip_model.safetensors (fp16) and metrics.json into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps(CONFIG, indent=1) + "\n")
    beside = folder / ".model.part"
    weights = {name: w.detach().half().contiguous() for name, w in model.state_dict().items()}
    save_file(weights, beside, {"format": "pt"})
    beside.chmod(0o644)  # safetensors writes for the owner alone
    os.replace(beside, folder / "open_clip_model.safetensors")
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")


def normalise(pixels: Tensor) -> Tensor:
    """(B, 3, 64, 64) uint8 to what the vision tower takes; `memory.encoder.preprocess` after its resize."""
    return pixels.float() / 127.5 - 1


def match_loss(scores: Tensor, matches: Tensor) -> Tensor:
    """Mean over sentences of the mean over answering frames of -log softmax against the other frames.

    Args:
        scores: (texts, frames) scaled cosines.
        matches: (texts, frames) bool. Sentences that no frame or every frame answers do not count.
    """
    usable = matches.any(1) & ~matches.all(1)
    scores, matches = scores[usable], matches[usable]
    others = scores.masked_fill(matches, float("-inf")).logsumexp(1, keepdim=True)
    losses = functional.softplus(others - scores) * matches
    return (losses.sum(1) / matches.sum(1)).mean()


def match_table(queries: Sequence[Query], percepts: Sequence[Percept | None]) -> Tensor:
    """(queries, frames) bool on the CPU: which frames answer which queries."""
    return torch.tensor([[query.matches(percept) for percept in percepts] for query in queries])


def ranking(scores: Tensor, matches: Tensor) -> tuple[float, float]:
    """For one sentence: the share of (answering, other) pairs in the right order, and the share of answering frames
    among the top P of all, where P is how many answer.
    """
    good, bad = scores[matches], scores[~matches]
    pairs = (torch.searchsorted(bad.sort().values, good).float() / len(bad)).mean().item()
    top = matches[scores.topk(len(good)).indices].float().mean().item()
    return pairs, top


@torch.no_grad()
def measure(model: Any, tokenizer: Any, reels: Sequence[Reel]) -> dict[str, float]:
    """Ranking of validation frames for every plain query: means by kind, and the worst."""
    device = model.logit_scale.device
    images = torch.cat([model.encode_image(normalise(reel.pixels.to(device)), normalize=True) for reel in reels])
    named = plain_queries()
    texts = model.encode_text(tokenizer([text for text, _ in named]).to(device), normalize=True)
    scores = (texts @ images.T).cpu()
    matches = match_table([query for _, query in named], [p for reel in reels for p in reel.percepts])
    kinds: dict[str, list[tuple[float, float]]] = {}
    for (_, query), row, match in zip(named, scores, matches, strict=True):
        if not match.any():
            continue
        parts = {"empty": query.empty, "colour": query.colour is not None, "shape": query.shape is not None}
        kind = "_".join(name for name, asked in parts.items() if asked) or "digit"
        kinds.setdefault(kind, []).append(ranking(row, match))
    metrics: dict[str, float] = {"frames": float(images.shape[0])}
    for kind, found in kinds.items():
        metrics[f"{kind}_pairs"] = float(np.mean([pairs for pairs, _ in found]))
        metrics[f"{kind}_pairs_worst"] = min(pairs for pairs, _ in found)
        metrics[f"{kind}_top"] = float(np.mean([top for _, top in found]))
    return metrics


def train(args: argparse.Namespace) -> dict[str, float]:
    """Run or resume a training and return the last metrics."""
    torch.manual_seed(args.seed)
    model, tokenizer = build_model().to(args.device), build_tokenizer()
    reels = list(validation_reels(args.validation_reels))

    def loss_of(pool: Pool, rng: np.random.Generator) -> Tensor:
        pixels, percepts = pool.batch(rng, args.batch)
        queries = [random_query(rng) for _ in range(args.texts)]
        images = model.encode_image(normalise(pixels.to(args.device)))
        texts = model.encode_text(tokenizer([query_text(query, rng) for query in queries]).to(args.device))
        with torch.autocast(args.device.type, enabled=False):
            cosines = functional.normalize(texts.float(), dim=-1) @ functional.normalize(images.float(), dim=-1).T
            scale = model.logit_scale.exp().clamp(max=MAX_SCALE)
            return match_loss(scale * cosines, match_table(queries, percepts).to(args.device))

    def report(figures: dict[str, float]) -> dict[str, float]:
        metrics = measure(model, tokenizer, reels) | figures
        save_model(model, args.out, metrics)
        return metrics

    return run(model, optimisers(model, args, inside=".resblocks."), args, loss_of, report, mixed(args.rich, crops=0.0))


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Train from the command line."""
    parser = arguments("clip", __doc__ or "", seed=3_000_000)
    parser.add_argument("--texts", type=int, default=96, help="sentences a step")
    return train(parse(parser, argv))


if __name__ == "__main__":
    main()
