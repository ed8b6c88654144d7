"""Run: a recipe carried out, from the films to the checkpoint.

    playhead train grpo --recipe embedded_cpu --out runs/grpo
    torchrun --nproc-per-node 2 -m playhead train grpo ...        each process plays its share of the rollouts

The same command goes on with a run that was stopped or killed, from its last whole checkpoint. At the end OUT/final
is an ordinary checkpoint folder: `playhead ask VIDEO QUESTION --model OUT/final`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...agent.embedded import EMBEDDED
from ...agent.policies.loading import LoadOptions
from ...agent.profile import Profile, save_profile
from ...agent.video_agent import VideoAgent
from ...core.budget import Budget
from ...core.codec import to_plain
from ...core.errors import DataError
from ...core.nouns import Task
from ...core.tasks import read_tasks
from ...world.questions import KINDS
from ...world.script import HELD_OUT_SEED
from ..claim import claim
from ..typed import typed

if TYPE_CHECKING:
    from .plan import Plan
    from .trainer import AgentGRPOTrainer

Say = Callable[[str], None]
FILMS_DONE = "tasks.jsonl"
TOLD = (
    "seed", "learning_rate", "lr_scheduler_type", "warmup_steps", "max_grad_norm", "adam_beta2", "num_generations",
    "per_device_train_batch_size", "gradient_accumulation_steps", "steps_per_generation", "num_iterations", "loss_type",
    "importance_sampling_level", "scale_rewards", "epsilon", "epsilon_high", "beta", "temperature",
)  # fmt: skip
"""Fields of TRL's config that make a run another one."""
RECIPES = {"embedded_cpu": ("embedded_grpo", "embedded_cpu"), "world_rl": ("world_rl", "world_rl")}
"""By name: the module in `train/recipes`, and the function that gives a `Recipe` from the run's folder."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Films:
    """Films of the world to train on, made where a run is given no data.

    Raises:
        DataError: seeds that are held out for measuring, or a haze through which nothing is seen.
    """

    videos: int
    minutes: tuple[float, ...]
    seed: int
    draws: int = 1
    kinds: tuple[str, ...] = KINDS
    haze: float = 0.0
    """Share of every object that the background takes (`world.scene.Scene.haze`)."""

    def __post_init__(self) -> None:
        if self.seed + self.videos >= HELD_OUT_SEED:
            raise DataError(f"world seeds from {HELD_OUT_SEED} on are held out; train on seeds below")
        if not 0 <= self.haze < 1:
            raise DataError(f"haze={self.haze:g}: must be from 0 (clear) to below 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """What is trained, on what, and how."""

    plan: Plan
    films: tuple[Films, ...]
    model: str = EMBEDDED
    """ "embedded", a folder or a hub id."""
    profile: Profile | None = None
    """How the model is asked; None for what lies beside its weights."""
    encoder: str = EMBEDDED
    """What clip indexes are embedded with."""
    budget: Budget | None = None
    """Of an episode. Without a limit of time, so that a slow machine plays the same episodes as a fast one."""
    cache_gb: float = 1.0
    """For the sampler's caches, which stay where they are while the weights are updated; what is past it is computed again."""
    train_vision: bool = False
    """False keeps the vision tower as it is; features of frames are then computed once for the whole run."""


def find_recipe(name: str) -> Callable[..., Recipe]:
    """Raises: DataError: there is none of that name; the message lists those that there are."""
    if name not in RECIPES:
        raise DataError(f"no GRPO recipe {name!r}; there are {', '.join(RECIPES)}")
    module, function = RECIPES[name]
    return getattr(import_module(f"..recipes.{module}", __package__), function)


def make_recipe(name: str, out: Path, given: Mapping[str, Any]) -> Recipe:
    """The recipe of that name with values in words.

    Raises:
        DataError: there is none, or a value that it cannot have; it is named.
        PlanError: values that do not go together.
    """
    from trl.trainer.grpo_config import GRPOConfig

    make, base = find_recipe(name), find_recipe("embedded_cpu")
    try:
        return make(out, **typed(given, GRPOConfig, base, make))
    except (TypeError, ValueError) as error:
        raise DataError(f"recipe {name}: {error}") from None


def carry_out(recipe: Recipe, out: Path, data: Path | None = None, say: Say = print) -> AgentGRPOTrainer:
    """Train; returns the trainer, whose weights lie in `out`/final.

    Args:
        data: a folder with tasks.jsonl; None: the recipe's films, made in `out`/films if they are not there.

    Raises:
        RunStopped: a guard stopped it.
        DataError, ModelError: data or model are not usable, or `out` holds another run.
    """
    from .records import last_checkpoint

    with claim(out, _told(recipe, data), begun=last_checkpoint(out) is not None):
        return _train(recipe, out, data, say)


