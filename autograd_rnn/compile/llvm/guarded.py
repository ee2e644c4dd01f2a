"""A run whose memory shows what it does wrong: what it writes outside its arrays, and what it reads before writing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ...arrays import Given
from ...backpropagate import Wanted
from ...equations import System
from ...errors import CellError
from ..verify import Run, Shape
from .layout import ALIGN
from .space import Space

if TYPE_CHECKING:
    from .machine import Machine

ZONE = 1 << 14  # bytes behind every array: more than a small run can write too far
NOTHING = 255  # every byte: NaN as a number of either size


class Guarded(Space):
    """Memory that is NaN where nothing has been written, with a zone behind every array that nothing may write to."""

    def __init__(self, machine: Machine, given: Given):
        self.zones: list[int] = []
        super().__init__(machine, given)
        self.scratch += ZONE

    def reserve(self, key, shape: tuple[int, ...]) -> None:
        super().reserve(key, shape)
        self.zones.append(self.total)
        self.total += ZONE

    def allocate(self, threads: int) -> Guarded:
        super().allocate(threads)
        self.memory.fill(NOTHING)
        self.hand.fill(NOTHING)
        zeros = [self.view(key, self.memory, self.start) for key in self.layout if key[0] == "panels"]
        for array in (*self.borders, *zeros):
            array.fill(0)
        return self

    def blank(self) -> None:
        super().blank()
        for guard in self.guards():
            guard.fill(NOTHING)

    def guards(self) -> list[np.ndarray]:
        """The zones, what lies before the first array, and the end of each thread's scratch."""
        start = -self.hand.ctypes.data % ALIGN
        ends = [start + (part + 1) * self.scratch for part in range(self.threads)]
        return [self.memory[:self.start], *(self.hand[end - ZONE:end] for end in ends),
                *(self.memory[self.start + zone:self.start + zone + ZONE] for zone in self.zones)]

    def untouched(self) -> bool:
        """Whether nothing was written to a guard."""
        return all((guard == NOTHING).all() for guard in self.guards())


def guarded(machine: Machine) -> Run:
    """Runs of a machine as `verify.fault` asks for them, in guarded memory or within a budget."""
    def run(system: System, given: Given, keep: Wanted, shape: Shape) -> dict[str, np.ndarray] | str:
        own = machine.own(system, given)
        if shape.parts:
            try:
                space = machine.space(own, shape.threads, Space(machine, own).bytes(shape.threads) - 1)
            except CellError:  # a budget that this cell cannot keep to is refused when it is asked for
                return ""
            return machine.run(space, space.memory, system, given, keep)
        space = Guarded(machine, own).allocate(shape.threads)
        found = machine.run(space, space.memory, system, given, keep)
        return found if space.untouched() else "it writes outside its arrays"

    return run
