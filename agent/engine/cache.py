"""Attention caches as one tree: what sequences have in common is held once, and a fork copies nothing.

A `Node` holds the keys and values of a run of tokens. A child begins at any offset inside its parent, so a sequence is a path
of nodes, of each of which it sees a prefix; nothing is split or copied when a branch leaves in the middle. Who has the
longest prefix of a new context is found by comparing token keys; the key of a placeholder holds its frame's content hash,
so the same tokens over other pixels are another context.

Only one sequence, its `owner`, appends to a node; whoever else continues from it gets a child. `busy` counts the running
sequences whose path leads through a node. Nodes that are not busy and have no children can be dropped, longest unused first:
they hold nothing but what can be computed again. `nbytes` counts the buffers as they are allocated, not as they are filled.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

GROW_TOKENS = 64


@dataclass(frozen=True, slots=True)
class LayerShape:
    """What one layer caches of a token: keys and values, each (heads, width)."""

    heads: int
    width: int
    dtype: torch.dtype
    device: torch.device

    def buffer(self, capacity: int) -> torch.Tensor:
        return torch.empty(2, self.heads, capacity, self.width, dtype=self.dtype, device=self.device)

    @property
    def token_bytes(self) -> int:
        return 2 * self.heads * self.width * self.dtype.itemsize


class Node:
    """A run of tokens of one or more sequences. `length` tokens are computed; `keys[:length]` says which."""

    __slots__ = (
        "__weakref__", "busy", "capacity", "children", "keys", "layers", "length", "offset", "owner", "parent", "start", "used",
    )  # fmt: skip

    def __init__(self, parent: Node | None, offset: int) -> None:
        self.parent = parent
        self.offset = offset
        """How many of the parent's tokens come before ours."""
        self.start: int = 0 if parent is None else parent.start + offset
        """Where our first token stands in the sequence."""
        self.length = 0
        self.capacity = 0
        self.keys = np.empty(0, dtype=np.int64)
        self.layers: list[torch.Tensor] = []
        self.children: list[Node] = []
        self.owner: object | None = None
        self.busy = 0
        self.used = 0

    @property
    def end(self) -> int:
        return self.start + self.length

    def path(self) -> Iterator[tuple[Node, int]]:
        """(node, how many of its tokens are on the path), from this node up to the root, the root left out."""
        node, seen = self, self.length
        while node.parent is not None:
            yield node, seen
            seen, node = node.offset, node.parent

    def write(self, layer: int, at: int, both_2HnD: torch.Tensor) -> None:
        """Keys and values of n tokens, from `at` on."""
        self.layers[layer][:, :, at : at + both_2HnD.shape[2]] = both_2HnD


