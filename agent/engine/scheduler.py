"""The engine: agents await `generate`; one thread per model gathers what they ask into ragged batches.

The thread works in passes. Between two passes sequences join and leave (continuous batching): each pass takes the next token
of every sequence that is sampling, and up to `prefill_tokens` tokens of contexts not computed yet. It starts with the first
request and ends when there has been none for a while.

- A new context begins at the longest prefix of it that any cache holds (`cache.py`). A request whose context shares more with
  one that is being computed right now waits for that: N samples of one prompt prefill it once.
- Frames are encoded once by content (`vision.py`).
- Caches stay within `cache_bytes`: unused ones go first, longest unused first; then the youngest sequences are put back and
  computed again later. A single sequence larger than the budget runs alone, and is dropped afterwards.
- A request's seed, time limit, cancellation and failure are its own. A pass that fails is repeated sequence by sequence, and
  those that fail again end in `FinishReason.ERROR`; so does who cannot be given memory, a token or its text.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from math import isfinite
from weakref import WeakKeyDictionary, WeakSet, WeakValueDictionary

import torch

from ...core.errors import ModelError
from ...core.nouns import Completion, FinishReason
from ...core.policy import GenerateRequest
from ..families.contract import ModelFamily
from ..renderers.chat import ChatRenderer, PixelSource
from .cache import GROW_TOKENS, Node, PrefixTree, common_prefix
from .context import Context
from .features import give_features
from .job import Job
from .sample import Drawn, Rows
from .steady import Steady
from .step import Stepper, Take
from .vision import VisionCache

_LOG = logging.getLogger("playhead")
LINGER_S = 1.0
"""How long the thread waits for another request before it ends."""
END_S = 10.0
"""How long the end of the program waits for a thread to end its pass."""
_ENGINES: WeakSet[Engine] = WeakSet()
_THREADS: WeakSet[threading.Thread] = WeakSet()


class Engine:
    """Runs requests through one model.

    Args:
        cache_bytes: bound for the attention caches of all sequences together.
        vision_bytes: bound for the vision features kept.
        max_batch: sequences under way at once.
        prefill_tokens: tokens of unfinished contexts in one pass; more is faster, fewer lets others sample meanwhile.
    """

    def __init__(
        self,
        family: ModelFamily,
        renderer: ChatRenderer,
        store: PixelSource,
        *,
        cache_bytes: int = 1 << 30,
        vision_bytes: int = 256 << 20,
        max_batch: int = 64,
        prefill_tokens: int = 2048,
    ) -> None:
        self._family, self._renderer = family, renderer
        self._stepper = Stepper(family)
        self.vision = VisionCache(lambda frames: family.encode(frames, store), vision_bytes)
        self.tree: PrefixTree | None = None
        self.version = 0
        self.passes = 0
        self._cache_bytes, self._max_batch, self._prefill_tokens = cache_bytes, max_batch, prefill_tokens
        self._suppressed = torch.tensor(renderer.suppressed_token_ids, dtype=torch.long, device=family.device)
        self._stops = frozenset(renderer.stop_token_ids)
        self._waiting: deque[Job] = deque()
        self._running: list[Job] = []
        """In the order in which they were admitted."""
        self._ended: list[tuple[Job, Completion]] = []
        self._open: set[Job] = set()
        """Let in and not ended yet, wherever they are."""
        self._warned: set[str] = set()
        self._tails: WeakValueDictionary[str, Node] = WeakValueDictionary()
        """Where the sequence of a session ended last."""
        self._contexts: WeakKeyDictionary[Node, Context] = WeakKeyDictionary()
        """Of the requests that ended there."""
        self._arrived = threading.Condition()
        self._inbox: list[Job | str] = []
        self._stir = False
        """Somebody wants something of the thread, which decodes on until then."""
        self._pausing = 0
        self._ending = False
        self._thread: threading.Thread | None = None
        self._busy = threading.Lock()
        _ENGINES.add(self)

    # The door, on the event loop's thread.

    async def generate(self, requests: Sequence[GenerateRequest]) -> list[Completion]:
        """One completion per request, in order. When the awaiting task is cancelled, its sequences leave the batch."""
        jobs = [Job(request) for request in requests]
        self._submit(*jobs)
        try:
            return [await job.future for job in jobs]
        finally:
            for job in jobs:
                job.cancelled = True  # of no effect on a job that has ended
            self._stir = True

    def forget(self, session: str) -> None:
        """The trajectory is over: its cache is the first to go when room is needed."""
        self._submit(session)

    @property
    def under_way(self) -> int:
        """Requests that have not ended."""
        return len(self._inbox) + len(self._waiting) + len(self._running)

    def weights_changed(self, *, vision: bool = True) -> None:
        """Drop everything computed with the old weights. Requests under way begin again, so that a completion is of one
        version; `policy_version` says which.

        Args:
            vision: the vision tower changed too; else the features of frames are kept.
        """
        with self._arrived:
            self._pausing += 1
            self._stir = True
        with self._busy:
            self.version += 1
            for job in reversed(self._running):
                self._put_back(job)
            for job in self._waiting:
                job.restart()
                job.features.clear()
            self._forget_all(vision=vision)
        with self._arrived:
            self._pausing -= 1
            self._arrived.notify()

    def end(self) -> None:
        """Let the thread end after the pass it is in, for the end of the program; what is under way is given up."""
        with self._arrived:
            self._ending = self._stir = True
            self._arrived.notify()

    def _submit(self, *items: Job | str) -> None:
        with self._arrived:
            self._inbox += items
            self._stir = True
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="playhead-engine", daemon=True)
                _THREADS.add(self._thread)
                self._thread.start()
            self._arrived.notify()

    # The engine's thread.

    def _work(self) -> None:
        while True:
            with self._arrived:
                if not (self._inbox or self._running or self._waiting or self._ending):
                    self._arrived.wait(LINGER_S)
                    if not self._inbox:
                        self._thread = None
                        return
                self._arrived.wait_for(lambda: not self._pausing or self._ending)
                if self._ending:
                    return
                items, self._inbox, self._stir = self._inbox, [], False
            with self._busy, torch.inference_mode():
                self._open.update(item for item in items if isinstance(item, Job))
                try:
                    self._turn(items)
                except Exception as error:  # ours: nobody may be left waiting for it
                    lost = self._open.difference(job for job, _ in self._ended)
                    self._ended += [(job, job.failed(error, self.version)) for job in lost]
                    self._running.clear()
                    self._waiting.clear()
                    self._forget_all()
                # Last, so that whoever hears of it finds memory within its bounds.
                for job, completion in self._ended:
                    self._open.discard(job)
                    job.resolve(completion)
                self._ended.clear()

    def _turn(self, items: Sequence[Job | str]) -> None:
        """Let requests in, run one pass, let those that ended out."""
        if self.tree is None:
            self.tree = PrefixTree(self._stepper.cache_shapes(), self._cache_bytes)
        for item in items:
            if isinstance(item, str):
                self._cool(item)
            else:
                self._enter(item)
        self._sweep()
        self._admit()
        takes = self._with_features(self._fitting(self._next_tokens()))
        if takes:
            self._pass(takes)
            self._decode_on()
        if len(self._open) != len(self._running) + len(self._waiting) + len(self._ended):
            raise ModelError("the engine lost sight of a request")
        self.tree.make_room(0)

    def _enter(self, job: Job) -> None:
        request = job.request
        try:
            job.context = self._context(request)
            if not len(job.context):
                raise ModelError("a request needs at least one token of context")
        except Exception as error:  # whatever a renderer says of this request is its own
            self._ended.append((job, job.failed(error, self.version)))
            return
        if request.sampling.max_tokens > 0:
            self._waiting.append(job)
        else:
            self._ended.append((job, job.finished(FinishReason.LENGTH, "", self.version)))

    def _context(self, request: GenerateRequest) -> Context:
        tail = self._tails.get(request.session)
        last = None if tail is None else self._contexts.get(tail)
        parts = (request.token_ids, request.frames, self._renderer, self._family)
        return Context(*parts) if last is None else last.extended(*parts)

    def _sweep(self) -> None:
        """Let go of what nobody awaits, and of what is out of time."""
        now = time.monotonic()
        for job in [*self._running, *self._waiting]:
            if job.cancelled or job.future.cancelled():
                self._leave(job)
                self._open.discard(job)
            elif now > job.deadline:
                self._end(job, FinishReason.TIMEOUT)

    def _admit(self) -> None:
        """Let waiting requests in, in order, while there is room; those that wait for another's prefix keep their place."""
        for job in list(self._waiting):
            if len(self._running) >= self._max_batch:
                return
            if self._blocked(job):
                continue
            if not self._claim(job):
                return

    def _blocked(self, job: Job) -> bool:
        """Another sequence is about to compute a longer prefix of this context than any cache holds."""
        if job.blocker is not None:
            other, shared = job.blocker
            if other.node is not None and other.done < shared:
                return True
            job.blocker = None
        assert self.tree is not None
        keys = job.keys(0, job.length - 1)
        held = -1
        for other in self._running:
            if other.length - other.done <= 1:
                continue
            shared = common_prefix(keys, other.prompt.keys_T)
            if held < 0:
                node, taken = self.tree.match(keys)
                held = node.start + taken
            if shared > held and other.done < shared:
                job.blocker = (other, shared)
                return True
        return False

    def _claim(self, job: Job) -> bool:
        """Give the job its node, with room for what is to compute; False when it has to wait for room."""
        assert self.tree is not None
        # The last token is computed in any case: its logits are wanted.
        node = self.tree.claim(job.keys(0, job.length - 1), job)
        missing = job.length - node.end
        spare = max(0, self.tree.most_tokens(node) - node.length - missing)
        tokens = missing + min(job.request.sampling.max_tokens, GROW_TOKENS, spare)
        if not self.tree.make_room(self.tree.missing_bytes(node, tokens)) and self._running:
            self.tree.release(node)
            return False
        job.node = node
        if job.reused is None:
            job.reused = node.end
        self._waiting.remove(job)
        self._running.append(job)
        self._reserve(job, tokens)
        return True

    def _reserve(self, job: Job, tokens: int) -> bool:
        """Room in the job's node, for which the budget was asked; a job that cannot have it ends."""
        assert self.tree is not None and job.node is not None
        try:
            self.tree.reserve(job.node, tokens)
        except Exception as error:
            if self._relieved(error):
                return self._reserve(job, tokens)
            self._fail(job, error)
            return False
        if self.tree.nbytes > self.tree.max_bytes:  # it is the only one, then
            need, most = job.length * self.tree.token_bytes / 1e6, self.tree.max_bytes / 1e6
            text = f"a context of {job.length} tokens takes {need:.1f} MB of attention caches, and {most:.1f} MB are allowed"
            self._warn_once("context", f"{text}: it is computed anew every turn; cache_gb allows more")
        return True

    def _relieved(self, error: Exception) -> bool:
        """The device is out of memory, and caches that nobody uses went: worth another try."""
        assert self.tree is not None
        held = self.tree.nbytes
        if isinstance(error, torch.OutOfMemoryError):
            self.tree.make_room(self.tree.max_bytes)
        return self.tree.nbytes < held

    def _next_tokens(self) -> list[Take]:
        takes, left = [], self._prefill_tokens
        for job in self._running:
            missing = job.length - job.done
            tokens = 1 if missing == 1 else min(missing, left)
            left -= tokens if missing > 1 else 0
            if tokens:
                takes.append(Take(job, tokens))
        return takes

    def _fitting(self, takes: Sequence[Take]) -> list[Take]:
        """Those takes for which there is memory: older sequences first, at the cost of younger ones."""
        assert self.tree is not None
        fitting = []
        for take in takes:
            job = take.job
            if job.node is None:
                continue
            need = self.tree.missing_bytes(job.node, take.tokens)
            while need and not self.tree.make_room(need) and self._running[-1] is not job:
                self._put_back(self._running[-1])
            if need and not self.tree.make_room(need) and self._running[0] is not job:
                self._put_back(job)
                continue
            if self._reserve(job, take.tokens):
                fitting.append(take)
        return fitting

    def _with_features(self, takes: Sequence[Take]) -> list[Take]:
        """Those takes whose frames have features; a request whose frames cannot be encoded ends here."""
        failures = give_features(self.vision, takes)
        for job, error in failures.items():
            self._fail(job, error)
        return [take for take in takes if take.job not in failures]

    def _pass(self, takes: Sequence[Take]) -> None:
        try:
            self.passes += 1
            logits_1CV = self._stepper.run(takes)
        except Exception as error:
            if self._relieved(error):
                self._pass(takes)
            elif len(takes) == 1:
                self._fail(takes[0].job, error)
            else:
                for take in takes:
                    self._pass([take])
            return
        complete = [t.job for t in takes if t.completes]
        assert self.tree is not None
        for take in takes:
            job = take.job
            assert job.node is not None
            self.tree.append(job.node, job.keys(job.done, job.done + take.tokens))
        if logits_1CV is not None:
            self._sample(complete, logits_1CV)

    def _decode_on(self) -> None:
        """Decode until somebody comes, goes or runs out of time or room: until then no pass differs from the last."""
        assert self.tree is not None
        if self._waiting:  # for what the pass before this one computed, perhaps
            self._admit()
        jobs = list(self._running)
        if self._stir or self._ended or not jobs or any(not j.sampled or j.length - j.done > 1 for j in jobs):
            return
        for job in jobs:
            job.features.clear()
        until = min(job.deadline for job in (*jobs, *self._waiting))
        try:
            steady, rows = Steady(self._family, jobs, self.tree), self._rows(jobs)
            with steady.going():
                for logits_1BV in steady.passes():
                    self.passes += 1
                    drawn = rows.draw(logits_1BV)
                    self._take(jobs, drawn)
                    steady.tokens_1B = drawn.tokens_1B
                    if self._stir or self._ended or time.monotonic() > until:
                        return
        except Exception as error:  # the next pass is an ordinary one, which finds out whose fault it is
            for job in jobs:
                job.rewind()
            self._relieved(error)
            self._warn_once("steady", f"decoding step after step failed, so single passes are made: {error!r}")

    def _rows(self, jobs: Sequence[Job]) -> Rows:
        return Rows([job.request.sampling for job in jobs], [job.numbers for job in jobs], self._suppressed)

    def _sample(self, jobs: Sequence[Job], logits_1CV: torch.Tensor) -> None:
        """The next token of each; a job for which none can be drawn ends."""
        try:
            drawn = self._rows(jobs).draw(logits_1CV)
        except Exception as error:
            if len(jobs) == 1:
                self._fail(jobs[0], error)
                return
            for row, job in enumerate(jobs):
                job.rewind()
                self._sample([job], logits_1CV[:, row : row + 1])
            return
        self._take(jobs, drawn)

    def _take(self, jobs: Sequence[Job], drawn: Drawn) -> None:
        for job, token, logprob in zip(jobs, drawn.tokens, drawn.logprobs, strict=True):
            sampled = job.sampled
            sampled.append(token)
            job.logprobs.append(logprob)
            if token in self._stops or len(sampled) >= job.most or not isfinite(logprob):
                self._finish(job)

    # Leaving.

    def _finish(self, job: Job) -> None:
        """After the last token of a completion."""
        if not isfinite(job.logprobs[-1]):
            self._fail(job, ModelError("the model gave no finite logit"))
        else:
            self._end(job, FinishReason.STOP if job.sampled[-1] in self._stops else FinishReason.LENGTH)

    def _end(self, job: Job, reason: FinishReason) -> None:
        try:
            completion = job.finished(reason, self._renderer.completion_text(job.sampled), self.version)
        except Exception as error:  # what cannot be told is this request's failure alone
            completion = job.failed(error, self.version)
        self._leave(job)
        self._ended.append((job, completion))

    def _fail(self, job: Job, error: BaseException) -> None:
        self._leave(job)
        self._ended.append((job, job.failed(error, self.version)))

    def _leave(self, job: Job) -> None:
        job.features.clear()
        if job in self._waiting:
            self._waiting.remove(job)
            return
        self._running.remove(job)
        node, job.node = job.node, None
        if node is not None and self.tree is not None:
            self.tree.release(node)
            if node.length:
                self._tails[job.request.session] = node
                self._contexts[node] = job.prompt

    def _put_back(self, job: Job) -> None:
        """Stop computing a sequence for now. What was sampled stays sampled; the cache becomes one that can be dropped."""
        assert self.tree is not None and job.node is not None
        self._running.remove(job)
        self.tree.release(job.node, cold=True)
        job.node = None
        self._waiting.appendleft(job)

    def _cool(self, session: str) -> None:
        node = self._tails.pop(session, None)
        if node is not None:
            node.used = 0

    def _warn_once(self, kind: str, text: str) -> None:
        if kind not in self._warned:
            self._warned.add(kind)
            _LOG.warning(text)

    def _forget_all(self, *, vision: bool = True) -> None:
        if self.tree is not None:
            self.tree.clear()
        self._tails.clear()
        if vision:
            self.vision.clear()


@atexit.register
def _end_all() -> None:
    """A thread that lets go of a model while the interpreter shuts down aborts the process: none is left then."""
    for engine in list(_ENGINES):
        engine.end()
    for thread in list(_THREADS):
        thread.join(END_S)
