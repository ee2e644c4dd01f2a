"""Stages: what a program does between two arrays, each an LLVM function over a range of examples or of parts.

    Rows      values of every example, at one position after another: the body of a loop through time, or what is
              time-parallel. A stage is a list of passes over the rows at hand: a product, or pointwise work on values
              of one shape, fused, whose operands and results are in cache.
    Weights   weights packed into panels
    Totals    sums over all rows: products of two sides, and column sums

A stage reads where things lie from one array of whole numbers, the context: addresses, strides, sizes, extents. So the
same code serves every size, batch and length.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from .. import primitives as P
from ..equations import BATCH, Equation, System
from ..evaluate import plan
from ..graph import CONST, EXTENT, INDEX, LEAVES, READ, Node, Position
from ..order import contraction, operands
from .lanes import I64, POINTER, Lanes, Vector, loop
from .passes import rows as stacked
from .products import Products

LEAVE = 128  # rows of time-parallel work that are taken at once


@dataclass(frozen=True)
class Place:
    """Where values lie: by index, then by example, then component after component.

    kind: "store", a variable's array with its ends; "node", a value's; "own", a thread's, of the rows at hand.
    """

    kind: str
    of: Hashable
    axes: tuple[str, ...]
    batched: bool


@dataclass(frozen=True)
class Spot:
    """A place at positions, from a component on that is a sum of sizes."""

    place: Place
    at: tuple[Position, ...]
    skipped: tuple[str | int, ...] = ()


class Cluster:
    """Pointwise values of one shape, made together, and where each goes."""

    def __init__(self, dims: tuple):
        self.dims, self.nodes, self.closed = dims, [], False
        self.targets: dict[Node, list[Spot]] = {}


class Context:
    """The words of the context, by what they hold; made as they are asked for."""

    def __init__(self):
        self.words: dict[tuple, int] = {}

    def __call__(self, *key) -> int:
        return self.words.setdefault(key, len(self.words))


def weight(n: Node) -> tuple[bool, tuple[Node, ...]] | None:
    """(whether transposed, the given matrices that are stacked) of a weight; None for any other matrix."""
    turned = n.op is P.transpose
    inner = n.args[0] if turned else n
    parts = inner.args if inner.op is stacked else (inner,)
    return (turned, parts) if all(p.op is READ and not p.params[1] for p in parts) else None


class Writer:
    """What all stages of one program share: the system, the module they are written to, the context."""

    def __init__(self, system: System, double: bool, width: int, rows: int):
        self.system, self.plan = system, plan(system)
        self.module = ir.Module("program")
        self.double, self.width = double, width
        self.products = Products(self.module, double, width, rows)
        self.context = Context()
        self.stored: set[str] = set()  # variables that have an array
        self.outside: dict[Node, Place] = {}  # values made in one stage and read in another
        self.count = 0

    def dims(self, n: Node) -> tuple:
        return self.system.inferred.nodes[n]

    def store(self, name: str) -> Place:
        return Place("store", name, self.system.axes[name], name in self.system.per_example)

    def function(self, write: Callable) -> str:
        """A new function (context, scratch, first, last), filled by `write(lanes, scratch, first, last)`."""
        name = f"stage{self.count}"
        self.count += 1
        kind = ir.FunctionType(ir.VoidType(), [POINTER, POINTER, I64, I64])
        made = ir.Function(self.module, kind, name)
        entry, start = made.append_basic_block("entry"), made.append_basic_block("start")
        builder = ir.IRBuilder(start)
        write(Frame(self, builder, entry, made.args[0]), *made.args[1:])
        builder.ret_void()
        ir.IRBuilder(entry).branch(start)
        return name


class Frame:
    """The inside of a stage's function: lanes, and the words of the context, read at its entry."""

    def __init__(self, writer: Writer, builder: ir.IRBuilder, entry, context):
        self.writer, self.builder, self.entry, self.context = writer, builder, entry, context
        self.lanes = Lanes(builder, writer.double, writer.width)
        self.loaded: dict[int, ir.Value] = {}

    def word(self, *key) -> ir.Value:
        k = self.writer.context(*key)
        if k not in self.loaded:
            early = ir.IRBuilder(self.entry)
            self.loaded[k] = early.load(early.gep(self.context, [ir.Constant(I64, k)], source_etype=I64), typ=I64)
        return self.loaded[k]

    def size(self, d) -> ir.Value:
        return ir.Constant(I64, int(d)) if isinstance(d, int) or str(d).isdigit() else self.word("size", d)

    def sum(self, dims: Iterable) -> ir.Value:
        found: Any = ir.Constant(I64, 0)
        for d in dims:
            found = self.builder.add(found, self.size(d))
        return found

    def product(self, dims: Iterable) -> ir.Value:
        found: Any = ir.Constant(I64, 1)
        for d in dims:
            found = self.builder.mul(found, self.size(d))
        return found

    def number(self, n: int) -> ir.Value:
        return ir.Constant(I64, n)


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
        self.name = writer.function(self.write)

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
            spot = Spot(self.writer.store(eq.name), eq.at)
            value = self.resolved(eq.value)
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
        else:
            cluster = self.gathering([a], dims)
        cluster.targets.setdefault(a, []).append(target)
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
            place = self.writer.outside[n]
            spot = Spot(place, tuple(map(Position, place.axes)))
        elif kept is not None:
            spot = Spot(self.writer.store(kept.name), kept.at)
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
        if n.op is READ:
            return Spot(self.writer.store(n.params[0]), n.params[1])
        if n.op is P.split:
            whole = self.locate(n.args[0])
            before = tuple(d for a in n.args[1:n.params[0]] for d in self.writer.dims(a))
            return Spot(whole.place, whole.at, whole.skipped + before)
        if n.op is P.slice:
            whole = self.locate(n.args[0])
            return Spot(whole.place, whole.at, (*whole.skipped, n.params[0]))
        if n in self.inside:
            return self.spots[n]
        place = self.writer.outside[n]
        return Spot(place, tuple(map(Position, place.axes)))

    # --- instructions ------------------------------------------------------------------------------------------------

    def write(self, frame: Frame, scratch, first, last) -> None:
        self.frame, self.scratch, self.first, self.last = frame, scratch, first, last
        self.at: dict[str, Any] = {}
        b, one = frame.builder, frame.number(1)
        if self.over is None:
            self.low = self.high = None
            self.all_passes()
            return
        extent = frame.word("extent", self.over)
        if self.sign is not None:
            def step(k):
                self.at[self.over] = k if self.sign == 1 else b.sub(b.add(extent, one), k)
                self.all_passes()

            loop(b, one, b.add(extent, one), 1, step)
            return
        block = frame.word("block")

        def some(k):
            end = b.add(k, block)
            over = b.icmp_signed(">", end, b.add(extent, one))
            self.low, self.high = k, b.select(over, b.add(extent, one), end)
            self.all_passes()

        loop(b, one, b.add(extent, one), block, some)

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
            position = self.position(p)
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

    def position(self, p: Position):
        b = self.frame.builder
        shift = self.frame.number(p.offset)
        if p.base == "i":
            return b.add(self.at[p.index], shift)
        return self.frame.number(1 + p.offset) if p.base == "1" else b.add(self.frame.word("extent", p.index), shift)

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
            i = n.params[0]
            whole = frame.builder.add(self.at[i], frame.word("offset", i)) if n.op is INDEX else frame.word("extent", i)
            value = lanes.splat(frame.builder.sitofp(whole, lanes.scalar))
        elif self.made.get(n) is cluster:
            x = [self.vector(a) for a in operands(n)]
            value = x[0] if n.op is P.like else n.op.machine(lanes, *x, *n.params)
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


