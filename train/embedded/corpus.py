"""The text that the embedded tokenizer is built from: dreamed episodes as text, and the words that tools and prompts use.

What is said in rich scenes is a closed class of words too: each is frequent enough here to become one token.
"""
from __future__ import annotations

from collections.abc import Sequence

from ...agent import prompts
from ...agent.renderers.qwen3vl import Qwen3VLRenderer
from ...tools.toolbox import default_toolbox
from ...world.questions import ALL_KINDS, KINDS
from ...world.talk import WORDS
from .dream import Dreamer, tools_of
from .model import build_processor, build_tokenizer

CORPUS_SEED = 900_000


def corpus(scenes: int = 300, kinds: Sequence[str] = ALL_KINDS) -> list[str]:
    """Texts of the episodes of `scenes` scenes about `kinds` of questions, and plain English from tools and prompts for all
    other words."""
    renderer = Qwen3VLRenderer(build_processor(build_tokenizer(["a b"])))
    dreamer = Dreamer(renderer, kinds=kinds)
    texts = [renderer.decode(d.token_ids_T) for seed in range(scenes) for d in dreamer.dreams(CORPUS_SEED + seed)]
    texts = [t.replace("<|image_pad|>", "").replace("<|vision_start|><|vision_end|>", "") for t in texts]
    english = [s.description for s in default_toolbox(tools_of(kinds)).specs]
    english += [v for k, v in vars(prompts).items() if k.isupper() and isinstance(v, str)]
    places = ["top", "bottom", "middle"]
    closed = [f"{w}, {w}" for w in (*WORDS, *places)] * 200 if set(kinds) - set(KINDS) else []
    return texts + english * 3 + closed
