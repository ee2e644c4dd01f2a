"""What makes a system fast: each pass is a pure function from system to system, forward and adjoint alike.

    gate_values     sigmoid(-a) -> 1 - f
    split_concats   in a loop, W @ concat(x, h)      ->  W_1 @ x + W_2 @ h  (columns.py)
    stack_products  U_i @ h, U_f @ h                 ->  one product of both weights, in parts
    sum_in_parts    part_k(A) + part_k(B) + b_k      ->  part_k(A + B + concat(b_1, ..., b_n))
    stack_activations  sigmoid of neighbouring parts ->  the parts of one sigmoid
    stack_sums      U_i.T @ da_i + U_f.T @ da_f      ->  one product with both, concatenated
    stack_gradients sum_t(outer(da_i, h)), and of da_f  ->  one product for both, in parts
    split_sums      in a loop, a + b + c[t]          ->  a + (b + c)[t], what is time-parallel first, before the loop
    factors_first, stack_totals                      in algebra.py
    name_exports    what leaves a loop has a variable, so that it is kept, and nothing else is
    name_parts, name_concats, name_splits            parts and what they are parts of are variables, in one array

Any subset gives the same numbers. Only products leave a loop by being named here; the schedule moves them out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from .. import primitives as P
from ..equations import BATCH, Equation, System
from ..errors import CellError
from ..evaluate import plan
from ..graph import CONST, EXTENT, INDEX, READ, Node, Position, Primitive, node, read, rewrite, topological
from ..naming import holders, replaced
from ..order import contraction, operands
from .algebra import factors_first, levels, stack_totals
from .columns import matrix, parts_apart, weight

Pass = Callable[[System], System]

rows = Primitive("rows", lambda *x: np.concatenate(x, axis=-2), shape="(m n)* -> (m n)",
                 numpy="np.concatenate(({all}), axis=-2)")
split_rows = Primitive("split_rows", lambda g, *x: P._split(g.swapaxes(-1, -2), *x).swapaxes(-1, -2),
                       shape="(m n), (m n)* -> (m n)", shape_only=tuple(range(1, 64)), statics=1)


def _with(system: System, equations: Iterable[Equation], axes: dict | None = None) -> System:
    return System(equations, axes or system.axes, system.model, system.declarations)


def _valued(eq: Equation, value: Node) -> Equation:
    return eq if value is eq.value else Equation(eq.name, eq.at, value, eq.line)


def gate_values(system: System) -> System:
    """f[t] * sigmoid(-a[t])  ->  f[t] * (1 - f[t]);  sech(a[t])**2  ->  1 - g[t]**2, where f, g are such gates.

    These are off by 2 eps at most, whatever their size, which is right for a factor of a cotangent. So only
    derivatives of gates are written so: a text that has sigmoid(-a) or sech(a) may divide by it or take its logarithm.
    """
    held = holders(system)
    stated = set(topological(eq.value for eq in system.equations if eq.line))

    def change(n: Node, args: tuple[Node, ...]) -> Node | None:
        a = n.args[-1].args[0] if n.op in (P.mul, P.pow) and n.args[-1].args and n.args[-1] not in stated else None
        if a is None:
            return None
        if n.op is P.mul and n.args[1].op is P.sigmoid and a.op is P.neg:
            gate = node(P.sigmoid, a.args[0])
            f = held.get(gate, gate)
            return node(P.mul, f, P.total(P.const(1), -f)) if n.args[0] in (gate, f) else None  # type: ignore[operator]
        if n.op is P.pow and n.params == (2,) and n.args[0].op is P.sech:
            gate = node(P.tanh, a)
            return P.total(P.const(1), -(held.get(gate, gate) ** 2))  # type: ignore[operator]
        return None

    done = rewrite((eq.value for eq in system.equations if not eq.line), change)
    return _with(system, (eq if eq.line else _valued(eq, done[eq.value]) for eq in system.equations))


def split_concats(system: System) -> System:
    """In a loop, W @ concat(x[t], h[t-1])  ->  W_1 @ x[t] + W_2 @ h[t-1], with W = (W_1 W_2).

    part_1(W.T @ d[t]) and part_2(W.T @ d[t])  ->  W_1.T @ d[t] and W_2.T @ d[t], where the loop needs but one of them.
    """
    return _substituted(system, parts_apart(system))


def stack_products(system: System) -> System:
    """W_1 @ v, W_2 @ v  ->  part 1 and part 2 of rows(W_1, W_2) @ v, for weights that are given."""
    groups: dict[tuple, list[Node]] = {}  # by what they share: the layer, the vector
    for n in topological((eq.value for eq in system.equations), operands):
        if n.op is P.matmul and weight(system, n.args[0]) and system.rank(n.args[1]) == 1:
            groups.setdefault((matrix(n.args[0]).params[1], n.args[1]), []).append(n)
    new = {}
    for (_, v), products in groups.items():
        if len(products) > 1:
            whole = node(P.matmul, node(rows, *(n.args[0] for n in products)), v)
            new.update({n: node(P.split, whole, *products, params=(k,)) for k, n in enumerate(products, 1)})
    return _substituted(system, new)


def _substituted(system: System, new: dict[Node, Node]) -> System:
    """Nodes replaced wherever their values are used, a term by a sum's terms; what only lends its shape stays."""
    done: dict[Node, Node] = {}

    def value(root: Node) -> Node:
        for n in topological([root], lambda n: () if n in done else operands_of(n)):
            if n not in done:
                args = tuple(done.get(a, a) for a in n.args)
                kept = n if args == n.args else P.total(*args) if n.op is P.add else node(n.op, *args, params=n.params)
                done[n] = _inner(new[n], done, value) if n in new else kept
        return done[root]

    return _with(system, (_valued(eq, value(eq.value)) for eq in system.equations))


