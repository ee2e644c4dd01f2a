"""Stages over rows: values of every example, at one position after another, each an LLVM function.

    Rows      the body of a loop through time, or what is time-parallel, as passes over the rows at hand: a product, or
              pointwise work on values of one shape, fused, whose operands and results are in cache
    Chain     stages along one index, block of positions by block of positions
    pack      weights into panels, before the rows come
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llvmlite import ir

from ... import primitives as P
from ...equations import BATCH, Equation
from ...graph import CONST, EXTENT, INDEX, LEAVES, READ, Node, Position
from ...order import operands
from ..passes import rows as stacked
from .lanes import POINTER, Vector, loop
from .places import Frame, Place, Spot, Writer, computed, counted, part_of


def native(writer: Writer, n: Node, fixed: tuple[str, ...]) -> bool:
    """Whether a node's value can be made by a stage over rows, while the indices in `fixed` stand still."""
    system = writer.system
    if n.op in LEAVES:
        return n.op is not READ or system.roles[n.params[0]] != "class"
    if any(a.op is READ and system.roles[a.params[0]] == "class" for a in operands(n)):
        return False
    if BATCH not in system.free(n):
        return False
    open_ = system.free(n) - {BATCH} - set(fixed)
    if len(open_) > (0 if fixed else 1):
        return False
    if n.op is P.matmul:
        a, b = n.args
        return bool(weight(a)[1]) and system.rank(b) == 1 and BATCH in system.free(b) and (
            system.free(b) == system.free(n) and b.op not in (INDEX, EXTENT, CONST))
    if n.op in (P.concat, P.split, P.slice):
        return system.rank(n) == 1 and not any(a.op in (INDEX, EXTENT) for a in operands(n))
    if n.op is P.like:
        return system.rank(n.args[0]) in (0, system.rank(n))
    return n.op.machine is not None


def weight(n: Node) -> tuple[bool, tuple[Node, ...]]:
    """(whether transposed, the variables that are stacked) of a weight; no variables for any other matrix."""
    turned = n.op is P.transpose
    inner = n.args[0] if turned else n
    parts = inner.args if inner.op is stacked else (inner,)
    return turned, parts if all(p.op is READ and not p.params[1] for p in parts) else ()


class Cluster:
    """Pointwise values of one shape, made together, and where each goes."""

    def __init__(self, dims: tuple):
        self.dims, self.closed = dims, False
        self.nodes: list[Node] = []
        self.targets: dict[Node, list[Spot]] = {}


