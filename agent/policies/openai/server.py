"""One server: its address, its key, and requests that are tried again when trying again can help.

Tried again, with exponential backoff and jitter: 408, 409, 425, 429, 5xx, a connection refused or dropped, a reply that is cut
short or malformed, and one that stays silent for too long. `Retry-After` is honoured; a server that asks for more
than `Limits.retry_after_s` is taken at its word and not asked again. Anything else (a wrong key, an unknown model) fails
at once.

The key is PLAYHEAD_API_KEY, else OPENAI_API_KEY, the latter only over https or to this machine: a key made for one host should
not reach another by accident. It is never part of a name, an error, a log line or a completion: a server that
echoes it is quoted with `[key]` in its place. Redirects are not followed.

httpx is the client: it is here already (langgraph brings it), and needs none of the openai package's dependencies.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ....core.errors import ModelError
from .reply import Malformed, Reply, ServerSaid, error_text, events
from .slots import Slots

if TYPE_CHECKING:
    import httpx

AGAIN = frozenset({408, 409, 425, 429})
SHORTEST_KEY = 8
"""Shorter ones are placeholders ("EMPTY"); taking them out of texts would only spoil the texts."""
HIDDEN = "[key]"
NO_SECRETS = (
    "put no user, password or query into a server's address (http://HOST:PORT/v1#MODEL); the key is read from PLAYHEAD_API_KEY"
)
DRAIN_S = 1.0
"""How long a stream may go on after the model has finished: read to its end, its connection serves the next request."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Seconds and counts. A request's own `Sampling.timeout_s` bounds it as well."""

    connect_s: float = 10.0
    first_byte_s: float = 120.0
    """From the request to the first byte of the reply's body: the server's queue and the prompt. Without streaming: to the
    whole reply."""
    idle_s: float = 60.0
    """Between two bytes of a reply."""
    request_s: float = 600.0
    """The whole request: the wait for a free slot, and all tries."""
    retries: int = 4
    backoff_s: float = 0.5
    """Before the first retry; doubles with each, up to `backoff_most_s`."""
    backoff_most_s: float = 20.0
    retry_after_s: float = 60.0
    """A server that asks for a longer wait is not asked again."""
    concurrency: int = 16
    """Requests of one policy that are under way at once, over all its event loops and threads."""

    def __post_init__(self) -> None:
        """Raises: ValueError: a count or a time that makes no sense."""
        for name in ("connect_s", "first_byte_s", "idle_s", "request_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"Limits.{name} must be above 0; got {getattr(self, name)}")
        for name, least in (("retries", 0), ("concurrency", 1), ("backoff_s", 0), ("backoff_most_s", 0), ("retry_after_s", 0)):
            if not getattr(self, name) >= least:
                raise ValueError(f"Limits.{name} must be at least {least}; got {getattr(self, name)}")


class Fault(Exception):
    """A try that failed; `again` says whether another may help, `after_s` when the server wants it."""

    def __init__(self, text: str, *, again: bool, after_s: float | None = None) -> None:
        super().__init__(text)
        self.again = again
        self.after_s = after_s


@dataclass(slots=True)
class Progress:
    """How far a request has come, for whoever stops waiting for it."""

    reply: Reply = field(default_factory=Reply)
    fault: Fault | None = None
    """Why the last try failed."""


class Server:
    """Chat completions at `address` (such as http://127.0.0.1:8000/v1). Works on any event loop, and on several.

    Raises:
        ModelError: the address is none, or holds a password or a query; or the key cannot be sent in a header.
    """

    def __init__(self, address: str, limits: Limits) -> None:
        scheme, host = _scheme_and_host(address)
        self.address = address.rstrip("/")
        self.limits = limits
        self.here = host == "localhost" or host == "::1" or host.startswith("127.")
        self._key = read_key(trusted=scheme == "https" or self.here)
        self._slots = Slots(limits.concurrency)
        self._connected: dict[asyncio.AbstractEventLoop, _Connected] = {}
        self._lock = threading.Lock()

    async def ask(self, body: bytes, progress: Progress) -> Reply:
        """The whole reply to a request.

        Raises:
            Fault: no try succeeded; the text says why.
        """
        connected = await self._connect()
        async with self._slots:
            for attempt in range(self.limits.retries + 1):
                progress.reply = Reply()
                try:
                    await self._once(connected.client, body, progress.reply)
                    return progress.reply
                except Fault as fault:
                    progress.reply, progress.fault = Reply(), fault
                    if not fault.again or attempt == self.limits.retries:
                        raise
                    if (fault.after_s or 0) > self.limits.retry_after_s:
                        raise Fault(f"{fault} (it asks to wait {fault.after_s:.0f} s)", again=False) from None
                    await asyncio.sleep(self._pause(attempt, fault.after_s))
        raise AssertionError("the last try returns or raises")

    def hide(self, text: str) -> str:
        """`text` without the key."""
        return text.replace(self._key, HIDDEN) if len(self._key) >= SHORTEST_KEY else text

    async def _once(self, client: httpx.AsyncClient, body: bytes, reply: Reply) -> None:
        """One try; what comes is in `reply`. Once the model has finished, nothing that goes wrong afterwards matters."""
        import httpx

        began = False
        try:
            async with asyncio.timeout(self.limits.first_byte_s) as clock:
                async with client.stream(
                    "POST", f"{self.address}/chat/completions", content=body, headers=self._headers()
                ) as response:
                    if response.status_code != 200:
                        raise await _refusal(response)

                    async def heard() -> AsyncIterator[bytes]:
                        nonlocal began
                        async for chunk in response.aiter_bytes():
                            began = True
                            yield chunk
                            patience = self.limits.idle_s if reply.finish is None else DRAIN_S
                            clock.reschedule(asyncio.get_running_loop().time() + patience)

                    await _read(heard(), reply, streamed="event-stream" in response.headers.get("content-type", ""))
        except (TimeoutError, httpx.TransportError) as error:
            if reply.finish is None:
                raise Fault(self._broken(error, began), again=True) from None
        except Malformed as error:
            raise Fault(f"the reply is malformed: {error}", again=True) from None
        except ServerSaid as error:
            again = error.code is None or error.code >= 500 or error.code in AGAIN
            raise Fault(f"the server failed: {error}", again=again) from None
        if reply.finish is None:
            raise Fault("the reply was cut short", again=True)

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "Accept": "text/event-stream, application/json"}
        return headers | {"Authorization": f"Bearer {self._key}"} if self._key else headers

    def _broken(self, error: Exception, began: bool) -> str:
        import httpx

        if isinstance(error, TimeoutError):
            return (
                f"the reply stopped for {self.limits.idle_s:g} s"
                if began
                else f"no reply for {self.limits.first_byte_s:g} s"
            )
        if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)):
            return f"no server answers at {self.address}"
        return f"the connection broke ({type(error).__name__})"

    def _pause(self, attempt: int, after_s: float | None) -> float:
        """Seconds to wait: what the server asked for, else backoff; jitter is added, so that many clients do not come back
        together."""
        backoff = min(self.limits.backoff_most_s, self.limits.backoff_s * 2**attempt)
        return (after_s or 0.0) + backoff * random.uniform(0.5, 1.0)

    async def _connect(self) -> _Connected:
        """What belongs to the running loop: connections do, and `VideoAgent.ask` starts a loop for each question."""
        import httpx

        loop = asyncio.get_running_loop()
        with self._lock:
            found = self._connected.get(loop)
            if found is not None:
                return found
            timeout = httpx.Timeout(None, connect=self.limits.connect_s)
            bound = httpx.Limits(max_connections=None, max_keepalive_connections=self.limits.concurrency)
            # A proxy from the environment is never asked for this machine's own servers.
            client = httpx.AsyncClient(timeout=timeout, limits=bound, trust_env=not self.here)
            new = _Connected(client, _closing(client))
            self._connected = {known: kept for known, kept in self._connected.items() if not known.is_closed()}
            self._connected[loop] = new
        await anext(new.closing)
        return new


