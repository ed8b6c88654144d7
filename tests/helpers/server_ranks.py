"""Processes that send weights to one server, for torchrun: `python server_ranks.py OUT`.

The server is a file, one a case, and takes its time. Each process writes OUT/rankN.json: what it found on the server
when `publish` came back, by case.

    plain       the model is whole on every process, so nothing but the protocol keeps them together
    sharded     FSDP2: to read a parameter is a collective
    zero        shards in ZeRO-3's manner: a context that all must enter makes a parameter whole
    refused     the server takes the first tensor and no more, while gathering is a collective
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
from playhead.core.errors import ModelError
from playhead.train.grpo.server import ServerWeights
from torch import nn


class Server:
    def __init__(self, file: Path) -> None:
        self.file, self.said = file, []

    def post(self, path, body):
        self.said.append(path)


class Policy:
    def __init__(self, server: Server) -> None:
        self.server, self.version = server, 0

    def weights_changed(self) -> None:
        self.server.post("/reset_prefix_cache", {})
        self.version += 1


def slowly(server, about, named):
    got = {}
    for (name, weights), (said, dtype, shape) in zip(named, about, strict=True):
        assert name == said and list(weights.shape) == shape and dtype == "float32"
        got[name] = float(weights.sum())
    time.sleep(1.0)
    server.file.write_text(json.dumps(got))


def refusing(server, about, named):
    next(named)
    raise ModelError("the server is full")


def model() -> nn.Module:
    made = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 2))
    with torch.no_grad():
        for number, parameter in enumerate(made.parameters()):
            parameter.fill_(1.0 + number)
    return made


def in_shards(made: nn.Module):
    """Every process keeps half of each parameter; entered by all, the context makes them whole."""
    rank, shapes = dist.get_rank(), {}
    for parameter in made.parameters():
        shapes[parameter] = parameter.ds_shape = parameter.shape
        parameter.data = parameter.detach().flatten().chunk(2)[rank].clone()

    @contextmanager
    def gather(parameters):
        mine = [p.data for p in parameters]
        for p in parameters:
            halves = [torch.empty_like(p.data) for _ in range(2)]
            dist.all_gather(halves, p.data)
            p.data = torch.cat(halves).view(shapes[p])
        yield
        for p, shard in zip(parameters, mine, strict=True):
            p.data = shard

    return gather


def publish(case: str, out: Path) -> dict:
    made, how = model(), {}
    if case == "sharded":
        from torch.distributed.fsdp import fully_shard

        fully_shard(made)
    if case in ("zero", "refused"):
        how["gather"] = in_shards(made)
    server = Server(out / f"{case}.json")
    policy, failed = Policy(server), ""
    try:
        ServerWeights(policy, lambda: made, send=refusing if case == "refused" else slowly, **how).publish()
    except ModelError as error:
        failed = str(error)
    found = json.loads(server.file.read_text()) if server.file.is_file() else None
    return {"found": found, "failed": failed, "version": policy.version, "said": server.said}


def main() -> None:
    out = Path(sys.argv[1])
    dist.init_process_group("gloo")
    seen = {case: publish(case, out) for case in ("plain", "sharded", "zero", "refused")}
    (out / f"rank{dist.get_rank()}.json").write_text(json.dumps(seen))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
