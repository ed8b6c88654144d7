"""What comes back: the chunks of a stream, or a whole JSON reply, gathered into one text.

Whether a server parsed tool calls or left them in the text, `Reply.text` is the form that playhead reads and keeps:
`<think>...</think>` where the server split the thoughts off, and each call as

    <tool_call>
    {"name": "search_clips", "arguments": {"query": "red star"}}
    </tool_call>

Arguments that are no JSON object stay the string that they were: the tool's door refuses them in words that the model can read.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from ....core.nouns import FinishReason


class Malformed(ValueError):
    """A reply that is not what the protocol says."""


@dataclass(slots=True)
class Call:
    """A tool call as it grows."""

    name: str = ""
    arguments: str = ""


@dataclass(slots=True)
class Reply:
    """One choice of one reply, as far as it has come. Only choice 0 counts."""

    content: str = ""
    reasoning: str = ""
    calls: dict[int, Call] = field(default_factory=dict)
    finish: str | None = None
    """The server's own word; None: the reply is not at its end."""
    token_ids: list[int] = field(default_factory=list)
    prompt_token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    prompt_tokens: int = 0
    cached_tokens: int = 0
    sampled_tokens: int = 0

    def add(self, raw: bytes) -> None:
        """One chunk of a stream, or a whole reply.

        Raises:
            Malformed: not JSON, or not of the protocol's shape.
            ServerSaid: the server reports an error inside the reply.
        """
        try:
            data = json.loads(raw)
        except (ValueError, RecursionError):
            raise Malformed(f"not JSON: {raw[:80]!r}") from None
        if isinstance(data, dict) and data.get("error"):
            raise ServerSaid(data["error"])
        try:
            self._add(data)
        except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
            raise Malformed(f"not a chat completion ({type(error).__name__}): {raw[:80]!r}") from None

    def _add(self, data: dict[str, Any]) -> None:
        usage = data.get("usage") or {}
        self.prompt_tokens = int(usage.get("prompt_tokens") or self.prompt_tokens)
        self.sampled_tokens = int(usage.get("completion_tokens") or self.sampled_tokens)
        self.cached_tokens = int((usage.get("prompt_tokens_details") or {}).get("cached_tokens") or self.cached_tokens)
        self.prompt_token_ids += data.get("prompt_token_ids") or ()
        for choice in data.get("choices") or ():
            if choice.get("index", 0) == 0:
                self._choose(choice)

    def _choose(self, choice: dict[str, Any]) -> None:
        said = choice.get("delta") or choice.get("message") or {}
        self.content += said.get("content") or ""
        self.reasoning += said.get("reasoning_content") or said.get("reasoning") or ""
        for i, part in enumerate(said.get("tool_calls") or ()):
            call = self.calls.setdefault(int(part.get("index", i)), Call())
            function = part.get("function") or {}
            call.name += function.get("name") or ""
            arguments = function.get("arguments") or ""
            call.arguments += arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        self.finish = choice.get("finish_reason") or self.finish
        self.prompt_token_ids += choice.get("prompt_token_ids") or ()
        self.token_ids += choice.get("token_ids") or ()
        self.logprobs += [float(t["logprob"]) for t in (choice.get("logprobs") or {}).get("content") or ()]

    @property
    def text(self) -> str:
        """What the model said, in playhead's form."""
        text = self.content
        if self.reasoning:
            text = f"<think>{self.reasoning.strip()}</think>\n{text.lstrip()}"
        if not self.calls:
            return text
        if "<think>" in text and "</think>" not in text:
            text += "</think>"  # the server cut the call out of an open thought, where it would not count
        return "\n".join([*filter(None, [text.rstrip()]), *(_written(call) for _, call in sorted(self.calls.items()))])

    @property
    def finish_reason(self) -> FinishReason:
        return FinishReason.LENGTH if self.finish == "length" else FinishReason.STOP


class ServerSaid(Exception):
    """An error that the server reports in the body; `said` is whatever it put there."""

    def __init__(self, said: Any) -> None:
        super().__init__(error_text(said))
        code = said.get("code") if isinstance(said, dict) else None
        self.code = code if isinstance(code, int) else None


def error_text(said: Any) -> str:
    """The words of an error body, whichever of the usual shapes it has."""
    for key in ("error", "message", "detail"):
        if isinstance(said, dict) and said.get(key):
            return error_text(said[key])
    return " ".join((said if isinstance(said, str) else json.dumps(said)).split())[:300]


async def events(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The data of server-sent events. Lines end at newlines alone: JSON may hold any other separator.

    Raises:
        Malformed: a line too long to be one.
    """
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > 16 << 20:
            raise Malformed("an event of more than 16 MB")
        for line in lines:
            if line.startswith(b"data:"):
                yield line[5:].strip()
    if rest.startswith(b"data:"):
        yield rest[5:].strip()


def _written(call: Call) -> str:
    try:
        arguments = json.loads(call.arguments or "{}")
    except (ValueError, RecursionError):
        arguments = call.arguments
    if not isinstance(arguments, dict):
        arguments = call.arguments
    body = json.dumps({"name": call.name, "arguments": arguments}, ensure_ascii=False).replace("</", "<\\/")
    return f"<tool_call>\n{body}\n</tool_call>"
