"""The memory of one run of a NumPy program at given shapes: its variables' arrays, and those it works in.

    given arrays -> their places -> the program -> arrays that are handed out

It is used again once nothing that was handed out of it is left.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterable
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
        self.program, self.system = program, program.system
        system, writer = self.system, program.writer
        bordered = [n for n in writer.stores if system.axes[n]]
        self.fill = {n: -1 if system.roles[n] == "class" else 0 for n in bordered}
        self.shapes = {n: bordered_shape(system, n, given) for n in bordered}
        self.parts = {n: slice(start := total(given, part.before), start + total(given, [part.size]))
                      for n, part in writer.parts.items()}
        self.places: dict[str, tuple[int, int, np.dtype]] = {}  # bytes
        end = 0
        for n in bordered:
            if n not in self.parts and n not in program.fresh:
                dtype = np.dtype(np.int64) if self.fill[n] else given.dtype
                start, end = end, end + math.prod(self.shapes[n]) * dtype.itemsize
                self.places[n] = start, end, dtype
                end += -end % LINE
        self.memory = np.zeros(end, np.uint8)
        self.arrays = {n: self.view(n, self.memory) for n in (*self.places, *self.parts)}
        for n, array in self.arrays.items():
            array.fill(self.fill[n])
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

    def run(self, given: Given) -> dict[str, np.ndarray]:
        """The arrays that the program gives, by name, from those given."""
        run, system, writer = Arrays(self.system, given), self.system, self.program.writer
        fresh = {n: np.zeros(self.shapes[n], given.dtype) for n in self.program.fresh if system.axes[n]}
        for n in self.ended:
            for axis in range(len(system.axes[n])):
                self.arrays[n].swapaxes(0, axis)[[0, -1]] = self.fill[n]
        self.ended = {n for n, _ in given.ends if n in self.arrays}
        for n, array in self.arrays.items():
            if n in system.given:
                array[(slice(1, -1),) * len(system.axes[n])] = given.values.get(n, self.fill[n])
        for (n, at), value in given.ends.items():
            array = fresh.get(n, self.arrays.get(n))
            if array is not None:
                run.write_end(array, n, at, value, ())
        arrays = [fresh[n] if n in fresh else self.arrays[n] if n in self.arrays else
                  None if n in system.defined else run.store(n) for n in writer.stores]
        with np.errstate(all="ignore"):
            found = self.program.function(arrays, self.work, *self.sizes,
                                          {k: given.offsets.get(i, 0) for k, i in enumerate(system.indices)})
        return dict(zip(writer.results, found))

    def lent(self, names: Iterable[str], waiting: list[Space]) -> dict[str, np.ndarray]:
        """Arrays to hand out; when the last of them is gone, the space waits for the next run."""
        lease = Lease(self.memory)
        self.returned = weakref.ref(lease, lambda _: waiting.append(self))
        memory = np.asarray(lease)
        return {n: self.view(n, memory) for n in names}


def total(given: Given, sizes: Iterable) -> int:
    return sum(d if isinstance(d, int) else given.sizes[d] for d in sizes)
