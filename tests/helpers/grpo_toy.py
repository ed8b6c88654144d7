"""A toy for the GRPO tests: the real engine and trainer over a tiny random Qwen3-VL, and an agent whose tools answer anything.

An episode: a prompt with frames; the policy says some tokens (whatever it samples); a tool shows a frame; and again.
So several turns, frames in prompt and tool replies, log-probs as sampled, in milliseconds and without a film. Run as
a script it trains in a process of its own (for torchrun and for being killed):

    python grpo_toy.py CHECKPOINT OUT STEPS [--die-at STEP] [--uneven] [--fsdp]
"""

from __future__ import annotations

import argparse
import json
import os
import signal
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from playhead.agent.profile import Profile
from playhead.agent.prompts import first_messages
from playhead.core.budget import Usage
from playhead.core.errors import ModelError
from playhead.core.nouns import Answer, FinishReason, Frame, Message, Observation, StopReason, Task, ToolCall
from playhead.core.policy import GenerateRequest, Sampling
from playhead.core.trajectory import Trajectory, Turn


def frame(t: float, width: int = 64, height: int = 64) -> Frame:
    return Frame(video_id="v", timestamp_s=t, sha256=f"{int(t * 1000):016x}", width=width, height=height)


class NoiseStore:
    """Pixels that depend on the frame alone; `salt` changes those of one frame."""

    def __init__(self) -> None:
        self.salt: dict[str, int] = {}

    def pixels(self, frame: Frame) -> np.ndarray:
        rng = np.random.default_rng(int(frame.sha256, 16) % 2**32 + self.salt.get(frame.sha256, 0))
        return rng.integers(0, 256, (frame.height, frame.width, 3), dtype=np.uint8)


def make_tasks(count: int = 6) -> list[Task]:
    return [
        Task(
            id=f"t{i}",
            question=f"What is {i}?",
            video="v.mp4",
            choices=("red", "green"),
            answer="red",
            kind=f"k{i % 2}",
        )
        for i in range(count)
    ]


@dataclass
class ToyAgent:
    """What the trainer needs of a `VideoAgent`."""

    policy: Any
    store: Any
    turns: int = 3
    tokens: int = 5
    temperature: float = 1.0
    top_p: float = 1.0
    profile: Profile = field(default_factory=lambda: Profile(skim_frames=3))
    fails: set[int] = field(default_factory=set)
    """Numbers of episodes, counted from 0, that raise."""
    silent: bool = False
    """No tool calls, no answers."""
    before: Any = None
    """Called with the number of each episode."""
    played: int = 0
    shuffled: int = 0
    """Episodes played on shuffled frames."""
    bare: int = 0
    """Episodes played without tools."""

    @property
    def shelf(self):
        video = SimpleNamespace(video=SimpleNamespace(duration_s=100.0))
        return SimpleNamespace(desk=lambda path: video)

    async def arun(
        self, task: Task, *, seed: int = 0, run_id: str = "", group_id: str = "", manner: Any = None
    ) -> Trajectory:
        self.shuffled += manner is not None and manner.shuffled
        self.bare += manner is not None and not manner.tools
        number, self.played = self.played, self.played + 1
        if self.before is not None:
            self.before(number)
        if number in self.fails:
            raise RuntimeError(f"worker of episode {number} is gone")
        content = first_messages(100.0, (frame(1 + len(task.id)), frame(2, 90, 64)), task.question)
        new = self.policy.renderer.start(content, ())
        ids, frames, turns = (), (), []
        for index in range(self.turns):
            ids, frames = ids + new.token_ids, frames + new.frames
            sampling = Sampling(temperature=self.temperature, max_tokens=self.tokens, seed=seed * 7 + index)
            request = GenerateRequest(session=run_id, token_ids=ids, frames=frames, messages=(), sampling=sampling)
            (said,) = await self.policy.generate([request])
            if said.finish_reason is FinishReason.ERROR:
                raise ModelError(said.text)
            call = ToolCall(id=f"c{index}", name="zoom", arguments_json="{}")
            seen = Observation(tool_call_id=call.id, content=("seen",), error="no" if index == 1 else None)
            called = not self.silent and index < self.turns - 1
            turn = Turn(
                index=index,
                context_ids=new.token_ids,
                context_frames=new.frames,
                completion=said,
                tool_calls=(call,) if called else (),
                observations=(seen,) if called else (),
            )
            turns.append(turn)
            ids = ids + said.token_ids
            reply = Message(role="tool", content=("seen ", frame(10 + index + len(said.token_ids), 64, 90)))
            new = self.policy.renderer.extend(said.token_ids, [reply])
        self.policy.forget(run_id)
        usage = Usage(turns=len(turns), tool_calls=0 if self.silent else len(turns) - 1, frames=len(frames))
        stop = StopReason.LENGTH if self.silent else StopReason.ANSWERED
        answer = None if self.silent else Answer(text="red" if turns[-1].completion.token_ids[0] % 2 else "green")
        return Trajectory(
            id=run_id,
            group_id=group_id,
            task=task,
            turns=tuple(turns),
            answer=answer,
            usage=usage,
            stop_reason=stop,
            seed=seed,
            temperature=self.temperature,
            model="toy",
        )


