"""Tiny random checkpoints of real classes, of every family, with the family's real chat template; and one with a short one.

And a store whose frames are noise, for what is read with them. A room's conftest takes its fixtures from here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from playhead.core.nouns import Frame

SHORT_TEMPLATE = """{%- for message in messages %}
{%- if message.role == 'assistant' %}{{- '<|im_start|>assistant\n' }}
{%- for c in message.content %}{{- c.text }}{%- endfor %}{{- '<|im_end|>\n' }}
{%- elif message.role == 'tool' %}
{%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}{{- '<|im_start|>user' }}{%- endif %}
{{- '\n<tool_response>\n' }}
{%- for c in message.content %}{%- if c.type == 'image' %}{{- '<|vision_start|><|image_pad|><|vision_end|>' }}
{%- else %}{{- c.text }}{%- endif %}{%- endfor %}{{- '\n</tool_response>' }}
{%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{- '<|im_end|>\n' }}{%- endif %}
{%- else %}{{- '<|im_start|>' + message.role + '\n' }}
{%- for c in message.content %}{%- if c.type == 'image' %}{{- '<|vision_start|><|image_pad|><|vision_end|>' }}
{%- else %}{{- c.text }}{%- endif %}{%- endfor %}{{- '<|im_end|>\n' }}{%- endif %}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"""

NAMES = ["endoftext", "im_start", "im_end", "vision_start", "vision_end", "image_pad", "video_pad"]
SPECIALS = [f"<|{name}|>" for name in NAMES]
TAGS = ["<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"]
SAMPLE_TEXT = [
    "Video of 750.0 seconds. When does the red star appear? Options: (A) red (B) green",
    '{"name": "search_clips", "arguments": {"query": "red star", "k": 3}}',
    "<answer>red</answer> <evidence>750.0-762.0</evidence> 3 moments for red star, in order of time:",
] * 4


def family_template(name: str = "qwen3_vl") -> str:
    """A family's own template, as it ships with trl."""
    trl = pytest.importorskip("trl")
    return (Path(trl.__file__).parent / "chat_templates" / f"{name}.jinja").read_text()


def make_tokenizer(
    specials: Sequence[str] = SPECIALS, tags: Sequence[str] = TAGS, eos: str = "<|im_end|>", pad: str = "<|endoftext|>"
):
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tok = Tokenizer(models.BPE())
    pattern = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    tok.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=413 + len(specials), special_tokens=list(specials), show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tok.train_from_iterator(SAMPLE_TEXT, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tok, eos_token=eos, pad_token=pad)
    fast.add_tokens(list(tags))
    return fast


def make_processor(template: str):
    from transformers import Qwen2VLImageProcessor, Qwen3VLProcessor, Qwen3VLVideoProcessor

    size = {"shortest_edge": 64 * 64, "longest_edge": 128 * 128}
    shape = dict(size=size, patch_size=16, temporal_patch_size=2, merge_size=2, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    return Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(**shape),
        tokenizer=make_tokenizer(),
        video_processor=Qwen3VLVideoProcessor(**shape),
        chat_template=template,
    )


def small_text(tokenizer, **more):
    """The shapes of a tiny Qwen language model."""
    return dict(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=4096, tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2]},
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id, bos_token_id=None, **more,
    )  # fmt: skip


def make_model(processor):
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    tokenizer = processor.tokenizer
    config = Qwen3VLConfig(
        text_config=small_text(tokenizer, head_dim=16),
        vision_config=dict(
            depth=2, hidden_size=32, intermediate_size=64, num_heads=2, out_hidden_size=64, patch_size=16,
            temporal_patch_size=2, spatial_merge_size=2, num_position_embeddings=64, deepstack_visual_indexes=[0],
        ),
        image_token_id=processor.image_token_id, video_token_id=processor.video_token_id,
        vision_start_token_id=processor.vision_start_token_id, vision_end_token_id=processor.vision_end_token_id,
        tie_word_embeddings=True,
    )
    return with_weights(Qwen3VLForConditionalGeneration, config)


def with_weights(cls, config):
    """A model whose weights are larger than at initialisation, so that logits differ by more than noise."""
    import torch

    torch.manual_seed(0)
    model = cls(config).eval()
    for p in model.parameters():
        if p.dim() > 1:
            torch.nn.init.normal_(p, std=0.12)
    return model


