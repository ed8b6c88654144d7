"""What the engine saves: ratios from one run, random weights, real classes.

    python -m playhead.benchmarks.engine                              # about 10M parameters, a 4,000-token prefix, CPU
    python -m playhead.benchmarks.engine --shape 2b --device cuda     # Qwen3-VL-2B's shapes, and the share of the limits
    python -m playhead.benchmarks.engine --only a b --prefix 1000 --sampled 16

(a) an episode of five turns, ours against generating from scratch each turn (`model.generate` over processed pixels, as
    published agents do); greedy, and the tokens are compared
(b) eight one-turn samples of one prompt against one
(c) sixteen agents at once against one after another, over one video and over sixteen
(d) the second question about a video against the first
(e) what a turn costs as the conversation grows
(f) our own time: the engine around the model, and LangGraph with the agent's steps around policy and tools; beside it drawing
    tokens, and what transformers' own `generate` spends around the model
(g) tokens a second, and their share of what this machine can multiply and read (measured here, not looked up)

Time is CPU seconds of this process on a CPU, and seconds on a GPU. Sequences never stop early: `--sampled` tokens each.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import functools
import gc
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..agent.engine import sample, scheduler
from ..agent.engine.scheduler import Engine
from ..agent.families import family_of
from ..agent.prompts import first_messages
from ..agent.renderers.qwen3vl import Qwen3VLRenderer
from ..core.nouns import Completion, Frame, Message, Task
from ..core.policy import GenerateRequest, Sampling
from ..tools.contract import ToolContext, ToolResult

SIDE = 224
"""Frames are squares of this many pixels: 49 placeholders each."""
AGENTS_TOKENS = 40
"""What the embedded agent samples a turn: 10,401 tokens in 100 episodes of two or three turns (`benchmarks.seeds`)."""

SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {
        "text": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2,
                 "num_key_value_heads": 1, "head_dim": 32, "vocab_size": 1536},
        "rope": [8, 4, 4],
        "vision": {"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "deepstack_visual_indexes": [0]},
    },
    "10m": {
        "text": {"hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 5, "num_attention_heads": 6,
                 "num_key_value_heads": 2, "head_dim": 64, "vocab_size": 1536},
        "rope": [16, 8, 8],
        "vision": {"depth": 4, "hidden_size": 192, "intermediate_size": 512, "num_heads": 4, "deepstack_visual_indexes": [1]},
    },
    "2b": {
        "text": {"hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28, "num_attention_heads": 16,
                 "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936},
        "rope": [24, 20, 20],
        "vision": {"depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "num_heads": 16,
                   "deepstack_visual_indexes": [5, 11, 17]},
    },
}  # fmt: skip


class Pixels:
    """Noise for every frame, from its hash."""

    def pixels(self, frame: Frame) -> np.ndarray:
        rng = np.random.default_rng(int(frame.sha256, 16))
        return rng.integers(0, 256, (frame.height, frame.width, 3), dtype=np.uint8)


def frame(video: int, t: float) -> Frame:
    return Frame(video_id=str(video), timestamp_s=t, sha256=f"{video:08x}{int(t * 10):08x}", width=SIDE, height=SIDE)


class Bench:
    """The model, and the requests that all parts make."""

    def __init__(self, shape: str, device: str, prefix: int, sampled: int) -> None:
        self.device, self.sampled = torch.device(device), sampled
        self.renderer = build_renderer()
        self.model = build_model(SHAPES[shape], self.renderer, self.device)
        self.family, self.store = family_of(self.model, self.renderer), Pixels()
        one = len(self.opening(0, 2).token_ids) - len(self.opening(0, 1).token_ids)
        self.frames = max(1, round((prefix - len(self.opening(0, 0).token_ids)) / one))

    def engine(self) -> Engine:
        return Engine(self.family, self.renderer, self.store, cache_bytes=8 << 30, vision_bytes=2 << 30)

    def opening(self, video: int, frames: int | None = None, question: str = "What is there?", **how: Any) -> GenerateRequest:
        shown = tuple(frame(video, t) for t in range(self.frames if frames is None else frames))
        messages = first_messages(1200.0, shown, question)
        start = self.renderer.start(messages, ())
        sampling = Sampling(max_tokens=self.sampled, temperature=how.pop("temperature", 0.0), seed=how.pop("seed", 0))
        return GenerateRequest(
            session="s", token_ids=start.token_ids, frames=start.frames, messages=messages, sampling=sampling, **how
        )

    def follow(self, request: GenerateRequest, said: Completion, turn: int) -> GenerateRequest:
        """Two new frames and a line of text."""
        video = int(request.frames[0].video_id)
        shown = ("2 frames. ", frame(video, 2000.0 + turn), frame(video, 3000.0 + turn))
        new = self.renderer.extend(said.token_ids, [Message(role="tool", content=shown)])
        ids = request.token_ids + said.token_ids + new.token_ids
        return dataclasses.replace(request, token_ids=ids, frames=request.frames + new.frames)

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()

    def timed(self, work: Callable[[], Any]) -> tuple[float, Any]:
        began = self.now()
        result = work()
        return self.now() - began, result

    def ask(self, engine: Engine, requests: Sequence[GenerateRequest]) -> list[Completion]:
        said = asyncio.run(engine.generate(requests))
        assert all(len(s.token_ids) == self.sampled for s in said), said[0].text
        return said

    def from_scratch(self, request: GenerateRequest) -> tuple[int, ...]:
        """One turn the usual way: process every image, run everything, generate."""
        pixels, grids = self.renderer.pixel_inputs(request.frames, self.store)
        ids = torch.tensor([request.token_ids], device=self.device)
        self.model.model.rope_deltas = None
        out = self.model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=pixels.to(self.device),
            image_grid_thw=grids.to(self.device), mm_token_type_ids=(ids == self.renderer.image_token_id).int(),
            max_new_tokens=self.sampled, do_sample=False, suppress_tokens=list(self.renderer.suppressed_token_ids),
        )  # fmt: skip
        return tuple(out[0, ids.shape[1] :].tolist())


def build_renderer() -> Qwen3VLRenderer:
    from transformers import Qwen2VLImageProcessor, Qwen3VLProcessor, Qwen3VLVideoProcessor

    from ..train.embedded.model import CHAT_TEMPLATE, build_tokenizer

    size = {"shortest_edge": SIDE * SIDE, "longest_edge": SIDE * SIDE}
    shape: dict[str, Any] = {"size": size, "patch_size": 16, "temporal_patch_size": 2, "merge_size": 2}
    processor = Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(**shape), tokenizer=build_tokenizer([]),
        video_processor=Qwen3VLVideoProcessor(**shape), chat_template=CHAT_TEMPLATE,
    )  # fmt: skip
    renderer = Qwen3VLRenderer(processor)
    vars(renderer)["stop_token_ids"] = ()  # every completion runs to its full length
    return renderer


def build_model(shape: dict[str, Any], renderer: Qwen3VLRenderer, device: torch.device) -> Any:
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    p, text = renderer.processor, shape["text"]
    rope = {"rope_type": "default", "rope_theta": 5e6, "mrope_section": shape["rope"], "mrope_interleaved": True}
    config = Qwen3VLConfig(
        text_config={**text, "max_position_embeddings": 65536, "tie_word_embeddings": True, "rope_parameters": rope},
        vision_config={**shape["vision"], "out_hidden_size": text["hidden_size"], "patch_size": 16, "temporal_patch_size": 2,
                       "spatial_merge_size": 2, "num_position_embeddings": 2304},
        image_token_id=p.image_token_id, video_token_id=p.video_token_id,
        vision_start_token_id=p.vision_start_token_id, vision_end_token_id=p.vision_end_token_id, tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16 if device.type == "cuda" else torch.float32)
    with device:
        model: Any = Qwen3VLForConditionalGeneration(config).eval()
    torch.set_default_dtype(torch.float32)
    model.generation_config.eos_token_id = None
    return model


def part_a(bench: Bench) -> dict[str, Any]:
    engine, request = bench.engine(), bench.opening(0)
    ours, naive, same = [], [], 0
    for turn in range(5):
        seconds, said = bench.timed(lambda r=request: bench.ask(engine, [r])[0])
        ours.append(seconds)
        seconds, tokens = bench.timed(lambda r=request: bench.from_scratch(r))
        naive.append(seconds)
        same += tokens == said.token_ids
        request = bench.follow(request, said, turn)
    return {
        "ours": ours, "from scratch": naive, "turns with the same tokens": same,
        "ratio": sum(naive) / sum(ours), "ratio from turn 2": sum(naive[1:]) / sum(ours[1:]),
    }  # fmt: skip


def part_b(bench: Bench) -> dict[str, Any]:
    samples = [bench.opening(0, temperature=1.0, seed=i) for i in range(8)]
    one, _ = bench.timed(lambda: bench.ask(bench.engine(), samples[:1]))
    eight, _ = bench.timed(lambda: bench.ask(bench.engine(), samples))
    return {"one": one, "eight": eight, "eight / one": eight / one}


async def episode(bench: Bench, engine: Engine, request: GenerateRequest, turns: int) -> None:
    for turn in range(turns):
        (said,) = await engine.generate([request])
        assert len(said.token_ids) == bench.sampled, said.text
        request = bench.follow(request, said, turn)


def part_c(bench: Bench, agents: int = 16, turns: int = 3, videos: Sequence[int] = (1, 16)) -> dict[str, Any]:
    """One after another shares all that can be shared without concurrency: the engine, its caches, and frames encoded once."""
    result: dict[str, Any] = {"threads": torch.get_num_threads()}
    for number in videos:
        requests = [bench.opening(i % number, question=f"Question {i}?", temperature=1.0, seed=i) for i in range(agents)]

        async def at_once(requests: list[GenerateRequest] = requests) -> None:
            engine = bench.engine()
            await asyncio.gather(*(episode(bench, engine, r, turns) for r in requests))

        async def in_turn(requests: list[GenerateRequest] = requests) -> None:
            engine = bench.engine()
            for r in requests:
                await episode(bench, engine, r, turns)

        clocks = [time.perf_counter()]
        together, _ = bench.timed(lambda run=at_once: asyncio.run(run()))
        clocks.append(time.perf_counter())
        alone, _ = bench.timed(lambda run=in_turn: asyncio.run(run()))
        clocks.append(time.perf_counter())
        wall, wall_alone = clocks[1] - clocks[0], clocks[2] - clocks[1]
        result[f"videos: {number}"] = {
            "at once": together, "one after another": alone, "ratio": alone / together,
            "wall s at once": wall, "wall s one after another": wall_alone, "throughput ratio (wall)": wall_alone / wall,
        }  # fmt: skip
    return result


def part_d(bench: Bench) -> dict[str, Any]:
    engine = bench.engine()
    first, _ = bench.timed(lambda: bench.ask(engine, [bench.opening(0)]))
    encoded = engine.vision.encoded
    second, said = bench.timed(lambda: bench.ask(engine, [bench.opening(0, question="And what else?")]))
    return {
        "first": first, "second": second, "first / second": first / second, "frames encoded by the first": encoded,
        "by the second": engine.vision.encoded - encoded, "tokens prefilled by the second": said[0].prefill_tokens,
    }  # fmt: skip


def part_e(bench: Bench, turns: int = 10) -> dict[str, Any]:
    engine, request, cost, context = bench.engine(), bench.opening(0), [], []
    for turn in range(turns):
        context.append(len(request.token_ids))
        seconds, said = bench.timed(lambda r=request: bench.ask(engine, [r])[0])
        cost.append(seconds)
        request = bench.follow(request, said, turn)
    half = (turns - 1) // 2
    grown = sum(cost[-half:]) / sum(cost[1 : 1 + half])
    return {"context tokens": context, "seconds": cost, "late turns / early turns (first left out)": grown}


def part_f(bench: Bench) -> dict[str, Any]:
    graph = 1000 * graph_seconds_a_turn(bench)
    once, _ = bench.timed(lambda: bench.opening(0))
    result: dict[str, Any] = {"graph, steps and rendering, ms a turn": graph, "rendering the first prompt, ms": 1000 * once}
    for sampled in (AGENTS_TOKENS, bench.sampled):
        parts = engine_a_turn(bench, sampled)
        ours = graph + parts["engine"]
        result[f"{sampled} sampled tokens, ms a turn"] = {
            **parts,
            "all of ours": ours,
            "all of ours and drawing": ours + parts["drawing"],
            "transformers' generate, around the model": generate_a_turn(bench, sampled),
        }
    return result


def engine_a_turn(bench: Bench, sampled: int, turns: int = 5) -> dict[str, float]:
    """Milliseconds a turn: in the model (with its image processor), in drawing tokens, in rendering (which the graph's figure
    has too), in looking at the clock, and in all else, which is the engine's own."""
    spent, calls = {"model": 0.0, "drawing": 0.0, "rendering": 0.0, "watching": 0.0, "nothing": 0.0}, 0

    def counted(work: Callable[..., Any], where: str) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            nonlocal calls
            began = bench.now()
            seconds, result = bench.timed(lambda: work(*args))
            spent[where] += seconds
            calls += 1
            # Looking at the clock costs more here, behind a model, than in a loop of its own.
            spent["watching"] += bench.now() - began - seconds
            return result

        return run

    idle = counted(lambda: None, "nothing")
    loop, _ = bench.timed(lambda: [idle() for _ in range(1000)])
    outside = (loop - spent["watching"] - spent.pop("nothing")) / 1000  # of looking at the clock, what no clock sees

    family, drawn = family_of(bench.model, bench.renderer), sample.Rows.draw
    for name in ("hidden", "logits", "encode"):
        setattr(family, name, counted(getattr(family, name), "model"))
    engine, first = scheduler.Engine(family, bench.renderer, bench.store), bench.opening(0)
    vars(bench)["follow"] = counted(bench.follow, "rendering")
    sample.Rows.draw = counted(drawn, "drawing")
    usual, bench.sampled = bench.sampled, sampled
    first = dataclasses.replace(first, sampling=dataclasses.replace(first.sampling, max_tokens=sampled))

    async def several_turns() -> float:
        await engine.generate([bench.opening(99, 2)])  # the engine's thread and tables are made once, not every turn
        gc.collect()  # of what was loaded, which takes as long as a turn and would fall on any of them
        nonlocal calls
        spent.update(dict.fromkeys(spent, 0.0))
        began, calls = bench.now(), 0
        await episode(bench, engine, first, turns)
        return bench.now() - began

    try:
        total = asyncio.run(several_turns())
    finally:
        sample.Rows.draw, bench.sampled = drawn, usual
        del vars(bench)["follow"]
    spent["watching"] += calls * outside
    return {name: 1000 * seconds / turns for name, seconds in {"engine": total - sum(spent.values()), **spent}.items()}


