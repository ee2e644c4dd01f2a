"""Values that all examples share, made of weights and of sums over rows, component by component.

    A = U - U.T,  dU = dA - dA.T        A[i, j] is what U[i, j] and U[j, i] make
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping

from llvmlite import ir

from ... import primitives as P
from ...equations import Equation, System
from ...graph import CONST, EXTENT, LEAVES, READ, Node
from ...order import operands
from ..passes import split_rows
from .lanes import I32, Vector, loop
from .places import Frame, Spot, Writer, computed, counted, start
from .totals import Sum, share_of, sum_address

Key = tuple[Node, tuple]  # a value and a component
MOVES = {P.transpose: 2, P.outer: 1, P.split: 1, split_rows: 2, P.slice: 1}  # and the rank of what they move


def shareable(system: System, s: Node | Equation) -> bool:
    """Whether a value, or an equation's, depends on no index and no example, and is made component by component."""
    if isinstance(s, Equation):
        n = s.value
        return not s.at and s.name not in system.per_example and len(system.shapes[s.name]) == system.rank(n) and (
            not system.free(n)) and (n.op in (CONST, READ) or shareable(system, n))
    rank = system.rank(s)
    if system.free(s) or rank > 2 or s.op in LEAVES:
        return False
    if s.op in MOVES:
        return all(system.rank(a) == MOVES[s.op] for a in operands(s))
    return (s.op is P.like and system.rank(s.args[0]) in (0, rank)) or s.op.machine is not None


def shared(writer: Writer, steps: Iterable[Node | Equation], sums: Mapping[Node, Sum]) -> str:
    """The name of a function that makes its share of these values. sums: where sums over rows lie."""
    steps = list(steps)
    own = set(steps)
    made = {eq.name: eq.value for eq in writer.system.equations if not eq.at and (eq in own or eq.value in sums or (
        eq.value.op in (P.split, split_rows) and eq.value.args[0] in sums))}

    def write(frame, scratch, part, parts):
        for s in steps:
            n = s.value if isinstance(s, Equation) else s
            if isinstance(s, Equation) and s.name in writer.stored:
                fill(frame, n, writer.spot(s.name, ()), part, parts)
            elif n in writer.outside and not isinstance(s, Equation):
                fill(frame, n, writer.locate(n), part, parts)

    def fill(frame: Frame, n: Node, target: Spot, part, parts) -> None:
        b, lanes, dims, zero = frame.builder, frame.lanes, writer.dims(n), frame.number(0)
        sizes = [frame.size(d) for d in dims]
        low, high = share_of(frame, sizes[0] if sizes else frame.number(1), 1, part, parts)

        def component(*at):
            value = Components(writer, frame, made, own, sums).value(n, at)
            number = b.extract_element(value.value, ir.Constant(I32, 0))
            place = lanes.address(start(frame, target, {}), frame.offset(at, sizes))
            b.store(number, place, align=lanes.bytes)

        def row(i):
            if len(sizes) == 2:
                loop(b, zero, sizes[1], 1, lambda j: component(i, j))
            else:
                component(*[i] * len(sizes))

        loop(b, low, high, 1, row)

    return writer.function(write).name


class Components:
    """Values at some components, the same one in every lane."""

    def __init__(self, writer: Writer, frame: Frame, made: Mapping[str, Node], own: Container,
                 sums: Mapping[Node, Sum]):
        """made: what variables stand for; own: values that are made here, and are not read from memory."""
        self.writer, self.frame, self.made, self.own, self.sums = writer, frame, made, own, sums

    def value(self, root: Node, at: tuple) -> Vector:
        known: dict[Key, Vector] = {}
        needs: dict[Key, list[Key]] = {}
        stack: list[Key] = [(root, at)]
        while stack:
            key = stack[-1]
            if key not in needs:
                needs[key] = self.needs(*key)
            left = [k for k in needs[key] if k not in known]
            stack.extend(left)
            if not left:
                known[stack.pop()] = self.made_of(*key, [known[k] for k in needs[key]])
        return known[root, at]

    def in_memory(self, n: Node) -> bool:
        return n in self.sums or (n.op is READ and n.params[0] not in self.made) or (
            n in self.writer.outside and n not in self.own)

    def needs(self, n: Node, at: tuple) -> list[Key]:
        """The components that a component is made of."""
        frame = self.frame
        if n.op in (CONST, EXTENT) or self.in_memory(n):
            return []
        if n.op is READ:
            return [(self.made[n.params[0]], at)]
        if n.op is P.transpose:
            return [(n.args[0], at[::-1])]
        if n.op is P.outer:
            return [(n.args[0], at[:1]), (n.args[1], at[1:])]
        if n.op in (P.split, split_rows, P.slice):
            sizes = [n.params[0]] if n.op is P.slice else [self.writer.dims(a)[0] for a in n.args[1:n.params[0]]]
            return [(n.args[0], (frame.builder.add(at[0], frame.sum(sizes)), *at[1:]))]
        return [(a, at if self.writer.system.rank(a) else ()) for a in operands(n)]

    def made_of(self, n: Node, at: tuple, x: list[Vector]) -> Vector:
        """A component from those it needs, or from memory."""
        lanes = self.frame.lanes
        if n.op is CONST:
            return lanes.constant(n.params[0])
        if n.op is EXTENT:
            return counted(self.frame, n, {}, None)
        if self.in_memory(n):
            sizes = list(map(self.frame.size, self.writer.dims(n)))
            if n in self.sums:
                return lanes.load_one(sum_address(self.frame, self.sums[n], at, sizes))
            return lanes.load_one(lanes.address(start(self.frame, self.writer.locate(n), {}),
                                                self.frame.offset(at, sizes)))
        return x[0] * x[1] if n.op is P.outer else x[0] if n.op is READ or n.op in MOVES else computed(lanes, n, x)
