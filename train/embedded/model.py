"""The embedded Video-LMM before it has learnt anything: a tiny Qwen3-VL, its tokenizer, processor and chat template.

The classes are the real ones (`Qwen3VLForConditionalGeneration`, `Qwen3VLProcessor`), only the sizes differ. The
tokenizer is a byte-level BPE, so it takes any text; its pre-tokenizer keeps together what the made-up world says all
the time: an object's name (" red star"), two digits of a time, the scaffolding of a tool call. One token for one idea
is what lets 5M parameters reason in few steps.

    write_untrained(out, perception, corpus())           # what language training starts from
    write_widened(out, checkpoint, perception, corpus()) # a trained one, with a vocabulary for more kinds of questions
"""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path
from typing import TYPE_CHECKING

from ...world.oracle import ORDINALS
from ...world.scene import BINS, COLOURS, MOTIONS, SHAPES

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerFast, Qwen3VLConfig, Qwen3VLForConditionalGeneration, Qwen3VLProcessor

HIDDEN = 256
FRAME_SIZE = 64
"""Frames are seen at 64 x 64 pixels: 4 x 4 patches, merged to 4 tokens."""
ALIGNMENT = 0.4
"""Length of what a word's first embedding has of each code that it names (a random one has a length of about 0.5)."""

SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
MARKS = (
    "<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>",
    "<answer>", "</answer>", "<evidence>", "</evidence>",
)  # fmt: skip

_NAMES = rf"(?:{'|'.join(COLOURS)}) (?:{'|'.join(SHAPES)})"
_PRETOKENS = "|".join(
    (
        rf" ?(?<![A-Za-z]){_NAMES}(?![A-Za-z])",
        r"\.\d seconds>",
        r"\{\"name\": \"",
        r"\", \"arguments\": \{\"",
        r"\", \"k\": ",
        r", \"end_s\": ",
        r", \"fps\": ",
        r"\": \"?",
        r"\}\}",
        r"\.\d(?=-)-",
        rf" ?[xy][0-{BINS - 1}](?![0-9A-Za-z])",
        r" ?[A-Za-z_]+",
        r"\d{1,2}(?=(?:\d\d)*(?!\d))",
        r"\.\d",
        r" ?[^\sA-Za-z\d]",
        r"\s+",
        r"[\s\S]",
    )
)

CHAT_TEMPLATE = """\
{%- macro parts(content) -%}
{%- if content is string %}{{ content }}{% else %}{% for part in content %}{% if part.type == 'image' or 'image' in part %}\
<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}
{%- endmacro -%}
{%- if tools or messages[0].role == 'system' -%}
<|im_start|>system
{% if messages[0].role == 'system' %}{{ parts(messages[0].content) }}
{% endif %}{% for tool in tools or [] %}{% set f = tool.function if tool.function is defined else tool %}\
{{ f.name }}({{ f.parameters.properties.keys() | join(', ') }})
{% endfor %}<|im_end|>
{% endif -%}
{%- for message in messages -%}
{%- if message.role == 'user' -%}
<|im_start|>user
{{ parts(message.content) }}<|im_end|>
{% elif message.role == 'assistant' -%}
<|im_start|>assistant
{{ parts(message.content) }}<|im_end|>
{% elif message.role == 'tool' -%}
{%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}<|im_start|>user
{% else %}
{% endif %}<tool_response>
{{ parts(message.content) }}
</tool_response>{% if loop.last or messages[loop.index0 + 1].role != 'tool' %}<|im_end|>
{% endif %}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif -%}
"""