def generate_a_turn(bench: Bench, sampled: int, turns: int = 3) -> float:
    """Milliseconds a turn that `model.generate` spends around the model's forward passes: what a loop without us costs."""
    inside, (usual, forward), request = 0.0, (bench.sampled, bench.model.forward), bench.opening(0, 2)

    @functools.wraps(forward)  # `generate` reads its signature
    def counted(*args: Any, **how: Any) -> Any:
        nonlocal inside
        seconds, result = bench.timed(lambda: forward(*args, **how))
        inside += seconds
        return result

    bench.sampled = sampled
    try:
        pixels, _ = bench.timed(lambda: bench.renderer.pixel_inputs(request.frames, bench.store))
        bench.from_scratch(request)
        vars(bench.model)["forward"] = counted
        total, _ = bench.timed(lambda: [bench.from_scratch(request) for _ in range(turns)])
    finally:
        vars(bench.model).pop("forward", None)
        bench.sampled = usual
    return 1000 * ((total - inside) / turns - pixels)


def nothing(ctx: ToolContext) -> ToolResult:
    """Do nothing."""
    return ToolResult(content=("done",))


def graph_seconds_a_turn(bench: Bench, turns: int = 20) -> float:
    """CPU seconds a turn of `VideoAgent` around a policy that reads its words off a list, whose time is not counted, and a
    tool that does nothing."""
    from ..agent.policies.scripted import ScriptedPolicy
    from ..agent.video_agent import VideoAgent
    from ..core.budget import Budget
    from ..tools.contract import Tool
    from .decode import make_film

    class Watched(ScriptedPolicy):
        seconds = 0.0

        async def generate(self, requests: Sequence[GenerateRequest]) -> list[Completion]:
            began = time.process_time()
            said = await super().generate(requests)  # without a pause in which others could run
            self.seconds += time.process_time() - began
            return said

    replies = ['<think>on</think>\n<tool_call>\n{"name": "nothing", "arguments": {}}\n</tool_call>'] * (turns - 1)
    with tempfile.TemporaryDirectory() as folder:
        make_film(Path(folder) / "film.mp4", 1 / 60)
        policy = Watched(bench.renderer, [*replies, "<think>so</think>\n<answer>red</answer>"])
        budget = Budget(turns=turns + 1, tool_calls=turns + 1)
        agent = VideoAgent(policy, tools=[Tool(nothing)], skim_frames=1, home=Path(folder), budget=budget)
        task = Task(id="t", question="What?", video=str(Path(folder) / "film.mp4"))
        asyncio.run(agent.arun(task))  # once to warm up: the graph is compiled, the film opened
        policy.requests.clear()
        policy.seconds = 0.0
        gc.collect()
        began = time.process_time()
        trajectory = asyncio.run(agent.arun(task))
        assert len(trajectory.turns) == turns, trajectory.error
        return (time.process_time() - began - policy.seconds) / turns