class Rows:
    """A stage over the rows of the examples [first, last).

    over: the index whose positions are taken one after another, if any; sign: in which order, None where all orders
    do, and blocks of positions are passed over together.
    """

    def __init__(self, writer: Writer, steps: Iterable[Node | Equation], over: str | None, sign: int | None):
        self.writer, self.steps, self.over, self.sign = writer, list(steps), over, sign
        self.system = writer.system
        self.values = {(eq.name, eq.at): eq.value for eq in self.steps if isinstance(eq, Equation)}
        self.inside = {s for s in self.steps if isinstance(s, Node)}
        self.passes: list[Cluster | Node] = []
        self.open: dict[tuple, Cluster] = {}
        self.made: dict[Node, Cluster] = {}
        self.pieces: dict[Node, list[Cluster]] = {}
        self.spots: dict[Node, Spot] = {}
        for s in self.steps:
            if isinstance(s, Equation):
                self.equation(s)
            elif s.op not in LEAVES:
                self.node(s)
        for cluster in list(self.open.values()):
            self.close(cluster)
        self.made_function: ir.Function | None = None

    @property
    def function(self) -> ir.Function:
        """(context, scratch, examples from, to, positions from, to)"""
        if self.made_function is None:
            self.made_function = self.writer.function(self.write, 4, exported=False)
        return self.made_function

    def overwritten(self) -> set[str]:
        """Resting values that a later pass would read after they are replaced."""
        written = {spot.place.of: k for k, step in enumerate(self.passes) if isinstance(step, Cluster)
                   for spots in step.targets.values() for spot in spots}
        found = set()
        for k, step in enumerate(self.passes):
            used = [a for n in step.nodes for a in operands(n)] + list(step.targets) if isinstance(
                step, Cluster) else [step.args[1]]
            for a in used:
                while a.op in (P.split, P.slice):
                    a = a.args[0]
                if a.op is READ and a.params not in self.values and a.params[0] in self.writer.resting and (
                        written.get(a.params[0], k) < k):
                    found.add(a.params[0])
        return found

    # --- what is made where ------------------------------------------------------------------------------------------

    def resolved(self, n: Node) -> Node:
        """The value that a variable was given in this stage, for a read of it."""
        while n.op is READ and n.params in self.values:
            n = self.values[n.params]
        return n

    def node(self, n: Node) -> None:
        if n.op is P.matmul:
            self.settle(n.args[1])
            self.passes.append(n)
            self.spot(n)
        elif n.op is P.concat:
            spot = self.spot(n)
            self.pieces[n] = []
            for k, a in enumerate(n.args):
                before = tuple(d for b in n.args[:k] for d in self.writer.dims(b))
                self.send(a, Spot(spot.place, spot.at, spot.skipped + before), self.pieces[n], self.writer.dims(a))
        elif n.op in (P.split, P.slice):
            self.settle(n.args[0])
        else:
            cluster = self.gathering(operands(n), self.writer.dims(n))
            self.made[n] = cluster
            cluster.nodes.append(n)
            if n in self.writer.outside:
                self.spot(n)

    def equation(self, eq: Equation) -> None:
        if eq.name in self.writer.stored:
            spot, value = self.writer.spot(eq.name, eq.at), self.resolved(eq.value)
            if not (value.op is P.concat and self.spots.get(value) == spot):
                self.send(value, spot, [], self.system.shapes[eq.name])

    def cluster(self, dims: tuple) -> Cluster:
        if dims not in self.open:
            self.open[dims] = Cluster(dims)
        return self.open[dims]

    def close(self, cluster: Cluster) -> None:
        if not cluster.closed:
            cluster.closed = True
            self.passes.append(cluster)
            del self.open[cluster.dims]

    def gathering(self, values: Iterable[Node], dims: tuple) -> Cluster:
        """The open cluster of a shape, with these values in it or in memory: to settle one may close it."""
        while True:
            cluster = self.cluster(dims)
            for a in map(self.resolved, values):
                if self.made.get(a) is not cluster:
                    self.settle(a)
            if not cluster.closed:
                return cluster

    def settle(self, a: Node) -> None:
        """A value is in memory before what comes next."""
        a = self.resolved(a)
        if a.op in (P.split, P.slice):
            self.settle(a.args[0])
        elif a in self.made:
            self.spot(a)
            self.close(self.made[a])
        for cluster in self.pieces.get(a, ()):
            self.close(cluster)

    def send(self, a: Node, target: Spot, into: list[Cluster], dims: tuple) -> None:
        """A value also goes to a place: from where it is made, or copied."""
        a = self.resolved(a)
        if a in self.made and dims == self.made[a].dims:
            cluster = self.made[a]
        elif a not in self.inside and a.op in (READ, P.split, P.slice) and self.locate(a) == target:
            return
        else:
            cluster = self.gathering([a], dims)
        targets = cluster.targets.setdefault(a, [])
        if target not in targets:
            targets.append(target)
        into.append(cluster)

    def spot(self, n: Node) -> Spot:
        """Where a value that is made here lies in memory."""
        n = self.resolved(n)
        if n in self.spots:
            return self.spots[n]
        kept = next((eq for eq in self.steps if isinstance(eq, Equation) and eq.value is n
                     and eq.name in self.writer.stored and n.op is not P.matmul
                     and self.system.shapes[eq.name] == self.writer.dims(n)), None)
        if n in self.writer.outside:
            spot = self.writer.locate(n)
        elif kept is not None:
            spot = self.writer.spot(kept.name, kept.at)
        else:
            axes = (self.over,) if self.sign is None and self.over else ()
            spot = Spot(Place("own", n, axes, True), tuple(map(Position, axes)))
        self.spots[n] = spot
        if n in self.made:
            targets = self.made[n].targets.setdefault(n, [])
            if spot not in targets:
                targets.append(spot)
        return spot

    def locate(self, n: Node) -> Spot:
        """Where a value lies that is read from memory."""
        n = self.resolved(n)
        if n.op in (P.split, P.slice):
            return part_of(self.writer, n, self.locate(n.args[0]))
        return self.spots[n] if n in self.inside and n.op is not READ else self.writer.locate(n)

    # --- instructions ------------------------------------------------------------------------------------------------

    def write(self, frame: Frame, scratch, first, last, low, high) -> None:
        self.frame, self.scratch, self.first, self.last, self.low, self.high = frame, scratch, first, last, low, high
        self.at: dict[str | None, Any] = {}
        if self.sign is None:
            self.all_passes()
            return
        b = frame.builder

        def step(k):
            self.at[self.over] = k if self.sign == 1 else b.sub(b.add(low, b.sub(high, frame.number(1))), k)
            self.all_passes()

        loop(b, low, high, 1, step)

    def all_passes(self) -> None:
        for step in self.passes:
            if isinstance(step, Cluster):
                self.pointwise(step)
            else:
                self.matrix(step)

    def address(self, spot: Spot, example, j=None):
        """Where component j of an example's value lies."""
        frame, b, place = self.frame, self.frame.builder, spot.place
        offset = frame.sum(spot.skipped)
        if j is not None:
            offset = b.add(offset, j)
        for p, axis in zip(spot.at, place.axes):
            position = frame.position(p, self.at)
            if place.kind == "own":
                position = b.sub(position, self.low)
            offset = b.add(offset, b.mul(position, frame.word("stride", place, axis)))
        if place.batched:
            row = b.sub(example, self.first) if place.kind == "own" else example
            offset = b.add(offset, b.mul(row, frame.word("stride", place, BATCH)))
        start = frame.word("address", place)
        if place.kind == "own":
            base = b.gep(self.scratch, [start], source_etype=ir.IntType(8))
        else:
            base = b.inttoptr(start, POINTER)
        return frame.lanes.address(base, offset)

    def pointwise(self, cluster: Cluster) -> None:
        """for each row, for each vector of components: everything of a cluster."""
        frame, b, width = self.frame, self.frame.builder, self.writer.width
        count = frame.product(cluster.dims)

        def rows(example):
            def vector(mask):
                def compute(j):
                    self.memory: dict[Node, Vector] = {}
                    self.cluster_at = cluster, example, j, mask
                    for n in cluster.nodes:
                        self.vector(n)
                    for n, spots in cluster.targets.items():
                        for spot in spots:
                            frame.lanes.store(self.vector(n), self.address(spot, example, j), mask)

                return compute

            if not cluster.dims:
                vector(frame.lanes.first(frame.number(1)))(frame.number(0))
                return
            whole = b.sub(count, b.srem(count, frame.number(width)))
            loop(b, frame.number(0), whole, width, vector(None))
            with b.if_then(b.icmp_signed("<", whole, count)):
                vector(frame.lanes.first(b.sub(count, whole)))(whole)

        def examples(position=None):
            if position is not None:
                self.at[self.over] = position
            loop(b, self.first, self.last, 1, rows)

        if self.sign is None and self.over:
            loop(b, self.low, self.high, 1, examples)
        else:
            examples()

    def vector(self, n: Node) -> Vector:
        """A value's components where the pass stands."""
        n = self.resolved(n)
        cluster, example, j, mask = self.cluster_at
        lanes, frame = self.frame.lanes, self.frame
        if n.op is CONST:
            return lanes.constant(n.params[0])
        if n in self.memory:
            return self.memory[n]
        if n.op is INDEX or n.op is EXTENT:
            value = counted(frame, n, self.at)
        elif self.made.get(n) is cluster:
            value = computed(lanes, n, [self.vector(a) for a in operands(n)])
        elif not self.writer.dims(n):
            value = lanes.load_one(self.address(self.locate(n), example))
        else:
            value = lanes.load(self.address(self.locate(n), example, j), mask)
        self.memory[n] = value
        return value

    def matrix(self, n: Node) -> None:
        """The product of a weight with the rows at hand."""
        frame, b = self.frame, self.frame.builder
        weight_, operand = n.args
        source, target = self.locate(operand), self.spots[n]
        panels = b.inttoptr(frame.word("panels", weight_), POINTER)
        depth, count = frame.size(self.writer.dims(weight_)[1]), frame.word("panel count", weight_)
        strides = [frame.word("stride", s.place, BATCH) for s in (source, target)]

        def multiply(rows):
            b.call(self.writer.products.product, [self.address(source, self.first), strides[0], panels,
                                                  self.address(target, self.first), strides[1], rows, depth, count])

        rows = b.sub(self.last, self.first)
        if not (self.sign is None and self.over):
            multiply(rows)
            return
        alone = all(s.place.axes == (self.over,) for s in (source, target))
        whole = b.icmp_signed("==", rows, frame.word("batch")) if alone else ir.Constant(ir.IntType(1), 0)
        with b.if_else(whole) as (together, apart):
            with together:  # rows of one position follow those of the one before
                self.at[self.over] = self.low
                multiply(b.mul(rows, b.sub(self.high, self.low)))
            with apart:
                def one(position):
                    self.at[self.over] = position
                    multiply(rows)

                loop(b, self.low, self.high, 1, one)


