"""Training the vision tower of the embedded model: after it, each token of a frame equals the frame's percept code.

The tower is that of a Qwen3-VL model. A 64 x 64 frame has 16 patches of 16 pixels, merged to 4 tokens of width 256,
and all 4 learn the code of `train.embedded.codes`, so a language model trained on codes alone understands real frames when the
two are joined. Matrices of the blocks are trained by Muon, the rest by AdamW; the frames come from `train.embedded.reels`, the
loop from `train.embedded.loop`. The weights that ship lie in models/embedded/perception.

    python -m playhead.train.embedded.perception --out DIR --minutes 30
    python -m playhead.train.embedded.perception --out DIR --minutes 8 --rich 0.5 --init models/embedded/vlm

With --rich, a share of the frames is of rich films: whole ones, in which small digits cannot be read, and crops, in which they
can. A crop tells no shape, so none is asked of it.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from .codes import CODE_DIM, CODE_NORM, FACTORS, UNTOLD, Percept, code_vectors, factor_rows, percept_code
from .loop import arguments, optimisers, parse, run
from .reels import INPUT_SIZE, Pool, Reel, mixed, shoot_rich, validation_reels

EMBEDDED = Path(__file__).resolve().parents[2] / "models" / "embedded" / "vlm"
"""The shipped checkpoint, whose vision tower is the one trained here."""
PREFIX = "model.visual."
"""Where the tower's weights stand in a whole Qwen3-VL checkpoint."""
PROCESSOR = {
    "size": {"shortest_edge": INPUT_SIZE**2, "longest_edge": INPUT_SIZE**2},
    "patch_size": 16,
    "temporal_patch_size": 1,
    "merge_size": 2,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}
"""Arguments of the image processor, Qwen2VLImageProcessor, that goes with the tower."""
COLOUR = [name for name in FACTORS if name != "nothing"].index("colour")
"""The column of the classes that every frame with an object has, crops too."""
SHARPNESS = 10.0
"""Factor on dot products in the cross-entropy: at 1 and 0 a class is already nearly certain."""


def vision_config(depth: int = 4, hidden: int = 192, intermediate: int = 384) -> Any:
    """The Qwen3VLVisionConfig of the embedded tower."""
    from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLVisionConfig

    return Qwen3VLVisionConfig(
        depth=depth,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_heads=hidden // 64,
        out_hidden_size=CODE_DIM,
        patch_size=PROCESSOR["patch_size"],
        temporal_patch_size=PROCESSOR["temporal_patch_size"],
        spatial_merge_size=PROCESSOR["merge_size"],
        num_position_embeddings=16,
        deepstack_visual_indexes=[],
    )


def build_tower(config: Any = None) -> nn.Module:
    """A fresh vision tower in fp32."""
    from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionModel

    return Qwen3VLVisionModel._from_config(config or vision_config(), dtype=torch.float32)


def load_tower(folder: str | Path = EMBEDDED) -> nn.Module:
    """The tower that `save_tower` wrote into `folder`, or that of a whole checkpoint there, in fp32 and ready for use."""
    folder = Path(folder)
    config = json.loads((folder / "config.json").read_text())
    tower = build_tower(vision_config().__class__.from_dict(config.get("vision_config", config)))
    weights = load_file(folder / "model.safetensors")
    tower.load_state_dict({n.removeprefix(PREFIX): w.float() for n, w in weights.items() if n.startswith(PREFIX)})
    return tower.eval()


def save_tower(tower: nn.Module, folder: Path, metrics: dict[str, float]) -> None:
    """Write model.safetensors (keys as in a whole model), config.json and metrics.json into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    beside = folder / ".model.part"
    save_file({PREFIX + n: w.detach().contiguous() for n, w in tower.state_dict().items()}, beside, {"format": "pt"})
    beside.chmod(0o644)  # safetensors writes for the owner alone
    os.replace(beside, folder / "model.safetensors")
    tower.config.to_json_file(str(folder / "config.json"), use_diff=False)  # type: ignore[union-attr]
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")


# ---- the fast path: all frames have one size, so attention runs once over a batch instead of once a frame


def patchify(pixels: Tensor) -> Tensor:
    """(B, 3, 64, 64) uint8 to (B, 16, 768) float32 patches in the image processor's order, values in -1 to 1."""
    p, m = 16, 2
    grid = INPUT_SIZE // p // m
    x = (pixels.float() / 255 - 0.5) / 0.5
    x = x.reshape(len(x), 3, grid, m, p, grid, m, p).permute(0, 2, 5, 3, 6, 1, 4, 7)
    return x.reshape(len(x), (grid * m) ** 2, 3 * p * p)