def part_g(bench: Bench) -> dict[str, Any]:
    """A decoding step reads the weights and every cache once, at least; prefill multiplies twice per weight and token."""
    flops, rate = limits(bench)
    text = sum(p.numel() for p in bench.model.model.language_model.parameters())
    size = next(bench.model.parameters()).element_size()
    request = bench.opening(0)
    n = len(request.token_ids)
    short = Bench.opening(bench, 0, temperature=1.0)
    result: dict[str, Any] = {"parameters": sum(p.numel() for p in bench.model.parameters()), "limit TFLOP/s": flops / 1e12}
    result["limit GB/s"] = rate / 1e9
    for batch in (1, 16):
        engine = bench.engine()
        first = [dataclasses.replace(short, sampling=Sampling(max_tokens=1, seed=i)) for i in range(batch)]
        prefill, _ = bench.timed(lambda e=engine, f=first: asyncio.run(e.generate(f)))
        samples = [dataclasses.replace(short, sampling=Sampling(max_tokens=bench.sampled, temperature=1.0, seed=i))
                   for i in range(batch)]  # fmt: skip
        seconds, _ = bench.timed(lambda e=engine, s=samples: bench.ask(e, s))
        assert engine.tree is not None
        shared = n + batch * bench.sampled / 2  # cached tokens that a step reads: the prompt once, the halves sampled
        least = (text * size + shared * engine.tree.token_bytes) / rate
        result[f"decode, batch {batch}"] = {
            "tokens/s": batch * bench.sampled / seconds, "share of the bandwidth limit": least * bench.sampled / seconds
        }  # fmt: skip
        if batch == 1:
            result["prefill with vision"] = {
                "tokens/s": n / prefill, "share of the compute limit (language model)": 2 * text * n / flops / prefill
            }  # fmt: skip
    return result


