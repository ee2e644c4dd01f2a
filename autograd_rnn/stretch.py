"""A stretch of a sequence: what it can go on with, and what only the whole sequence would tell.

    a system + the index that goes on + the ends that are given -> the system of the stretch

A stretch is told what was carried to it and how many steps came before. It does not know how long the whole sequence
is, nor what follows: an equation that needs either is refused, rather than read the stretch for the whole.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from . import primitives as P
from .equations import System, tokens_reduce
from .errors import CellError
from .graph import EXTENT, READ, Node, Position, const, extent, extent_name, index, node, option, rewrite, topological

WHOLE = "Run the whole sequence at once."


def stretch(system: System, i: str, given: Collection[tuple[str, tuple[Position, ...]]]) -> System:
    """The system on a stretch along index i whose ends `given` are given; made once, it lives as long as that."""
    cache = system.__dict__.setdefault("_stretches", {})
    key = i, frozenset(given)
    if key not in cache:
        within = counted(system, i)
        refuse(within, i, given)
        cache[key] = within
    return cache[key]


def refuse(system: System, i: str, given: Collection[tuple[str, tuple[Position, ...]]]) -> None:
    """CellError on what runs along the whole sequence, reads its ends, its totals or its length at a step, or ahead."""
    for n in system.nodes:
        if n.op.fill is not None and option(n) == i and not tokens_reduce(n):
            raise CellError(f"`{n.op.name}_{i}` runs along the whole sequence, of which this is a stretch.",
                            remedy=WHOLE)
    for n in system.reads:
        if any(p.index == i and p.base != "i" for p in n.params[1]):
            raise CellError(f"`{n.params[0]}` is read at an end of the sequence, which a stretch of it does not have.",
                            remedy=WHOLE)
    for n in system.reads:
        corner = _corner(system, i, n, given)
        if corner:
            raise CellError(f"`{corner}` is an end along another index, read at another step of `{i}`: what it was "
                            "before this stretch of the sequence is not carried on.", remedy=WHOLE)
    total = read_at_a_step(system, i)
    if total is not None:
        what = f"`{extent_name(i)}`" if total.op is EXTENT else f"a total of all steps, `{total.op.name}_{i}`"
        raise CellError(f"A step reads {what}: that is the whole sequence's, of which this is a stretch.",
                        remedy=f"{WHOLE} An average over steps is no step's: write sum_{i}(...) / {extent_name(i)}.")
    for name, ends in system.delayed.items():
        for end in ends:
            if end == Position(i, "T", 1) and (name, system.outside(name, end)) not in given:
                raise CellError(f"`{name}` is read ahead of its step, and what follows this stretch of the sequence "
                                "is not known.",
                                remedy=f"{WHOLE} Or give what follows: initial={{'{system.labels[name, end]}': ...}}.")


def _corner(system: System, i: str, n: Node, given: Collection[tuple[str, tuple[Position, ...]]]) -> str | None:
    """The end along another index that a read meets in the step before this stretch: y[t,0] in y[t-1,l-1]."""
    name, at = n.params
    if not any(p.reaches and p.index == i for p in at):
        return None
    for end in (p.reaches for p in at if p.reaches and p.index != i):
        place = system.outside(name, end)
        if (name, place) in given or any(eq.at == place and eq.value is not const(0)
                                         for eq in system.definitions.get(name, ())):
            return f"{name}[{','.join(map(str, place))}]"
    return None


def counted(system: System, i: str) -> System:
    """Where t goes on counting and T is a stretch's own length, `t <= T` (the step exists) holds as `t >= 1`."""
    exists = node(P.le, index(i), extent(i))
    if exists not in system.nodes:
        return system
    new = rewrite([eq.value for eq in system.equations],
                  lambda n, args: node(P.ge, index(i), const(1)) if n is exists else None)
    return System((replace(eq, value=new[eq.value]) for eq in system.equations), system.axes, system.model,
                  system.declarations)


def read_at_a_step(system: System, i: str) -> Node | None:
    """The first total over i, or extent of i, that something that varies with i is made from."""
    made_from: dict[Node | str, Node] = {}  # what does not vary with i, and the total in it
    before = -1
    while before < len(made_from):
        before = len(made_from)
        for eq in system.equations:
            for n in topological([eq.value]):
                own = (n.op is EXTENT and n.params == (i,)) or (n.op.fill is not None and option(n) == i)
                below = [n.params[0]] if n.op is READ else [a for k, a in enumerate(n.args) if k not in n.op.shape_only]
                total = next((made_from[a] for a in below if a in made_from), n if own else None)
                if total is None:
                    continue
                if i in system.free(n):
                    return total
                made_from[n] = total
            if eq.value in made_from:
                if i in eq.free:
                    return made_from[eq.value]
                made_from[eq.name] = made_from[eq.value]
    return None
