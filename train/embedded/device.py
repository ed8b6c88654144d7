"""Where a trainer runs: `--device`, the same option for every trainer; "auto" is CUDA when there is one, else the CPU."""

from __future__ import annotations

import argparse

import torch


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add `--device`, which reads as a `torch.device`."""
    parser.add_argument("--device", type=_device, default="auto", help="cpu, cuda, cuda:1; auto: cuda if there is one")


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise argparse.ArgumentTypeError(f"no such device: {name!r}; say auto, cpu or cuda") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise argparse.ArgumentTypeError(f"{name}: PyTorch finds no such GPU; say cpu or auto")
    return device
