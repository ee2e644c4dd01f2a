"""The reference evaluator: equations and arrays in, every value out. Readable, slow, the oracle of everything else.

Work that lies on no cycle through time happens for all steps at once; the rest follows the loops of `order`. Arrays
carry one axis for each index they vary with, then the batch, then their components; operands are lined up in one place.
A variable is kept with a border of one position at both ends of each index, where its ends live: reading is slicing.
Any dtype will do, complex and longdouble included.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any

import numpy as np

from .arrays import Arrays, Given
from .equations import BATCH, LANE, Equation, System, tokens_reduce
from .graph import CONST, EXTENT, INDEX, READ, Node, option, topological
from .order import Loop, contraction, operands, schedule
from .signature import tokens


def evaluate(system: System, given: Given, keep: Iterable[str] | None = None) -> dict[str, np.ndarray]:
    """The bordered arrays of the names in `keep` (all of them where None): position k of an index is at k, its ends
    at 0 and at one past the last."""
    steps = plan(system, bool(given.lanes))
    wanted = set(system.axes) if keep is None else set(keep)
    run = Arrays(system, given)
    values: dict[Node, np.ndarray] = {n: np.asarray(n.params[0], run.real) for n in steps.constants}
    with np.errstate(all="ignore"):
        for step, nodes, names in zip(steps.steps, steps.last_nodes, steps.last_names):
            step(run, values, {})
            for n in nodes:
                values.pop(n, None)
            for name in names - wanted:
                run.stores.pop(name, None)
    return {name: run.store(name) for name in wanted}


class _Plan:
    """A system's schedule as functions `step(run, values, at)`; the same for all sizes and dtypes."""

    def __init__(self, system: System, lanes: bool):
        self.system, self.lanes = system, lanes
        self.order = order = schedule(system)
        every = topological((eq.value for eq in system.equations), operands)
        self.constants = [n for n in every if n.op is CONST]
        self.reading: set[Node] = set()
        for n in every:
            if n.op is READ or any(a in self.reading for a in operands(n)):
                self.reading.add(n)
        self.canonical = {i: k for k, i in enumerate((LANE, *system.indices, BATCH))}
        self.steps = [self.step(s, ()) for s in order]
        uses = [self.uses(s) for s in order]
        self.last_nodes: list[set[Node]] = [set() for _ in order]
        self.last_names: list[set[str]] = [set() for _ in order]
        last: list[set]
        for kind, last in enumerate([self.last_nodes, self.last_names]):  # type: ignore[assignment]
            seen: set = set()
            for k in range(len(order) - 1, -1, -1):
                last[k] |= uses[k][kind] - seen
                seen |= uses[k][kind]
        constants = set(self.constants)
        for dying in self.last_nodes:
            dying -= constants

    def axes(self, n: Node, fixed: tuple[str, ...]) -> tuple[str, ...]:
        """The index axes of a node's array while the indices in `fixed` stand still."""
        free = self.system.free(n) | ({LANE} if self.lanes and n in self.reading else set())
        return tuple(sorted(free - set(fixed), key=self.canonical.__getitem__))

    def uses(self, step) -> tuple[set, set]:
        """Nodes and names that a step computes or reads."""
        if isinstance(step, Loop):
            parts = [self.uses(s) for s in step.body]
            return set().union(*(p[0] for p in parts)), set().union(*(p[1] for p in parts))
        if isinstance(step, Equation):
            return {step.value}, {step.name}
        return {step, *operands(step)}, {step.params[0]} if step.op is READ else set()

    # --- steps ---------------------------------------------------------------------------------------------------

    def step(self, step, fixed: tuple[str, ...]) -> Callable:
        if isinstance(step, Loop):
            return self.loop(step, fixed)
        if isinstance(step, Equation):
            return self.write(step, fixed)
        if step.op is READ:
            return self.read(step, fixed)
        if step.op in (INDEX, EXTENT):
            return self.count(step, fixed)
        fused = contraction(step)
        if fused:
            return self.contract(step, *fused, fixed)
        return self.reduce(step, fixed) if step.op.fill is not None else self.operation(step, fixed)

    def loop(self, loop: Loop, fixed) -> Callable:
        inner = (*fixed, loop.index)
        body = [self.step(s, inner) for s in loop.body]
        used, _ = self.uses(loop)
        made = {s for s in _flat(loop.body) if isinstance(s, Node)}
        slices = [(n, self.axes(n, fixed).index(loop.index)) for n in used - made
                  if n.op is not CONST and loop.index in self.axes(n, fixed)]
        exports = [(n, self.axes(n, fixed).index(loop.index)) for n in made - self.private(loop, made)]

        def run_loop(run, values, at):
            count = run.given.extents[loop.index]
            local = dict(values)
            streams = [(n, np.moveaxis(values[n], axis, 0)) for n, axis in slices]
            stacks: dict[Node, np.ndarray] = {}
            for k in range(1, count + 1) if loop.sign > 0 else range(count, 0, -1):
                at[loop.index] = k
                for n, stream in streams:
                    local[n] = stream[k - 1]
                for step in body:
                    step(run, local, at)
                for n, axis in exports:
                    value = local[n]
                    if n not in stacks:
                        values[n] = np.empty((*value.shape[:axis], count, *value.shape[axis:]), value.dtype)
                        stacks[n] = np.moveaxis(values[n], axis, 0)
                    stacks[n][k - 1] = value
            at.pop(loop.index, None)
            if not count:
                values.update((n, self.nothing(n, fixed, run.given)) for n, _ in exports)

        return run_loop

    def nothing(self, n: Node, fixed: tuple[str, ...], given: Given) -> np.ndarray:
        """The array of a value along an index without positions."""
        lead = [given.lanes if i == LANE else given.batch if i == BATCH else given.extents[i]
                for i in self.axes(n, fixed)]
        return np.empty((*lead, *(d if isinstance(d, int) else given.sizes[d] for d in self.system.inferred.nodes[n])),
                        given.dtype)

    def private(self, loop: Loop, made: set[Node]) -> set[Node]:
        """Nodes of a loop that nothing outside it reads."""
        inside = set(_flat(loop.body))
        return {n for n in made if inside.issuperset(self.consumers.get(n, ()))}

    @cached_property
    def consumers(self) -> dict[Node, list]:
        """The operations and equations that read each node's value."""
        found: dict[Node, list] = {}
        for n in topological((eq.value for eq in self.system.equations), operands):
            for a in operands(n):
                found.setdefault(a, []).append(n)
        for eq in self.system.equations:
            found.setdefault(eq.value, []).append(eq)
        return found

    def line_up(self, a: Node, axes: tuple[str, ...], fixed, rank: int | None) -> tuple | None:
        """The subscript that gives an operand's array the axes of its consumer; None where it has them."""
        own = self.axes(a, fixed)
        subscript: list = [slice(None) if i in own else None for i in axes]
        comps = self.system.rank(a)
        subscript += [slice(None)] * comps
        if rank is not None:
            subscript += [None] * (rank - comps)
        return tuple(subscript) if None in subscript else None

    def operation(self, n: Node, fixed) -> Callable:
        """value(operands), each lined up with the result."""
        axes, statics = self.axes(n, fixed), n.params
        value: Any = n.op.value
        rank = self.system.rank(n)
        lined = [(a, self.line_up(a, axes, fixed, rank if n.op.pointwise else None)) for a in operands(n)]
        if n.op.shape_only or n.op.wants:
            shaped = [self.system.inferred.nodes[n.args[k]] for k in n.op.shape_only if k < len(n.args)]
            own, wants = self.system.inferred.nodes[n], n.op.wants
            inner = self.system.rank(n.args[-1])

            def shaped_operation(run, values, at):
                size = lambda dims: tuple(d if isinstance(d, int) else run.given.sizes[d] for d in dims)
                facts: dict = {"rank": inner} if wants == "rank" else {}
                if wants == "shape":
                    facts = {"shape": size(own), "dtype": run.real}
                values[n] = value(*(values[a] if s is None else values[a][s] for a, s in lined),
                                  *map(size, shaped), *statics, **facts)

            return shaped_operation
        if all(s is None for _, s in lined):
            if len(lined) == 1 and not statics:
                (a, _), = lined

                def unary(run, values, at):
                    values[n] = value(values[a])

                return unary
            if len(lined) == 2 and not statics:
                (a, _), (b, _) = lined

                def binary(run, values, at):
                    values[n] = value(values[a], values[b])

                return binary

        def operation(run, values, at):
            values[n] = value(*(values[a] if s is None else values[a][s] for a, s in lined), *statics)

        return operation

    def reduce(self, n: Node, fixed) -> Callable:
        """A reduction over an index reads its neutral element where an example has ended."""
        over, fill = option(n), n.op.fill
        value: Any = n.op.value
        a = n.args[0]
        comps = self.system.rank(a)
        if over is None:
            axis = tuple(range(-comps, 0)) if tokens(n)[0][0] == "s" else -1

            def over_components(run, values, at):
                values[n] = value(values[a], axis) if comps else values[a]

            return over_components
        axes = tuple(sorted({*self.axes(n, fixed), over}, key=self.canonical.__getitem__))
        lined, axis, drops = self.line_up(a, axes, fixed, None), axes.index(over), tokens_reduce(n)
        # over an index what lies past an example's end is left out; over the batch, the examples that have ended
        within = self.system.free(a) if over == BATCH else {over}
        data = tuple(i for i in self.system.indices if i in within and i not in self.system.model)

        def over_index(run, values, at):
            x = values[a] if lined is None else values[a][lined]
            extent = run.given.batch if over == BATCH else run.given.extents[over]
            if x.shape[axis] != extent:
                x = np.broadcast_to(x, (*x.shape[:axis], extent, *x.shape[axis + 1:]))
            mask = run.mask(data, comps, at)
            if mask is not None:
                x = np.where(_spread(mask, data, axes[:-1] if axes[-1] == BATCH else axes, comps, at), x, fill)
            elif BATCH in axes and over != BATCH and x.shape[axes.index(BATCH)] != run.given.batch:
                at_batch = axes.index(BATCH)
                x = np.broadcast_to(x, (*x.shape[:at_batch], run.given.batch, *x.shape[at_batch + 1:]))
            if not extent and drops:  # of nothing: a sum is 0, a maximum -inf
                x = np.full((*x.shape[:axis], 1, *x.shape[axis + 1:]), fill, x.dtype)
            values[n] = value(x, axis) if x.shape[axis] else x

        return over_index

    def contract(self, n: Node, bound, u: Node, v: Node, fixed) -> Callable:
        """sum over `bound` of outer(u, v): one product, u and v flattened along what is bound."""
        own = self.axes(n, fixed)
        axes = tuple(sorted({*own, *bound}, key=self.canonical.__getitem__))
        # an example's ends are masked, so a bound data index brings the batch with it
        data = [i for i in bound if i != BATCH and i not in self.system.model]
        lined = [(a, self.line_up(a, axes, fixed, None)) for a in (u, v)]
        inner = self.system.rank(u) - 1
        kept, summed = [axes.index(i) for i in axes if i not in bound], [axes.index(i) for i in bound]

        def contract(run, values, at):
            sides = []
            lead = tuple(run.given.lanes if i == LANE else run.given.batch if i == BATCH else run.given.extents[i]
                         for i in axes)
            for a, s in lined:
                x = values[a] if s is None else values[a][s]
                for i in data:
                    mask = run.mask((i,), inner + 1)
                    if mask is not None:
                        shape = [1] * len(axes)
                        shape[axes.index(i)], shape[axes.index(BATCH)] = mask.shape[:2]
                        x = np.where(mask.reshape(shape + [1] * (inner + 1)), x, 0)
                comps = x.shape[len(axes):]
                x = np.broadcast_to(x, lead + comps).transpose(
                    *kept, *summed, *range(len(axes) + 1, x.ndim), len(axes))
                rows = math.prod((*(lead[k] for k in summed), *comps[1:]))
                sides.append(x.reshape(*(lead[k] for k in kept), rows, comps[0]))
            values[n] = np.matmul(np.swapaxes(sides[0], -1, -2), sides[1])

        return contract

    def count(self, n: Node, fixed) -> Callable:
        """The value of an index (from 1) or of its extent."""
        i = n.params[0]
        model = i in self.system.model
        if n.op is INDEX:
            def position(run, values, at):
                k = np.asarray(at[i]) if i in fixed else np.arange(1, run.given.extents[i] + 1)
                values[n] = ((k if model else k[..., None]) + run.given.offsets.get(i, 0)).astype(run.real)

            return position

        def extent(run, values, at):
            given = run.given
            extents = np.asarray(given.lengths.get(i, given.extents[i]), run.real)
            values[n] = extents if model else np.broadcast_to(extents, (given.batch,))

        return extent

    def read(self, n: Node, fixed) -> Callable:
        """A variable's array at a position: a slice of its bordered array."""
        name, at_ = n.params
        lead = 1 if self.lanes else 0
        if not at_:
            def whole(run, values, at):
                values[n] = run.store(name)

            return whole
        p = at_[0]
        if len(at_) == 1 and p.base == "i" and p.index in fixed and not lead:
            index, offset = p.index, p.offset

            def one(run, values, at):
                values[n] = run.stores[name][at[index] + offset] if name in run.stores else (
                    run.store(name)[at[index] + offset])

            return one
        kept = [q.index for q in at_ if q.base == "i" and q.index not in fixed]
        turn = [kept.index(i) for i in sorted(kept, key=self.canonical.__getitem__)]
        straight = turn == sorted(turn)

        def read(run, values, at):
            store, extents, lengths = run.store(name), run.given.extents, run.given.lengths
            subscript: list = [slice(None)] * lead
            gathered: dict[int, np.ndarray] = {}  # axes read at each example's own last position
            for q in at_:
                if q.base == "i":
                    subscript.append(at[q.index] + q.offset if q.index in fixed else slice(
                        1 + q.offset, extents[q.index] + 1 + q.offset))
                elif q.base == "1":
                    subscript.append(1 + q.offset)
                elif q.index not in lengths:
                    subscript.append(extents[q.index] + q.offset)
                else:
                    subscript.append(slice(None))
                    gathered[sum(isinstance(s, slice) for s in subscript[:-1])] = lengths[q.index] + q.offset
            x = store[tuple(subscript)]
            if gathered:
                batch = lead + len(kept)
                x = np.moveaxis(x, (*gathered, batch + len(gathered)), range(len(gathered) + 1))
                x = np.moveaxis(x[(*gathered.values(), np.arange(run.given.batch))], 0, batch)
            if not straight:
                x = x.transpose(*range(lead), *(lead + k for k in turn), *range(lead + len(turn), x.ndim))
            values[n] = x

        return read

    def write(self, eq: Equation, fixed) -> Callable:
        """Put an equation's value in its place; what lies past an example's end stays what it is."""
        name, value = eq.name, eq.value
        lead = (LANE,) if self.lanes else ()
        own = self.axes(value, fixed)
        batch = (BATCH,) if name in self.system.per_example else ()
        target = tuple(i for i in eq.free if i not in fixed)
        wanted = (*lead, *target, *batch)
        comps = len(self.system.shapes[name])
        present = [i for i in wanted if i in own]
        turn = [own.index(i) for i in present]
        subscript: tuple = tuple(slice(None) if i in own else None for i in wanted) + (slice(None),) * self.system.rank(
            value) + (None,) * (comps - self.system.rank(value))
        plain = turn == sorted(turn) and None not in subscript
        data = tuple(i for i in eq.free if i not in self.system.model)
        if len(eq.at) == 1 and eq.at[0].base == "i" and eq.at[0].index in fixed and not lead and plain:
            index = eq.at[0].index

            def put(run, values, at):
                if index in run.given.lengths:
                    np.copyto(run.store(name)[at[index]], values[value], where=run.mask((index,), comps, fixed=at))
                else:
                    run.store(name)[at[index]] = values[value]

            return put

        def write(run, values, at):
            x = values[value]
            if not plain:
                x = x.transpose(*turn, *range(len(turn), x.ndim))[subscript]
            if not eq.at:
                shape = tuple(d if isinstance(d, int) else run.given.sizes[d] for d in self.system.shapes[name])
                head = ((run.given.lanes,) if lead else ()) + ((run.given.batch,) if batch else ())
                run.stores[name] = np.broadcast_to(x, head + shape).astype(run.given.dtype)
                return
            store = run.store(name)
            if eq.end and any(p.base == "T" and p.index in run.given.lengths for p in eq.at):
                mask = run.mask(data, comps, fixed=at) if data else None
                if mask is not None:  # past another index's end there is nothing, its ends included
                    x = np.where(_spread(mask, data, target, comps, at), x, 0)
                at_ends = tuple(p for p in eq.at)
                run.write_end(store, name, at_ends, x, (slice(None),) * len(lead)) if not fixed else _write_ragged(
                    run, store, eq, x, at, len(lead))
                return
            where: list = [slice(None)] * len(lead)
            for p in eq.at:
                where.append(at[p.index] if p.index in fixed else slice(1, -1) if p.base == "i" else
                             0 if p.base == "1" else -1)
            mask = run.mask(data, comps, fixed=at) if data else None
            if mask is not None and target != data:
                mask = _spread(mask, data, target, comps, at)
            np.copyto(store[(*where, ...)], x, where=True if mask is None else mask)

        return write


def _spread(mask, data, target, comps, at):
    """A mask over the open data indices, lined up with all open indices of its target."""
    open_data = [i for i in data if i not in at]
    subscript = [slice(None) if i in open_data else None for i in target]
    return mask[tuple(subscript) + (slice(None),) * (1 + comps)]


def _write_ragged(run, store, eq, x, at, lead):
    """An end one past each example's last, for one position of the other indices."""
    fixed = [axis for axis, p in enumerate(eq.at) if p.base == "i" and p.index in at]
    subscript = [slice(None)] * lead + [at[p.index] if k in fixed else slice(1, -1) if p.base == "i" else slice(None)
                                        for k, p in enumerate(eq.at)]
    rest = tuple(p for k, p in enumerate(eq.at) if k not in fixed)
    run.write_end(store[tuple(subscript)], eq.name, rest, x, (slice(None),) * lead)


def _flat(steps):
    for s in steps:
        if isinstance(s, Loop):
            yield from _flat(s.body)
        else:
            yield s


def plan(system: System, lanes: bool = False) -> _Plan:
    """A system's plan is made once and lives as long as the system."""
    return system.once("_plans", lanes, lambda: _Plan(system, lanes))