def build_tokenizer(corpus: list[str], vocab_size: int = 1536) -> PreTrainedTokenizerFast:
    """A byte-level BPE over `corpus`; object names, numbers and positions are whole tokens whatever the corpus holds."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PRETOKENS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(SPECIAL) - len(MARKS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=2,
        show_progress=False,
    )
    tokenizer.train_from_iterator([*corpus, *_closed_class()], trainer)
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in MARKS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        additional_special_tokens=[t for t in SPECIAL if t not in ("<|endoftext|>", "<|im_end|>")],
        model_max_length=32768,
        clean_up_tokenization_spaces=False,
    )


def _closed_class() -> list[str]:
    """Text that makes every word of the closed classes frequent enough to become one token."""
    names = [f"{c} {s}" for c, s in itertools.product(COLOURS, SHAPES)]
    places = [f"{axis}{i}" for axis in "xy" for i in range(BINS)]
    numbers = [f"{i:02d}" for i in range(100)] + [str(i) for i in range(10)]
    words = [*COLOURS, *SHAPES, *MOTIONS, *ORDINALS, "yes", "no", "none", "nothing", "same", *places, *names]
    return [f"{w}, {w}" for w in words for _ in range(200)] + [n for n in numbers for _ in range(400)]


def build_config(tokenizer: PreTrainedTokenizerFast, vision: dict[str, object], layers: int = 5) -> Qwen3VLConfig:
    """Qwen3-VL at 5M parameters; `vision` is the configuration of the trained vision tower."""
    from transformers import Qwen3VLConfig

    def token(name: str) -> int:
        return int(tokenizer.convert_tokens_to_ids(name))  # type: ignore[arg-type]

    return Qwen3VLConfig(
        text_config={
            "vocab_size": (len(tokenizer) + 63) // 64 * 64,
            "hidden_size": HIDDEN,
            "intermediate_size": 640,
            "num_hidden_layers": layers,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 64,
            "max_position_embeddings": 32768,
            "tie_word_embeddings": True,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [16, 8, 8],
                "mrope_interleaved": True,
            },
            "initializer_range": 0.03,
            "bos_token_id": None,
            "eos_token_id": token("<|im_end|>"),
            "pad_token_id": token("<|endoftext|>"),
        },
        vision_config=vision,
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=True,
    )


def build_processor(tokenizer: PreTrainedTokenizerFast) -> Qwen3VLProcessor:
    """The real processor: every frame is resized to about 64 x 64 pixels (4 tokens for a square one)."""
    from transformers import Qwen2VLImageProcessor, Qwen3VLProcessor, Qwen3VLVideoProcessor

    pixels = FRAME_SIZE * FRAME_SIZE
    common = {
        "patch_size": 16,
        "temporal_patch_size": 1,
        "merge_size": 2,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    size = {"shortest_edge": pixels, "longest_edge": pixels}
    return Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=size, **common),
        tokenizer=tokenizer,
        video_processor=Qwen3VLVideoProcessor(size=size, **common),
        chat_template=CHAT_TEMPLATE,
    )


def build_model(config: Qwen3VLConfig, seed: int = 0) -> Qwen3VLForConditionalGeneration:
    """Random weights in fp32, from `seed`."""
    import torch
    from transformers import Qwen3VLForConditionalGeneration

    torch.manual_seed(seed)
    return Qwen3VLForConditionalGeneration(config).float()


def write_untrained(out: Path, perception: Path, corpus: list[str], layers: int = 5) -> None:
    """A checkpoint folder with random language weights and the vision tower trained in `perception`."""
    from .perception import load_tower

    tokenizer, tower = build_tokenizer(corpus), load_tower(perception)
    model = build_model(build_config(tokenizer, tower.config.to_dict(), layers))  # type: ignore[union-attr]
    model.model.visual.load_state_dict(tower.state_dict())
    _align(model, tokenizer)
    model.save_pretrained(out)
    build_processor(tokenizer).save_pretrained(out)


def write_widened(out: Path, checkpoint: Path, perception: Path, corpus: list[str]) -> None:
    """A checkpoint folder with the language model of `checkpoint`, the tower of `perception` and a tokenizer made for `corpus`.

    A token that both tokenizers have keeps its embedding. A new one leans towards the mean of the old tokens that its text was
    made of, but begins apart from all others: words that began as such means alone were nearly one vector, and copying one
    stayed a constant guess for 1,000 steps (docs/log.md).
    """
    import torch
    from transformers import AutoTokenizer, Qwen3VLForConditionalGeneration

    from .perception import load_tower

    old = AutoTokenizer.from_pretrained(checkpoint)
    learnt = Qwen3VLForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32)
    tokenizer, tower = build_tokenizer(corpus), load_tower(perception)
    layers = len(learnt.model.language_model.layers)
    model = build_model(build_config(tokenizer, tower.config.to_dict(), layers))  # type: ignore[union-attr]
    embedding, known = model.model.language_model.embed_tokens.weight.data, old.get_vocab()
    weights = {n: w for n, w in learnt.model.language_model.state_dict().items() if not n.startswith("embed_tokens")}
    model.model.language_model.load_state_dict(weights, strict=False)
    before = learnt.model.language_model.embed_tokens.weight.data
    length = before[list(known.values())].norm(dim=1).mean()
    for token, place in tokenizer.get_vocab().items():
        text = tokenizer.convert_tokens_to_string([token])
        pieces = old.encode(text, add_special_tokens=False)
        embedding[place] = before[known[token]] if token in known else apart(before[pieces].mean(0), text, length)
    model.model.visual.load_state_dict(tower.state_dict())
    model.save_pretrained(out)
    build_processor(tokenizer).save_pretrained(out)


def apart(lean: Tensor, text: str, length: Tensor | float) -> Tensor:
    """A direction of the text's own, mostly shared by a word with and without a space before it, leaning a little to `lean`."""
    import torch

    def own(name: str) -> Tensor:
        seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")
        return torch.nn.functional.normalize(torch.randn(len(lean), generator=torch.Generator().manual_seed(seed)), dim=0)

    return length * (0.8 * own(text.strip()) + 0.6 * own(f"exactly {text}")) + 0.3 * lean


def _align(model: Qwen3VLForConditionalGeneration, tokenizer: PreTrainedTokenizerFast) -> None:
    """Words begin where the vision tower puts what they name: an object's name leans towards the codes of its colour and
    shape, "x1" towards that of its column. A ";" in a query begins as what stands before a query's first name, since a
    name is copied after both: without that, second names stayed a constant guess for 1,600 steps (docs/log.md)."""
    import torch

    from .codes import code_vectors, factor_rows

    codes = torch.from_numpy(code_vectors().copy())
    embedding = model.model.language_model.embed_tokens.weight.data

    def token(text: str) -> int:
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert len(ids) == 1, f"{text!r} should be one token, is {ids}"
        return ids[0]

    def lean(word: str, *rows: int) -> None:
        for text in (f" {word}", word):
            embedding[token(text)] += ALIGNMENT * codes[list(rows)].sum(0)

    for (c, colour), (s, shape) in itertools.product(enumerate(COLOURS), enumerate(SHAPES)):
        lean(f"{colour} {shape}", factor_rows("colour").start + c, factor_rows("shape").start + s)
    for axis, i in itertools.product("xy", range(BINS)):
        lean(f"{axis}{i}", factor_rows(axis).start + i)
    embedding[token(";")] = embedding[token('": "')]
