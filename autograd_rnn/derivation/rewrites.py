"""Rewrites of adjoint equations into what textbooks print; each is recorded as a step and proved like one.

    common factor  dh * n - dh * h[t-1]  ->  dh * (n - h[t-1])
    gate values    sigma'(a) = f (1 - f) and tanh'(a) = 1 - g^2, where f and g are the gates' own values
    shift          what arrives from step t+1, written out: dc_tm1[t+1]  ->  dc[t+1] * f[t+1]
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from .. import primitives as P
from ..equations import BATCH, Equation, tokens_reduce
from ..gradient import Step
from ..graph import CONST, INDEX, READ, Node, Position, const, extent, index, node, option, read, rewrite, topological


def gate_values(root: Node, held: Mapping[Node, Node]) -> Node:
    """sigmoid(-a) -> 1 - f and sech(a)**2 -> 1 - g**2, for f = sigmoid(a) and g = tanh(a), by their names in `held`."""
    def change(n: Node, args: tuple[Node, ...]) -> Node | None:
        if n.op is P.sigmoid and args[0].op is P.neg:
            gate = node(P.sigmoid, args[0].args[0])
            return P.total(const(1), -held.get(gate, gate))
        if n.op is P.pow and n.params == (2,) and args[0].op is P.sech:
            gate = node(P.tanh, args[0].args[0])
            return P.total(const(1), -(held.get(gate, gate) ** 2))
        return None

    return rewrite([root], change)[root]


def collected(root: Node) -> Node:
    """a * b - a * c  ->  a * (b - c), where all terms begin with the same factor."""
    pairs = [(n, False) if n.op is P.mul else (n.args[0], True) if n.op is P.neg else (n, False) for n in root.args]
    if root.op is not P.add or any(n.op is not P.mul for n, _ in pairs) or len({n.args[0] for n, _ in pairs}) > 1:
        return root
    return pairs[0][0].args[0] * P.total(*(-n.args[1] if negative else n.args[1] for n, negative in sorted(
        pairs, key=lambda pair: pair[1])))


def without(root: Node, names: Collection[str]) -> Node:
    """An expression linear in cotangents, with those of these names at zero."""
    zero = lambda n: n.op is CONST and n.params[0] == 0

    def change(n: Node, args: tuple[Node, ...]) -> Node | None:
        if n.op is READ and n.params[0] in names:
            return const(0)
        gone = [zero(a) and not zero(b) for a, b in zip(args, n.args)]
        if n.op is P.add:
            return P.total(*args)
        if n.op is P.where:
            return const(0) if zero(args[1]) and zero(args[2]) else None
        if n.op is P.concat and not all(gone):
            return P.concat(*(P.like(0, b) if dropped else a for a, b, dropped in zip(args, n.args, gone)))
        return const(0) if any(gone) else None

    return rewrite([root], change)[root]


def single(root: Node) -> Node:
    """sum_batch(v) -> v: the equation of one example."""
    return rewrite([root], lambda n, args: args[0] if n.op is P.sum and option(n) == BATCH else None)[root]


def sums_batch(roots: Iterable[Node]) -> bool:
    """Whether examples are taken together: sum_batch, max_batch, ..."""
    return any(n.op.fill is not None and option(n) == BATCH for n in topological(roots))


def moved(root: Node, to: Mapping[str, Position]) -> Node | None:
    """The expression at other positions: index i becomes to[i], `t+1`, `1` or `T`; None where there is no such one."""
    stuck = False

    def change(n: Node, args: tuple[Node, ...]) -> Node | None:
        nonlocal stuck
        if n.op is READ and n.params[1]:
            return read(n.params[0], tuple(_moved(p, to) for p in n.params[1]))
        if n.op is INDEX and n.params[0] in to:
            p = to[n.params[0]]
            base = {"i": index(p.index), "1": const(1), "T": extent(p.index)}[p.base]
            return P.total(base, const(p.offset))
        if n.op.fill is not None and option(n) in to and not tokens_reduce(n):
            stuck = True
        return None

    new: dict[Node, Node] = {}
    for n in topological([root], lambda n: () if _binds(n) & to.keys() else n.args):
        if _binds(n) & to.keys():
            inner = moved(n.args[0], {i: p for i, p in to.items() if i not in _binds(n)})
            stuck |= inner is None
            new[n] = n if inner is None else node(n.op, inner, params=n.params)
        else:
            args = tuple(new[a] for a in n.args)
            changed = change(n, args)
            new[n] = changed if changed is not None else node(n.op, *args, params=n.params)
    order = topological([new[root]])
    lost = any(p.base != "i" and p.offset not in ((-1, 0) if p.base == "1" else (0, 1))
               for n in order if n.op is READ for p in n.params[1])
    lost |= any(abs(p.offset) > 1 for n in order if n.op is P.onehot for p in n.args[0].params[1])  # there is no class
    return None if stuck or lost else new[root]


def _binds(n: Node) -> set[str]:
    return {option(n)} if n.op.fill is not None and option(n) is not None and tokens_reduce(n) else set()


def _moved(p: Position, to: Mapping[str, Position]) -> Position:
    target = to.get(p.index)
    return p if target is None or p.base != "i" else target._replace(offset=target.offset + p.offset)


def arriving(value: Node, to: Mapping[str, Position], cotangents: Collection[str],
             ends: Collection[tuple[str, Position]] = ()) -> Node | None:
    """What other steps send, at the place where it arrives; guarded where it would not vanish outside the sequence.

    ends: the names, with their outside positions, that have a value there.
    """
    found = moved(value, to)
    sent = [n for n in topological([value]) if n.op is READ and n.params[0] in cotangents]
    for i, p in to.items():
        outside = Position(i, "T", 1) if p.offset > 0 else Position(i, "1", -1)
        rest = without(value, {n.params[0] for n in sent if Position(i) in n.params[1]
                               and (n.params[0], outside) not in ends})
        if found is not None and sent and p.base == "i" and not (rest.op is CONST and rest.params[0] == 0):
            inside = node(P.lt, index(i), extent(i)) if p.offset > 0 else node(P.gt, index(i), const(1))
            found = node(P.where, inside, found, const(0))
    return found


def shifted(root: Node, carries: Mapping[str, Equation], cotangents: Collection[str],
            ends: Collection[tuple[str, Position]] = ()) -> Node:
    """The expression with every carry written out where it arrives: dc_tm1[t+1] -> dc[t+1] * f[t+1]."""
    def change(n: Node, args: tuple[Node, ...]) -> Node | None:
        carry = carries.get(n.params[0]) if n.op is READ else None
        if carry is None:
            return moved_terms(n, args)
        here = dict(zip((p.index for p in carry.at), n.params[1]))
        return arriving(carry.value, {i: p for i, p in here.items() if p != Position(i)}, cotangents, ends)

    return rewrite([root], change)[root]


def moved_terms(n: Node, args: tuple[Node, ...]) -> Node | None:
    """A sum whose term has become a sum is one sum."""
    return P.total(*args) if n.op is P.add and args != n.args else None


def textbook(equations: Iterable[Equation], carries: Iterable[str], held: Mapping[Node, Node]
             ) -> tuple[list[Equation], list[Equation], list[Step]]:
    """(adjoint equations as textbooks print them, all of them in gate values, the steps that led there)."""
    carries, steps = set(carries), []

    def step(rule: str, eq: Equation, after: Node) -> Equation:
        if after is not eq.value:
            steps.append(Step(rule, read(eq.name, eq.at), eq.value, after))
        return Equation(eq.name, eq.at, after)

    gated = [step("gate values", eq, gate_values(eq.value, held)) for eq in equations]
    gated = [step("common factor", eq, collected(eq.value)) for eq in gated]
    by_name = {eq.name: eq for eq in gated if eq.name in carries}
    kept = [eq for eq in gated if eq.name not in carries]
    names = {eq.name for eq in gated}
    ends = {(eq.name, p) for eq in gated for p in eq.at if p.base != "i"}
    final = [step("shift", eq, shifted(eq.value, by_name, names, ends)) for eq in kept]
    stay = {n.params[0] for n in topological(eq.value for eq in final) if n.op is READ}  # they cannot be written out
    return [*final, *(eq for name, eq in by_name.items() if name in stay)], gated, steps
