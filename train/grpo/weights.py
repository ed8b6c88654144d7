"""Weights: how the sampler comes to the trainer's newest ones.

    same      the engine runs the very module that is trained: nothing is copied (one process, or DDP)
    replica   the trainer's is sharded (FSDP2, ZeRO-3): the engine runs a whole copy, filled again after every update
    server    the weights go to a server that generates (`server.py`)

A sharded module makes every forward pass a collective: ranks whose episodes have different numbers of turns would
wait for each other for ever. On a replica the rollouts of a rank are its own affair, and what is collective is one
pass over the parameters, in the same order on every rank. Then the completions carry a new `policy_version`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ...core.errors import ModelError

_WRAPPERS = ("module.", "_orig_mod.", "_checkpoint_wrapped_module.", "_fsdp_wrapped_module.")


class WeightSync(Protocol):
    """Called before rollouts, on every process."""

    def publish(self) -> None:
        """Make the sampler use the trainer's weights as they are now."""
        ...


class SameModule:
    """The engine of `policy` runs the trained module itself.

    Args:
        vision: the vision tower is trained too; else what it says of a frame is kept over the updates.
    """

    def __init__(self, policy: Any, *, vision: bool = True) -> None:
        self._policy, self._vision = policy, vision

    def publish(self) -> None:
        self._policy.weights_changed(vision=self._vision)


class Replica:
    """The engine of `policy` runs a whole copy of a sharded module.

    Args:
        trained: gives the module whose parameters may be sharded (DTensor, or ZeRO-3 with `gather`); asked when it is
            needed, since a trainer shards its model when it begins.
        gather: a context in which the given parameters are whole.

    `publish` raises a ModelError where the two do not have the same parameters.
    """

    def __init__(
        self,
        policy: Any,
        trained: Callable[[], nn.Module],
        gather: Callable[[list[nn.Parameter]], AbstractContextManager[Any]] = lambda parameters: nullcontext(),
    ) -> None:
        self._policy, self._trained, self._gather = policy, trained, gather

    def publish(self) -> None:
        trained, own = self._trained(), dict(self._policy.model.named_parameters())
        odd = sorted(set(own) ^ {name for name, _ in plain_names(trained)})
        if odd:
            raise ModelError(
                f"the replica is not a copy of the trained model: {len(odd)} parameters differ, such as {odd[0]}"
            )
        with torch.no_grad():
            for name, whole in whole_parameters(trained, self._gather):
                own[name].copy_(whole)
        self._policy.weights_changed()


def plain_names(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """`named_parameters`, without what wrappers put into the names."""
    for name, parameter in model.named_parameters():
        for wrapper in _WRAPPERS:
            name = name.replace(wrapper, "")
        yield name, parameter


def whole_parameters(
    model: nn.Module,
    gather: Callable[[list[nn.Parameter]], AbstractContextManager[Any]] = lambda parameters: nullcontext(),
) -> Iterator[tuple[str, Tensor]]:
    """Every parameter by its plain name, gathered where it is sharded. A collective: all processes go through it alike."""
    for name, parameter in plain_names(model):
        with gather([parameter]):
            full = getattr(parameter, "full_tensor", None)
            yield name, parameter.detach() if full is None else full().detach()
