"""Which process of how many this is: one alone, or one of those that torchrun started.

The only place that reads environment variables, and only torchrun's (ranks), never settings.
"""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class World:
    """The processes of a job.

    Attributes:
        rank: number of this process, from 0.
        size: number of processes.
        local_rank: number of this process on its machine, which is the GPU it takes.
        launched: whether torchrun (or another launcher with its variables) started it.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    launched: bool = False

    @classmethod
    def from_env(cls) -> World:
        """The world as torchrun tells it; without a launcher, one process."""
        if "WORLD_SIZE" not in os.environ or "RANK" not in os.environ:
            return cls()
        return cls(
            rank=int(os.environ["RANK"]),
            size=int(os.environ["WORLD_SIZE"]),
            local_rank=int(os.environ.get("LOCAL_RANK", "0")),
            launched=True,
        )

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0
