"""A stage over rows: values of every example, at one position after another, as an LLVM function.

It is the body of a loop through time, or what is time-parallel, in passes over the rows at hand: a product, a sum, or
pointwise work on values of one shape, fused; operands and results are in cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property

from llvmlite import ir

from ... import primitives as P
from ...equations import BATCH, Equation
from ...graph import CONST, EXTENT, INDEX, LEAVES, READ, Node, Position
from ...order import contraction, operands
from ..columns import matrix
from ..passes import rows as stacked
from .lanes import POINTER, Vector, loop
from .places import Frame, Place, Spot, Writer, computed, counted, part_of
from .reduce import BY_ROW, WHOLE_ROWS, reads, reduce, reducible


def native(writer: Writer, n: Node, fixed: tuple[str, ...]) -> bool:
    """Whether a node's value can be made by a stage over rows, while the indices in `fixed` stand still."""
    system = writer.system
    if n.op in (INDEX, EXTENT):
        return n.params[0] != BATCH
    if n.op in LEAVES:
        return n.op is not READ or system.roles[n.params[0]] != "class"
    if n.op not in WHOLE_ROWS and any(a.op is READ and system.roles[a.params[0]] == "class" for a in operands(n)):
        return False
    if BATCH not in system.free(n) and not fixed:
        return False
    if len(system.free(n) - {BATCH} - set(fixed)) > 2:
        return False
    if n.op in BY_ROW:  # a sum of outer products is one product, of matrices for each example
        return reducible(system, n) and not contraction(n)
    if n.op is P.matmul:
        a, b = n.args
        return bool(weight(writer, a)[1]) and system.rank(b) == 1 and BATCH in system.free(b) and (
            b.op not in (INDEX, EXTENT, CONST))
    if n.op in (P.concat, P.split, P.slice):
        return system.rank(n) == 1 and not any(a.op in (INDEX, EXTENT) for a in operands(n))
    if n.op is P.like:
        return system.rank(n.args[0]) in (0, system.rank(n))
    return n.op.machine is not None


def weight(writer: Writer, n: Node) -> tuple[bool, tuple[Node, ...]]:
    """(whether transposed, the matrices that are stacked) of a weight; no matrices where examples differ in it."""
    system = writer.system
    turned = n.op is P.transpose
    inner = n.args[0] if turned else n
    parts = inner.args if inner.op is stacked else (inner,)
    there = all(p.op is not READ or all(q.base == "i" and not q.offset for q in p.params[1])
                for p in map(matrix, parts))
    return turned, parts if system.free(n) <= system.model and system.rank(n) == 2 and there else ()


class Cluster:
    """Pointwise values of one shape, made together, and where each goes."""

    def __init__(self, dims: tuple):
        self.dims, self.closed = dims, False
        self.nodes: list[Node] = []
        self.targets: dict[Node, list[Spot]] = {}