def operands_of(n: Node) -> tuple[Node, ...]:
    return tuple(a for k, a in enumerate(n.args) if k not in n.op.shape_only)


def _inner(n: Node, done: dict[Node, Node], value: Callable[[Node], Node]) -> Node:
    """A replacement whose own operands are replaced too."""
    args = tuple(a if k in n.op.shape_only else _inner(a, done, value) if a.args and a not in done else done.get(a, a)
                 for k, a in enumerate(n.args))
    return n if args == n.args else node(n.op, *args, params=n.params)


def sum_in_parts(system: System) -> System:
    """part_k(A) + part_k(B) + b_k for neighbouring k  ->  the parts of one sum of A, B and concat(b_1, ..., b_n).

    The b_k are shared; of A and B, what lies between two parts is a part itself.
    """
    groups: dict[tuple, dict[int, Node]] = {}
    for n in topological((eq.value for eq in system.equations), operands):
        if n.op is P.add:
            parts = [a for a in n.args if a.op is P.split]
            rest = [a for a in n.args if a.op is not P.split]
            alike = len({a.params for a in parts}) == 1
            if parts and len(rest) <= 1 and alike and all(system.rank(a) and not system.free(a) for a in rest):
                key = (tuple(a.args for a in parts), len(rest))
                groups.setdefault(key, {})[parts[0].params[0]] = n
    new = {}
    for (parts, rest), sums in groups.items():
        for run in _runs(sorted(sums)) if len({len(p) for p in parts}) == 1 else ():
            others = [next(a for a in sums[k].args if a.op is not P.split) for k in run] if rest else []
            whole = P.total(*(_between(p[0], p[1:], run) for p in parts), *([P.concat(*others)] if rest else []))
            sizes = [parts[0][k] for k in run]
            new.update({sums[k]: node(P.split, whole, *sizes, params=(j,)) for j, k in enumerate(run, 1)})
    return _substituted(system, new)


def _between(whole: Node, sizes: tuple[Node, ...], run: list[int]) -> Node:
    """The neighbouring parts of a value as one part."""
    before, inner, after = sizes[:run[0] - 1], [sizes[k - 1] for k in run], sizes[run[-1]:]
    both = node(P.split, whole, *before, P.concat(*inner), *after, params=(len(before) + 1,))
    return both if before or after else whole


