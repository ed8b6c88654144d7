"""Will the weights fit, and how much of what they leave may caches take?

The weights' size is read from safetensors headers and held against the memory that is free where they go. Only the weights are
counted, so a refusal is never wrong by more than what runs beside; caches and activations come on top.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...core.errors import ModelError

_BITS = {"F64": 64, "I64": 64, "F32": 32, "I32": 32, "F16": 16, "BF16": 16, "I16": 16, "F8_E4M3": 8, "F8_E5M2": 8}
_TARGET = {"float32": 32, "bfloat16": 16, "float16": 16}
_CGROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat", "inactive_file"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        "/sys/fs/cgroup/memory/memory.stat",
        "total_inactive_file",
    ),
)
"""(limit, use, statistics, name of what can be dropped), version 2 and 1."""

_GIB = 1 << 30
MOST_ON_CPU = 4 * _GIB
"""Of RAM, which other programs want too, caches take no more unless they are told to."""
VISION_SHARE = 4
"""Features of frames get this part of what attention caches get, besides."""

Tensor = tuple[str, str, tuple[int, ...]]
"""Name, safetensors dtype, shape."""


def check_room(checkpoint: str, source: str, local: bool, dtype: str, where: Any, *, four_bit: bool) -> None:
    """Raises: ModelError: the weights alone are larger than the free memory of where they go.

    Args:
        where: a device, "auto", or accelerate's device map.
        dtype: what they are loaded as; "auto" for as they are.
    """
    tensors = _local_tensors(Path(source)) if local else _hub_tensors(source)
    need = weights_bytes(tensors, dtype, four_bit=four_bit)
    free, place = free_bytes(where)
    if need > free:
        raise ModelError(
            f"{checkpoint}: its weights take {_gb(need)} as {'4 bit' if four_bit else dtype}, and {_gb(free)} are free "
            f"({place}); choose a smaller type, 4-bit loading, a device map or a smaller model"
        )


def weights_bytes(tensors: list[Tensor], dtype: str, *, four_bit: bool) -> int:
    """What the tensors take when loaded."""
    total = 0.0
    for name, stored, shape in tensors:
        bits = float(_BITS.get(stored, 8))
        if stored.startswith(("F", "BF")) and dtype in _TARGET:
            bits = _TARGET[dtype]
        # NF4: four bits and a scale per 64 weights, itself in eight bits; what is not a linear layer of the LM stays.
        if four_bit and len(shape) == 2 and not any(w in name for w in ("visual", "vision", "embed", "lm_head", "connector")):
            bits = 4.5
        total += math.prod(shape) * bits / 8
    return int(total)


def free_bytes(where: Any) -> tuple[int, str]:
    """(bytes that weights may take, how the place is called)."""
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if isinstance(where, Mapping):
        places = sorted({str(d) for d in where.values()})
    elif where.startswith(("auto", "balanced", "sequential")):
        places = [*map(str, range(gpus)), "cpu"]
    else:
        places = [where]
    if "disk" in places:
        return 1 << 62, "disk"
    total = 0
    for place in places:
        if place == "cpu":
            total += available_ram()
        elif gpus:
            device = int(place) if place.isdigit() else place
            total += torch.cuda.mem_get_info(device)[0]
    return total, " + ".join("RAM" if p == "cpu" else f"cuda:{p}" if p.isdigit() else p for p in places)


def cache_limits(model: Any, cache_gb: float | None) -> dict[str, int]:
    """The engine's `cache_bytes` and `vision_bytes` around a loaded model: as the user said, or else by the room there is."""
    cache = cache_room(model) if cache_gb is None else int(cache_gb * 1e9)
    return {"cache_bytes": cache, "vision_bytes": cache // VISION_SHARE}


def cache_room(model: Any) -> int:
    """Bytes that attention caches may take beside `model`: a quarter of what is free on its devices now, but at least 1 GiB
    where half of it is as much, and of RAM at most `MOST_ON_CPU`.

    Layers spread over GPUs keep their caches there, so what is free on the fullest one counts for each."""
    spread = {str(place) for place in (getattr(model, "hf_device_map", None) or {}).values()} - {"cpu", "disk"}
    places = spread or {str(next(model.parameters()).device)}
    free = min(free_bytes(place)[0] for place in places) * len(places)
    room = max(free // 4, min(_GIB, free // 2))
    return min(room, MOST_ON_CPU) if places == {"cpu"} else room


def available_ram() -> int:
    """Bytes of RAM that can be had now, within the limit of a container."""
    import psutil

    free = psutil.virtual_memory().available
    for limit, used, statistics, droppable in _CGROUPS:
        try:
            bound, use = int(Path(limit).read_text()), int(Path(used).read_text())
            stats = dict(line.split() for line in Path(statistics).read_text().splitlines())
        except (OSError, ValueError):  # no such file, or "max": no limit
            continue
        free = min(free, max(0, bound - use + int(stats.get(droppable, 0))))
    return free


def _local_tensors(folder: Path) -> list[Tensor]:
    index = folder / "model.safetensors.index.json"
    try:
        names = set(json.loads(index.read_text())["weight_map"].values()) if index.is_file() else {"model.safetensors"}
        return [t for name in sorted(names) for t in _header(folder / name)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error):
        return []  # whatever is wrong with the files, loading says it better


def _header(file: Path) -> Iterator[Tensor]:
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        if length > file.stat().st_size:
            raise ValueError("not a safetensors file")
        header = json.loads(stream.read(length))
    for name, entry in header.items():
        if name != "__metadata__":
            yield name, entry["dtype"], tuple(entry["shape"])


def _hub_tensors(repo: str) -> list[Tensor]:
    """Of what lies in the local cache, or else of what the hub would give; empty where nobody can tell."""
    from huggingface_hub import get_safetensors_metadata, try_to_load_from_cache

    config = try_to_load_from_cache(repo, "config.json")
    if isinstance(config, str) and (tensors := _local_tensors(Path(config).parent)):
        return tensors
    try:
        files = get_safetensors_metadata(repo).files_metadata.values()
        return [(name, t.dtype, tuple(t.shape)) for file in files for name, t in file.tensors.items()]
    except Exception:  # offline, or no safetensors there: loading will say it
        return []


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 10**8 else f"{size / 1e6:.1f} MB"