def make_qwen25():
    """(processor, model) of Qwen2.5-VL; its tokenizer knows tool calls, but neither thoughts nor tool responses."""
    from transformers import (
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
    )

    size = {"shortest_edge": 56 * 56, "longest_edge": 112 * 112}
    shape = dict(size=size, patch_size=14, temporal_patch_size=2, merge_size=2)
    tokenizer = make_tokenizer(tags=["<tool_call>", "</tool_call>"])
    processor = Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(**shape), tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(**shape), chat_template=family_template("qwen2_5_vl"),
    )
    vocab = tokenizer.get_vocab()
    config = Qwen2_5_VLConfig(
        text_config=small_text(tokenizer),
        vision_config=dict(
            depth=2, hidden_size=32, intermediate_size=64, num_heads=2, out_hidden_size=64, patch_size=14,
            temporal_patch_size=2, spatial_merge_size=2, window_size=56, fullatt_block_indexes=[1],
        ),
        image_token_id=processor.image_token_id, video_token_id=processor.video_token_id,
        vision_start_token_id=vocab["<|vision_start|>"], vision_end_token_id=vocab["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    return processor, with_weights(Qwen2_5_VLForConditionalGeneration, config)


def make_smolvlm():
    """(processor, model) of SmolVLM2: tiles of 32 x 32, 4 tokens each, at most 4 x 4 of them."""
    from transformers import (
        SmolVLMConfig,
        SmolVLMForConditionalGeneration,
        SmolVLMImageProcessor,
        SmolVLMProcessor,
        SmolVLMVideoProcessor,
    )

    rows = [f"<row_{r}_col_{c}>" for r in range(1, 5) for c in range(1, 5)]
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<fake_token_around_image>", "<global-img>"]
    tokenizer = make_tokenizer(["<end_of_utterance>", *names, *rows], (), eos="<end_of_utterance>", pad="<|im_end|>")
    tile = {"longest_edge": 32}
    sampling = {"fps": 1, "max_frames": 64, "video_size": tile}
    processor = SmolVLMProcessor(
        image_processor=SmolVLMImageProcessor(size={"longest_edge": 128}, max_image_size=tile), tokenizer=tokenizer,
        video_processor=SmolVLMVideoProcessor(max_image_size=tile, video_sampling=sampling),
        image_seq_len=4, chat_template=family_template("smolvlm"),
    )
    config = SmolVLMConfig(
        text_config=dict(
            model_type="llama", vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, head_dim=16, max_position_embeddings=8192,
            pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id, bos_token_id=None,
        ),
        vision_config=dict(
            hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8
        ),
        image_token_id=processor.image_token_id, scale_factor=2, tie_word_embeddings=False,
    )
    return processor, with_weights(SmolVLMForConditionalGeneration, config)


def make_qwen3():
    processor = make_processor(family_template())
    return processor, make_model(processor)


@dataclass(frozen=True)
class FamilyCheckpoint:
    """A family, and a folder as a user would have it."""

    model_type: str
    folder: Path

    def load_renderer(self):
        from playhead.agent.families import renderer_class

        return renderer_class(self.model_type).from_checkpoint(self.folder)

    @property
    def frame_kwargs(self) -> dict:
        """How the family's own processor is told to read images as frames of a video."""
        smol = {"do_image_splitting": False, "size": {"longest_edge": 32}}
        return smol if self.model_type == "smolvlm" else {}


MAKERS = {"qwen3_vl": make_qwen3, "qwen2_5_vl": make_qwen25, "smolvlm": make_smolvlm}


@pytest.fixture(scope="session", params=list(MAKERS))
def family(request, tmp_path_factory) -> FamilyCheckpoint:
    """Every family in turn."""
    if request.param == "smolvlm":
        pytest.importorskip("num2words")  # its processor cannot be made without
    folder = tmp_path_factory.mktemp(request.param)
    processor, model = MAKERS[request.param]()
    processor.save_pretrained(folder)
    model.save_pretrained(folder)
    return FamilyCheckpoint(request.param, folder)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    """A folder with model and processor, as `save_pretrained` writes them."""
    folder = tmp_path_factory.mktemp("qwen3vl")
    processor = make_processor(SHORT_TEMPLATE)
    processor.save_pretrained(folder)
    make_model(processor).save_pretrained(folder)
    return folder


class DictStore:
    """Pixels by hash: noise that depends on the frame alone."""

    def pixels(self, frame: Frame) -> np.ndarray:
        rng = np.random.default_rng(int(frame.sha256, 16) % 2**32)
        return rng.integers(0, 256, (frame.height, frame.width, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def store() -> DictStore:
    return DictStore()

