"""Memory that is handed out and comes back when the last array made from it is gone."""

from __future__ import annotations

import numpy as np


class Lease:
    """Memory as an array sees it: NumPy keeps what offers this interface as the base of every view."""

    __slots__ = ("__array_interface__", "__weakref__", "memory")

    def __init__(self, memory: np.ndarray):
        self.memory, self.__array_interface__ = memory, memory.__array_interface__
