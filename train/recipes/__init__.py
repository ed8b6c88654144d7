"""Recipes: a run is a function that returns a value. For your own, call one and `dataclasses.replace` what should differ.

    playhead train sft --recipe embedded_cpu --data DIR --init DIR --out DIR

Each recipe is a module of this folder with a function of the same name.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

SFT_RECIPES = ("embedded_cpu", "qwen3vl_8b_sft", "qwen3vl_8b_lora")


def recipe(name: str, known: tuple[str, ...] = SFT_RECIPES) -> Callable[..., Any]:
    """The recipe of a name.

    Raises: ValueError: there is none of that name; the message lists those of `known`.
    """
    if name not in known:
        raise ValueError(f"no recipe {name!r}; there are {', '.join(known)}")
    return getattr(import_module(f".{name}", __name__), name)