def stack_activations(system: System) -> System:
    """sigmoid(part_1(A)), sigmoid(part_2(A))  ->  the parts of one sigmoid, where they are neighbours."""
    parts = {read(eq.name, eq.at): eq.value for eq in system.equations if eq.value.op is P.split}
    groups: dict[tuple, dict[int, Node]] = {}
    for n in topological((eq.value for eq in system.equations), operands):
        part = parts.get(n.args[0], n.args[0]) if len(n.args) == 1 else None
        if part is not None and part.op is P.split and n.op.pointwise and n.op.infix is None and not n.params:
            groups.setdefault((n.op, part.args), {})[part.params[0]] = n
    new = {}
    for (op, (whole, *sizes)), found in groups.items():
        for run in _runs(sorted(found)):
            made = node(op, _between(whole, tuple(sizes), run))
            inner = [sizes[k - 1] for k in run]
            new.update({found[k]: node(P.split, made, *inner, params=(j,)) for j, k in enumerate(run, 1)})
    return _substituted(system, new)


def _runs(numbers: list[int]) -> Iterator[list[int]]:
    """1 2 3 5 7 8  ->  [1 2 3], [7 8]: those of more than one."""
    start = 0
    for k in range(1, len(numbers) + 1):
        if k == len(numbers) or numbers[k] != numbers[k - 1] + 1:
            if k - start > 1:
                yield numbers[start:k]
            start = k


def stack_sums(system: System) -> System:
    """U_1.T @ u_1 + U_2.T @ u_2  ->  rows(U_1, U_2).T @ concat(u_1, u_2)."""
    def change(n: Node, args: tuple[Node, ...]) -> Node | None:
        if n.op is not P.add:
            return None
        products = [a for a in args if a.op is P.matmul and a.args[0].op is P.transpose
                    and weight(system, a.args[0].args[0]) and system.rank(a.args[1]) == 1]
        layer = [matrix(a.args[0].args[0]).params[1] for a in products]
        products = [a for a, at in zip(products, layer) if at == layer[0]]
        if len(products) < 2:
            return None
        weights = node(rows, *(a.args[0].args[0] for a in products))
        whole = node(P.matmul, node(P.transpose, weights), P.concat(*(a.args[1] for a in products)))
        return P.total(*(whole if a is products[0] else a for a in args if a is products[0] or a not in products))

    done = rewrite((eq.value for eq in system.equations), change)
    return _with(system, (_valued(eq, done[eq.value]) for eq in system.equations))


def stack_gradients(system: System) -> System:
    """sum(outer(u_1, v)), sum(outer(u_2, v))  ->  the parts of sum(outer(concat(u_1, u_2), v))."""
    groups: dict[tuple, list[Node]] = {}
    for eq in system.equations:
        fused = contraction(eq.value)
        if fused and system.rank(fused[1]) == 1 and not system.free(eq.value):
            groups.setdefault((fused[0], fused[2]), []).append(eq.value)
    new = {}
    for (bound, v), sums in groups.items():
        sums = list(dict.fromkeys(sums))
        if len(sums) > 1:
            whole = node(P.outer, P.concat(*(contraction(n)[1] for n in sums)), v)  # type: ignore[index]
            for i in reversed(bound):
                whole = node(P.sum, whole, params=(i,))
            new.update({n: node(split_rows, whole, *sums, params=(k,)) for k, n in enumerate(sums, 1)})
    return _with(system, (_valued(eq, new.get(eq.value, eq.value)) for eq in system.equations))


def split_sums(system: System) -> System:
    """In a loop, a + b + c + d with b and d from outside it  ->  (b + d) + a + c."""
    level = levels(system)

    def change(n: Node, args: tuple[Node, ...]) -> Node | None:
        inside = level.get(n, ())
        if n.op is not P.add or not inside:
            return None
        outer = [a for a, b in zip(args, n.args) if b.op is not CONST and len(level.get(b, ())) < len(inside)]
        if len(outer) < 2 or len(outer) == len(args):
            return None
        return node(P.add, node(P.add, *outer), *(a for a in args if a not in outer))

    done = rewrite((eq.value for eq in system.equations), change)
    return _with(system, (_valued(eq, done[eq.value]) for eq in system.equations))


