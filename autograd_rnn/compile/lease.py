"""Memory that is handed out and comes back when the last array made from it is gone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np

SHAPES = 4  # lengths and batches whose memory is kept for the next run
Space = TypeVar("Space")


def room(spaces: dict[tuple, list[Space]], shape: tuple, make: Callable[[], Space]
         ) -> tuple[Space, list[Space]]:
    """A space for a run of a shape, one that waits or a new one, and the list that it goes back to."""
    waiting = spaces.pop(shape, [])
    spaces[shape] = waiting
    while len(spaces) > SHAPES:
        spaces.pop(next(iter(spaces)))
    try:
        return waiting.pop(), waiting
    except IndexError:  # none is free
        return make(), waiting


class Lease:
    """Memory as an array sees it: NumPy keeps what offers this interface as the base of every view.

    back: called when the last view is gone. The lease keeps alive what it belongs to, which nothing else may hold.
    """

    __slots__ = ("__array_interface__", "back", "memory")

    def __init__(self, memory: np.ndarray, back: Callable[[], None]):
        self.memory, self.__array_interface__, self.back = memory, memory.__array_interface__, back

    def __del__(self):
        self.back()