class Chain:
    """Stages along one index as one function over examples, block of positions after block in the order of `sign`."""

    def __init__(self, over: str | None, sign: int | None):
        self.over, self.sign = over, sign
        self.stages: list[Rows] = []

    def write(self, frame: Frame, scratch, first, last) -> None:
        b, one = frame.builder, frame.number(1)
        context = frame.context
        if self.over is None:
            for stage in self.stages:
                b.call(stage.function, [context, scratch, first, last, one, one])
            return
        end, block = b.add(frame.word("extent", self.over), one), frame.word("block")

        def some(k):
            after = b.add(k, block)
            after = b.select(b.icmp_signed(">", after, end), end, after)
            low, high = (k, after) if self.sign != -1 else (b.sub(b.add(end, one), after), b.sub(b.add(end, one), k))
            for stage in self.stages:
                b.call(stage.function, [context, scratch, first, last, low, high])

        loop(b, one, end, block, some)


def phase(writer: Writer, chains: Iterable[Chain]) -> str:
    """The name of a function that runs chains for some of the examples."""
    def write(frame, scratch, first, last):
        for chain in chains:
            chain.write(frame, scratch, first, last)

    return writer.function(write).name


def pack(writer: Writer, weights: Iterable[Node]) -> str:
    """The name of a function that packs its share of these weights."""
    def write(frame, scratch, part, parts):
        b, zero, one = frame.builder, frame.number(0), frame.number(1)
        for k, n in enumerate(weights):
            with b.if_then(b.icmp_signed("==", b.srem(frame.number(k), parts), part)):
                turned, matrices = weight(n)
                panels = b.inttoptr(frame.word("panels", n), POINTER)
                depth = frame.size(writer.dims(n)[1])
                done: Any = zero
                for m in matrices:
                    height, width = map(frame.size, writer.dims(m))
                    source = b.inttoptr(frame.word("address", writer.locate(m).place), POINTER)
                    end = b.add(done, height)
                    b.call(writer.products.pack,
                           [source, one, width, panels, depth, zero, width, done, height] if turned else
                           [source, width, one, panels, depth, done, end, zero, width])
                    done = end

    return writer.function(write).name