class FastTower(nn.Module):
    """The same function as the tower it wraps (and the same parameters), for batches of 64 x 64 frames."""

    places: Tensor
    shares: Tensor
    cos: Tensor
    sin: Tensor

    def __init__(self, tower: Any) -> None:
        super().__init__()
        from transformers.vision_utils import get_vision_interpolation_indices_and_weights, get_vision_position_ids

        self.tower = tower
        side = INPUT_SIZE // tower.config.patch_size
        device = tower.pos_embed.weight.device
        grid = torch.tensor([[1, side, side]], device=device)
        merge = tower.config.spatial_merge_size
        places, shares = get_vision_interpolation_indices_and_weights(
            grid,
            num_grid_per_side=tower.num_grid_per_side,
            mode=tower.interpolation_mode,
            align_corners=tower.interpolation_align_corners,
            spatial_merge_size=merge,
        )
        cos, sin = tower.rotary_pos_emb(torch.zeros(1, device=device), get_vision_position_ids(grid, merge))
        for name, table in {"places": places, "shares": shares, "cos": cos, "sin": sin}.items():
            self.register_buffer(name, table, persistent=False)

    def forward(self, patches: Tensor) -> Tensor:
        """(B, 16, 768) patches to (B, 4, 256) tokens."""
        tower = self.tower
        proj = tower.patch_embed.proj
        x = functional.linear(patches, proj.weight.flatten(1), proj.bias)
        x = x + (tower.pos_embed(self.places) * self.shares[:, :, None]).sum(1)
        for block in tower.blocks:
            x = x + self._attend(block.attn, block.norm1(x))
            x = x + block.mlp(block.norm2(x))
        return tower.merger(x.flatten(0, 1)).reshape(len(x), -1, CODE_DIM)

    def _attend(self, attn: Any, x: Tensor) -> Tensor:
        batch, count, _ = x.shape
        q, k, v = attn.qkv(x).reshape(batch, count, 3, attn.num_heads, -1).permute(2, 0, 3, 1, 4)
        q, k = self._rotate(q), self._rotate(k)
        out = functional.scaled_dot_product_attention(q, k, v, scale=attn.scaling)
        return attn.proj(out.transpose(1, 2).reshape(batch, count, -1))

    def _rotate(self, x: Tensor) -> Tensor:
        half = x.shape[-1] // 2
        return x * self.cos + torch.cat((-x[..., half:], x[..., :half]), -1) * self.sin


# ---- loss and measure


def targets(percepts: Sequence[Percept | None], device: torch.device) -> tuple[Tensor, Tensor]:
    """Codes (B, 256) and class indices (B, 5) in the order of the factors; -100 for an empty frame, and for what a crop cannot
    tell."""
    codes = torch.from_numpy(np.stack([percept_code(p) for p in percepts]))
    names = [name for name in FACTORS if name != "nothing"]
    rows = [[-100] * len(names) if p is None else [getattr(p, name) for name in names] for p in percepts]
    classes = torch.tensor(rows, device=device)
    return codes.to(device), classes.masked_fill(classes == UNTOLD, -100)


