"""The memory of a run: where everything lies at given sizes, and the run itself."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ... import primitives as P
from ...arrays import Arrays, Given, bordered_shape
from ...equations import BATCH, Equation
from ...graph import Node
from ..passes import split_rows
from .native import share
from .places import Place
from .rows import axes_of
from .totals import Together

if TYPE_CHECKING:
    from .machine import Machine

ALIGN = 64  # bytes; a vector that crosses a line of the cache takes two loads
BLOCK = 128  # rows of time-parallel work that are taken at once, so that what they make is still in cache


Bound = tuple[int, Place, tuple[int, ...], int]  # a word, whose address, an input's shape, the bytes before it


@dataclass
class Running:
    """A run under way: its arrays, values of the reference's, what has no address yet, what must live on."""

    run: Arrays
    values: dict[Node, np.ndarray]
    pending: list[Bound]
    held: list[np.ndarray]


class Lease:
    """Memory as an array sees it: NumPy keeps what offers this interface as the base of every view."""

    __slots__ = ("__array_interface__", "__weakref__", "memory")

    def __init__(self, memory: np.ndarray):
        self.memory, self.__array_interface__ = memory, memory.__array_interface__


class Space:
    """The memory of one run of a program at given sizes: the context, weights in panels, values.

    It is used again once nothing that was handed out of it is left.
    """

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

    def bytes(self, threads: int) -> int:
        """What a run takes beside the arrays that are given and handed out."""
        return self.total + threads * self.scratch

    def told(self) -> str:
        """What a run was foreseen to take of memory, and what it took."""
        extents = ", ".join(f"{i.upper()} = {n}" for i, n in self.full.extents.items())
        foreseen, taken = self.bytes(self.threads) / 2**20, (self.memory.nbytes + self.hand.nbytes) / 2**20
        return (f"last run, {extents}, {self.full.batch} examples, {self.dtype}: "
                f"{foreseen:.2f} MB foreseen, {taken:.2f} MB taken")

    def allocate(self, threads: int) -> Space:
        """The space with its memory, and in the context all that does not change from run to run."""
        machine, given = self.machine, self.given
        self.memory = np.zeros(self.total + ALIGN, np.uint8)
        self.start = -self.memory.ctypes.data % ALIGN
        self.base = self.memory.ctypes.data + self.start
        self.threads, self.hand = threads, np.empty(threads * self.scratch + ALIGN, np.uint8)
        self.lengths: dict[str, np.ndarray] = {}
        self.context = np.zeros(len(self.words) + 1, np.int64)
        self.addresses = self.hand.ctypes.data + -self.hand.ctypes.data % ALIGN, self.context.ctypes.data
        self.bound: list[Bound] = []
        for key, k in self.words.items():
            if k in self.own:
                self.context[k] = self.own[k]
            elif key[0] == "address" and (key[1].kind, key[1].of) in self.layout:
                self.context[k] = self.base + self.layout[key[1].kind, key[1].of][0] - self.before(key[1])
            elif key[0] == "address":
                shape = self.given_shape(key[1])
                self.bound.append((k, key[1], shape, self.before(key[1]) if shape else 0))
            else:
                self.context[k] = self.word(*key)
        self.borders = [edge for n in self.arrays for edge in self.edges(n)]
        self.offsets = [(key[1], k) for key, k in self.words.items() if key[0] == "offset"]
        self.resting = {n: bordered_shape(self.system, n, given) for n in self.writer.resting}
        self.parts = {n: (whole, slice(first, first + self.size(self.system.shapes[n][0])))
                      for n, (whole, skipped) in self.writer.parts.items() for first in [sum(map(self.size, skipped))]}
        self.inner = [(key, tuple(map(self.size, self.writer.dims(key[1])))) for key in self.layout
                      if key[0] in ("node", "total")]
        self.results = {eq.name: self.part(eq.value) for kind, eq in machine.steps if kind == "result"}
        return self

    # --- sizes -------------------------------------------------------------------------------------------------------

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

    def word(self, kind: str, *of) -> int:
        given = self.given
        if kind == "size":
            return self.size(of[0])
        if kind == "extent":
            return given.extents[of[0]]
        if kind == "lengths":
            return self.lengths.setdefault(of[0], np.full(given.batch, given.extents[of[0]], np.int64)).ctypes.data
        if kind in ("panels", "total", "products", "sums"):
            return self.base + self.layout[kind, of[0]][0]
        if kind == "panel count":
            panel = self.writer.products.panel
            return self.whole(self.size(self.writer.dims(of[0])[0]), panel) // panel
        if kind == "stride":
            return self.strides(of[0]).get(of[1], 0)
        if kind in ("panel stride", "result stride"):  # in bytes
            key, axes = (("panels", of[0]), axes_of(self.writer, of[0])) if kind[0] == "p" else (
                of[:2], self.leading(of[1]))
            return int(np.prod(self.layout[key][1][axes.index(of[-1]) + 1:])) * self.machine.bytes
        return {"batch": given.batch, "block": self.block, "offset": 0, "begun": 0}[kind]

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

    def reserve(self, key, shape: tuple[int, ...]) -> None:
        self.layout[key] = self.total, shape
        self.total += self.whole(int(np.prod(shape, initial=1)) * self.machine.bytes, ALIGN)

    def edges(self, name: str) -> Iterable[np.ndarray]:
        """What a variable holds just outside; of one that rests, what its first position reads."""
        array = self.view(("store", name), self.memory, self.start)
        for axis, i in enumerate(self.system.axes[name]):
            moved = np.moveaxis(array, axis, 0)
            yield from (moved,) if self.writer.resting.get(name) == i else (moved[0], moved[-1])

    def view(self, key, memory, start: int) -> np.ndarray:
        offset, shape = self.layout[key]
        return np.ndarray(shape, self.dtype, memory, start + offset)

    # --- running -----------------------------------------------------------------------------------------------------

    @cached_property
    def views(self) -> dict[str, np.ndarray]:
        """Variables and results in the memory, by name."""
        found = {n: self.view(("store", n), self.memory, self.start) for n in self.arrays}
        found.update((n, found[whole][..., inside]) for n, (whole, inside) in self.parts.items())
        values = self.values_in(self.memory)
        return {**found, **{n: values[node][part] for n, (node, part) in self.results.items()}}

    def lease(self, waiting: list[Space]) -> np.ndarray:
        """The memory for one run; when the last array made from it is gone, the space waits for the next."""
        lease = Lease(self.memory)
        self.returned = weakref.ref(lease, lambda _: waiting.append(self))
        return np.asarray(lease)

    def begin(self, run: Arrays, lease: np.ndarray) -> Running:
        """What a run starts from: ends, lengths, offsets."""
        given = run.given
        if given.lengths:
            self.memory.fill(0)
        for i, lengths in self.lengths.items():
            lengths[...] = given.lengths.get(i, self.given.extents[i])
        for edge in self.borders:
            edge.fill(0)
        self.variables(run, lease)
        for i, k in self.offsets:
            self.context[k] = given.offsets.get(i, 0)
        return Running(run, self.values(run, lease), self.bound, [])

    def run(self, run: Arrays, lease: np.ndarray) -> None:
        running = self.begin(run, lease)
        with np.errstate(all="ignore"):
            for kind, step in self.machine.steps:
                self.step(kind, step, running)

    def step(self, kind: str, step, running: Running) -> None:
        if kind == "reference":
            for function in step:
                function(running.run, running.values, {})
        elif kind == "result":
            n, part = self.results[step.name]
            running.run.stores[step.name] = running.values[n][part]
        else:
            self.reach(running)
            self.call(kind, step)

    def reach(self, running: Running) -> None:
        """Give the addresses of the arrays that have come to be there."""
        running.pending = [place for place in running.pending if not self.bind(place, running)]

    def call(self, kind: str, name: str) -> None:
        """A function, over shares of the examples or of its parts."""
        function, count = self.machine.code.functions[name], self.given.batch if kind == "rows" else 0
        parts = min(self.threads, count or self.threads)
        first, context = self.addresses

        def work(part):
            low, high = (count * part // parts, count * (part + 1) // parts) if count else (part, parts)
            function(context, first + part * self.scratch, low, high)

        share(work, parts)

    def variables(self, run: Arrays, lease: np.ndarray) -> None:
        """The arrays of the variables that lie in the memory, with the ends that are given."""
        stores = run.stores
        for n in self.arrays:
            stores[n] = self.view(("store", n), lease, self.start)
        for (owner, at), value in run.given.ends.items():
            if owner in self.resting:
                stores[owner][...] = value
            elif owner in stores:
                run.write_end(stores[owner], owner, at, value, ())
        for n, shape in self.resting.items():
            stores[n] = np.broadcast_to(stores[n], shape)
        for n, (whole, inside) in self.parts.items():
            stores[n] = stores[whole][..., inside]

    def values(self, run: Arrays, lease: np.ndarray) -> dict[Node, np.ndarray]:
        """The arrays of values that lie in the memory, for results and the reference's steps."""
        return {**{n: np.asarray(n.params[0], run.real) for n in self.machine.partition.plan.constants},
                **self.values_in(lease)}

    def values_in(self, memory: np.ndarray) -> dict[Node, np.ndarray]:
        """The arrays of values that lie in the memory."""
        values: dict[Node, np.ndarray] = {}
        for key in self.layout:
            if key[0] == "products":
                array, columns = self.view(key, memory, self.start), self.columns(key[1])
                for n, first in zip(key[1], columns):
                    height, width = map(self.size, self.writer.dims(n))
                    values[n] = array[..., :height, first:first + width]
        for n, (product, before) in self.machine.riders.items():
            first = sum(map(self.size, before))
            last = first + self.size(self.writer.dims(n)[0])
            values[n] = self.view(("sums", product), memory, self.start)[first:last]
        for key, dims in self.inner:
            array = self.view(key, memory, self.start)
            if key[0] == "total":
                values[key[1]] = array[...]
            else:
                whole = array[..., :int(np.prod(dims, initial=1))]
                values[key[1]] = whole.reshape(*whole.shape[:-1], *dims)
        return values

    def part(self, n: Node) -> tuple[Node, Any]:
        """A sum over rows, and which part of it a value is."""
        if n.op not in (P.split, split_rows):
            return n, ...
        first = sum(self.size(self.writer.dims(a)[0]) for a in n.args[1:n.params[0]])
        return n.args[0], slice(first, first + self.size(self.writer.dims(n.args[n.params[0]])[0]))

    def bind(self, bound: Bound, running: Running) -> bool:
        """Give the address of an array that lies elsewhere, once it is there; what is not in order is copied."""
        k, place, shape, before = bound
        of, run = place.of, running.run
        if shape:
            array = run.given.values[of]
            array = array if array.shape == shape else np.broadcast_to(array, shape)
        else:
            array = running.values.get(of) if place.kind == "node" else (  # type: ignore[assignment]
                run.stores.get(of) if of in self.late else run.store(of))
        if array is None:
            return False
        of_class = place.kind == "store" and self.system.roles.get(of) == "class"
        array = np.ascontiguousarray(array, np.int64 if of_class else self.dtype)
        running.held.append(array)
        self.context[k] = array.ctypes.data - before
        if place.kind == "node":  # an axis of one position stands for all, where there are others
            lead = (*place.axes, *((BATCH,) if place.batched else ()))
            step, steps = int(np.prod(array.shape[len(lead):], initial=1)), {}
            for axis, count in reversed(list(zip(lead, array.shape))):
                several = (self.given.batch if axis == BATCH else self.given.extents[axis]) > 1
                steps[axis] = 0 if count == 1 and several else step
                step *= count
            self.context[k] -= sum(steps[i] for i in place.axes) * self.machine.bytes
            for axis in lead:
                word = self.words.get(("stride", place, axis))
                if word is not None:
                    self.context[word] = steps[axis]
        return True
