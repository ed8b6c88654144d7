"""The prefix tree against a plain list of contexts; packed attention against masks; sampling against probabilities."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from random import Random
from types import SimpleNamespace

import grpo_toy as toy
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from playhead.core.policy import Sampling

torch = pytest.importorskip("torch")
from playhead.agent.engine.attention import (  # noqa: E402
    Plan,
    Segment,
    _plain,
    attend,
    attending,
    joined,
    packed_attention,
)
from playhead.agent.engine.cache import GROW_TOKENS, LayerShape, PrefixTree, common_prefix  # noqa: E402
from playhead.agent.engine.sample import Rows  # noqa: E402
from playhead.agent.engine.tails import Tails  # noqa: E402

SHAPE = LayerShape(heads=1, width=2, dtype=torch.float32, device=torch.device("cpu"))


def compute(tree: PrefixTree, node, keys: np.ndarray) -> None:
    """As a pass would: the cached value of a token is its key."""
    new = keys[node.end :]
    tree.reserve(node, len(new))
    if len(new):
        values = torch.tensor(new, dtype=torch.float32)[None, None, :, None].expand(2, 1, -1, 2)
        node.write(0, node.length, values)
    tree.append(node, new)


def fill(tree: PrefixTree, node, keys: np.ndarray) -> None:
    """Anything as keys and values of a node's own tokens."""
    tree.reserve(node, len(keys))
    for buffer in node.layers:
        buffer.normal_()
    tree.append(node, keys)


def cached(node) -> list[int]:
    pieces = [n.layers[0][0, 0, :seen, 0].tolist() for n, seen in node.path() if seen]
    return [int(x) for piece in reversed(pieces) for x in piece]


contexts = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), min_size=1, max_size=14)


@given(contexts, st.sampled_from([1, 200, 400, 10**9]), st.data())
@settings(max_examples=60, deadline=None)
def test_a_node_always_holds_its_context_and_memory_its_bound(histories, budget, data):
    tree = PrefixTree([SHAPE], budget)
    running = []
    for history in histories:
        keys = np.array(history, dtype=np.int64)
        longest = max((common_prefix(np.array(h), keys) for h in held(tree)), default=0)
        node = tree.claim(keys, object())
        assert node.end == longest
        compute(tree, node, keys)
        assert cached(node) == history
        running.append((node, history))
        while running and data.draw(st.booleans()):
            tree.release(running.pop(data.draw(st.integers(0, len(running) - 1)))[0])
        fits = tree.make_room(0)
        assert fits or running
        assert tree.nbytes == sum(n.capacity for n in tree._nodes()) * tree.token_bytes
        for node, history in running:
            assert cached(node) == history


def held(tree: PrefixTree) -> list[list[int]]:
    return [cached(node) for node in tree._nodes()]


def test_the_longest_unused_goes_first():
    tree = PrefixTree([SHAPE], 10**9)
    for first in (1, 2, 3, 1):
        keys = np.array([first, 5, 6])
        node = tree.claim(keys, "me")
        compute(tree, node, keys)
        tree.release(node)
    tree.max_bytes = tree.nbytes - 1
    tree.make_room(0)
    assert sorted(node.keys[0] for node in tree._nodes()) == [1, 3]


@pytest.mark.parametrize("share", [1.0, 1.05, 1.2, 2.0])
def test_a_sequence_that_fits_is_not_dropped_for_its_slack(share):
    tree = PrefixTree([SHAPE], int(400 * share) * SHAPE.token_bytes)
    keys = np.arange(400)
    for end in (200, 230, 390, 400):  # turns of one conversation
        node = tree.claim(keys[:end], "me")
        compute(tree, node, keys[:end])
        tree.release(node)
        assert tree.make_room(0) and tree.match(keys)[0] is node and node.length == end
    assert tree.nbytes <= tree.max_bytes and tree.peak_bytes == tree.nbytes


