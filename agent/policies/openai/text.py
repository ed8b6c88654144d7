"""Text as pseudo tokens, for a server whose tokenizer is not at hand.

The agent counts a budget in tokens and keeps its history as tokens. Behind a server both are estimates: four bytes of text are
one token, a frame takes one for every 32 x 32 pixels (as Qwen3-VL takes them). Nothing here is ever sent to a model, and a
policy that counts like this is not `exact`, so nobody trains on it. What is exact is the text: `decode` gives back every byte.

    "red star"  ->  (0x01 "red ", 0x01 "star")        a token is the number that its bytes, after a 1, stand for
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import pairwise

from ....core.nouns import Frame, Message, ToolSpec
from ....core.policy import Parsed, Rendered
from ...renderers.parsing import parse

FRAME = 0
"""The pseudo token of a frame; the number of an empty text is 1, so no text is ever 0."""
BYTES_PER_TOKEN = 4
MOST_BYTES = 7
PIXELS_PER_SIDE = 32
MESSAGE_END = "\n"

CONTROL = re.compile(r"<\|[^|<>\s]{1,40}\|>|</?(?:tool_call|tool_response|tools|think)>")
"""What chat templates write as control tokens, in the form most families share."""


class TextRenderer:
    """The `Renderer` for servers without a local tokenizer. Its tokens are for counting only (see the module)."""

    def start(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> Rendered:
        described = "".join(json.dumps([t.name, t.description, t.parameters], ensure_ascii=False) for t in tools)
        return self._rendered(messages, described)

    def extend(self, completion_ids: Sequence[int], messages: Sequence[Message]) -> Rendered:
        return self._rendered(messages, MESSAGE_END)

    def encode(self, text: str) -> tuple[int, ...]:
        return self.spread(text, -(-len(_bytes(text)) // BYTES_PER_TOKEN))

    def spread(self, text: str, count: int) -> tuple[int, ...]:
        """`text` as `count` pseudo tokens, as even as can be, for a server that says how many it sampled. More where a token
        would have to hold over seven bytes: they are saved as numbers of 64 bits."""
        raw = _bytes(text)
        count = max(count, -(-len(raw) // MOST_BYTES))
        edges = [len(raw) * i // count for i in range(count + 1)] if count else []
        return tuple(int.from_bytes(b"\x01" + raw[a:b]) for a, b in pairwise(edges))

    def decode(self, token_ids: Sequence[int]) -> str:
        numbers = (int(t) for t in token_ids if t != FRAME)
        raw = b"".join(n.to_bytes((n.bit_length() + 7) // 8)[1:] for n in numbers)
        try:
            return raw.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:  # cut inside a character
            return raw.decode("utf-8", "replace")

    def completion_text(self, token_ids: Sequence[int]) -> str:
        return self.decode(token_ids)

    def parse(self, text: str, turn_index: int) -> Parsed:
        return parse(text, turn_index)

    def frame_tokens(self, frame: Frame) -> int:
        return -(-frame.width // PIXELS_PER_SIDE) * -(-frame.height // PIXELS_PER_SIDE)

    def stamp(self, t_s: float) -> str:
        """The time of a frame, as Qwen3-VL writes it and any model can read it."""
        return f"<{t_s:.1f} seconds>"

    def disarm(self, text: str) -> str:
        """`text` with everything that looks like a control token broken by a space after its first character."""
        return CONTROL.sub(lambda m: f"{m[0][0]} {m[0][1:]}", text)

    def _rendered(self, messages: Sequence[Message], head: str) -> Rendered:
        ids, frames = [*self.encode(head)], []
        for message in messages:
            ids += self.encode(f"{message.role}{MESSAGE_END}")
            for part in message.content:
                if isinstance(part, Frame):
                    ids += [*self.encode(self.stamp(part.timestamp_s)), *[FRAME] * self.frame_tokens(part)]
                    frames.append(part)
                else:
                    ids += self.encode(part)
        return Rendered(token_ids=tuple(ids), frames=tuple(frames))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
