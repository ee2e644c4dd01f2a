"""Passes by algebra: what a loop multiplies by is made before it, sums of neighbours are the parts of one.

    factors_first   in a loop, (dh * s[t]) * k[t]  ->  dh * (s * k)[t]
    stack_totals    sum_t(u_1), sum_t(u_2)         ->  the parts of sum_t(concat(u_1, u_2))
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from .. import primitives as P
from ..equations import BATCH, Equation, System
from ..evaluate import plan
from ..graph import CONST, Node, Position, node, option, read, rewrite, topological
from ..order import Loop, operands


def levels(system: System) -> dict[Node | Equation, tuple[Loop, ...]]:
    """The loops that each operation and equation stands in."""
    def walk(steps, path) -> Iterator:
        for s in steps:
            if isinstance(s, Loop):
                yield from walk(s.body, (*path, s))
            else:
                yield s, path

    return dict(walk(plan(system).order, ()))


def with_values(system: System, values: Mapping[Equation, Node]) -> System:
    """The system in which these equations have other values."""
    return System((Equation(eq.name, eq.at, values[eq], eq.line) if eq in values else eq for eq in system.equations),
                  system.axes, system.model, system.declarations)


def at_home(system: System, at: Node | Equation) -> bool:
    """Whether a variable is read or defined at its own position, h[t]."""
    name, positions = at.params if isinstance(at, Node) else (at.name, at.at)
    return positions == tuple(map(Position, system.axes[name]))


class Term(NamedTuple):
    """What a loop makes times what it is given, inner * outer, or inner alone."""

    inner: Node
    outer: Node | None

    @property
    def value(self) -> Node:
        return self.inner if self.outer is None else self.inner * self.outer  # type: ignore[operator]

    def __neg__(self) -> Term:
        return Term(-self.inner, None) if self.outer is None else Term(self.inner, -self.outer)  # type: ignore[operator]


class Factoring:
    """Values in one loop as sums of terms."""

    def __init__(self, system: System, level: Mapping[Node | Equation, tuple], loops: tuple[Loop, ...],
                 values: Mapping[Node, Node]):
        """values: of variables that are read once, where they are made."""
        self.system, self.level, self.loops, self.values = system, level, loops, values
        self.inside: dict[Node, bool] = {}

    def made_here(self, n: Node) -> bool:
        for m in topological([n], lambda m: () if m in self.inside else operands(m)):
            if m not in self.inside:
                self.inside[m] = m.op is not CONST and (
                    self.level[m][:len(self.loops)] == self.loops if m in self.level
                    else any(self.inside[a] for a in operands(m)))
        return self.inside[n]

    def terms(self, n: Node) -> list[Term]:
        """A value as a sum, of which terms with the same inner factor are one."""
        if n.op is P.add:
            return self.together([t for a in n.args for t in self.terms(a)])
        if n.op is P.neg:
            return [-t for t in self.terms(n.args[0])]
        if n.op is P.mul and self.made_here(n.args[0]) != self.made_here(n.args[1]):
            a, b = n.args if self.made_here(n.args[0]) else n.args[::-1]
            inner = self.terms(a)
            if len(inner) > 1:
                return [Term(a, b)]
            return [Term(t.inner, b if t.outer is None else t.outer * b) for t in inner]  # type: ignore[operator]
        inner = self.terms(self.values[n]) if n in self.values else []
        return inner if len(inner) == 1 and inner[0].outer is not None else [Term(n, None)]

    def together(self, terms: list[Term]) -> list[Term]:
        """x * a + x * b  ->  x * (a + b)"""
        found: dict[tuple, Term] = {}
        for t in terms:
            key = t.inner, None if t.outer is None else self.system.rank(t.outer)
            if t.outer is not None and key in found:
                t = Term(t.inner, found[key].outer + t.outer)  # type: ignore[operator]
            found[key if t.outer is not None else (*key, len(found))] = t
        return list(found.values())

    def changed(self, n: Node, args: tuple[Node, ...]) -> Node:
        n = n if args == n.args else node(n.op, *args, params=n.params)
        if n.op in (P.add, P.mul, P.neg) and self.made_here(n):
            return P.total(*(t.value for t in self.terms(n)))
        return n


def factors_first(system: System) -> System:
    """In a loop, da[t] = d[t] * k[t], d[t] = dh[t] * r[t] - dh[t] * s[t]  ->  da[t] = dh[t] * ((r[t] - s[t]) * k[t]).

    What is in brackets is made before the loop. A variable that is read once, where it is made, is its value.
    """
    level, consumers = levels(system), plan(system).consumers
    new: dict[Equation, Node] = {}
    for eq, loops in level.items():
        if isinstance(eq, Equation) and loops:
            once = {read(d.name, d.at): value for d, value in new.items() if level[d] == loops and not d.end
                    and len(consumers.get(read(d.name, d.at), ())) == 1}
            new[eq] = rewrite([eq.value], Factoring(system, level, loops, once).changed)[eq.value]
    return with_values(system, new)


def totals(n: Node) -> tuple[tuple[str, ...], Node]:
    """sum_i(sum_j(u)): the indices, and u."""
    bound: list[str] = []
    while n.op is P.sum and option(n) is not None:
        bound.append(str(option(n)))
        n = n.args[0]
    return tuple(bound), n


def stack_totals(system: System) -> System:
    """sum_t(u_1), sum_t(u_2)  ->  the parts of sum_t(concat(u_1, u_2)), where the system has this concatenation."""
    sums: dict[tuple, Node] = {}
    for eq in system.equations:
        bound, u = totals(eq.value)
        if bound and not system.free(eq.value):
            sums[bound, u] = eq.value
    new: dict[Node, Node] = {}
    for whole in topological((eq.value for eq in system.equations), operands):
        if whole.op is P.concat and BATCH in system.free(whole):
            for bound in dict.fromkeys(b for b, u in sums if u in whole.args):
                found = {k: sums[bound, u] for k, u in enumerate(whole.args, 1) if (bound, u) in sums}
                total = whole
                for i in reversed(bound):
                    total = node(P.sum, total, params=(i,))
                for k, n in found.items():
                    if len(found) > 1:
                        new.setdefault(n, node(P.split, total, *whole.args, params=(k,)))
    return with_values(system, {eq: new[eq.value] for eq in system.equations if eq.value in new})
