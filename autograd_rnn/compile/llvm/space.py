"""The memory of a run, and the run itself: addresses in the context, then one function after another."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ... import primitives as P
from ...arrays import Arrays, bordered_shape
from ...equations import BATCH
from ...graph import Node
from ..passes import split_rows
from .layout import ALIGN, Layout
from .native import share
from .places import Place
from .rows import axes_of

Bound = tuple[int, Place, tuple[int, ...], int]  # a word, whose address, an input's shape, the bytes before it


@dataclass
class Running:
    """A run under way: its arrays, values of the reference's, what has no address yet, what must live on."""

    run: Arrays
    values: dict[Node, np.ndarray]
    pending: list[Bound]
    held: list[np.ndarray]


class Space(Layout):
    """The memory of one run: the context, weights in panels, values.

    It is used again once nothing that was handed out of it is left.
    """

    def bytes(self, threads: int) -> int:
        """What a run takes beside the arrays that are given and handed out."""
        return self.total + threads * self.scratch

    def told(self) -> str:
        """What a run was foreseen to take of memory, and what it took."""
        extents = ", ".join(f"{i.upper()} = {n}" for i, n in self.full.extents.items())
        return (f"last run, {extents}, {self.full.batch} examples, {self.dtype}: "
                f"{self.bytes(self.threads) / 2**20:.2f} MB foreseen, {self.taken() / 2**20:.2f} MB taken")

    def taken(self) -> int:
        """What a run took, in bytes."""
        return self.memory.nbytes + self.hand.nbytes

    def allocate(self, threads: int) -> Space:
        """The space with its memory, and in the context all that does not change from run to run."""
        machine, given = self.machine, self.given
        self.memory = np.zeros(self.total + ALIGN, np.uint8)
        self.start = -self.memory.ctypes.data % ALIGN
        self.base = self.memory.ctypes.data + self.start
        self.threads, self.hand = threads, np.empty(threads * self.scratch + ALIGN, np.uint8)
        self.held: object = None  # what the addresses of a run under way lead to, while any thread may follow them
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
        self.overwritten = [edge for n in self.arrays if n in self.writer.resting for edge in self.edges(n)]
        self.ended = False
        self.offsets = [(key[1], k) for key, k in self.words.items() if key[0] == "offset"]
        self.resting = {n: bordered_shape(self.system, n, given) for n in self.writer.resting}
        self.parts = {n: (whole, slice(first, first + self.size(self.system.shapes[n][0])))
                      for n, (whole, skipped) in self.writer.parts.items() for first in [sum(map(self.size, skipped))]}
        self.inner = [(key, tuple(map(self.size, self.writer.dims(key[1])))) for key in self.layout
                      if key[0] in ("node", "total")]
        self.results = {eq.name: self.part(eq.value) for kind, eq in machine.steps if kind == "result"}
        return self

    # --- sizes -------------------------------------------------------------------------------------------------------

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
        if kind in ("row", "column"):
            return self.columns(of[0])[-1 if kind == "row" else of[1]]
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

    def edges(self, name: str) -> Iterable[np.ndarray]:
        """What a variable holds just outside; of one that rests, what its first position reads."""
        array = self.view(("store", name), self.memory, self.start)
        for axis, i in enumerate(self.system.axes[name]):
            moved = np.moveaxis(array, axis, 0)
            yield from (moved,) if self.writer.resting.get(name) == i else (moved[0], moved[-1])

    def view(self, key, memory, start: int) -> np.ndarray:
        offset, shape = self.layout[key]
        return np.ndarray(shape, self.dtype, memory, start + offset)

    @cached_property
    def summed(self) -> np.ndarray:
        """All sums over all rows, with what lies between them."""
        first, last = self.start + self.sums, self.start + self.total
        return self.memory[first:last].view(self.dtype)

    # --- running -----------------------------------------------------------------------------------------------------

    @cached_property
    def views(self) -> dict[str, np.ndarray]:
        """Variables and results in the memory, by name."""
        found = {n: self.view(("store", n), self.memory, self.start) for n in self.arrays}
        found.update((n, found[whole][..., inside]) for n, (whole, inside) in self.parts.items())
        values = self.values_in(self.memory)
        return {**found, **{n: values[node][part] for n, (node, part) in self.results.items()}}

    def clear(self) -> None:
        """Zero what is read just outside: of every run only what rests, and all where the last was given ends."""
        for edge in self.borders if self.ended else self.overwritten:
            edge.fill(0)

    def blank(self) -> None:
        """Zero everywhere but in sums: past an example's end there is nothing, whatever was there before."""
        self.memory[:self.start + self.sums].fill(0)

    def begin(self, run: Arrays, lease: np.ndarray) -> Running:
        """What a run starts from: ends, lengths, offsets."""
        given = run.given
        if given.lengths:
            self.blank()
        for i, lengths in self.lengths.items():
            lengths[...] = given.lengths.get(i, self.given.extents[i])
        self.clear()
        self.ended = bool(given.ends)
        self.variables(run, lease)
        for i, k in self.offsets:
            self.context[k] = given.offsets.get(i, 0)
        self.held = running = Running(run, self.values(run, lease), self.bound, [])
        return running

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
                run.give_end(stores[owner], owner, at, value)
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
                values[key[1]] = whole.reshape((*whole.shape[:-1], *dims))
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
        array = np.require(array, np.int64 if of_class else self.dtype, ["C", "A"])
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