def test_the_peak_counts_what_is_gone_again():
    tree = PrefixTree([SHAPE], 10 * SHAPE.token_bytes)
    node = tree.claim(np.arange(20), "me")
    compute(tree, node, np.arange(20))
    tree.release(node)
    assert tree.make_room(0) and tree.nbytes == 0 and tree.peak_bytes == 25 * SHAPE.token_bytes


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 4)), min_size=1, max_size=5), st.integers(1, 2), st.booleans())
@settings(max_examples=25, deadline=None)
def test_packed_attention_equals_each_sequence_alone(shape, repeat, shared):
    torch.manual_seed(0)
    tree = PrefixTree([LayerShape(2, 8, torch.float32, torch.device("cpu"))], 10**9)
    segments, truth, row, total = [], [], 0, sum(n for _, n in shape)
    q, k, v = torch.randn(2 * repeat, total, 8), torch.randn(2, total, 8), torch.randn(2, total, 8)
    for i, (past, new) in enumerate(shape):
        keys = np.arange(past) + (0 if shared else 100 * i)
        node = tree.claim(keys, i)
        fresh = len(keys) - node.end
        tree.reserve(node, fresh + new)
        node.write(0, node.length, torch.randn(2, 2, fresh, 8))
        tree.append(node, keys[node.end :])
        segments.append(Segment(node, row, new))
        row += new
    for s in segments:
        s.node.write(0, s.node.length, torch.stack([k, v])[:, :, s.row : s.row + s.tokens])
        past = [n.layers[0][:, :, :seen] for n, seen in s.node.path()][::-1]
        new = torch.stack([k, v])[:, :, s.row : s.row + s.tokens]
        keys, values = torch.cat([*past, new], 2).repeat_interleave(repeat, 1)
        mask = torch.ones(s.tokens, keys.shape[1], dtype=torch.bool).tril(keys.shape[1] - s.tokens)
        rows = q[:, s.row : s.row + s.tokens]
        truth.append(torch.nn.functional.scaled_dot_product_attention(rows, keys, values, attn_mask=mask, scale=0.3))
    plan, parts = Plan(segments, torch.device("cpu")), []
    for s in plan.chunks:
        rows = slice(s.row, s.row + s.tokens)
        parts.append(attend(q[:, rows], k[:, rows], v[:, rows], 0.3, causal=True))
    for p in plan.pieces:
        parts.append(attend(q[:, p.where], *p.node.layers[0][:, :, p.begin : p.end], 0.3, causal=False))
    out = joined(plan, [o for o, _ in parts], [lse for _, lse in parts])
    assert (out - torch.cat(truth, 1)).abs().max() < 1e-5


@pytest.mark.parametrize("lengths", [(5, 1, 9), (4, 4, 4), (3, 600, 2)])
def test_decoding_side_by_side_is_decoding_node_by_node(lengths):
    """Four steps of three branches of one prompt, twice; ragged, even, and one too long to be laid beside the others."""
    shape = LayerShape(2, 8, torch.float32, torch.device("cpu"))
    tree = PrefixTree([shape, shape], 1 << 30)
    trunk = tree.claim(np.arange(400), "trunk")
    fill(tree, trunk, np.arange(400))
    nodes = []
    for i, length in enumerate(lengths):
        keys = np.concatenate([np.arange(400 - i), 1000 * (i + 1) + np.arange(length)])
        nodes.append(tree.claim(keys, i))
        fill(tree, nodes[-1], keys[nodes[-1].end :])
        tree.reserve(nodes[-1], 4)
    began, news = [n.length for n in nodes], torch.randn(4, 3, 2, 1, 6, 3, 8)
    results, held = [], []
    for wanted in (False, True):
        for node, length in zip(nodes, began, strict=True):
            node.length = length
        plan = Plan([Segment(n, i, 1) for i, n in enumerate(nodes)], torch.device("cpu"))
        tails = Tails.of(plan, tree, 4) if wanted else None
        assert not wanted or len(plan.pieces) == 1 + (600 in lengths)
        for q, k, v in news:
            with attending(plan):
                for layer in range(2):
                    module = SimpleNamespace(layer_idx=layer)
                    results.append(packed_attention("sdpa", module, q[layer], k[layer, :, :2], v[layer, :, :2], None)[0])
            for node in nodes:
                node.length += 1
            plan.advance()
        if tails is not None:
            tails.put_back(began)
        held.append([node.layers[i][:, :, : node.length].clone() for node in nodes for i in range(2)])
    assert max((a - b).abs().max() for a, b in zip(results[:8], results[8:], strict=True)) < 1e-5
    assert all(torch.equal(a, b) for a, b in zip(*held, strict=True))


