"""The unrolled graph without values: every operation at every step on one flat list, each after its operands.

It knows nothing of loops, orders or carries: each read is resolved to the instance it meets. Everything is iterative,
so that a hundred thousand steps are as safe as three.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from .equations import BATCH, Equation, System, tokens_reduce
from .errors import CellError
from .graph import CONST, EXTENT, INDEX, READ, Node, Position, extent_name, option

if TYPE_CHECKING:
    import networkx

Where = tuple[int, ...]


class Unrolled:
    """The instances of a system's operations over given extents, each after its operands.

    kind, of, at, args: what instance k is ("op", "leaf", "var", "stack", "pick"), the node or name it is of, its
    position along the indices it varies with, and the instances it is made from.
    """

    def __init__(self, system: System, extents: dict[str, int], given_ends=()):
        self.system, self.extents, self.ends = system, extents, set(given_ends)
        self.kind: list[str] = []
        self.of: list = []
        self.at: list[Where] = []
        self.args: list[tuple[int, ...]] = []
        self._slots: dict[tuple, int] = {}
        self._order = {i: k for k, i in enumerate(system.indices)}
        self._axes: dict[Node, tuple[str, ...]] = {}
        for eq in system.equations:
            if not eq.end:
                for where in grid([extents[i] for i in eq.free]):
                    self._expand(("var", eq.name, where))

    def __len__(self) -> int:
        return len(self.kind)

    def __repr__(self):
        extents = ", ".join(f"{extent_name(i)}={count}" for i, count in self.extents.items())
        return f"<unrolled: {len(self)} instances over {extents}>"

    def slot(self, name: str, where: Where) -> int:
        """The instance that holds a variable at a position."""
        return self._slots["var", name, where]

    def axes(self, n: Node) -> tuple[str, ...]:
        if n not in self._axes:
            self._axes[n] = tuple(sorted(self.system.free(n) - {BATCH}, key=self._order.__getitem__))
        return self._axes[n]

    def _expand(self, root: tuple):
        """Add an instance and all it needs, operands first, without recursion."""
        stack = [root]
        while stack:
            key = stack[-1]
            if key in self._slots:
                stack.pop()
                continue
            needs = self._needs(key)
            missing = [k for k in needs if k not in self._slots]
            if missing:
                stack.extend(reversed(missing))
                continue
            stack.pop()
            self._slots[key] = len(self.kind)
            self.kind.append(key[0])
            self.of.append(key[1])
            self.at.append(key[2])
            self.args.append(tuple(self._slots[k] for k in needs))

    def _needs(self, key: tuple) -> list[tuple]:
        kind, of, where = key
        if kind == "leaf":
            return []
        if kind == "var":
            name = of if isinstance(of, str) else of[0]
            eq = self._equation(of)
            at = dict(zip((eq.free), where))
            return [self._instance(eq.value, at)] if name else []
        at = dict(zip(self._varies(kind, of), where))
        if kind == "pick":
            return [("op", of, tuple(k for i, k in zip(self.axes(of), where) if i != option(of)))]
        if kind == "stack":
            over = option(of)
            return [self._instance(of.args[0], {**at, over: k}) for k in range(1, self.extents[over] + 1)]
        if over := self._over(of):
            return [("stack", of, tuple(at[i] for i in self._varies("stack", of) if i != over))]
        return [self._instance(a, at) for k, a in enumerate(of.args) if k not in of.op.shape_only]

    def _over(self, n: Node) -> str | None:
        over = option(n) if n.op.fill is not None else None
        return None if over == BATCH else over

    def _varies(self, kind: str, n: Node) -> tuple[str, ...]:
        """The indices whose positions tell instances of this kind apart."""
        if kind == "pick" or not (over := self._over(n)):
            return self.axes(n)
        return tuple(i for i in self.axes(n) if i != over)

    def _equation(self, of) -> Equation:
        name, end = (of, None) if isinstance(of, str) else of
        for eq in self.system.definitions[name]:
            if eq.end == (end is not None) and (end is None or eq.at == end):
                return eq
        raise KeyError(of)

    def _instance(self, n: Node, at: dict[str, int]) -> tuple:
        """The key of the instance that a node is at a position."""
        if n.op is READ:
            return self._variable(n, at)
        where = tuple(at[i] for i in self.axes(n))
        if n.op in (CONST, INDEX, EXTENT):
            return "leaf", n, where
        if self._over(n):
            if not tokens_reduce(n):
                return "pick", n, where
            return "op", n, where
        return "op", n, where

    def _variable(self, n: Node, at: dict[str, int]) -> tuple:
        name, positions = n.params
        where, outside = [], []
        for p in positions:
            base = at[p.index] if p.base == "i" else 1 if p.base == "1" else self.extents[p.index]
            where.append(base + p.offset)
            if not 1 <= where[-1] <= self.extents[p.index]:
                outside.append(len(where) - 1)
        if not outside:
            return ("var" if name in self.system.defined else "leaf"), name, tuple(where)
        k = outside[0]
        end = tuple(Position(p.index, *(("1", -1) if where[k] == 0 else ("T", 1))) if j == k else Position(p.index)
                    for j, p in enumerate(positions))
        rest = tuple(w for j, w in enumerate(where) if j != k)
        if len(outside) > 1:
            return "leaf", (name, None), ()
        if (name, end) in self.ends:
            return "leaf", (name, end), rest
        if any(eq.at == end for eq in self.system.definitions.get(name, ())):
            return "var", (name, end), rest
        return "leaf", (name, end), rest

    @property
    def graph(self) -> networkx.DiGraph:
        """One node an instance, with op, time, gate, shape; edges from operand to result."""
        import networkx

        graph = networkx.DiGraph()
        gates = {eq.value: eq.name for eq in self.system.equations}
        for k, (kind, of, where) in enumerate(zip(self.kind, self.of, self.at)):
            if isinstance(of, Node):
                op, shape = of.op.name, self.system.inferred.nodes[of]
                gate = gates.get(of)
                time = self._time(self._varies(kind, of), where)
            else:
                name = of if isinstance(of, str) else of[0]
                op, gate, shape = "read" if kind == "leaf" else "variable", name, self.system.shapes[name]
                axes = self.system.axes[name] if isinstance(of, str) else tuple(
                    p.index for p in of[1] or () if p.base == "i")
                time = self._time(axes, where)
            graph.add_node(k, op=op, kind=kind, gate=gate, time=time, at=where, shape=shape)
            graph.add_edges_from((a, k) for a in self.args[k])
        return graph

    def _time(self, axes, where) -> int | None:
        return next((k for i, k in zip(axes, where) if i not in self.system.model), None)


def grid(extents: list[int]) -> Iterator[Where]:
    if not extents:
        yield ()
        return
    for where in np.ndindex(*extents):
        yield tuple(k + 1 for k in where)


def symbolic(system: System, extents: dict[str, int]) -> Unrolled:
    """The unrolled graph without values."""
    for i in system.indices:
        if i not in extents:
            raise CellError(f"Nothing says how far to unroll along `{i}`.", remedy=f"Give it: unroll({i.upper()}=3).")
        if extents[i] < 1:
            raise CellError(f"A sequence has at least one step; {i.upper()} is {extents[i]}.")
    return Unrolled(system, extents)
