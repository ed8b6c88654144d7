"""Tools for a checkpoint whose chat template knows none: told in the system message, answered in the user's turn.

The form is the one that Qwen3's template writes (Hermes' before it): JSON signatures in <tools>, calls in <tool_call>,
results in <tool_response>. Most open instruct models have seen it, and one parser reads them all.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

TAGS = ("<tools>", "</tools>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")
"""What outside text must not contain, for these are plain text to such a tokenizer."""

_HEAD = (
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>"
)
_TAIL = (
    "\n</tools>\n\nFor each function call, return a json object with function name and arguments within "
    '<tool_call></tool_call> XML tags:\n<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n'
    "</tool_call>"
)

Content = list[dict[str, str]]
"""The content of one message as chat templates take it: texts and image placeholders."""


def tool_preamble(specs: Sequence[dict[str, Any]]) -> str:
    """What stands in the system message; `specs` are OpenAI-style function specs, already disarmed."""
    return _HEAD + "".join("\n" + json.dumps(spec, ensure_ascii=False) for spec in specs) + _TAIL


def tool_responses(contents: Sequence[Content]) -> Content:
    """The results of one turn's calls as the content of one user message."""
    parts: Content = []
    for i, content in enumerate(contents):
        opening = "\n<tool_response>\n" if i else "<tool_response>\n"
        parts += [{"type": "text", "text": opening}, *content, {"type": "text", "text": "\n</tool_response>"}]
    return parts