def test_no_copies_are_made_for_decoding_without_room_for_them():
    shape = LayerShape(2, 8, torch.float32, torch.device("cpu"))
    tree = PrefixTree([shape], 2 * (3 + GROW_TOKENS + 3 + 10) * shape.token_bytes)
    nodes = [tree.claim(np.array([i, i, i]), i) for i in range(2)]
    for i, node in enumerate(nodes):
        fill(tree, node, np.array([i, i, i]))
        tree.reserve(node, 4)
    plan = Plan([Segment(n, i, 1) for i, n in enumerate(nodes)], torch.device("cpu"))
    assert Tails.of(plan, tree, 20) is None and plan.tails is None and len(plan.pieces) == 2
    assert Tails.of(plan, tree, 4) is not None


@pytest.mark.parametrize("causal", [False, True])
def test_the_plain_kernel_is_the_fused_one(causal):
    q, k, v = torch.randn(3, 1, 2, 40, 16)
    fused = attend(q[0], k[0], v[0], 0.25, causal=causal)
    plain = _plain(q, k, v, 0.25, causal)
    assert (fused[0] - plain[0][0]).abs().max() < 1e-5 and (fused[1] - plain[1][0]).abs().max() < 1e-5


def drawn(logits, samplings, numbers, suppressed):
    step = Rows(samplings, numbers, torch.tensor(suppressed, dtype=torch.long)).draw(logits.unsqueeze(0))
    assert step.tokens_1B.tolist() == [step.tokens]
    return torch.tensor(step.tokens), torch.tensor(step.logprobs)


def test_the_likeliest_token_is_one_that_may_be_drawn():
    logits = torch.tensor([[0.0, 1.0, 2.0], [3.0, 1.0, 2.0]])
    tokens, logprobs = drawn(logits, [Sampling()] * 2, [Random(0)] * 2, [2])
    assert tokens.tolist() == [1, 0]
    assert (logprobs - torch.log_softmax(logits, 1)[[0, 1], [1, 0]]).abs().max() < 1e-6


def test_sampling_has_the_right_frequencies_and_log_probs():
    logits = torch.tensor([[0.0, 1.0, 2.0, -1.0]]).repeat(4000, 1)
    sampling = Sampling(temperature=2.0)
    tokens, logprobs = drawn(logits, [sampling] * 4000, [Random(i) for i in range(4000)], [1])
    probs = torch.softmax(torch.tensor([0.0, -1e9, 2.0, -1.0]) / 2.0, 0)
    counts = torch.bincount(tokens, minlength=4) / 4000
    assert (counts - probs).abs().max() < 0.03
    assert (logprobs - torch.log_softmax(logits[0] / 2.0, 0)[tokens]).abs().max() < 1e-5


def test_rows_of_all_kinds_stand_side_by_side():
    logits = torch.tensor([[0.0, 1.0, 2.0], [float("nan")] * 3, [5.0, 4.9, -9.0], [0.0, 1.0, 2.0]])
    kinds = [Sampling(), Sampling(temperature=1.0), Sampling(temperature=1.0, top_p=0.1), Sampling(temperature=3.0, seed=4)]
    tokens, logprobs = drawn(logits, kinds, [Random(s.seed) for s in kinds], [2])
    assert tokens[0] == 1 and tokens[2] == 0 and not logprobs[1].isfinite() and logprobs[[0, 2, 3]].isfinite().all()
    alone, _ = drawn(logits[3:], kinds[3:], [Random(4)], [2])
    assert alone[0] == tokens[3]


def test_no_thread_is_left_when_the_interpreter_shuts_down(checkpoint):
    """One that let go of the model then would abort the process, after the answer."""
    script = (
        "import asyncio, atexit, sys, threading\n"
        "names = lambda: [t.name for t in threading.enumerate() if t.name.startswith('playhead')]\n"
        "atexit.register(lambda: print(names()))  # the first to be registered is called last\n"
        "from pathlib import Path\n"
        "import grpo_toy as toy\n"
        "from playhead.agent.prompts import first_messages\n"
        "from playhead.core.policy import GenerateRequest, Sampling\n"
        "policy = toy.make_policy(Path(sys.argv[1]), toy.NoiseStore())\n"
        "new = policy.renderer.start(first_messages(100.0, (toy.frame(1.0),), 'What?'), ())\n"
        "how = {'token_ids': new.token_ids, 'frames': new.frames, 'messages': (), 'sampling': Sampling(max_tokens=2, seed=0)}\n"
        "(said,) = asyncio.run(policy.generate([GenerateRequest(session='s', **how)]))\n"
        "print(len(said.token_ids), names())\n"
        "del policy\n"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(toy.__file__).parent)}
    command = [sys.executable, "-c", script, str(checkpoint)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout) == (0, "2 ['playhead-engine']\n[]\n"), done.stderr[-2000:]
