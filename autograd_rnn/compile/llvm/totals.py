"""Sums over all rows: products of two sides, and column sums, each shared out by the part of the result."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from llvmlite import ir

from ... import primitives as P
from ...equations import BATCH
from ...graph import CONST, EXTENT, INDEX, READ, Node, option, topological
from ...order import contraction, operands
from .lanes import POINTER, Vector, folded, loop
from .places import Frame, Writer, computed, counted, start
from .rows import native

Together = tuple[Node, ...]  # products over all rows with the same left side


class Sum(NamedTuple):
    """Where a sum over all rows lies: the k-th of some products, a part of the column sums beside them, or alone."""

    kind: str
    of: Together | Node
    part: int | tuple = ()


def together(nodes: Iterable[Node]) -> list[Together]:
    """sum(outer(u, v)), sum(outer(u, w)): products that share a side, which is then read once."""
    groups: dict[tuple, list[Node]] = {}
    for n in nodes:
        fused = contraction(n)
        if fused:
            groups.setdefault((frozenset(fused[0]), fused[1]), []).append(n)
    return [tuple(group) for group in groups.values()]


def riders(writer: Writer, products: Iterable[Together], nodes: Iterable[Node]) -> dict[Node, tuple[Together, tuple]]:
    """Column sums of what some of the products read anyway: these products, and the sizes before the columns."""
    found, whole = {}, {}
    for group in products:
        bound, u, _ = contraction(group[0])  # type: ignore[misc]
        spot = writer.locate(u)
        if writer.system.free(group[0]):
            continue
        if not spot.skipped and spot.place.kind == "store" and (
                writer.system.shapes[spot.place.of] == writer.dims(u)):  # type: ignore[index]
            whole[spot.place, spot.at, frozenset(bound)] = group
    for n in nodes:
        bound, e = summand(n)
        if not writer.system.free(n) and in_memory(writer, e) and len(writer.dims(e)) == 1:
            spot = writer.locate(e)
            key = (spot.place, spot.at, frozenset(bound))
            if key in whole:
                found[n] = whole[key], spot.skipped
    return found


def totals(writer: Writer, products: Iterable[Together], sums: Iterable[Node]) -> str:
    """The name of a function that does its share of sums over all rows."""
    def write(frame, scratch, part, parts):
        for group in products:
            each_layer(writer, frame, group[0], {}, lambda at, group=group: correlation(
                writer, frame, group, scratch, part, parts, at))
        for n in sums:
            each_layer(writer, frame, n, {}, lambda at, n=n: column_sum(writer, frame, n, part, parts, at))

    return writer.function(write).name


def share_of(frame: Frame, count, step: int, part, parts) -> tuple:
    """From and to, in steps, of one share of a count."""
    b, n = frame.builder, frame.number
    steps = b.sdiv(b.add(count, n(step - 1)), n(step))
    return tuple(b.mul(b.sdiv(b.mul(steps, k), parts), n(step)) for k in (part, b.add(part, n(1))))


def each_layer(writer: Writer, frame: Frame, n: Node, at: dict, body: Callable) -> None:
    """body(at) for every position of the indices that a sum varies with."""
    axes = [i for i in writer.system.indices if i in writer.system.free(n) and i not in at]
    if not axes:
        body(at)
        return
    b, one = frame.builder, frame.number(1)
    loop(b, one, b.add(frame.word("extent", axes[0]), one), 1,
         lambda k: each_layer(writer, frame, n, {**at, axes[0]: k}, body))


def result(frame: Frame, kind: str, of, at: Mapping) -> ir.Value:
    """The address of a sum, where the indices it varies with stand."""
    b, begin = frame.builder, frame.word(kind, of)
    for i, k in at.items():
        begin = b.add(begin, b.mul(b.sub(k, frame.number(1)), frame.word("result stride", kind, of, i)))
    return b.inttoptr(begin, POINTER)


def sum_address(frame: Frame, found: Sum, at: tuple, sizes: list) -> ir.Value:
    """Where a component of a sum lies that varies with no index."""
    if found.kind == "products":
        place = frame.offset(at, [sizes[0], frame.word("row", found.of)])
        place = frame.builder.add(place, frame.word("column", found.of, found.part))
    else:
        place = frame.builder.add(frame.sum(found.part), frame.offset(at, sizes))  # type: ignore[arg-type]
    return frame.lanes.address(result(frame, found.kind, found.of, {}), place)


def correlation(writer: Writer, frame: Frame, group: Together, scratch, part, parts, at: Mapping) -> None:
    """sum_batch(sum_t(outer(u[t], v[t]))) as one product over all rows; rows of the result are shared out."""
    b = frame.builder
    bound, u, _ = contraction(group[0])  # type: ignore[misc]
    index = next((i for i in bound if i != BATCH), None)
    right = [contraction(n)[2] for n in group]  # type: ignore[index]
    sides: list = []
    for side in (u, *right):
        spot = writer.locate(side)
        stride = frame.word("stride", spot.place, index) if index in spot.place.axes else frame.number(0)
        sides += [start(frame, spot, {**at, index: frame.number(1)}), stride, frame.word("stride", spot.place, BATCH)]
    outer = frame.word("extent", index) if index else frame.number(1)
    height, *widths = (frame.size(writer.dims(x)[0]) for x in (u, *right))
    share = share_of(frame, height, writer.width, part, parts)
    results = [result(frame, kind, group, at) for kind in ("products", "sums")]
    arguments = [*sides, outer, frame.word("batch"), *widths, height, *share, frame.word("begun"), *results, scratch]
    b.call(writer.products.correlate(len(right)), arguments)


def column_sum(writer: Writer, frame: Frame, n: Node, part, parts, layer: Mapping) -> None:
    """sum_batch(sum_t(sum_s(e[t,s]))): from the last positions on, sums over examples; components are shared out."""
    b, lanes = frame.builder, frame.lanes
    bound, e = summand(n)
    over = sorted(set(bound) - {BATCH}, key=lambda i: i != writer.system.time)  # time first: sums go on along it
    count = frame.product(writer.dims(n))
    target = result(frame, "total", n, layer)
    low, high = share_of(frame, count, writer.width, part, parts)
    high = b.select(b.icmp_signed("<", high, count), high, count)

    def components(j):
        rest = b.sub(high, j)
        mask = lanes.first(rest)

        def examples(at):
            def example(k, before):
                inside = frame.within(at, k)
                return before + lanes.choose(inside, value(writer, frame, e, at, k, j, mask), 0)

            return folded(lanes, frame.number(0), frame.word("batch"), lanes.constant(0), example)

        def positions(at, left, before):
            if not left:
                return before + examples(at)
            end = b.add(frame.word("extent", left[0]), frame.number(1))
            return folded(lanes, frame.number(1), end, before, lambda k, before: positions(
                {**at, left[0]: b.sub(end, k)}, left[1:], before))

        place = lanes.address(target, j)
        more = b.icmp_signed("!=", frame.word("begun"), frame.number(0))
        found = positions(layer, over, lanes.choose(more, lanes.load(place, mask), 0))
        lanes.store(found, lanes.address(target, j), mask)

    loop(b, low, high, writer.width, components)


def value(writer: Writer, frame: Frame, root: Node, at: dict, example, j, mask) -> Vector:
    """A pointwise expression of values that lie in memory, at one place."""
    lanes, b = frame.lanes, frame.builder
    made: dict[Node, Vector] = {}
    for n in topological([root], lambda n: () if in_memory(writer, n) else operands(n)):
        if n.op is CONST:
            made[n] = lanes.constant(n.params[0])
        elif n.op is INDEX or n.op is EXTENT:
            made[n] = counted(frame, n, at, example)
        elif in_memory(writer, n):
            spot = writer.locate(n)
            pointer = start(frame, spot, at, example)
            if spot.place.batched:
                pointer = lanes.address(pointer, b.mul(example, frame.word("stride", spot.place, BATCH)))
            made[n] = lanes.load(lanes.address(pointer, j), mask) if writer.dims(n) else lanes.load_one(pointer)
        else:
            made[n] = computed(lanes, n, [made[a] for a in operands(n)])
    return made[root]


def in_memory(writer: Writer, n: Node) -> bool:
    return n.op in (READ, P.split, P.slice) or n in writer.outside


def summand(n: Node) -> tuple[tuple[str, ...], Node]:
    """sum_batch(sum_t(e)) as what is bound, and e."""
    bound: list[str] = []
    while n.op is P.sum and option(n) is not None:
        bound.append(option(n))
        n = n.args[0]
    return tuple(bound), n


def summed(writer: Writer, n: Node) -> bool:
    """Whether a node is a sum over all rows: of products of two vectors, or of what rows can make."""
    system, fused = writer.system, contraction(n)
    bound, e = (fused[0], fused[1]) if fused else summand(n)
    if BATCH not in bound or len(bound) > (2 if fused else 3) or not system.free(n) <= system.model:
        return False
    varying = {*bound, *system.free(n)}
    if fused:
        return all(system.rank(x) == 1 and system.free(x) == varying and x.op not in (INDEX, EXTENT, CONST)
                   and not (x.op is READ and any(p.base == "T" for p in x.params[1])) for x in fused[1:])
    return e.op not in (INDEX, EXTENT, CONST) and system.free(e) == varying and (
        e.op is READ or native(writer, e, ())) and e.op not in (P.matmul, P.concat)
