"""A system as machine code: stages over rows, sums over rows, and steps of the reference where no stage will do.

    system -> passes -> partition -> LLVM functions; a run: arrays -> addresses in the context -> functions in turn
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from ... import primitives as P
from ...arrays import Arrays, Given
from ...backpropagate import Wanted, inner_product
from ...equations import BATCH, Equation, System
from ...graph import READ, Node, Position, node, read
from ...order import contraction, operands
from ...shapes import carry_over
from ..columns import matrix
from ..lease import Lease, room
from ..passes import (
    Pass,
    gate_values,
    name_concats,
    name_exports,
    optimised,
    split_concats,
    stack_gradients,
    stack_products,
    stack_sums,
)
from .chains import Chain, pack, phase
from .native import Code, cores, registers
from .partition import Overwritten, Partition, steps_of
from .places import Writer
from .rows import weight
from .shared import shared
from .shares import Shares
from .space import Space
from .stretches import Stretches
from .totals import Sum, Together, riders, together, totals

PASSES = (gate_values, split_concats, stack_products, stack_sums, stack_gradients, name_exports, name_concats)
ALONE = 300_000  # bytes of values up to which one thread is done before a second has begun


class Machine:
    """A system as functions for one float type.

    keep: what is wanted, see `backpropagate.wanted`.
    """

    def __init__(self, system: System, keep: Wanted, double: bool, passes: Iterable[Pass] = PASSES,
                 apart: bool = False):
        """apart: whether each chain is a function of its own, for runs in stretches."""
        self.inner = {n: seed for n, seed in keep.items() if isinstance(seed, str)}
        for n, seed in self.inner.items():
            system = with_inner_product(system, n, seed)
        self.keep = {n: whole is True for n, whole in keep.items()} | {inner_product(n): True for n in self.inner}
        self.system, self.refused = optimised(system, passes, self.keep)
        self.dtype = np.dtype(np.float64 if double else np.float32)
        self.bytes = self.dtype.itemsize
        vector, rows = registers()
        awake: set[str] = set()
        while True:
            self.writer = Writer(self.system, double, vector // self.bytes, rows)
            self.partition = Partition(self.system, self.keep, self.writer, awake, apart)
            try:
                self.phases = self.partition.phases()
                break
            except Overwritten as lost:
                awake |= lost.args[0]
        self.riders: dict[Node, tuple[Together, tuple]] = {}  # column sums that a product makes beside its own
        self.order: dict[str, Chain] = {}  # of functions that are one chain
        self.sums: set[str] = set()  # functions that sum over rows
        self.summed: dict[Node, Sum] = {}
        self.references: dict[int, list] = {}
        self.steps = list(self.written(self.phases, apart))
        self.made = {s for kind, x in self.phases if kind == "reference" for s in steps_of(x)}  # by the reference
        self.spaces: dict[tuple, list[Space]] = {}
        self.last = ""  # what the last run took
        self.fault = ""  # where its values differ from the reference's
        self.sizes: dict[tuple, dict[str, int]] = {}

    @cached_property
    def code(self) -> Code:
        """The functions, made when they are first called."""
        return Code(self.writer.module, [x for kind, x in self.steps if kind in ("rows", "parts")])

    def written(self, phases: Iterable[tuple[str, Any]], apart: bool):
        """The steps of a run: names of functions, over examples or parts; results; the reference's functions."""
        packed: set[Node] = set()
        phases = list(phases)
        weights = {id(x): [n for chain in x for stage in chain.stages for n in stage.weights]
                   for kind, x in phases if kind == "rows"}
        given = [n for ns in weights.values() for n in ns if all(
            m.op is READ and self.system.roles[m.params[0]] in ("parameter", "const")
            for m in map(matrix, weight(self.writer, n)[1]))]
        if given:
            packed.update(given)
            yield "parts", pack(self.writer, list(dict.fromkeys(given)))
        for kind, x in phases:
            if kind == "rows":
                new = [n for n in dict.fromkeys(weights[id(x)]) if n not in packed]
                if new:
                    packed.update(new)
                    yield "parts", pack(self.writer, new)
                chains = [chain for chain in x if chain.stages]
                for some in [[chain] for chain in chains] if apart else [chains] if chains else []:
                    name = phase(self.writer, some)
                    self.order.update((name, chain) for chain in some if apart)
                    yield "rows", name
            elif kind == "totals":
                products = together(x)
                sums = [n for n in x if not contraction(n)]
                found = riders(self.writer, products, sums)
                self.riders.update(found)
                name = totals(self.writer, products, [n for n in sums if n not in found])
                self.sums.add(name)
                self.summed.update((n, Sum("products", group, k)) for group in products for k, n in enumerate(group))
                self.summed.update((n, Sum("sums", *found[n]) if n in found else Sum("total", n)) for n in sums)
                yield "parts", name
            elif kind == "shared":
                yield "parts", shared(self.writer, x, self.summed)
            elif kind == "results":
                yield from (("result", eq) for eq in x)
            else:
                functions = self.reference(x)
                self.references[id(functions)] = list(steps_of(x))
                yield "reference", functions

    def reference(self, step) -> list:
        """The reference's own functions for a step, and before it for what it only looks at."""
        plan = self.partition.plan
        inner = set(steps_of(step))
        before: list[Node] = []
        stack = list({n for s in inner for n in ([s.value] if isinstance(s, Equation) else operands(s))} - inner)
        while stack:
            n = stack.pop()
            if n.op.name != "const" and self.partition.looked_at(n):
                if n in before:
                    before.remove(n)
                before.insert(0, n)
                stack.extend(operands(n))
        return [plan.step(n, ()) for n in [*before, step]]

    def __call__(self, system: System, given: Given, keep: Iterable[str], threads: int | None = None,
                 memory: int | None = None) -> dict[str, np.ndarray]:
        """The bordered arrays of the names in `keep`, from sizes and arrays as `system` has them.

        memory: the bytes that a run may take beside the arrays given and handed out.
        """
        space, waiting = self.room(self.own(system, given), threads, memory)
        lease = Lease(space.memory)
        found = self.run(space, np.asarray(lease), system, given, keep)
        self.last, space.held = space.told(), None
        lease.back = partial(waiting.append, space)
        return found

    def own(self, system: System, given: Given) -> Given:
        """What `system` is given, with the sizes as the program has them."""
        key = tuple(sorted(given.sizes.items()))
        if key not in self.sizes:
            self.sizes[key] = carry_over(given.sizes, system.inferred, self.system.inferred)
        return replace(given, sizes=self.sizes[key])

    def run(self, space: Space, lease: np.ndarray, system: System, given: Given, keep: Iterable[str]
            ) -> dict[str, np.ndarray]:
        """A run in some memory."""
        own, rest = Arrays(self.system, self.own(system, given)), Arrays(system, given)  # rest: what is only handed on
        space.run(own, lease)
        names = [*keep, *map(inner_product, self.inner)]
        return {n: own.store(n) if n in self.system.axes else rest.store(n) for n in names}

    def room(self, given: Given, threads: int | None, memory: int | None) -> tuple[Space, list[Space]]:
        """A space for a run of these shapes, and the list that it goes back to."""
        shape = (tuple(sorted(given.sizes.items())), tuple(given.extents.items()), given.batch, tuple(given.lengths),
                 frozenset(given.ends), threads, memory)
        return room(self.spaces, shape, lambda: self.space(given, threads or cores(), memory))

    def kept_along(self, time: str | None) -> list[str]:
        """The variables that have an array along an index."""
        writer = self.writer
        return [n for n in self.system.defined if n in writer.stored and n not in writer.parts
                and n not in writer.resting and time in self.system.axes[n] and not self.keep.get(n)]

    def space(self, given: Given, threads: int, memory: int | None) -> Space:
        """Room for a run: for all of it, or for as long stretches, or as many examples, as the memory allows."""
        space = Space(self, given)
        threads = threads if space.total > ALONE else 1
        if memory is not None and space.bytes(threads) > memory:
            found = Stretches.within(self, given, threads, memory)
            space = Shares.within(self, given, threads, memory, found) if isinstance(found, str) else found
        return space.allocate(threads)


def with_inner_product(system: System, name: str, seed: str) -> System:
    """The system with one equation more: the sum of a variable times another, component by component."""
    at = tuple(map(Position, system.axes[name]))
    value = read(name, at) * read(seed, at)  # type: ignore[operator]
    for i in (*reversed(system.axes[name]), *([BATCH] if name in system.per_example else [])):
        value = node(P.sum, value, params=(i,))
    eq = Equation(inner_product(name), (), value)
    return System([*system.equations, eq], {**system.axes, eq.name: ()}, system.model, system.declarations)
