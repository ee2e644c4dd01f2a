"""What is wrong with an expression, next to the true one: its terms, its factors, the small edits that mend it.

    two sums -> terms that are in one only -> an edit that makes one the other, or the smallest parts that differ
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import reduce
from itertools import combinations, islice

import numpy as np

from .. import primitives as P
from ..graph import READ, Node, const, node, option, read, topological
from ..naming import replaced
from ..printing.text import expression
from .values import Values

MOST_TERMS, MOST_EDITS, MOST_VALUES = 40, 300, 20_000  # beyond them a wrong line is only called wrong


def differences(values: Values, hers: Node, ours: Node, origin: Callable[[Node], str]) -> Iterator[tuple[str, str]]:
    """(kind, note) for each of her terms that is none of ours, and for ours that she left out.

    kind: "transpose", "time index" or "shape" where a small edit of that kind mends the term, else "wrong".
    """
    told, true = (list(islice(terms(n), MOST_TERMS + 1)) for n in (hers, ours))
    if max(len(told), len(true)) > MOST_TERMS or len(values.known) > MOST_VALUES:
        return
    cancel(values, told, true, np.add)
    for h in list(told):
        targets = {t: [t] for t in true}
        if len(told) == 1 and true:
            targets[P.total(*true)] = list(true)
        found = next(((kind, old, new, met) for kind, old, new, changed in islice(edits(h, values.rank), MOST_EDITS)
                      for t, met in targets.items() if values.same(values.value(changed), values.value(t))), None)
        if found:
            kind, old, new, met = found
            told.remove(h)
            true = [t for t in true if t not in met]
            yield kind, f"`{expression(old)}` should be `{expression(new)}`"
    while told and true:
        pairs = [(h, t, apart(values, h, t)) for h in told for t in true]
        h, t, parts = min(pairs, key=lambda pair: len(topological([*pair[2][1], *pair[2][2]])))
        told.remove(h)
        true.remove(t)
        yield "wrong", _note(h, *parts)
    yield from (("wrong", f"missing: `{expression(t)}`{origin(t)}") for t in true)
    yield from (("wrong", f"too much: `{expression(h)}`") for h in told)


def terms(n: Node) -> Iterator[Node]:
    """The terms of a sum, signs and sums over an index inside: -(a + b) is -a and -b."""
    if n.op is P.add:
        for a in n.args:
            yield from terms(a)
    elif n.op is P.neg or (n.op is P.sum and option(n) is not None):
        yield from (node(n.op, t, params=n.params) for t in terms(n.args[0]))
    else:
        yield n


def factors(n: Node) -> list[Node]:
    """The factors of a product: -a is (-1) a, and a / b is a (1/b)."""
    if n.op is P.mul:
        return [f for a in n.args for f in factors(a)]
    if n.op is P.neg:
        return [const(-1), *factors(n.args[0])]
    if n.op is P.div and n.args[0] is not const(1):
        return [*factors(n.args[0]), node(P.div, const(1), n.args[1])]
    return [n]


def cancel(values: Values, hers: list[Node], ours: list[Node], operation) -> None:
    """Take out what both sides have: one of the one, and one to three of the other that `operation` makes the same."""
    for count in (1, 2, 3):
        for ones, others in ((hers, ours), (ours, hers)):
            for n in list(ones):
                match = next((some for some in combinations(others, count)
                              if values.same(values.combined(some, operation), values.value(n))), ())
                if match:
                    ones.remove(n)
                    for m in match:
                        others.remove(m)


def apart(values: Values, h: Node, t: Node) -> tuple[Node, list[Node], list[Node]]:
    """The smallest part of hers that differs, and in what: factors of hers that should be factors of ours."""
    if (h.op, h.params, len(h.args)) == (t.op, t.params, len(t.args)) and h.op in (
            P.sum, P.outer, P.matmul, P.transpose, P.add):
        pairs = [(a, b) for a, b in zip(h.args, t.args) if not values.same(values.value(a), values.value(b))]
        return apart(values, *pairs[0]) if len(pairs) == 1 else (h, [h], [t])
    hers, ours = factors(h), factors(t)
    if len(hers) == len(ours) == 1 or len(hers) + len(ours) > MOST_TERMS:
        return h, [h], [t]
    cancel(values, hers, ours, np.multiply)
    return apart(values, hers[0], ours[0]) if len(hers) == len(ours) == 1 else (h, hers, ours)


# --- edits -------------------------------------------------------------------------------------------------------


def edits(h: Node, rank: Callable[[Node], int | None]) -> Iterator[tuple[str, Node, Node, Node]]:
    """(kind, old, new, the term with it) of every small change to a term: transposes, products, then steps in time."""
    nodes = list(reversed(topological([h])))
    moves = [(n, new) for n in nodes if n.op is READ for new in _moved(n)]
    for kind, changes in (("transpose", [(n, new) for n in nodes for new in _transposed(n, rank)]),
                          ("shape", [(n, new) for n in nodes for new in _multiplied(n)]), ("time index", moves)):
        for n, new in changes:
            yield kind, n, new, replaced(h, {n: new})
    for first, second in combinations(moves, 2):
        if first[0] is not second[0]:
            new = replaced(h, dict((first, second)))
            yield "time index", h, new, new


def _transposed(n: Node, rank) -> Iterator[Node]:
    if n.op is P.transpose:
        yield n.args[0]
    elif n.op is P.outer:
        yield node(P.outer, *reversed(n.args))
    elif n.op is P.matmul:
        a, b = n.args
        yield from (node(P.matmul, *pair) for pair in ((a, b.T), (b.T, a), (b, a)))
    elif n.op is READ and rank(n) == 2:
        yield n.T


def _multiplied(n: Node) -> Iterator[Node]:
    """The same two factors multiplied in the other ways: W.T * v is W.T @ v, and u @ v.T is outer(u, v)."""
    if n.op in (P.mul, P.matmul, P.outer):
        a, b = n.args
        yield from (node(op, a, b) for op in (P.outer, P.matmul, P.mul) if op is not n.op)
        yield node(P.matmul, b, a)
        yield from (node(P.outer, a, x.args[0]) for x in (b,) if x.op is P.transpose)


def _moved(n: Node) -> Iterator[Node]:
    """A read one step, or two, away; at an end, from just outside to just inside."""
    name, at = n.params
    for k, p in enumerate(at):
        ends = {"i": (p.offset - 1, p.offset + 1, p.offset - 2, p.offset + 2), "1": (-1, 0), "T": (0, 1)}[p.base]
        for offset in ends:
            if offset != p.offset and abs(offset) <= 2:
                yield read(name, (*at[:k], p._replace(offset=offset), *at[k + 1:]))


def _note(h: Node, part: Node, x: list[Node], y: list[Node]) -> str:
    """What is to be done about her term h: in a part of it, the factors x should be y."""
    told, wrong, true = expression(h), *(expression(reduce(P.mul, some)) if some else "" for some in (x, y))
    where = "" if wrong == told else f" in `{told}`"
    if [*x, *y] == [const(-1)]:
        return f"wrong sign: `{expression(part)}`" + f" in `{told}`" * (part is not h)
    if not wrong:
        return f"missing the factor `{true}`{where}"
    return f"`{wrong}` should be `{true}`{where}" if true else f"the factor `{wrong}` is too much{where}"
