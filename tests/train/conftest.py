import pytest
from playhead.agent.renderers.qwen3vl import Qwen3VLRenderer
from playhead.train.embedded_model import build_processor, build_tokenizer


@pytest.fixture(scope="session")
def renderer() -> Qwen3VLRenderer:
    """The embedded model's renderer over a tokenizer that has seen little: names and numbers are whole tokens anyway."""
    return Qwen3VLRenderer(build_processor(build_tokenizer(["When does it appear?", "Which way does it move?"])))
