"""A policy for OpenAI-compatible servers: see `policy`."""

from .policy import Limits, OpenAIPolicy
from .wire import Dialect

__all__ = ["Dialect", "Limits", "OpenAIPolicy"]