def percept_loss(tokens: Tensor, codes: Tensor, classes: Tensor) -> Tensor:
    """Squared distance to the code plus half the cross-entropy of each factor, over (B, 4, 256) tokens."""
    vectors = torch.from_numpy(code_vectors().copy()).to(tokens.device)
    distance = (tokens - codes[:, None]).square().sum(-1).mean()
    scores = SHARPNESS * (tokens @ vectors.T)
    empty = (classes[:, COLOUR, None] < 0).float().expand(scores.shape[:2])
    entropy = functional.binary_cross_entropy_with_logits(scores[..., 0] / CODE_NORM - SHARPNESS / 2, empty)
    for i, name in enumerate(n for n in FACTORS if n != "nothing"):
        part = scores[..., factor_rows(name)].flatten(0, 1)
        wanted = classes[:, i : i + 1].expand(-1, tokens.shape[1]).flatten()
        # A mean over what can be told, 0 (not nan) in a batch that has nothing of the kind.
        entropy = entropy + functional.cross_entropy(part, wanted, reduction="sum") / (wanted >= 0).sum().clamp(min=1)
    return distance + 0.5 * entropy


@torch.no_grad()
def measure(tower: Any, reels: Sequence[Reel]) -> dict[str, float]:
    """Share of frames right, decoded from the mean of a frame's tokens; and the mean squared distance to the code."""
    fast = FastTower(tower)
    tokens = torch.cat([fast(patchify(reel.pixels.to(fast.places.device))) for reel in reels]).cpu()
    codes, classes = targets([p for reel in reels for p in reel.percepts], tokens.device)
    scores = tokens.mean(1) @ torch.from_numpy(code_vectors().copy()).T
    names = [name for name in FACTORS if name != "nothing"]
    parts = {name: scores[:, factor_rows(name)] for name in names}
    object_score = torch.stack([part.max(1).values for part in parts.values()]).sum(0)
    empty, said_empty = classes[:, COLOUR] < 0, scores[:, 0] * CODE_NORM >= object_score
    metrics = {"frames": float(len(codes)), "nothing_or_object": (empty == said_empty).float().mean().item()}
    for i, name in enumerate(names):
        told = classes[:, i] >= 0
        if not told.any():
            continue
        off = (parts[name].argmax(1) - classes[:, i])[told].abs()
        metrics[name] = (off == 0).float().mean().item()
        if name in "xy":
            metrics[f"{name}_within_1"] = (off <= 1).float().mean().item()
    with_digit = ~empty & (classes[:, -1] > 0)
    metrics["digit_when_shown"] = (parts["digit"].argmax(1) == classes[:, -1])[with_digit].float().mean().item()
    metrics["squared_distance"] = (tokens - codes[:, None]).square().sum(-1).mean().item()
    return metrics


# ---- training


def train(args: argparse.Namespace) -> dict[str, float]:
    """Run or resume a training and return the last metrics."""
    torch.manual_seed(args.seed)
    tower = (load_tower(args.init).train() if args.init else build_tower()).to(args.device)
    fast = FastTower(tower)
    reels = {"": list(validation_reels(args.validation_reels))}
    if args.rich:
        count = max(1, args.validation_reels // 4)
        reels["crop_"] = list(validation_reels(count, film=partial(shoot_rich, crops=1.0)))
        reels["rich_"] = list(validation_reels(count, film=partial(shoot_rich, crops=0.0)))

    def loss_of(pool: Pool, rng: np.random.Generator) -> Tensor:
        pixels, percepts = pool.batch(rng, args.batch)
        tokens = fast(patchify(pixels.to(args.device)))
        with torch.autocast(args.device.type, enabled=False):
            return percept_loss(tokens.float(), *targets(percepts, args.device))

    def report(figures: dict[str, float]) -> dict[str, float]:
        metrics = {head + k: v for head, some in reels.items() for k, v in measure(tower, some).items()} | figures
        save_tower(tower, args.out, metrics)
        return metrics

    # The merger is so wide that Muon would cost more there than it gives.
    return run(tower, optimisers(tower, args, inside="blocks."), args, loss_of, report, mixed(args.rich))


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Train from the command line."""
    parser = arguments("perception", __doc__ or "", seed=1_000_000)
    parser.add_argument("--init", type=Path, help="begin with this tower: what an earlier run wrote, or a whole checkpoint")
    return train(parse(parser, argv))


if __name__ == "__main__":
    main()
