"""Rollouts: ours against TRL's own `environment_factory` loop; same model, tasks, tools and words, in one run.

    python -m playhead.benchmarks.rollout                          # at the embedded model's own lengths
    python -m playhead.benchmarks.rollout --prefix 2000            # and so many tokens of system prompt
    python -m playhead.benchmarks.rollout --train 3                # steps of the embedded_cpu recipe, broken down

Both loops run the embedded model on the same questions, with `search_clips` and `temporal_zoom` on the same index.
What the model says is taken from its own greedy episodes and forced token by token in both loops, so both compute the
same (sampling included) and end with the same tokens, which is checked. Ours: episodes run at once, the engine
computes each prefix and each frame once. TRL's: the batch in step, tools one after another, every turn computed from
the start with all frames encoded again.

Before every measured round caches are emptied, as after an update of the weights and for films never seen. The tools are
the same in both, so a frame is decoded once per round in both. CPU seconds are of this process.
"""

from __future__ import annotations

import argparse
import copy
import json
import re
import resource
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ..agent.engine import scheduler
from ..agent.engine.sample import Drawn, Rows
from ..agent.episode import turn_seed
from ..agent.video_agent import VideoAgent
from ..core.aio import run_until_done
from ..core.budget import Budget
from ..core.nouns import Frame, Part, Task
from ..core.policy import Sampling
from ..core.tasks import read_tasks
from ..core.trajectory import Trajectory
from ..train.rollout import rollout_groups, rollout_seed
from ..world.make import make_world

TOOLS = ("search_clips", "temporal_zoom")
FILM_SEED = 2_200_000
FILLER = "Think about what each frame shows before you answer, and look again where you are not sure. "


@dataclass(frozen=True, slots=True)
class Script:
    """What the model says on a task, turn by turn."""

    task: Task
    turns: tuple[tuple[int, ...], ...]
    trajectory: Trajectory


@dataclass(frozen=True, slots=True)
class Took:
    rollouts: int
    wall_s: float
    cpu_s: float

    def line(self, name: str) -> str:
        return (
            f"{name:28s} {self.rollouts / self.wall_s:7.2f} trajectories/s   {self.rollouts / self.cpu_s:7.2f} a CPU second   "
            f"{self.wall_s:6.1f} s wall {self.cpu_s:6.1f} s CPU"
        )