def limits(bench: Bench) -> tuple[float, float]:
    """(FLOP/s of a large product, bytes/s of reading a large tensor), the best of five, in the model's type."""
    gpu = bench.device.type == "cuda"
    n, big = (8192, 1 << 30) if gpu else (1024, 1 << 27)
    a = torch.randn(n, n, device=bench.device, dtype=next(bench.model.parameters()).dtype)
    x = torch.zeros(big // 4, device=bench.device)
    product = min(bench.timed(lambda: a @ a)[0] for _ in range(5))
    read = min(bench.timed(lambda: x.sum())[0] for _ in range(5))
    return 2 * n**3 / product, big / read


PARTS = {"a": part_a, "b": part_b, "c": part_c, "d": part_d, "e": part_e, "f": part_f, "g": part_g}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="10m")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--prefix", type=int, default=4000, help="tokens of the first prompt")
    parser.add_argument("--sampled", type=int, default=64, help="tokens of each completion")
    parser.add_argument("--only", nargs="*", choices=PARTS, default=list(PARTS))
    args = parser.parse_args()
    bench = Bench(args.shape, args.device, args.prefix, args.sampled)
    print(json.dumps({"prefix tokens": len(bench.opening(0).token_ids), "frames": bench.frames, "device": str(bench.device)}))
    bench.ask(bench.engine(), [bench.opening(99, 2)])  # warm up
    for name in args.only:
        with torch.no_grad():
            print(name, json.dumps(PARTS[name](bench), default=float, indent=1), flush=True)


if __name__ == "__main__":
    main()
