"""What a program does, before it runs: loops and what is time-parallel, products, work, what is kept for each step.

Work is counted in multiplications and additions, two to each term of a product and one to each number of any other
operation, for one step of one example; sizes stand by the names of what has them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from .. import primitives as P
from ..equations import BATCH, System
from ..errors import CellError
from ..graph import Node
from ..order import Loop, contraction
from .algebra import levels
from .columns import columns
from .passes import rows, split_rows

Work = Counter[tuple[str, ...]]  # how often a product of sizes stands in a sum
MOVES = (P.split, P.concat, P.slice, P.transpose, P.like, rows, split_rows, columns)


def report(system: System, kept: Iterable[str], time: str | None, sizes: Mapping[str, int],
           refused: Mapping[str, str]) -> str:
    """Which operations are in which loop, their products and work, and what is kept for each step.

    kept: variables with an array along time. sizes: numbers for sizes and extents, by name; the totals are then told.
    refused: passes of the compiler that were left out, and why.
    """
    places: dict[tuple[Loop, ...], list[Node]] = {}
    for step, path in levels(system).items():
        if isinstance(step, Node) and step.args:
            places.setdefault(path, []).append(step)
    lines, inside, total = [], Work(), Work()
    for path in sorted(places, key=len):
        where = "for all steps at once" if not path else "in the loop over " + ", ".join(
            f"{loop.index} {'forward' if loop.sign > 0 else 'backward'}" for loop in path)
        products = [n for n in places[path] if n.op is P.matmul or contraction(n)]
        here = sum((work(system, n) for n in places[path] if time in system.free(n) or contraction(n)), Work())
        lines.append(f"{where}: {len(places[path])} operations, {len(products)} of them products; a step: {told(here)}")
        lines += [f"    {shown(system, n)}" for n in products]
        total += here
        inside += here if path else Work()
    bytes_kept = sum((numbers(system, system.shapes[n]) for n in kept), Work())
    lines.append(f"kept for each step of an example: {told(bytes_kept)} numbers")
    lines.append(f"work of a step: {told(total)}, in loops {told(inside)}")
    lines += [f"left out: the pass `{name}`, since it would not hold: {fact}" for name, fact in refused.items()]
    if sizes:
        known = known_sizes(system, sizes, {name for names in total + bytes_kept for name in names})
        lines.append(f"with these sizes: {count(total, known):,} operations a step of an example, "
                     f"{count(inside, known) / max(1, count(total, known)):.0%} of them in loops; "
                     f"{count(bytes_kept, known):,} numbers kept")
    return "\n".join(lines)


def known_sizes(system: System, sizes: Mapping[str, int], needed: Iterable[str]) -> dict[str, int]:
    """Every size from those given. Raises CellError for a name that has none, or where one is missing."""
    known = system.sizes(dict(sizes))
    missing = sorted(d for d in needed if d not in known)
    if missing:
        raise CellError(f"The size `{missing[0]}` is not given.", remedy=f"Give it by name: report({missing[0]}=...).")
    return known


def work(system: System, n: Node) -> Work:
    """Multiplications and additions of an operation, for one position and example."""
    if n.op in MOVES:
        return Work()
    fused = contraction(n)
    if fused:
        return times(2, numbers(system, (*dims(system, fused[1]), *dims(system, fused[2])[:1])))
    if n.op is P.matmul:
        a, b = (dims(system, x) for x in n.args)
        return times(2, numbers(system, (*a, *b[1:])))
    if n.op.fill is not None:
        return numbers(system, dims(system, n.args[0]))
    return times(max(1, len(n.args) - 1), numbers(system, dims(system, n)))


def dims(system: System, n: Node) -> tuple:
    return system.inferred.nodes[n] or ()


def numbers(system: System, sizes: Iterable) -> Work:
    """A product of sizes, those that are sums multiplied out: (h + h) x  ->  2 h x."""
    wholes = {whole: parts for whole, parts, *_ in system.inferred.sums}

    def terms(d) -> Work:
        if d in wholes:
            return sum(map(terms, wholes[d]), Work())
        return Work({(): int(d)}) if isinstance(d, int) or str(d).isdigit() else Work({(str(d),): 1})

    found = Work({(): 1})
    for d in sizes:
        product = Work()
        for a, m in found.items():
            for b, k in terms(d).items():
                product[tuple(sorted((*a, *b)))] += m * k
        found = product
    return found


def times(k: int, amount: Work) -> Work:
    return Work({names: k * m for names, m in amount.items()})


def told(amount: Work) -> str:
    """8 h h + 8 h x"""
    ordered = sorted(amount.items(), key=lambda item: (-len(item[0]), item[0]))
    return " + ".join(" ".join([str(m), *names]) for names, m in ordered if m) or "0"


def count(amount: Work, sizes: Mapping[str, int]) -> int:
    found = 0
    for names, m in amount.items():
        for name in names:
            m *= sizes[name]
        found += m
    return found


def shown(system: System, n: Node) -> str:
    wholes = {whole: parts for whole, parts, *_ in system.inferred.sums}

    def size(d) -> str:
        return " + ".join(map(size, wholes[d])) if d in wholes else str(d)

    fused = contraction(n)
    sides = [" x ".join(map(size, dims(system, x))) for x in (fused[1:] if fused else n.args)]
    over = " and ".join("the examples" if i == BATCH else str(i) for i in fused[0]) if fused else ""
    return f"outer products of ({sides[0]}) and ({sides[1]}), summed over {over}" if fused else (
        f"({sides[0]}) @ ({sides[1]})")
