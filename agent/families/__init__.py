"""The model families that run in this process, by the `model_type` of a checkpoint's config.

A family is a renderer (text and pixels to inputs; no weights needed) and an adapter (`contract.ModelFamily`: what differs in
its forward pass). To add one: a module in `renderers/`, a module here, a line in `FAMILIES`, a row in the contract tests.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..renderers.chat import ChatRenderer
    from .contract import ModelFamily

FAMILIES = {
    "qwen3_vl": (("qwen3vl", "Qwen3VLRenderer"), ("qwenvl", "Qwen3VL")),
    "qwen2_5_vl": (("qwen25vl", "Qwen25VLRenderer"), ("qwenvl", "Qwen25VL")),
    "smolvlm": (("smolvlm", "SmolVLMRenderer"), ("smolvlm", "SmolVLM")),
}
"""model_type: (renderer's module and class, adapter's module and class). Imported when asked for."""


def renderer_class(model_type: str) -> type[ChatRenderer]:
    module, name = FAMILIES[model_type][0]
    return getattr(import_module(f"..renderers.{module}", __name__), name)


def family_of(model: Any, renderer: Any) -> ModelFamily:
    """The adapter around a loaded model.

    Raises: KeyError: a model of another family.
    """
    module, name = FAMILIES[model.config.model_type][1]
    return getattr(import_module(f".{module}", __name__), name)(model, renderer)
