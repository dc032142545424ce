"""The few things that the processes of a training say to each other; no-ops where there is one."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def agree(value: int) -> int:
    """Rank 0's value, on every rank."""
    if world() == 1:
        return value
    shared = torch.tensor([value], dtype=torch.int64, device=_device())
    dist.broadcast(shared, 0)
    return int(shared)


def total(value: float) -> float:
    """Sum over the ranks."""
    if world() == 1:
        return value
    shared = torch.tensor([value], dtype=torch.float64, device=_device())
    dist.all_reduce(shared)
    return float(shared)


def gather(value: Any) -> list[Any]:
    """Every rank's value, by rank."""
    if world() == 1:
        return [value]
    values: list[Any] = [None] * world()
    dist.all_gather_object(values, value)
    return values


def barrier() -> None:
    """Wait for all."""
    if world() > 1:
        dist.barrier()


def average(tensors: list[Tensor]) -> None:
    """Mean over the ranks, in place: running statistics of batch norm before they are used or saved."""
    if world() == 1:
        return
    for tensor in tensors:
        if tensor.is_floating_point():
            dist.all_reduce(tensor)
            tensor /= world()


def broadcast(tensors: list[Tensor]) -> None:
    """Rank 0's tensors on every rank, in place."""
    if world() == 1:
        return
    for tensor in tensors:
        dist.broadcast(tensor, 0)


def _device() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")
