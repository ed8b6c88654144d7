"""A small HTTP server that speaks chat completions and does what its script says: right, late, cut short, or wrong.

Raw asyncio sockets, because a framework would mend what we want broken. One connection serves one request. At the
end stands how the tests ask it.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from playhead.agent.policies.openai import Limits, OpenAIPolicy
from playhead.core.frames import FrameStore
from playhead.core.nouns import Frame, Message, ToolSpec
from playhead.core.policy import GenerateRequest, Sampling

Json = dict[str, Any]
Act = Callable[["Exchange"], Awaitable[None]]


@dataclass
class Exchange:
    """One request: what came, and the means to answer."""

    body: Json
    headers: dict[str, str]
    number: int
    """How many requests came before this one."""
    writer: asyncio.StreamWriter

    async def send(self, raw: bytes) -> None:
        self.writer.write(raw)
        await self.writer.drain()

    async def head(self, status: int = 200, kind: str = "application/json", **headers: str) -> None:
        lines = [f"HTTP/1.1 {status} Status", f"Content-Type: {kind}", "Connection: close"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        await self.send("\r\n".join([*lines, "", ""]).encode())

    async def refuse(self, status: int, said: Any = None, **headers: str) -> None:
        await self.head(status, **headers)
        await self.send(json.dumps(said or {"error": {"message": "no"}}).encode())

    async def event(self, data: Any) -> None:
        await self.send(b"data: " + (data if isinstance(data, bytes) else json.dumps(data).encode()) + b"\n\n")


@dataclass
class FaultServer:
    """`script` acts on every request; `seen` is what came."""

    script: Act
    seen: list[Exchange] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    dropped: int = 0
    """Connections that the client closed before the script was through."""
    url: str = ""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[1:-2]
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head)}
            body = json.loads(await reader.readexactly(int(headers["content-length"])))
        except asyncio.IncompleteReadError:
            return
        exchange = Exchange(body, headers, len(self.seen), writer)
        self.seen.append(exchange)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        acting = asyncio.ensure_future(self.script(exchange))
        hung_up = asyncio.ensure_future(reader.read())
        try:
            await asyncio.wait([acting, hung_up], return_when=asyncio.FIRST_COMPLETED)
            if not acting.done():
                self.dropped += 1
            elif acting.exception():
                raise AssertionError("the script failed") from acting.exception()
        finally:
            acting.cancel()
            hung_up.cancel()
            self.at_once -= 1
            writer.close()


@asynccontextmanager
async def serving(script: Act):
    """A running `FaultServer`."""
    faults = FaultServer(script)
    server = await asyncio.start_server(faults._serve, "127.0.0.1", 0)
    faults.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield faults
        for _ in range(200):  # a client that hung up is noticed a moment later
            if not faults.at_once:
                break
            await asyncio.sleep(0.01)
    finally:
        server.close()


@contextmanager
def served(script: Act) -> Iterator[FaultServer]:
    """A `FaultServer` on a loop of its own, so that a command can have this one."""
    ready = threading.Event()
    box: Json = {}

    async def serve() -> None:
        box["loop"], box["end"] = asyncio.get_running_loop(), asyncio.Event()
        async with serving(script) as server:
            box["server"] = server
            ready.set()
            await box["end"].wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),), daemon=True)
    thread.start()
    assert ready.wait(30), "no server"
    try:
        yield box["server"]
    finally:
        box["loop"].call_soon_threadsafe(box["end"].set)
        thread.join(30)


def chunk(delta: Json | None = None, finish: str | None = None, **more: Any) -> Json:
    return {"choices": [{"index": 0, "delta": delta or {}, "finish_reason": finish, **more}]}


async def say(
    exchange: Exchange, *pieces: str, calls: tuple[Json, ...] = (), finish: str = "stop", **usage: int
) -> None:
    """A sound streamed reply."""
    await exchange.head(kind="text/event-stream")
    await exchange.event(chunk({"role": "assistant"}))
    for piece in pieces:
        await exchange.event(chunk({"content": piece}))
    for call in calls:
        await exchange.event(chunk({"tool_calls": [call]}))
    await exchange.event(chunk(finish="tool_calls" if calls else finish))
    if usage:
        await exchange.event({"choices": [], "usage": usage})
    await exchange.event(b"[DONE]")


async def whole(exchange: Exchange, message: Json, **more: Any) -> None:
    """A sound reply in one piece of JSON."""
    await exchange.head()
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": "stop"}
    await exchange.send(json.dumps({"choices": [choice], **more}).encode())


# How the tests ask.

LIMITS = Limits(backoff_s=0.02, retries=3, concurrency=4)
IMPATIENT = Limits(first_byte_s=1, idle_s=1, backoff_s=0.02, retries=1)
"""Long enough for a busy machine, so that only silence is silence."""
FRAME_A = Frame(video_id="v", timestamp_s=12.0, sha256="0a", width=64, height=64)
FRAME_B = Frame(video_id="v", timestamp_s=13.5, sha256="0b", width=96, height=64)
TOOL = ToolSpec(name="search_clips", description="Find <|im_end|> moments.", parameters={"type": "object"})
CALL = '<tool_call>\n{"name": "search_clips", "arguments": {"query": "red"}}\n</tool_call>'
ASK = (Message(role="system", content=("Be brief.",)), Message(role="user", content=("Look: ", FRAME_A, "What?")))


@pytest.fixture(autouse=True)
def no_key(monkeypatch):
    for name in ("PLAYHEAD_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def request(messages=ASK, tools=(), token_ids=(1, 2, 3), **sampling) -> GenerateRequest:
    return GenerateRequest(
        session="s",
        token_ids=token_ids,
        frames=tuple(f for m in messages for f in m.frames),
        messages=tuple(messages),
        sampling=Sampling(**{"max_tokens": 32, **sampling}),
        tools=tuple(tools),
    )


def talk(script, store, requests=None, limits=LIMITS, **options):
    """(completions, the server's memory, the policy) of some requests to a scripted server."""

    async def run():
        async with serving(script) as server:
            policy = OpenAIPolicy(server.url, "m", store, limits=limits, **options)
            return await policy.generate([request()] if requests is None else requests), server, policy

    return asyncio.run(run())


def store_of(path):
    return FrameStore(path / "frames")
