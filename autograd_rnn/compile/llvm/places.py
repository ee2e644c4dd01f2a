"""Where values lie, and what a stage's function sees of it.

A stage reads where things lie from one array of whole numbers, the context: addresses, strides, sizes, extents. So the
same code serves every size, batch and length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from ... import primitives as P
from ...equations import System
from ...graph import INDEX, READ, Node, Position
from ..columns import columns
from .lanes import I64, POINTER, Lanes, Vector
from .products import Products


@dataclass(frozen=True)
class Place:
    """Where values lie: by index, then by example, then component after component.

    kind: "store", a variable's array with its ends; "node", a value's; a thread's, of the examples at hand: "own", of a
    block of positions of the first index, or "inner".
    """

    kind: str
    of: Any
    axes: tuple[str, ...]
    batched: bool

    @property
    def thread(self) -> bool:
        return self.kind in ("own", "inner")


@dataclass(frozen=True)
class Spot:
    """A place at positions, from a component on that is a sum of sizes."""

    place: Place
    at: tuple[Position, ...]
    skipped: tuple[str | int, ...] = ()


class Context:
    """The words of the context, by what they hold; made as they are asked for."""

    def __init__(self):
        self.words: dict[tuple, int] = {}

    def __call__(self, *key) -> int:
        return self.words.setdefault(key, len(self.words))


class Writer:
    """What all stages of one program share: the system, the module they are written to, the context.

    stored: variables that have an array. parts: those that lie in a concatenation's array, and after which sizes.
    resting: carried values of which one position is wanted at a time, by the index that they do not keep.
    outside: values made in one stage and read in another, and where they lie. absorbed: values that a reduction makes
    for itself.
    """

    def __init__(self, system: System, double: bool, width: int, rows: int):
        self.system = system
        self.module = ir.Module("program")
        self.double, self.width = double, width
        self.products = Products(self.module, double, width, rows)
        self.context = Context()
        self.stored: set[str] = set()
        self.parts: dict[str, tuple[str, tuple]] = {}
        self.resting: dict[str, str] = {}
        self.outside: dict[Node, Place] = {}
        self.absorbed: set[Node] = set()
        self.count = 0

    def dims(self, n: Node) -> tuple:
        return self.system.inferred.nodes[n]

    def spot(self, name: str, at: tuple[Position, ...]) -> Spot:
        """Where a variable lies."""
        whole, before = self.parts.get(name, (name, ()))
        still = self.resting.get(name)
        axes = tuple(i for i in self.system.axes[name] if i != still)
        place = Place("store", whole, axes, name in self.system.per_example)
        return Spot(place, tuple(p for p in at if p.index != still), before)

    def locate(self, n: Node) -> Spot:
        """Where a value lies that other stages make, or that is given."""
        if n.op is READ:
            return self.spot(*n.params)
        if n.op in (P.split, P.slice, columns) and n not in self.outside:
            return part_of(self, n, self.locate(n.args[0]))
        place = self.outside[n]
        return Spot(place, tuple(map(Position, place.axes)))

    def function(self, write: Callable, numbers: int = 2, exported: bool = True) -> ir.Function:
        """A new function of context, scratch and some numbers, filled by `write(frame, scratch, *numbers)`."""
        kind = ir.FunctionType(ir.VoidType(), [POINTER, POINTER, *[I64] * numbers])
        made = ir.Function(self.module, kind, f"stage{self.count}")
        self.count += 1
        if not exported:
            made.linkage = "internal"
        entry, start = made.append_basic_block("entry"), made.append_basic_block("start")
        builder = ir.IRBuilder(start)
        write(Frame(self, builder, entry, made.args[0]), *made.args[1:])
        builder.ret_void()
        ir.IRBuilder(entry).branch(start)
        return made


def part_of(writer: Writer, n: Node, whole: Spot) -> Spot:
    """Where a part of a value lies."""
    if n.op is P.slice:
        return Spot(whole.place, whole.at, (*whole.skipped, n.params[0]))
    before = tuple(d for a in n.args[1:n.params[0]] for d in writer.dims(a))
    return Spot(whole.place, whole.at, whole.skipped + before)


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

    def offset(self, at: Iterable, sizes: Iterable) -> ir.Value:
        """How many numbers lie before a component."""
        found: Any = ir.Constant(I64, 0)
        for position, size in zip(at, sizes):
            found = self.builder.add(self.builder.mul(found, size), position)
        return found

    def number(self, n: int) -> ir.Value:
        return ir.Constant(I64, n)

    def position(self, p: Position, at: Mapping, example=None) -> ir.Value:
        """The number of a position, where the indices stand `at`; the last one is each example's own."""
        if p.base == "i":
            return self.builder.add(at[p.index], self.number(p.offset))
        if p.base == "1":
            return self.number(1 + p.offset)
        return self.builder.add(self.last(p.index, example), self.number(p.offset))

    def last(self, index: str, example=None) -> ir.Value:
        """The last position of an index: of a data index, an example's own."""
        if index in self.writer.system.model or example is None:
            return self.word("extent", index)
        lengths = self.builder.inttoptr(self.word("lengths", index), POINTER)
        return self.builder.load(self.builder.gep(lengths, [example], source_etype=I64), typ=I64)

    def within(self, at: Mapping, example) -> ir.Value:
        """Whether an example has not ended where the data indices stand."""
        found: Any = ir.Constant(ir.IntType(1), 1)
        for i, k in at.items():
            if i is not None and i not in self.writer.system.model:
                found = self.builder.and_(found, self.builder.icmp_signed("<=", k, self.last(i, example)))
        return found


def start(frame: Frame, spot: Spot, at: Mapping, example=None) -> ir.Value:
    """The address of a place at positions, where its examples begin."""
    b = frame.builder
    offset = frame.sum(spot.skipped)
    for p, axis in zip(spot.at, spot.place.axes):
        offset = b.add(offset, b.mul(frame.position(p, at, example), frame.word("stride", spot.place, axis)))
    return frame.lanes.address(b.inttoptr(frame.word("address", spot.place), POINTER), offset)


def counted(frame: Frame, n: Node, at: Mapping, example) -> Vector:
    """The number of a position, or of an example's last."""
    i = n.params[0]
    whole = frame.builder.add(at[i], frame.word("offset", i)) if n.op is INDEX else frame.last(i, example)
    return frame.lanes.splat(frame.builder.sitofp(whole, frame.lanes.scalar))


def computed(lanes: Lanes, n: Node, x: list[Vector]) -> Vector:
    """A primitive's value from its operands'."""
    return x[0] if n.op is P.like else n.op.machine(lanes, *x, *n.params)  # type: ignore[misc]
