"""Reverse mode on expressions: cotangents of roots in, cotangents of every node below out, as expressions.

Forward mode needs no rules of its own: a vjp is linear in its cotangent, so transposing it by the same sweep is the
jvp. Whatever an operand does not vary with (an index, the batch, components under a number) is summed here, once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from . import primitives as P
from . import signature
from .equations import BATCH, System, free_indices
from .graph import CONST, READ, Node, Position, Primitive, node, option, read, rewrite, topological

# (dy/dx)' g, before any rule has worked it out: what a step of the record starts from. Never evaluated as it stands.
PULLBACK = Primitive("pullback", shape="_, _, s -> s",
                     latex=r"\left(\frac{{\partial {1:3}}}{{\partial {2:3}}}\right)^{{\top}} {0:3}")


class Step(NamedTuple):
    """One step of a derivation: `after` is `before`, by `rule`, the name of a primitive or of what was done there.

    site: the operation that the rule was applied to, or the variable whose equation this is.
    """

    rule: str
    site: Node
    before: Node
    after: Node


class Typing:
    """The indices and component axes of nodes over a system's names and over new names declared like them."""

    def __init__(self, system: System):
        self.model, self.per_example = system.model, set(system.per_example)
        self.ranks = {name: len(dims) for name, dims in system.shapes.items()}
        self.order = {i: k for k, i in enumerate((*system.indices, BATCH))}
        self._free: dict[Node, frozenset[str]] = {}
        self._rank: dict[Node, int] = {}

    def declare(self, name: str, rank: int, per_example: bool) -> None:
        self.ranks[name] = rank
        if per_example:
            self.per_example.add(name)

    def free(self, n: Node) -> frozenset[str]:
        return free_indices(n, self.per_example, self.model, self._free)

    def rank(self, n: Node) -> int:
        for m in topological([n], lambda m: () if m in self._rank else m.args):
            if m.op is READ:
                self._rank[m] = self.ranks[m.params[0]]
            elif m not in self._rank:
                self._rank[m] = signature.rank(m, self._rank) if m.args else 0
        return self._rank[n]


def fit(cotangent: Node, to: Node, typing: Typing, over: frozenset[str] = frozenset()) -> Node:
    """Sum a cotangent over what `to` does not vary with: components, indices, the batch.

    over: indices along which `to` is repeated, whether or not the cotangent varies with them.
    """
    if cotangent.op is CONST and cotangent.params[0] == 0:
        return cotangent
    if typing.rank(to) == 0 and typing.rank(cotangent) > 0:
        cotangent = node(P.sum, cotangent)
    for i in sorted((typing.free(cotangent) | over) - typing.free(to), key=typing.order.__getitem__):
        cotangent = node(P.sum, cotangent, params=(i,))
    return cotangent


def vjp(cotangents: Iterable[tuple[Node, Node]], typing: Typing, active: Callable[[Node], bool]
        ) -> tuple[dict[Node, Node], list[Step]]:
    """Cotangents of all active nodes below the roots, from (root, cotangent) pairs, and each rule's use on the way."""
    record: list[Step] = []
    waiting: dict[Node, list[Node]] = {}
    for root, g in cotangents:
        waiting.setdefault(root, []).append(fit(g, root, typing))
    found: dict[Node, Node] = {}
    for n in reversed(topological(waiting)):
        if n not in waiting or not active(n):
            continue
        g = P.total(*waiting.pop(n))
        if g.op is CONST and g.params[0] == 0:
            continue
        found[n] = g
        if n.op.vjp is None or not n.args:
            continue
        sent: dict[Node, list[Node]] = {}
        for a, part in zip(n.args, n.op.vjp(g, n, *n.args), strict=True):
            if part is not None and active(a):
                sent.setdefault(a, []).append(_returned(n, a, part, typing))
        for a, parts in sent.items():
            record.append(Step(n.op.name, n, pullback(g, n, a, typing), P.total(*parts)))
            waiting.setdefault(a, []).append(record[-1].after)
    return found, record


def pullback(g: Node, y: Node, x: Node, typing: Typing) -> Node:
    """(dy/dx)' g, summed over what x does not vary with."""
    return fit(node(PULLBACK, g, y, x), x, typing)


def _returned(n: Node, a: Node, part: Node, typing: Typing) -> Node:
    """A rule's cotangent as the operand's own: what the result varies with and the operand does not is summed."""
    over = option(n) if n.op.fill is not None else None
    return fit(_unspread(part, typing), a, typing, typing.free(n) | ({over} if over is not None else set()))


def _unspread(part: Node, typing: Typing) -> Node:
    """like(a, b) * c  ->  a * c, where c has b's shape already."""
    if part.op in (P.mul, P.div) and part.args[0].op is P.like and typing.rank(part.args[0].args[0]) == 0:
        spread, other = part.args
        if typing.rank(other) == typing.rank(spread):
            return node(part.op, spread.args[0], other)
    return part


def jvp(n: Node, tangents: dict[Node, Node], typing: Typing) -> Node | None:
    """The tangent of a primitive's result from its operands' tangents, by transposing its vjp."""
    if n.op.vjp is None:
        return None
    free, rank = typing.free(n), typing.rank(n)
    g = read(f"cotangent of rank {rank}{' per example' * (BATCH in free)}",
             tuple(Position(i) for i in sorted(free - {BATCH}, key=typing.order.__getitem__)))
    typing.declare(g.params[0], rank, BATCH in free)
    terms = []
    for a, part in zip(n.args, n.op.vjp(g, n, *n.args), strict=True):
        if part is None or a not in tangents:
            continue
        part = _returned(n, a, part, typing)
        linear = {g}
        for m in topological([part]):
            if any(x in linear for x in m.args):
                linear.add(m)
        back, _ = vjp([(part, fit(tangents[a], part, typing, typing.free(a)))], typing, linear.__contains__)
        if g in back:
            terms.append(back[g])
    if not terms:
        return None
    return rewrite([total := P.total(*terms)], lambda m, _: n if m is g else None)[total]  # g is left as a shape only
