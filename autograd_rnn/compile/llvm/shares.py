"""A run within a budget of memory where a sequence has no stretches: some of the examples at a time.

Each share runs forward and backward as a batch of its own, and sums over the examples go on from share to share. What
is an example's own has the bits of a run without a budget; a sum over all of them is rounded in another order.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ...arrays import Arrays, Given, bordered_shape
from ...equations import BATCH, System
from ...errors import CellError
from ...graph import EXTENT, READ, Node, option, topological
from ...order import operands
from .space import Space

if TYPE_CHECKING:
    from .machine import Machine


class Shares(Space):
    """The memory of one share of the examples, and of what is summed over all."""

    @classmethod
    def within(cls, machine: Machine, given: Given, threads: int, memory: int, reason: str) -> Shares:
        """The largest equal shares that fit. Raises CellError where none does, or sums over the examples cannot go on.

        reason: why a sequence has no stretches.
        """
        hindrance = obstacle(machine.system)
        if hindrance:
            raise CellError(f"The program cannot keep to a budget of memory: {reason}; and {hindrance}.",
                            remedy="Leave out `memory`.")
        for share in range(given.batch, 0, -1):
            if given.batch % share == 0:
                found = cls(machine, given, share)
                least = found.bytes(threads)
                if least <= memory:
                    return found
        raise CellError(f"The program needs {least / 2**20:.2f} MB for one example; the budget is "
                        f"{memory / 2**20:.2f} MB. It takes a sequence whole: {reason}.",
                        remedy=f'Give memory="{least // 2**20 + 1}MB", or shorter sequences.')

    def __init__(self, machine: Machine, given: Given, share: int):
        super().__init__(machine, replace(given, batch=share))
        own = self.system.per_example
        self.handed_out = [n for n in machine.keep if n in own]
        self.copied = {n for n in (*given.values, *self.handed_out) if n in own and n not in self.arrays}

    def bytes(self, threads: int) -> int:
        """With copies of what is given and handed out of the examples at hand."""
        numbers = sum(int(np.prod(bordered_shape(self.system, n, self.given))) for n in self.copied)
        return super().bytes(threads) + numbers * self.machine.bytes

    def told(self) -> str:
        return f"{super().told()}, share by share"

    def taken(self) -> int:
        return super().taken() + self.beside

    def run(self, run: Arrays, lease: np.ndarray) -> None:
        share = self.given.batch
        whole: dict[str, np.ndarray] = {}
        total: dict[Node, Any] = {}  # of the reference's sums
        with np.errstate(all="ignore"):
            for start in range(0, run.given.batch, share):
                chosen = slice(start, start + share)
                running = self.begin(Arrays(self.system, some(self.system, run.given, chosen)), lease)
                for kind, step in self.machine.steps:
                    if ("begun",) in self.words:
                        self.context[self.words["begun",]] = start > 0 and kind == "parts" and step in self.machine.sums
                    self.step(kind, step, running)
                    for n in sums(self.machine, step) if kind == "reference" else ():
                        running.values[n] = total[n] = total.get(n, 0) + running.values[n]
                stores = running.run.stores
                self.beside = sum((stores[name] if name in stores else running.run.given.values[name]).nbytes
                                  for name in self.copied)
                for name in self.handed_out:
                    self.hand_out(name, running.run.store(name), whole, chosen, run.given.batch)
        run.stores.update({**{name: running.run.store(name) for name in self.machine.keep}, **whole})
        run.stores.update((name, np.broadcast_to(whole[name], bordered_shape(self.system, name, run.given)))
                          for name in whole if name in self.resting)

    def hand_out(self, name: str, found: np.ndarray, whole: dict[str, np.ndarray], chosen: slice, batch: int) -> None:
        """A share's values, among those of all; of a variable that rests, the one position."""
        axes, still = self.system.axes[name], self.writer.resting.get(name)
        found = found[tuple(slice(0, 1 if i == still else None) for i in axes)]
        lead, comps = found.shape[:len(axes)], found.shape[len(axes) + 1:]
        if name not in whole:
            whole[name] = np.empty((*lead, batch, *comps), found.dtype)
        whole[name][(*map(slice, lead), chosen)] = found


def some(system: System, given: Given, chosen: slice) -> Given:
    """What is given of some of the examples."""
    def own(array: np.ndarray, name: str, axes: int) -> np.ndarray:
        return array[(slice(None),) * axes + (chosen,)] if name in system.per_example else array

    return replace(
        given, batch=chosen.stop - chosen.start,
        values={n: own(array, n, len(system.axes[n])) if n in system.axes else array
                for n, array in given.values.items()},
        ends={(n, at): own(array, n, sum(p.base == "i" for p in at)) for (n, at), array in given.ends.items()},
        lengths={i: array[chosen] for i, array in given.lengths.items()},
        offsets={i: before[chosen] if isinstance(before, np.ndarray) else before
                 for i, before in given.offsets.items()})


def sums(machine: Machine, step: Any) -> list[Node]:
    """The sums over the examples that a step of the reference makes."""
    return [n for n in machine.references[id(step)]
            if isinstance(n, Node) and n.op.fill is not None and option(n) == BATCH]


def obstacle(system: System) -> str:
    """Why the examples of a program cannot be shared out; empty where they can."""
    of_all: set[Node | str] = set()  # what is made from all examples
    before = -1
    while before < len(of_all):
        before = len(of_all)
        for eq in system.equations:
            for n in topological([eq.value]):
                if (n.op.fill is not None and option(n) == BATCH) or (n.op is EXTENT and n.params[0] == BATCH) or (
                        n.op is READ and n.params[0] in of_all) or not of_all.isdisjoint(operands(n)):
                    of_all.add(n)
                    if BATCH in system.free(n):
                        return "an example's values are made from other examples'"
            if eq.value in of_all:
                of_all.add(eq.name)
    return ""