def _train(recipe: Recipe, out: Path, data: Path | None, say: Say) -> AgentGRPOTrainer:
    from .trainer import AgentGRPOTrainer
    from .weights import Replica, SameModule

    tasks = training_tasks(recipe.films, out / "films", data, say)
    agent, trained, sharded = _agent(recipe, tasks)
    say(
        f"{len(tasks)} tasks, {recipe.plan.args.num_generations} rollouts of each that is asked; figures in {out}/metrics.jsonl"
    )
    features = None if recipe.train_vision else _features(agent)
    sync = SameModule(agent.policy, vision=recipe.train_vision)
    trainer = AgentGRPOTrainer(agent, tasks, recipe.plan, model=trained, sync=sync, collator=_collator(agent, features))
    if sharded:
        gather = trainer._dist.gather_params
        trainer.sync = Replica(agent.policy, lambda: trainer.accelerator.unwrap_model(trainer.model_wrapped), gather)
    trainer.train()
    _save(trainer, recipe, out / "final", agent.profile)
    return trainer


def _told(recipe: Recipe, data: Path | None) -> dict[str, Any]:
    """What makes a run the one it is, as plain JSON; how long it goes on and how often it saves are not of it."""
    plan = recipe.plan
    switches = {f.name: to_plain(getattr(plan, f.name)) for f in fields(plan) if f.name not in ("args", "rubric", "judge")}
    return {
        "model": recipe.model,
        "data": None if data is None else str(data),
        "films": [] if data is not None else to_plain(recipe.films),
        "encoder": recipe.encoder,
        "train_vision": recipe.train_vision,
        **{name: to_plain(getattr(plan.args, name)) for name in TOLD},
        "reward": {part.reward.name: part.weight for part in plan.rubric.parts},
        **switches,
    }


def training_tasks(films: Sequence[Films], folder: Path, data: Path | None, say: Say) -> list[Task]:
    """Tasks whose answers are known: those of `data`, or else of films made in `folder`/SEED."""
    sources = [data] if data is not None else [_made(some, folder / str(some.seed), say) for some in films]
    where = sources[0] if data is not None else folder
    tasks = [t for source in sources for t in read_tasks(source) if t.answer is not None or t.evidence]
    if not tasks:
        raise DataError(f"{where}: no task there has a known answer, so nothing can be rewarded")
    held_out = [t.id for t in tasks if int(t.meta.get("seed", 0)) >= HELD_OUT_SEED]
    if held_out:
        raise DataError(f"{where}: world seeds from {HELD_OUT_SEED} on are held out, such as that of task {held_out[0]}")
    return tasks


def _made(films: Films, folder: Path, say: Say) -> Path:
    """The folder, with the films in it: the first process makes them if they are not there, the others wait."""
    done = folder / FILMS_DONE
    if not done.is_file():
        if int(os.environ.get("RANK", "0")):
            _await(done)
        else:
            from ...world.make import make_world

            say(f"making {films.videos} films in {folder}")
            make_world(
                folder, films.videos, films.minutes, films.seed, draws=films.draws, kinds=films.kinds, haze=films.haze
            )
    return folder


def _await(path: Path, limit_s: float = 3600.0) -> None:
    """Until another process has written the file."""
    import time

    end = time.monotonic() + limit_s
    while not path.is_file():
        if time.monotonic() > end:
            raise DataError(f"{path}: the first process did not make it within {limit_s:.0f} s")
        time.sleep(0.2)


def _agent(recipe: Recipe, tasks: list[Task]) -> tuple[VideoAgent, Any, bool]:
    """(the agent, the trained model if it is not the agent's own, whether it will be sharded)."""
    how = {"profile": recipe.profile, "budget": recipe.budget, "encoder": recipe.encoder}
    agent = VideoAgent(recipe.model, load=LoadOptions(cache_gb=recipe.cache_gb), **how)
    policy: Any = agent.policy
    agent.shelf.keep(len({t.video for t in tasks}))
    sharded = os.environ.get("ACCELERATE_USE_FSDP") == "true" or os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true"
    trained = None
    if sharded:
        import copy

        trained = copy.deepcopy(policy.model)
        policy.model.requires_grad_(False)
    if not recipe.train_vision:
        vision_of(trained if trained is not None else policy.model).requires_grad_(False)
    return agent, trained, sharded


def vision_of(model: Any) -> Any:
    """The vision tower of a model of one of the families."""
    return model.model.visual if hasattr(model.model, "visual") else model.model.vision_model


def _features(agent: VideoAgent) -> Any:
    from ..features import VisionFeatures

    policy: Any = agent.policy
    return VisionFeatures(policy.model, policy.renderer)


def _collator(agent: VideoAgent, features: Any) -> Any:
    from ..collate import SampleCollator

    renderer: Any = agent.policy.renderer
    return SampleCollator(renderer, agent.store, features=features)


def _save(trainer: AgentGRPOTrainer, recipe: Recipe, folder: Path, profile: Profile) -> None:
    """Weights, processor and profile: what `VideoAgent(folder)` needs."""
    if trainer.is_fsdp_enabled:  # checkpoints may be in shards, what ships is whole
        plugin = trainer.accelerator.state.fsdp_plugin
        assert plugin is not None
        plugin.set_state_dict_type("FULL_STATE_DICT")
    trainer.save_model(str(folder))
    if trainer.accelerator.is_main_process:
        save_profile(profile, folder)
