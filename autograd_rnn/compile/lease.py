"""The memory of runs: a run takes a space, has it alone, and gives it back when the last array made from it is gone.

    shape -> a space that waits, or a new one -> a run -> arrays that are handed out -> the space waits again

A space comes back only from a run that ended well: what an exception or Ctrl-C broke off may hold anything, so its
space is dropped. Each access is one operation of a dict or a list, which no other thread and no signal handler
sees half done. A lock would not do: a signal handler that takes a gradient would wait for the call it interrupted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

SHAPES = 4  # lengths and batches whose memory is kept for the next run
Space = TypeVar("Space")


def room(spaces: dict[tuple, list[Space]], shape: tuple, make: Callable[[], Space]
         ) -> tuple[Space, list[Space]]:
    """A space for a run of a shape, one that waits or a new one, and the list that it goes back to."""
    waiting = spaces.pop(shape, [])
    keep(spaces, shape, waiting, SHAPES)
    try:
        return waiting.pop(), waiting
    except IndexError:  # none is free
        return make(), waiting


def keep(found: dict, key: Any, value: Any, most: int) -> None:
    """Put a value into a dict and drop the oldest beyond so many."""
    found[key] = value
    for old in list(found)[:-most]:
        found.pop(old, None)


class Lease:
    """Memory as an array sees it: NumPy keeps what offers this interface as the base of every view.

    back: set when the run has ended well, and called when the last view is gone. The lease keeps alive what it belongs
    to, which nothing else may hold.
    """

    back: Callable[[], None] | None = None

    def __init__(self, memory: np.ndarray):
        self.memory, self.__array_interface__ = memory, memory.__array_interface__

    def __del__(self):
        if self.back is not None:
            self.back()