@dataclass(frozen=True)
class EvenTokens:
    """A reward that a random model earns differently each time, and can learn: the share of even tokens."""

    name: str = "even"

    def __call__(self, trajectory: Trajectory, context: Any) -> float:
        said = [t for turn in trajectory.turns for t in turn.completion.token_ids]
        return sum(t % 2 == 0 for t in said) / len(said)


def make_policy(checkpoint: Path, store: Any):
    from playhead.agent.policies.transformers import TransformersPolicy

    return TransformersPolicy.load(checkpoint, store, device="cpu")


def make_plan(out: Path, *, steps: int = 2, plan: dict[str, Any] | None = None, **args: Any):
    from playhead.train.grpo.plan import Plan
    from playhead.train.rewards import Rubric
    from trl import GRPOConfig

    usual = dict(
        output_dir=str(out),
        max_steps=steps,
        num_generations=4,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        learning_rate=1e-3,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to=[],
        logging_steps=1,
        save_steps=1,
        save_total_limit=None,
        disable_tqdm=True,
        max_completion_length=64,
        lr_scheduler_type="constant",
    )
    return Plan(args=GRPOConfig(**{**usual, **args}), rubric=Rubric.of("toy", [(EvenTokens(), 1.0)]), **(plan or {}))


def make_trainer(checkpoint: Path, out: Path, *, agent: dict[str, Any] | None = None, **how: Any):
    from playhead.train.grpo.trainer import AgentGRPOTrainer

    store = NoiseStore()
    toy = ToyAgent(policy=make_policy(checkpoint, store), store=store, **(agent or {}))
    return AgentGRPOTrainer(toy, make_tasks(), make_plan(out, **how))


def main() -> None:
    from playhead.train.group import leave_group

    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("steps", type=int)
    parser.add_argument(
        "--die-at", type=int, default=0, help="kill the last process in the middle of the rollouts of this step"
    )
    parser.add_argument("--uneven", action="store_true", help="ranks whose episodes have different numbers of turns")
    parser.add_argument(
        "--fsdp", action="store_true", help="then once more, into OUT/sharded: the model sharded, rollouts on a replica"
    )
    a = parser.parse_args()
    rank = int(os.environ.get("RANK", "0"))
    agent: dict[str, Any] = {"turns": 2 + 2 * rank} if a.uneven else {}
    if a.die_at and rank == int(os.environ.get("WORLD_SIZE", "1")) - 1:
        middle = (a.die_at - 1) * 8 + 3
        agent["before"] = lambda number: os.kill(os.getpid(), signal.SIGKILL) if number == middle else None
    how = {"save_strategy": "no"} if a.uneven else {}
    train_and_report(make_trainer(a.checkpoint, a.out, agent=agent, steps=a.steps, **how), a.out, rank)
    if a.fsdp:
        out = a.out / "sharded"
        train_and_report(sharded_trainer(a.checkpoint, out, a.steps, agent), out, rank)
    print("done", rank, flush=True)
    leave_group()


def train_and_report(trainer: Any, out: Path, rank: int) -> None:
    trainer.train()
    parameters = list(trainer.model.parameters())
    total = sum(float(getattr(p, "full_tensor", lambda p=p: p)().detach().double().sum()) for p in parameters)
    report = {"sum": total, "played": trainer.agent.played, "version": trainer.agent.policy.version}
    report["sharded"] = sum(type(p.data).__name__ == "DTensor" for p in parameters)
    out.mkdir(parents=True, exist_ok=True)
    (out / f"rank{rank}.json").write_text(json.dumps(report))


def sharded_trainer(checkpoint: Path, out: Path, steps: int, agent: dict[str, Any]):
    """The trained model sharded by torch's own `fully_shard`, as FSDP2 does on GPUs; accelerate itself shards on GPUs only."""
    from playhead.train.grpo.trainer import AgentGRPOTrainer
    from playhead.train.grpo.weights import Replica
    from torch.distributed.fsdp import fully_shard

    store = NoiseStore()
    toy = ToyAgent(policy=make_policy(checkpoint, store), store=store, **agent)
    trained = make_policy(checkpoint, store).model.train()
    trainer = AgentGRPOTrainer(toy, make_tasks(), make_plan(out, steps=steps, save_strategy="no"), model=trained)
    # The trainer's own wrapper (DDP) stays out of it: the sharded module does its own reductions.
    trainer.accelerator.prepare_model = lambda model, **kwargs: model
    for block in trained.model.language_model.layers:
        fully_shard(block)
    fully_shard(trained)
    trainer.sync = Replica(toy.policy, lambda: trained)
    return trainer


if __name__ == "__main__":
    main()
