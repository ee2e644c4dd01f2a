"""A product with a concatenation as products with its parts, where a loop makes some of them and not the others.

    W = (W_1 W_2)        W @ concat(x, h) = W_1 @ x + W_2 @ h,   part_1(W.T @ d) = W_1.T @ d
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from .. import primitives as P
from ..equations import System
from ..evaluate import plan
from ..graph import READ, Node, Primitive, node, read, topological
from ..order import operands
from .algebra import at_home, levels

columns = Primitive("columns", P._split, shape="(m n), (n)* -> (m n)", shape_only=tuple(range(1, 64)), statics=1)


def matrix(n: Node) -> Node:
    """What columns are of; a matrix itself."""
    return n.args[0] if n.op is columns else n


def weight(system: System, n: Node) -> bool:
    """A matrix that is given, the same at every position, or a layer's own; or columns of one."""
    n = matrix(n)
    return n.op is READ and system.roles[n.params[0]] in ("parameter", "const") and system.rank(n) == 2 and all(
        p.base == "i" and not p.offset and p.index in system.model for p in n.params[1])


def runs(parts: Sequence[Node], apart: list[bool]) -> Iterator[tuple[list[int], list[Node]]]:
    """Neighbouring parts of one kind: their numbers, and the parts that there are when they are one."""
    for _, found in groupby(range(len(parts)), apart.__getitem__):
        run = list(found)
        one = P.concat(*(parts[k] for k in run)) if len(run) > 1 else parts[run[0]]
        yield run, [*parts[:run[0]], one, *parts[run[-1] + 1:]]


def parts_apart(system: System) -> dict[Node, Node]:
    """What stands for what, see `passes.split_concats`."""
    level, consumers = levels(system), plan(system).consumers
    values = {read(eq.name, eq.at): eq.value for eq in system.equations if at_home(system, eq)}
    new: dict[Node, Node] = {}
    halves: dict[tuple[Node, ...], dict[int, Node]] = {}  # by what is split, and how
    for n in topological((eq.value for eq in system.equations), operands):
        if n.op is P.split:
            halves.setdefault(n.args, {})[n.params[0]] = n
        elif n.op is P.matmul and level.get(n) and weight(system, n.args[0]):
            whole = values.get(n.args[1], n.args[1])
            inside = [within(level, a, level[n]) for a in whole.args]
            if whole.op is P.concat and len(set(inside)) == 2:
                new[n] = P.total(*(
                    node(P.matmul, node(columns, n.args[0], *sizes, params=(run[0] + 1,)), sizes[run[0]])
                    for run, sizes in runs(whole.args, inside)))
    for (whole, *parts), found in halves.items():
        value = values.get(whole, whole)
        products = value.args if value.op is P.add else (value,)
        inside = [k in found and within(level, found[k], level.get(products[0], ()))
                  for k in range(1, len(parts) + 1)]
        if len(set(inside)) == 1 or not level.get(products[0]) or set(consumers.get(whole, ())) - set(
                found.values()) or not all(p.op is P.matmul and p.args[0].op is P.transpose
                                           and weight(system, p.args[0].args[0]) for p in products):
            continue
        for run, sizes in runs(parts, inside):
            part = P.total(*(node(P.matmul, node(P.transpose, node(
                columns, p.args[0].args[0], *sizes, params=(run[0] + 1,))), p.args[1]) for p in products))
            inner = [parts[k] for k in run]
            new.update({found[k + 1]: part if len(run) == 1 else node(P.split, part, *inner, params=(j,))
                        for j, k in enumerate(run, 1) if k + 1 in found})
    return new


def within(level: Mapping, n: Node, loops: tuple) -> bool:
    """Whether a value is made in a loop."""
    return level.get(n, ())[:len(loops)] == loops