class Clock:
    def __enter__(self) -> Clock:
        self.wall, self.cpu = time.monotonic(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall, self.cpu = time.monotonic() - self.wall, time.process_time() - self.cpu


def scripts(agent: VideoAgent, tasks: Sequence[Task], turns: int, count: int) -> list[Script]:
    """Greedy episodes of exactly so many turns that ended in an answer."""
    found: list[Script] = []
    for task in tasks:
        if len(found) == count:
            break
        done = run_until_done(agent.arun(task))
        if len(done.turns) == turns and done.error is None and done.answer is not None:
            found.append(Script(task, tuple(t.completion.token_ids for t in done.turns), done))
    if len(found) < count:
        raise SystemExit(f"only {len(found)} of {len(tasks)} episodes have {turns} turns; choose another --seed")
    return found


# Ours.


@contextmanager
def forced(said: dict[int, tuple[int, ...]]) -> Iterator[None]:
    """The engine's draws give `said[seed of the request]` instead; everything is computed as before."""
    at = dict.fromkeys(said, 0)

    class ForcedRows(Rows):
        def __init__(self, samplings: Sequence[Sampling], *rest: Any) -> None:
            super().__init__(samplings, *rest)
            self._seeds = [s.seed for s in samplings]

        def draw(self, logits_1BV: torch.Tensor) -> Drawn:
            drawn = super().draw(logits_1BV)
            tokens = list(drawn.tokens)
            for i, seed in enumerate(self._seeds):
                tokens[i], at[seed] = said[seed][at[seed]], at[seed] + 1
            return Drawn(torch.tensor([tokens], device=drawn.tokens_1B.device), tokens, drawn.logprobs)

    scheduler.Rows = ForcedRows
    try:
        yield
    finally:
        scheduler.Rows = Rows


def ours(agent: VideoAgent, chosen: Sequence[Script], size: int, seed: int) -> tuple[Took, list[Trajectory]]:
    said = {}
    for script in chosen:
        for number in range(size):
            own = rollout_seed(seed, script.task.id, number)
            for index, ids in enumerate(script.turns):
                said[turn_seed({"seed": own}, index)] = ids  # pyright: ignore[reportArgumentType]
    policy: Any = agent.policy
    policy.weights_changed()
    agent.store.shown.clear()
    with forced(said), Clock() as clock:
        groups = run_until_done(rollout_groups(agent, [s.task for s in chosen], size, seed=seed))
    failures = [f.error for g in groups for f in g.failures]
    assert not failures, failures
    return Took(len(chosen) * size, clock.wall, clock.cpu), [t for g in groups for t in g.trajectories]


# TRL's.


def make_environment(agent: VideoAgent) -> type:
    """An environment of TRL around the same tools: blocks of text and images, times as our renderer writes them."""
    from PIL import Image

    from ..agent.prompts import question_content
    from ..core.nouns import ToolCall
    from ..core.sampling import uniform_times
    from ..tools.contract import ToolContext

    renderer: Any = agent.policy.renderer

    def blocks(content: Sequence[Part]) -> list[dict[str, Any]]:
        out: list[dict[str, Any]] = []
        for part in content:
            if isinstance(part, Frame):
                out.append({"type": "text", "text": renderer.stamp(part.timestamp_s)})
                out.append({"type": "image", "image": Image.fromarray(agent.store.pixels(part))})
            else:
                out.append({"type": "text", "text": part})
        return out

    class Film:
        def reset(self, **row: Any) -> list[dict[str, Any]]:
            self._desk = agent.shelf.desk(row["video"])
            self._desk.lazy_index.ready()
            self._context = ToolContext(
                video=self._desk.video, store=self._desk.store, index=self._desk.index, texts=_no_texts(), captioner=None,
                frames_left=lambda: 64, max_side=agent.profile.max_side,
            )  # fmt: skip
            times = uniform_times(self._desk.video.readable_s, agent.profile.skim_frames)
            frames = self._context.frames_at(times)
            return blocks(question_content(self._desk.video.duration_s, frames, row["question"], row["choices"]))

        def search_clips(self, query: str, k: int = 3) -> list[dict[str, Any]]:
            """Find moments of the video that match a description.

            Args:
                query: what to look for.
                k: how many moments.
            """
            return self._call("search_clips", {"query": query, "k": k})

        def temporal_zoom(self, start_s: float, end_s: float, fps: float = 1.0) -> list[dict[str, Any]]:
            """Look closely at a stretch of the video.

            Args:
                start_s: where the stretch starts.
                end_s: where it ends.
                fps: frames per second.
            """
            return self._call("temporal_zoom", {"start_s": start_s, "end_s": end_s, "fps": fps})

        def _call(self, name: str, arguments: dict[str, Any]) -> list[dict[str, Any]]:
            call = ToolCall(id="c", name=name, arguments_json=json.dumps(arguments))
            return blocks(run_until_done(agent.toolbox.call(call, self._context)).content)

        def get_reward(self) -> float:
            return 0.0

    return Film


def _no_texts() -> Any:
    from ..memory.text import TextMemory

    return TextMemory(":memory:")


class Forced:
    """A logits processor: what row r says in this turn, token by token."""

    def __init__(self, rows: Sequence[tuple[tuple[int, ...], ...]], pad: int) -> None:
        self._rows, self._pad, self.turn, self._start = rows, pad, -1, 0

    def begin(self, length: int) -> None:
        self.turn, self._start = self.turn + 1, length

    def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        at = ids.shape[1] - self._start
        wanted = [row[self.turn][at] if at < len(row[self.turn]) else self._pad for row in self._rows]
        out = torch.full_like(scores, float("-inf"))
        out[torch.arange(len(wanted)), torch.tensor(wanted)] = 0.0
        return out


def with_calls(template: str) -> str:
    """The embedded model's template, which also writes an assistant's `tool_calls`; otherwise the same to the byte."""
    said = "<|im_start|>assistant\n{{ parts(message.content) }}"
    assert said in template, "not the embedded model's template"
    call = "<tool_call>\n{{ call.function | tojson }}\n</tool_call>"
    return template.replace(said, said + "{% for call in message.tool_calls or [] %}" + call + "{% endfor %}")


def stock(agent: VideoAgent, chosen: Sequence[Script], size: int, out: Path) -> tuple[Took, list[list[int]]]:
    """TRL's loop, one batch of all rollouts; what is timed is `_generate_and_score_completions`."""
    from datasets import Dataset
    from transformers import LogitsProcessorList
    from trl.chat_template_utils import qwen3_template
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

    policy: Any = agent.policy
    processor = copy.copy(policy.renderer.processor)
    # TRL wants a template that writes calls as well, and has to be told how to read them: this is not one that it knows.
    processor.chat_template = with_calls(processor.chat_template)
    processor.tokenizer.response_template = qwen3_template
    total = len(chosen) * size
    system = [{"role": "system", "content": agent.profile.system}] if agent.profile.system else []
    rows = [
        {"prompt": [*system, {"role": "user", "content": ""}], "question": s.task.question, "video": s.task.video,
         "choices": list(s.task.choices)}
        for s in chosen
    ]  # fmt: skip
    args = GRPOConfig(
        output_dir=str(out), per_device_train_batch_size=total, num_generations=size, max_completion_length=4096, use_cpu=True,
        bf16=False, gradient_checkpointing=False, report_to=[], max_steps=1, disable_tqdm=True,
    )  # fmt: skip
    trainer = GRPOTrainer(
        model=policy.model, args=args, train_dataset=Dataset.from_list(rows), processing_class=processor,
        environment_factory=make_environment(agent),
    )  # fmt: skip
    words = Forced([s.turns for s in chosen for _ in range(size)], processor.tokenizer.pad_token_id)
    real = policy.model.generate

    def generate(**inputs: Any) -> Any:
        words.begin(inputs["input_ids"].shape[1])
        return real(**inputs, logits_processor=LogitsProcessorList([words]))

    policy.model.generate = generate
    policy.model.train()
    agent.store.shown.clear()
    try:
        with Clock() as clock:
            found = trainer._generate_and_score_completions([dict(row) for row in rows for _ in range(size)])
    finally:
        del policy.model.generate
        policy.model.eval()
    mask = torch.cat([found["prompt_mask"], found["completion_mask"]], 1).bool()
    ids = torch.cat([found["prompt_ids"], found["completion_ids"]], 1)
    return Took(total, clock.wall, clock.cpu), [row[keep].tolist() for row, keep in zip(ids, mask, strict=True)]


def compare(args: argparse.Namespace) -> None:
    data = make_world(args.work / "films", 2, 5.0, args.seed)
    agent = VideoAgent("embedded", tools=TOOLS, budget=Budget(wall_s=None, context_tokens=None))
    chosen = scripts(agent, read_tasks(data), args.turns, args.tasks)
    if args.prefix:
        words = FILLER * (args.prefix // len(agent.policy.renderer.encode(FILLER)) + 1)
        agent.profile = replace(agent.profile, system=re.sub(r"\s+$", "", words))
    length = len(chosen[0].trajectory.token_ids)
    print(f"{args.tasks} tasks x {args.group} rollouts of {args.turns} turns, about {length + args.prefix} tokens each")
    ratios = []
    for number in range(args.rounds + 1):
        mine, trajectories = ours(agent, chosen, args.group, number)
        theirs, ids = stock(agent, chosen, args.group, args.work / "stock")
        same = sum(list(t.token_ids) == other for t, other in zip(trajectories, ids, strict=True))
        print(
            "warm-up" if number == 0 else f"round {number}",
            f"({same} of {len(ids)} sequences are equal token by token)",
        )
        print(mine.line("  playhead"))
        print(theirs.line("  TRL environment_factory"), flush=True)
        if number:
            ratios.append((theirs.wall_s / mine.wall_s, theirs.cpu_s / mine.cpu_s))
    wall, cpu = (sum(r[i] for r in ratios) / len(ratios) for i in (0, 1))
    print(f"ratio: {wall:.2f}x by the wall, {cpu:.2f}x by CPU seconds; peak memory {peak_mb():.0f} MB")


def step(args: argparse.Namespace) -> None:
    """Some steps of the recipe, and where their time goes."""
    from ..train.grpo.run import carry_out
    from ..train.recipes.embedded_grpo import embedded_cpu

    trainer = carry_out(embedded_cpu(args.work / "run", steps=args.train), args.work / "run")
    for line in trainer.records.steps:
        shown = (
            "seconds/rollout",
            "seconds/tools",
            "seconds/training",
            "step_time",
            "tokens/context",
            "rollouts/sound",
        )
        print("  ".join(f"{name} {line.get(name, 0):.1f}" for name in shown))
    print(f"peak memory {peak_mb():.0f} MB")


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prefix", type=int, default=0, help="tokens of system prompt before each question")
    parser.add_argument("--tasks", type=int, default=2)
    parser.add_argument("--group", type=int, default=8, help="rollouts of a task")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seed", type=int, default=FILM_SEED, help="world seed of the films")
    parser.add_argument("--train", type=int, default=0, help="so many steps of the recipe instead")
    parser.add_argument("--work", type=Path, default=None, help="where films are kept; else a temporary folder")
    args = parser.parse_args(argv)
    if args.work is not None:
        (step if args.train else compare)(args)
        return
    with tempfile.TemporaryDirectory() as folder:
        args.work = Path(folder)
        (step if args.train else compare)(args)


if __name__ == "__main__":
    main()
