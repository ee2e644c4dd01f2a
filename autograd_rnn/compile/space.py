"""The memory of one run of a NumPy program at given shapes: its variables' arrays, and those it works in.

    given arrays -> their places -> the program -> arrays that are handed out

It is used again once nothing that was handed out of it is left.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ..arrays import Arrays, Given, bordered_shape
from .lease import Lease

if TYPE_CHECKING:
    from .numpy_program import NumpyProgram

LINE = 64  # bytes: where arrays begin


class Space:
    """Arrays for one run at a time."""

    def __init__(self, program: NumpyProgram, given: Given):
        """given: sizes and extents; nothing is read of what it holds."""
        self.program, self.system = program, program.system
        self.given = replace(given, values={}, ends={}, offsets={})
        system, writer = self.system, program.writer
        self.fill = {n: -1 if system.roles[n] == "class" else 0 for n in writer.stores}
        self.shapes = {n: bordered_shape(system, n, given) for n in writer.stores}
        self.inside = {n: (slice(1, -1),) * len(system.axes[n]) for n in writer.stores}
        self.fresh = [n for n in program.fresh if system.axes[n]]
        self.parts = {n: slice(start := total(given, part.before), start + total(given, [part.size]))
                      for n, part in writer.parts.items()}
        self.places: dict[str, tuple[int, int, np.dtype]] = {}  # bytes
        end = 0
        for n in writer.stores:
            if system.axes[n] and not (n in self.parts or n in self.fresh or n in writer.bare):
                dtype = np.dtype(np.int64) if self.fill[n] else given.dtype
                start, end = end, end + math.prod(self.shapes[n]) * dtype.itemsize
                self.places[n] = start, end, dtype
                end += -end % LINE
        self.memory = np.zeros(end, np.uint8)
        self.arrays = {n: self.view(n, self.memory) for n in (*self.places, *self.parts)}
        for n, array in self.arrays.items():
            if self.fill.get(n):
                array.fill(self.fill[n])
        self.bordered = {n: self.arrays[n][self.inside[n]] for n in self.places if n in system.given}
        self.sizes = ([given.extents[i] for i in system.indices], [given.sizes[d] for d in writer.sizes], given.batch,
                      np.zeros((), given.dtype).real.dtype)
        self.work = program.workspace(*self.sizes)
        self.ended: set[str] = set()  # variables whose ends were given

    def view(self, name: str, memory: np.ndarray) -> np.ndarray:
        """A variable's array in the memory."""
        if name in self.parts:
            return self.view(self.program.writer.parts[name].whole, memory)[..., self.parts[name]]
        start, end, dtype = self.places[name]
        return memory[start:end].view(dtype).reshape(self.shapes[name])

    def shape(self, name: str) -> tuple[int, ...]:
        """A variable's shape without its ends."""
        axes = len(self.system.axes[name])
        return tuple(n - 2 * (k < axes) for k, n in enumerate(self.shapes[name]))

    def values(self, given: Given) -> dict[str, np.ndarray]:
        """What is given, at every position; zeros (no class: -1) where nothing is."""
        kinds = {n: np.int64 if self.fill[n] else given.dtype for n in self.program.writer.stores
                 if n in self.system.given}
        return {n: np.broadcast_to(np.asarray(given.values.get(n, self.fill[n]), kind), self.shape(n))
                for n, kind in kinds.items()}

    def run(self, values: Mapping[str, np.ndarray], given: Given | None = None) -> dict[str, np.ndarray]:
        """The arrays that the program gives, by name, from those given; `given` has ends and offsets, if any."""
        given = given or self.given
        fresh = {n: np.zeros(self.shapes[n], given.dtype) for n in self.fresh}
        have = {**values, **self.arrays, **fresh}
        if given.ends or self.ended:
            self.write_ends(given, have)
        for n, inside in self.bordered.items():
            inside[...] = values[n]
        with np.errstate(all="ignore"):
            found = self.program.function([have.get(n) for n in self.program.writer.stores], self.work, *self.sizes,
                                          {k: given.offsets.get(i, 0) for k, i in enumerate(self.system.indices)})
        return dict(zip(self.program.writer.results, found))

    def write_ends(self, given: Given, arrays: Mapping[str, np.ndarray]) -> None:
        """Ends as they are given; those of an earlier run are gone."""
        for n in self.ended:
            for axis in range(len(self.system.axes[n])):
                self.arrays[n].swapaxes(0, axis)[[0, -1]] = self.fill[n]
        self.ended = {n for n, _ in given.ends if n in self.arrays}
        for (n, at), value in given.ends.items():
            if n in arrays and n not in self.program.writer.bare:
                Arrays(self.system, given).give_end(arrays[n], n, at, value)

    def lent(self, names: Iterable[str], waiting: list[Space]) -> dict[str, np.ndarray]:
        """Arrays of a run that has ended, to hand out; when the last is gone, the space waits for the next run."""
        lease = Lease(self.memory)
        lease.back = lambda: waiting.append(self)
        memory = np.asarray(lease)
        return {n: self.view(n, memory) for n in names}


def total(given: Given, sizes: Iterable) -> int:
    return sum(d if isinstance(d, int) else given.sizes[d] for d in sizes)
