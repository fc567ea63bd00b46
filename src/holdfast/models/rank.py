"""Which process of several this one is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rank:
    """This process among those that train together, as torchrun numbers them.

    Attributes:
        rank: over all machines.
        local_rank: on this machine, and so the GPU's position among the visible ones.
        world_size: how many there are.
    """

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1

    @classmethod
    def current(cls, environment: Mapping[str, str] = os.environ) -> Rank:
        """This process's rank: the only one, unless a launcher says otherwise."""
        names = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
        if not all(name in environment for name in names):
            return cls()
        return cls(*(int(environment[name]) for name in names))

    @property
    def is_first(self) -> bool:
        """Whether this process writes what only one may write."""
        return self.rank == 0