def name_exports(system: System) -> System:
    """What a loop makes and something outside it reads  ->  a variable of its own: e#1[t] = tanh(c[t])."""
    level, held = levels(system), holders(system)
    consumers = plan(system).consumers
    return _named(system, [
        n for n, inside in level.items()
        if isinstance(n, Node) and inside and n.op not in (READ, INDEX, EXTENT, CONST) and n not in held
        and any(inside[-1] not in level[c] for c in consumers.get(n, ()))])


def name_concats(system: System) -> System:
    """concat(da_i[t], da_f[t])  ->  a variable of its own, so that its parts can lie in its array."""
    held = holders(system)
    found = [n for n in topological((eq.value for eq in system.equations), operands)
             if n.op is P.concat and n not in held and BATCH in system.free(n)]
    return _named(system, found)


def name_parts(system: System) -> System:
    """concat(da_r[t], da_n[t] * r[t])  ->  its operands are variables, which can lie in its array."""
    level, held = levels(system), holders(system)
    found = [a for n in level if isinstance(n, Node) and n.op is P.concat and level[n] and BATCH in system.free(n)
             for a in n.args if a.args and a not in held]
    return _named(system, dict.fromkeys(found))


def name_splits(system: System) -> System:
    """i[t] = part_1(sigmoid(A)), f[t] = part_2(sigmoid(A))  ->  parts of one variable, in whose array i and f lie.

    Where these are kept, that is: what is read where it is made, and nowhere else, needs no array.
    """
    level, held, consumers = levels(system), holders(system), plan(system).consumers
    kept = {n.params[0] for n in level if isinstance(n, Node) and n.op is READ and any(
        level[c] != level.get(eq) for c in consumers.get(n, ()) for eq in system.definitions.get(n.params[0], ()))}
    wholes = dict.fromkeys(eq.value.args[0] for eq in system.equations if eq.value.op is P.split and eq.name in kept)
    return _named(system, [n for n in wholes if n.args and n not in held and BATCH in system.free(n)])


def _named(system: System, nodes: Iterable[Node]) -> System:
    """The system in which each of these values is a variable."""
    new: dict[Node, Node] = {}
    axes, added = dict(system.axes), []
    for n in nodes:
        free = tuple(i for i in system.indices if i in system.free(n) - {BATCH})
        name = f"{n.op.name}#{len(axes)}"
        axes[name] = free
        new[n] = read(name, tuple(map(Position, free)))
        added.append(Equation(name, tuple(map(Position, free)), n))
    if not new:
        return system
    equations = [_valued(eq, replaced(eq.value, new)) for eq in system.equations]
    return _with(system, [*equations, *(_valued(eq, replaced(eq.value, {
        k: v for k, v in new.items() if k is not eq.value})) for eq in added)], axes)


PASSES = (gate_values, factors_first, split_concats, stack_products, sum_in_parts, stack_activations, stack_sums,
          stack_gradients, stack_totals, split_sums, name_exports, name_parts, name_concats, name_splits)


def live(system: System, keep: Iterable[str] | None) -> System:
    """The equations that the names in `keep` need, all of them where None."""
    if keep is None:
        return system
    wanted, stack = set(keep), list(keep)
    while stack:
        for eq in system.definitions.get(stack.pop(), ()):
            for n in topological([eq.value], operands):
                if n.op is READ and n.params[0] not in wanted:
                    wanted.add(n.params[0])
                    stack.append(n.params[0])
    if all(eq.name in wanted for eq in system.equations):
        return system
    return system.keeping(eq for eq in system.equations if eq.name in wanted)


def optimised(system: System, passes: Iterable[Pass] = PASSES, keep: Iterable[str] | None = None
              ) -> tuple[System, dict[str, str]]:
    """The system after these passes, in order, and what each refused pass says, by its name.

    A pass is refused where its equations wait for each other or their shapes contradict one another: the system stays
    as it was before. keep: the names that are wanted; what none of them needs is dropped on the way.
    """
    refused: dict[str, str] = {}
    for change in passes:
        try:
            changed = live(change(system), keep)
            plan(changed)
        except CellError as error:
            refused[change.__name__] = error.fact
        else:
            system = changed
    return system, refused
