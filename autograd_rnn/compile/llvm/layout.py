"""Where everything lies in the memory of a run, at given sizes: offsets and shapes, before there is any memory.

    machine + sizes, extents, batch -> what each variable, value, packed weight and sum needs, one after another
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ... import primitives as P
from ...arrays import Given, bordered_shape
from ...equations import BATCH, Equation
from ...graph import Node
from .places import Place
from .rows import axes_of
from .totals import Together

if TYPE_CHECKING:
    from .machine import Machine

ALIGN = 64  # bytes; a vector that crosses a line of the cache takes two loads
SUMS = ("products", "total")  # of words: sums over all rows
BLOCK = 128  # rows of time-parallel work that are taken at once, so that what they make is still in cache


class Layout:
    """Offsets and shapes in the memory of a run."""

    def __init__(self, machine: Machine, given: Given, stretch: int | None = None):
        """stretch: how many positions of the time index there is room for at once, all where None."""
        self.machine, self.full = machine, replace(given, values=dict.fromkeys(given.values, np.empty(0)), ends={})
        self.writer, self.system = machine.writer, machine.system
        time = self.system.time
        self.given = given if stretch is None or time is None else replace(
            given, extents={**given.extents, time: stretch})
        self.words = self.writer.context.words
        self.dtype = np.dtype(np.float64 if machine.bytes == 8 else np.float32)
        self.block = max(1, BLOCK // given.batch)
        self.layout: dict[Any, tuple[int, tuple[int, ...]]] = {}  # offset and shape of what lies in the memory
        self.total = self.scratch = 0
        written = {s.name for s in machine.made if isinstance(s, Equation)}
        self.late = {n for n in written if not self.system.axes[n]} | {
            eq.name for kind, eq in machine.steps if kind == "result"}  # made whole, under their names, in their turn
        self.arrays = [n for n in self.system.defined if n in self.writer.stored and n not in written | self.late
                       and n not in self.writer.parts and not (machine.keep.get(n) and self.system.axes[n])]
        for n in self.arrays:
            self.reserve(("store", n), self.kept(n))
        for node, place in self.writer.outside.items():
            if node not in machine.made and place.kind == "node":
                self.reserve(("node", node), self.shape(node, place))
        for key in self.words:
            if key[0] not in SUMS:
                self.room(key)
        self.sums = self.total  # here they begin, side by side
        for key in self.words:
            if key[0] in SUMS:
                self.room(key)
        self.own: dict[int, int] = {}  # where a thread's values lie in its scratch, by word
        own = 0
        for key, k in self.words.items():
            if key[0] == "address" and key[1].thread:
                self.own[k] = own
                count = int(np.prod(self.counts(key[1]))) * self.width(key[1].of)
                own += self.whole(count * machine.bytes, ALIGN)
        self.scratch = self.whole(max(self.scratch, own), ALIGN) + ALIGN
        self.direct = {n for n in self.system.given if not given.lengths and n in given.values and self.stays(n)}

    def stays(self, name: str) -> bool:
        """Whether an input is read only where it stands, so that it needs no ends."""
        return self.system.roles[name] != "class" and all(
            p.base == "i" and not p.offset for r in self.system.reads if r.params[0] == name for p in r.params[1])

    def room(self, key: tuple) -> None:
        """Memory for weights in panels and for sums over rows."""
        dims, products = self.writer.dims, self.writer.products
        if key[0] == "panels":
            width, depth = map(self.size, dims(key[1]))
            lead = tuple(self.given.extents[i] for i in axes_of(self.writer, key[1]))
            self.reserve(key, (*lead, self.whole(width, products.panel) // products.panel, depth, products.panel))
        elif key[0] == "products":
            height, width = self.whole(self.size(dims(key[1][0])[0]), self.writer.width), self.columns(key[1])[-1]
            lead = tuple(self.given.extents[i] for i in self.leading(key[1]))
            self.reserve(key, (*lead, height, width))
            self.reserve(("sums", key[1]), (*lead, height))
            self.scratch = max(self.scratch, products.correlate_scratch(len(key[1]), width))
        elif key[0] == "total":
            self.reserve(key, (*(self.given.extents[i] for i in self.leading(key[1])), *map(self.size, dims(key[1]))))

    def reserve(self, key, shape: tuple[int, ...]) -> None:
        self.layout[key] = self.total, shape
        self.total += self.whole(int(np.prod(shape, initial=1)) * self.machine.bytes, ALIGN)

    def size(self, d) -> int:
        return d if isinstance(d, int) else int(d) if str(d).isdigit() else self.given.sizes[d]

    @staticmethod
    def whole(n: int, step: int) -> int:
        """The next multiple."""
        return -(-n // step) * step

    def columns(self, group: Together) -> list[int]:
        """Where each of some products begins, beside one another, and where the last ends."""
        found = [0]
        for n in group:
            found.append(found[-1] + self.whole(self.size(self.writer.dims(n)[1]), self.writer.products.panel))
        return found

    def leading(self, of: Together | Node) -> tuple[str, ...]:
        """The indices that a sum over all rows varies with."""
        n = of[0] if isinstance(of, tuple) else of
        return tuple(i for i in self.system.indices if i in self.system.free(n))

    def width(self, n: Node) -> int:
        """The numbers of one row of a value; of a product, whole panels."""
        width = int(np.prod([self.size(d) for d in self.writer.dims(n)], initial=1))
        return self.whole(width, self.writer.products.panel) if n.op is P.matmul else width

    def kept(self, name: str) -> tuple[int, ...]:
        """The shape of a variable's array; one that rests has one position."""
        shape, still = bordered_shape(self.system, name, self.given), self.writer.resting.get(name)
        return tuple(1 if i == still else n for i, n in zip(self.system.axes[name], shape)) + shape[len(
            self.system.axes[name]):]

    def shape(self, n: Node, place: Place) -> tuple[int, ...]:
        lead = tuple(self.given.extents[i] for i in place.axes) + ((self.given.batch,) if place.batched else ())
        return (*lead, self.width(n))

    def strides(self, place: Place) -> dict[str, int]:
        """How many numbers further the next position of each index lies, and the next example."""
        lead = (*place.axes, *((BATCH,) if place.batched else ()))
        of: Any = place.of
        if place.kind == "store":
            shape = bordered_shape(self.system, of, self.given)
            if of in self.direct:
                shape = tuple(n - 2 for n in shape[:len(lead) - place.batched]) + shape[len(lead) - place.batched:]
            still = self.writer.resting.get(of)
            counts = [n for i, n in zip((*self.system.axes[of], BATCH), shape) if i != still][:len(lead)]
            inner = int(np.prod(shape[len(self.system.axes[of]) + place.batched:], initial=1))
        elif place.kind == "node":
            *counts, inner = self.shape(of, place)
        else:
            counts, inner = self.counts(place), self.width(of)
        found = {}
        for axis, count in zip(reversed(lead), reversed(counts)):
            found[axis] = inner
            inner *= count
        return found

    def counts(self, place: Place) -> list[int]:
        """How many positions of each index, and how many examples, a thread's values have."""
        found = [self.given.extents[i] for i in place.axes]
        if place.kind == "own" and found:
            found[0] = self.block
        return [*found, self.given.batch]

    def before(self, place: Place) -> int:
        """The bytes from position 0 of each index to where an array begins: values have no ends."""
        if place.kind == "store" and place.of not in self.direct:
            return 0
        strides = self.strides(place)
        return sum(strides[i] for i in place.axes) * self.machine.bytes

    def given_shape(self, place: Place) -> tuple[int, ...]:
        """The shape of an input where only its own position is read: it stays where it is, without ends."""
        if place.kind != "store" or place.of not in self.direct:
            return ()
        shape, axes = bordered_shape(self.system, place.of, self.full), len(place.axes)  # type: ignore[arg-type]
        return tuple(n - 2 for n in shape[:axes]) + shape[axes:]