class Weights:
    """A stage that packs weights into panels; its parts are the weights."""

    def __init__(self, writer: Writer, weights: Iterable[Node]):
        self.writer, self.weights = writer, list(weights)
        self.name = writer.function(self.write)

    def write(self, frame: Frame, scratch, part, parts) -> None:
        b = frame.builder
        for k, n in enumerate(self.weights):
            mine = b.icmp_signed("==", b.srem(frame.number(k), parts), part)
            with b.if_then(mine):
                turned, matrices = weight(n)  # type: ignore[misc]
                panels = b.inttoptr(frame.word("panels", n), POINTER)
                depth = frame.size(self.writer.dims(n)[1])
                done: Any = frame.number(0)
                for m in matrices:
                    height, width = map(frame.size, self.writer.dims(m))
                    source = b.inttoptr(frame.word("address", self.writer.store(m.params[0])), POINTER)
                    one, zero, end = frame.number(1), frame.number(0), b.add(done, height)
                    arguments = [source, one, width, panels, depth, zero, width, done, height] if turned else [
                        source, width, one, panels, depth, done, end, zero, width]
                    b.call(self.writer.products.pack, arguments)
                    done = end


class Totals:
    """A stage of sums over all rows; [part, parts): a share of the blocks of each product, and of the column sums."""

    def __init__(self, writer: Writer, nodes: Iterable[Node], spot: Callable[[Node], Spot]):
        self.writer, self.nodes, self.spot = writer, list(nodes), spot
        self.name = writer.function(self.write)

    def write(self, frame: Frame, scratch, part, parts) -> None:
        b, n = frame.builder, frame.number
        rows = n(self.writer.products.rows)
        for total_ in self.nodes:
            bound, u, v = contraction(total_)  # type: ignore[misc]
            index = next((i for i in bound if i != BATCH), None)
            sides: list = []
            for side in (u, v):
                spot = self.spot(side)
                strides = [frame.word("stride", spot.place, index) if index else n(0),
                           frame.word("stride", spot.place, BATCH)]
                start: Any = frame.sum(spot.skipped)
                for p, axis in zip(spot.at, spot.place.axes):
                    first = n(1 + p.offset)
                    if p.base == "T":
                        first = b.add(frame.word("extent", p.index), n(p.offset))
                    start = b.add(start, b.mul(first, frame.word("stride", spot.place, axis)))
                base = b.inttoptr(frame.word("address", spot.place), POINTER)
                sides += [frame.lanes.address(base, start), *strides]
            outer = frame.word("extent", index) if index else n(1)
            height, width = (frame.size(self.writer.dims(x)[0]) for x in (u, v))
            blocks = b.sdiv(b.add(height, b.sub(rows, n(1))), rows)
            share = [b.mul(b.sdiv(b.mul(blocks, k), parts), rows) for k in (part, b.add(part, n(1)))]
            target = b.inttoptr(frame.word("matrix", total_), POINTER)
            b.call(self.writer.products.correlate, [*sides, outer, frame.word("batch"), width, height, *share, target,
                                                    scratch])


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
        return weight(a) is not None and system.rank(b) == 1 and BATCH in system.free(b) and (
            system.free(b) == system.free(n) and b.op not in (INDEX, EXTENT, CONST))
    if n.op in (P.concat, P.split, P.slice):
        return system.rank(n) == 1 and not any(a.op in (INDEX, EXTENT) for a in operands(n))
    if n.op is P.like:
        return system.rank(n.args[0]) in (0, system.rank(n))
    return n.op.machine is not None


def summed(writer: Writer, n: Node) -> bool:
    """Whether a node is a sum over all rows of the products of two vectors, each in memory."""
    fused = contraction(n)
    if fused is None or writer.system.free(n):
        return False
    bound, u, v = fused
    system = writer.system
    return BATCH in bound and len(bound) <= 2 and all(
        system.rank(x) == 1 and system.free(x) == set(bound) and x.op not in (INDEX, EXTENT, CONST) for x in (u, v))