@dataclass(frozen=True, slots=True)
class _Connected:
    client: httpx.AsyncClient
    closing: AsyncIterator[None]


async def _closing(client: httpx.AsyncClient) -> AsyncIterator[None]:
    """Closes the client with its loop: `asyncio.run` finishes the generators that are still open."""
    try:
        yield
    finally:
        await client.aclose()


def split_url(url: str) -> tuple[str, str]:
    """(address, model) of `http://HOST:PORT/v1#MODEL`.

    Raises:
        ModelError: no model is named, or the address is unusable.
    """
    address, _, model = url.rpartition("#")
    if "@" in url.partition("://")[2].partition("/")[0]:  # a password may hold a # too
        raise ModelError(NO_SECRETS)
    if not address or not model:
        raise ModelError("which model of the server? Write its name after a #: http://HOST:PORT/v1#MODEL")
    _scheme_and_host(address)
    return address, model


def _scheme_and_host(address: str) -> tuple[str, str]:
    """Raises: ModelError: none, or one with secrets in it: what stands before an @ or after a ? is never said."""
    if "@" in address or "?" in address:
        raise ModelError(NO_SECRETS)
    try:
        parts = urlsplit(address)
        scheme, host, _ = parts.scheme, parts.hostname, parts.port
    except ValueError:
        scheme, host = "", None
    if scheme not in ("http", "https") or not host or "#" in address:
        raise ModelError(f"{address}: not an address; write http://HOST:PORT/v1#MODEL")
    return scheme, host


def read_key(*, trusted: bool) -> str:
    """The API key of the environment, or "". `trusted`: OPENAI_API_KEY may go there.

    Raises:
        ModelError: the key holds what no header can.
    """
    for name in ("PLAYHEAD_API_KEY", "OPENAI_API_KEY") if trusted else ("PLAYHEAD_API_KEY",):
        key = os.environ.get(name, "").strip()
        if key:
            if not (key.isascii() and key.isprintable()):
                raise ModelError(f"{name} holds characters that no key has; set it again")
            return key
    return ""


async def _read(chunks: AsyncIterator[bytes], reply: Reply, *, streamed: bool) -> None:
    if not streamed:  # asked for or not: some servers do not stream
        reply.add(b"".join([chunk async for chunk in chunks]))
        return
    async for data in events(chunks):
        if data not in (b"", b"[DONE]"):
            reply.add(data)


async def _refusal(response: httpx.Response) -> Fault:
    import httpx

    raw = b""
    try:
        async for chunk in response.aiter_bytes():
            raw += chunk
            if len(raw) > 1 << 16:
                break
    except httpx.TransportError:
        pass  # the status is what counts
    status = response.status_code
    return Fault(
        f"{status} {response.reason_phrase}: {_words(raw)}".rstrip(": "),
        again=status >= 500 or status in AGAIN,
        after_s=_seconds(response.headers.get("retry-after")),
    )


def _words(raw: bytes) -> str:
    text = raw.decode("utf-8", "replace")
    try:
        return error_text(json.loads(text))
    except (ValueError, RecursionError):
        return error_text(text)


def _seconds(retry_after: str | None) -> float | None:
    """Retry-After in seconds, whether it is a number or a date; None where it is neither."""
    if retry_after is None:
        return None
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (ValueError, TypeError):
        return None