class Rows:
    """A stage over the rows of the examples [first, last).

    outer: the indices that the loops around hold still; over: those whose positions are all taken, pass by pass.
    """

    def __init__(self, writer: Writer, steps: Iterable[Node | Equation], outer: tuple[str, ...], over: tuple[str, ...]):
        self.writer, self.steps, self.outer, self.over = writer, list(steps), outer, over
        self.system = writer.system
        self.values = {(eq.name, eq.at): eq.value for eq in self.steps if isinstance(eq, Equation)}
        self.inside = {s for s in self.steps if isinstance(s, Node)}
        self.passes: list[Cluster | Node] = []
        self.open: dict[tuple, Cluster] = {}
        self.made: dict[Node, Cluster] = {}
        self.pieces: dict[Node, list[Cluster]] = {}
        self.spots: dict[Node, Spot] = {}
        self.copies: dict[Node, Spot] = {}
        for s in self.steps:
            if isinstance(s, Equation):
                self.equation(s)
            elif s.op not in LEAVES:
                self.node(s)
        for cluster in list(self.open.values()):
            self.close(cluster)

    @cached_property
    def function(self) -> ir.Function:
        """See `stage_function`."""
        return stage_function(self.writer, self.outer, self.write)

    @property
    def weights(self) -> list[Node]:
        return [step.args[0] for step in self.passes if isinstance(step, Node) and step.op is P.matmul]

    def overwritten(self) -> set[str]:
        """Carried values in one place that a pass reads after an earlier pass has replaced them.

        One pass may do both: at each component it reads before it writes.
        """
        replaced: set[str] = set()
        found: set[str] = set()
        for step in self.passes:
            for a in self.read_by(step):
                while a.op in (P.split, P.slice):
                    a = a.args[0]
                if a.op is READ and a.params not in self.values and a.params[0] in replaced:
                    found.add(a.params[0])
            replaced |= {spot.place.of for spot in self.written_by(step)} & self.writer.resting.keys()
        return found

    def read_by(self, step: Cluster | Node) -> list[Node]:
        """The values that a pass reads, from memory or from what it makes itself."""
        if isinstance(step, Cluster):
            return [*(a for n in step.nodes for a in operands(n)), *step.targets]
        return [step.args[1]] if step.op is P.matmul else reads(self, step)

    def written_by(self, step: Cluster | Node) -> list[Spot]:
        """Where a pass writes."""
        if isinstance(step, Cluster):
            return [spot for spots in step.targets.values() for spot in spots]
        return [self.spots[step]]

    # --- what is made where ------------------------------------------------------------------------------------------

    def resolved(self, n: Node) -> Node:
        """The value that a variable was given in this stage, for a read of it."""
        while n.op is READ and n.params in self.values:
            n = self.values[n.params]
        return n

    def whole(self, n: Node) -> Node:
        """What a part is of."""
        n = self.resolved(n)
        while n.op in (P.split, P.slice) and n not in self.writer.outside:
            n = self.resolved(n.args[0])
        return n

    def node(self, n: Node) -> None:
        if n.op is P.matmul:
            self.gather(n.args[1])
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
        elif n.op in BY_ROW:
            for a in reads(self, n):
                self.settle(a)
            self.passes.append(n)
            self.spot(n)
        elif n not in self.writer.absorbed:
            cluster = self.gathering(operands(n), self.writer.dims(n))
            self.made[n] = cluster
            cluster.nodes.append(n)
            if n in self.writer.outside:
                self.spot(n)

    def gather(self, a: Node) -> None:
        """The last values of examples of different lengths do not lie beside one another: a product wants a copy."""
        a = self.whole(a)
        if a.op is READ and a not in self.copies and any(
                p.base == "T" and p.index not in self.system.model for p in a.params[1]):
            spot = Spot(Place("inner" if self.outer else "own", a, self.over, True), tuple(map(Position, self.over)))
            self.send(a, spot, [], self.writer.dims(a))
            self.close(self.open[self.writer.dims(a)])
            self.copies[a] = spot

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
        elif self.whole(a) not in self.inside and a.op in (READ, P.split, P.slice) and self.locate(a) == target:
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
            place = Place("inner" if self.outer else "own", n, self.over, True)
            spot = Spot(place, tuple(map(Position, self.over)))
        self.spots[n] = spot
        if n in self.made:
            targets = self.made[n].targets.setdefault(n, [])
            if spot not in targets:
                targets.append(spot)
        return spot

    def locate(self, n: Node, rows: bool = False) -> Spot:
        """Where a value lies that is read from memory; as rows, one beside another."""
        n = self.resolved(n)
        if rows and n in self.copies:
            return self.copies[n]
        if n.op in (P.split, P.slice) and n not in self.writer.outside:
            return part_of(self.writer, n, self.locate(n.args[0], rows))
        return self.spots[n] if n in self.inside and n.op is not READ else self.writer.locate(n)

    # --- instructions ------------------------------------------------------------------------------------------------

    def write(self, frame: Frame, scratch, first, last, base, low, high, at: dict) -> None:
        self.frame, self.scratch, self.first, self.last = frame, scratch, first, last
        self.base, self.low, self.high, self.at = base, low, high, dict(at)
        for step in self.passes:
            if isinstance(step, Cluster):
                self.pointwise(step)
            elif step.op is P.matmul:
                self.matrix(step)
            else:
                reduce(self, step)

    def address(self, spot: Spot, example, j=None):
        """Where component j of an example's value lies."""
        frame, b, place = self.frame, self.frame.builder, spot.place
        offset = frame.sum(spot.skipped)
        if j is not None:
            offset = b.add(offset, j)
        for k, (p, axis) in enumerate(zip(spot.at, place.axes)):
            position = frame.position(p, self.at, example)
            if place.thread:
                position = b.sub(position, self.base if place.kind == "own" and k == 0 else frame.number(1))
            offset = b.add(offset, b.mul(position, frame.word("stride", place, axis)))
        if place.batched:
            row = b.sub(example, self.first) if place.thread else example
            offset = b.add(offset, b.mul(row, frame.word("stride", place, BATCH)))
        start = frame.word("address", place)
        base = b.gep(self.scratch, [start], source_etype=ir.IntType(8)) if place.thread else b.inttoptr(start, POINTER)
        return frame.lanes.address(base, offset)

    def everywhere(self, body: Callable, over: tuple[str, ...] | None = None) -> None:
        """body() at every position of the indices that the stage is over."""
        b, frame = self.frame.builder, self.frame
        left = self.over if over is None else over
        if not left:
            body()
            return

        def at(position):
            self.at[left[0]] = position
            self.everywhere(body, left[1:])

        one = frame.number(1)
        first = left[0] == self.over[0]
        loop(b, self.low if first else one, self.high if first else b.add(frame.word("extent", left[0]), one), 1, at)

    def pointwise(self, cluster: Cluster) -> None:
        """for each row, for each vector of components: everything of a cluster."""
        frame, b, width = self.frame, self.frame.builder, self.writer.width
        count = frame.product(cluster.dims)

        def rows(example):
            with b.if_else(frame.within(self.at, example)) as (inside, past):
                with inside:
                    row(example)
                with past:  # what others read beside an example that has ended is nothing
                    clear(example)

        def components(whole_vectors, rest):
            if not cluster.dims:
                rest(frame.lanes.first(frame.number(1)))(frame.number(0))
                return
            whole = b.sub(count, b.srem(count, frame.number(width)))
            loop(b, frame.number(0), whole, width, whole_vectors(None))
            with b.if_then(b.icmp_signed("<", whole, count)):
                rest(frame.lanes.first(b.sub(count, whole)))(whole)

        def clear(example):
            spots = [s for spots in cluster.targets.values() for s in spots if s.place.kind != "store"]

            def vector(mask):
                def compute(j):
                    for spot in spots:
                        frame.lanes.store(frame.lanes.constant(0), self.address(spot, example, j), mask)

                return compute

            if spots:
                components(vector, vector)

        def row(example):
            def vector(mask):
                def compute(j):
                    self.memory: dict[Node, Vector] = {}
                    self.cluster_at = cluster, example, j, mask
                    for n in cluster.nodes:
                        self.vector(n)
                    made = [(self.vector(n), spots) for n, spots in cluster.targets.items()]
                    for value, spots in made:  # what is carried in one place is read before any of it is replaced
                        for spot in spots:
                            frame.lanes.store(value, self.address(spot, example, j), mask)

                return compute

            components(vector, vector)

        self.everywhere(lambda: loop(b, self.first, self.last, 1, rows))

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
            value = counted(frame, n, self.at, example)
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
        source, target = self.locate(operand, rows=True), self.spots[n]
        depth, count = frame.size(self.writer.dims(weight_)[1]), frame.word("panel count", weight_)
        strides = [frame.word("stride", s.place, BATCH) for s in (source, target)]
        rows = b.sub(self.last, self.first)

        def multiply(rows=rows):
            start = frame.word("panels", weight_)
            for i in axes_of(self.writer, weight_):
                step = b.mul(b.sub(self.at[i], frame.number(1)), frame.word("panel stride", weight_, i))
                start = b.add(start, step)
            b.call(self.writer.products.product, [
                self.address(source, self.first), strides[0], b.inttoptr(start, POINTER),
                self.address(target, self.first), strides[1], rows, depth, count])

        alone = len(self.over) == 1 and not axes_of(self.writer, weight_) and all(
            s.place.axes == self.over and s.at == (Position(self.over[0], "i", s.at[0].offset),)
            for s in (source, target))
        if not alone:
            self.everywhere(multiply)
            return
        whole = b.icmp_signed("==", rows, frame.word("batch"))
        with b.if_else(whole) as (together, apart):
            with together:  # rows of one position follow those of the one before
                self.at[self.over[0]] = self.low
                multiply(b.mul(rows, b.sub(self.high, self.low)))
            with apart:
                self.everywhere(multiply)


def axes_of(writer: Writer, weight_: Node) -> tuple[str, ...]:
    """The indices that a weight varies with."""
    return tuple(i for i in writer.system.indices if i in writer.system.free(weight_))


def stage_function(writer: Writer, outer: tuple[str, ...], write: Callable) -> ir.Function:
    """(context, scratch, examples from, to, the block's first position, positions from, to, where the loops stand)"""
    def body(frame, scratch, first, last, base, low, high, *positions):
        write(frame, scratch, first, last, base, low, high, dict(zip(outer, positions)))

    return writer.function(body, 5 + len(outer), exported=False)
