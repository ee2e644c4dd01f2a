"""What has memory of its own, and where it lies: variables that others read, parts of a concatenation, carried values.

    partition -> the writer's `stored`, `parts`, `resting` and `outside`
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ... import primitives as P
from ...equations import BATCH, Equation
from ...graph import READ, Node, Position
from ...naming import holders
from .places import Place
from .reduce import taken_whole

if TYPE_CHECKING:
    from .partition import Group, Partition


def laid_out(p: Partition, awake: set[str]) -> None:
    """awake: names that must not rest."""
    elsewhere = stored(p)
    in_concatenations(p)
    resting(p, elsewhere, awake)
    between_stages(p)


def stored(p: Partition) -> dict[str, list[Node]]:
    """Which variables have an array; the reads of them that do not stand where they are made."""
    system, arrays = p.system, p.writer.stored
    equations = {(eq.name, eq.at): p.home[eq] for eq in system.equations if eq in p.home}
    arrays |= set(p.keep) & {eq.name for eq in system.equations}
    arrays |= {eq.name for eq in system.equations if kind(p, eq) in ("reference", "result")}
    elsewhere: dict[str, list[Node]] = {}
    for n in system.nodes:
        if n.op is READ and n.params[0] in system.definitions:
            users, home = p.users(n), equations.get(n.params)
            if users and (home is None or home.kind != "rows" or any(p.home.get(c) is not home for c in users)):
                arrays.add(n.params[0])
                elsewhere.setdefault(n.params[0], []).append(n)
    return elsewhere


def in_concatenations(p: Partition) -> None:
    """Which variables are parts of another's array: v = concat(a, b), and w = concat(a) beside it.

    An array that is handed out is not the whole of others: it is made for its caller.
    """
    system, parts = p.system, p.writer.parts
    held = holders(system)
    lone = {n for n, eqs in system.definitions.items() if len(eqs) == 1 and n in p.writer.stored
            and kind(p, eqs[0]) == "rows" and n not in system.delayed and len(system.shapes[n]) == 1}
    wholes = [eq for eq in system.equations if eq.name in lone and eq.value.op is P.concat and not p.keep.get(eq.name)]
    for eq in sorted(wholes, key=lambda eq: -len(eq.value.args)):
        if eq.name not in parts:
            for k, a in enumerate(eq.value.args):
                name = variable(a, eq, held)
                if name in lone and name not in parts and name not in with_parts(p) and name != eq.name and (
                        system.axes[name] == system.axes[eq.name]):
                    parts[name] = eq.name, tuple(d for b in eq.value.args[:k] for d in p.writer.dims(b))
    for eq in wholes:  # a shorter run of the same parts
        names = [variable(a, eq, held) for a in eq.value.args]
        where = [parts[n] for n in names if n in parts]
        if eq.name not in parts and eq.name not in with_parts(p) and len(where) == len(names) and all(
                w == (where[0][0], where[0][1] + tuple(d for a in eq.value.args[:k] for d in p.writer.dims(a)))
                for k, w in enumerate(where)):
            parts[eq.name] = where[0]


def with_parts(p: Partition) -> set[str]:
    return {whole for whole, _ in p.writer.parts.values()}


def kind(p: Partition, s) -> str:
    """How a step is done."""
    return p.home[s].kind if s in p.home else "reference"


def variable(a: Node, eq: Equation, held: Mapping[Node, Node]) -> str:
    """The variable that holds a value where an equation stands; "" for none."""
    n = a if a.op is READ else held.get(a)
    return n.params[0] if n is not None and n.params[1] == eq.at else ""


def resting(p: Partition, elsewhere: Mapping[str, list[Node]], awake: set[str]) -> None:
    """Carried values that only the next position reads need no array along their loop."""
    system = p.system
    for name in p.writer.stored - set(p.writer.parts) - with_parts(p) - awake:
        inner = [eq for eq in system.definitions[name] if not eq.end and eq.at]
        ends = [eq for eq in system.definitions[name] if eq.end]
        reads = elsewhere.get(name, [])
        if len(inner) != 1 or p.keep.get(name) or len(system.delayed.get(name, ())) > 1 or (
                ends and (reads or name not in p.keep or len(ends) > 1)) or (
                name in p.keep and not ends and name not in system.carried):  # its end is nothing
            continue
        home = p.home.get(inner[0])
        if home is None:
            continue
        loop = p.groups[home.top].loop
        if loop is None or p.groups[home.top].inner != [home] or system.axes[name] != (loop.index,):
            continue
        before = Position(loop.index, "i", -loop.sign)
        last = Position(loop.index, "T" if loop.sign > 0 else "1")
        if all((n.params[1] == (last,) and later(p, n, home)) or (n.params[1] == (before,) and all(
                p.home.get(c) is home for c in p.users(n))) for n in reads):
            p.writer.resting[name] = loop.index


def later(p: Partition, n: Node, home: Group) -> bool:
    """Whether all that reads a value comes in another chain after a group."""
    tops = [p.home[c].top if c in p.home else -1 for c in p.users(n)]
    return all(k > home.top and p.chains.get(k) is not p.chains[home.top] for k in tops)


def between_stages(p: Partition) -> None:
    """Where values lie that one stage makes and another reads: in the block at hand, if they are of one chain."""
    for n in {m for m in p.home if isinstance(m, Node)}:
        home = p.home[n]
        if p.looked_at(n) or home.kind == "totals" or n in p.writer.absorbed:
            continue
        system = p.system
        whole = taken_whole(n) in system.free(n)  # at all positions at once, where its stage has no place for them
        others = [p.home.get(c) for c in p.users(n) if whole or p.home.get(c) is not home]
        if not others or (home.kind == "reference" and all(g is None or g.kind == "reference" for g in others)):
            continue
        batched, axes = BATCH in system.free(n), p.plan.axes(n, (BATCH,))
        tops = {g.top if g is not None else -1 for g in others}
        chain = p.chains.get(home.top)
        place = "node"
        if home.outer and tops == {home.top}:  # within one round of a loop
            nested = [g.outer for g in others if g is not None]
            still = [i for k, i in enumerate(home.outer) if all(o[:k + 1] == home.outer[:k + 1] for o in nested)]
            place, axes, batched = "inner", tuple(i for i in axes if i not in still), True
        elif chain is not None and chain.over is not None and all(p.chains.get(k) is chain for k in tops):
            place, axes, batched = "own", (chain.over, *(i for i in axes if i != chain.over)), True
        p.writer.outside[n] = Place(place, n, axes, batched)
