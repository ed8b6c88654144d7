"""The text that the embedded tokenizer is built from: dreamed episodes as text, and the words that tools and prompts use."""

from __future__ import annotations

from ..agent import prompts
from ..agent.renderers.qwen3vl import Qwen3VLRenderer
from ..tools.toolbox import default_toolbox
from .dream import Dreamer
from .embedded_model import build_processor, build_tokenizer

CORPUS_SEED = 900_000


def corpus(scenes: int = 300) -> list[str]:
    """Texts of the episodes of `scenes` scenes, and plain English from tools and prompts for all other words."""
    renderer = Qwen3VLRenderer(build_processor(build_tokenizer(["a b"])))
    dreamer = Dreamer(renderer)
    texts = [renderer.decode(d.token_ids_T) for seed in range(scenes) for d in dreamer.dreams(CORPUS_SEED + seed)]
    texts = [t.replace("<|image_pad|>", "").replace("<|vision_start|><|vision_end|>", "") for t in texts]
    english = [s.description for s in default_toolbox().specs]
    english += [v for k, v in vars(prompts).items() if k.isupper() and isinstance(v, str)]
    return texts + english * 3