class PrefixTree:
    """All caches of one model, within `max_bytes` as far as running sequences allow.

    Args:
        shapes: one per attention layer.

    Attributes:
        peak_bytes: the most that `nbytes` ever was.
    """

    def __init__(self, shapes: Sequence[LayerShape], max_bytes: int) -> None:
        self.shapes = tuple(shapes)
        self.token_bytes = sum(s.token_bytes for s in shapes)
        self.max_bytes = max_bytes
        self.nbytes = self.peak_bytes = 0
        self.root = Node(None, 0)
        self._clock = 0

    def match(self, keys: np.ndarray) -> tuple[Node, int]:
        """The node where the longest held prefix of `keys` ends, and how many of that node's tokens it takes."""
        best, best_end, stack = (self.root, 0), 0, [(self.root, 0)]
        while stack:
            node, taken = stack.pop()
            for child in node.children:
                if child.offset > taken or not child.length:
                    continue
                shared = common_prefix(child.keys[: child.length], keys[child.start :])
                if shared:
                    stack.append((child, shared))
                    if child.start + shared > best_end:
                        best, best_end = (child, shared), child.start + shared
        return best

    def claim(self, keys: np.ndarray, owner: object) -> Node:
        """The node to which a sequence that begins with `keys` appends: `node.end` tokens of it are already computed."""
        node, taken = self.match(keys)
        if node is self.root or taken < node.length or node.owner is not None:
            parent, node = node, Node(node, taken)
            parent.children.append(node)
        node.owner = owner
        for step, _ in node.path():
            step.busy += 1
        return node

    def release(self, node: Node, *, cold: bool = False) -> None:
        """The sequence that owned `node` ended or was interrupted. `cold`: nobody will ask for it, so it goes first."""
        node.owner = None
        self._clock += 1
        for step, _ in node.path():
            step.busy -= 1
            step.used = 0 if cold and step is node else self._clock
        if not node.length:
            self._remove(node)

    def append(self, node: Node, keys: np.ndarray) -> None:
        """`keys` were computed and written behind `node.length`, for which `reserve` made room."""
        end = node.length + len(keys)
        node.keys[node.length : end] = keys
        node.length = end

    def missing_bytes(self, node: Node, tokens: int) -> int:
        """What `reserve(node, tokens)` would allocate on top of what is held."""
        return max(0, self._capacity(node, tokens) - node.capacity) * self.token_bytes

    def reserve(self, node: Node, tokens: int) -> None:
        """Room for `tokens` more tokens in `node`."""
        capacity = self._capacity(node, tokens)
        if capacity == node.capacity:
            return
        grown = [shape.buffer(capacity) for shape in self.shapes]
        for old, new in zip(node.layers, grown, strict=False):
            new[:, :, : node.length] = old[:, :, : node.length]
        keys = np.empty(capacity, dtype=np.int64)
        keys[: node.length] = node.keys[: node.length]
        self.count((capacity - node.capacity) * self.token_bytes)
        node.layers, node.keys, node.capacity = grown, keys, capacity

    def count(self, nbytes: int) -> None:
        """So many bytes more are allocated, or fewer."""
        self.nbytes += nbytes
        self.peak_bytes = max(self.peak_bytes, self.nbytes)

    def most_tokens(self, node: Node) -> int:
        """What `node` may hold for its path to fit into `max_bytes` when all else is dropped."""
        above = sum(step.capacity for step, _ in node.path() if step is not node)
        return self.max_bytes // self.token_bytes - above

    def make_room(self, needed: int) -> bool:
        """Drop what is unused until `needed` more bytes fit; False when they do not."""
        if self.nbytes + needed <= self.max_bytes:
            return True
        idle = [n for n in self._nodes() if not n.busy and not n.children]
        while idle and self.nbytes + needed > self.max_bytes:
            node = min(idle, key=lambda n: n.used)
            idle.remove(node)
            parent = node.parent
            self._remove(node)
            if parent is not None and parent is not self.root and not parent.busy and not parent.children:
                idle.append(parent)
        return self.nbytes + needed <= self.max_bytes

    def clear(self) -> None:
        """Forget everything. No sequence may be running."""
        for node in self._nodes():
            node.layers = []  # the memory goes now, not when the garbage of the tree is collected
        self.root, self.nbytes = Node(None, 0), 0

    def __len__(self) -> int:
        return sum(1 for _ in self._nodes())

    def _capacity(self, node: Node, tokens: int) -> int:
        needed = node.length + tokens
        if needed <= node.capacity:
            return node.capacity
        # A quarter more, so that appending token by token copies little in all, and a conversation's next turn nothing.
        wanted = max(needed + needed // 4, node.capacity + GROW_TOKENS if node.capacity else 0)
        most = self.most_tokens(node)
        return min(wanted, most) if needed <= most else wanted  # a sequence that fits is not dropped for its slack

    def _remove(self, node: Node) -> None:
        assert node.parent is not None and not node.children and node.owner is None
        node.parent.children.remove(node)
        self.nbytes -= node.capacity * self.token_bytes
        node.layers, node.capacity, node.length = [], 0, 0

    def _nodes(self) -> Iterator[Node]:
        stack = list(self.root.children)
        while stack:
            node = stack.pop()
            stack += node.children
            yield node


def common_prefix(a: np.ndarray, b: np.ndarray) -> int:
    """How many leading elements are equal."""
    n = min(len(a), len(b))
    if not n or a[0] != b[0]:
        return 0
    differ = a[:n] != b[:n]
    first = int(differ.argmax())
    return first if differ[first] else n
