"""Passes of a stage that look at a whole row: sums, means, largest values, softmax, losses, one-hot rows of a class.

Over components a row is read from end to end; over an index, position after position. What is summed is an expression:
products and the like are never spread out in memory. Past an example's end nothing counts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from llvmlite import ir

from ... import primitives as P
from ...equations import BATCH, Equation
from ...graph import CONST, EXTENT, INDEX, Node, option, topological
from ...order import operands
from .lanes import I32, I64, POINTER, Lanes, Vector, folded, loop
from .places import computed, counted

if TYPE_CHECKING:
    from .rows import Rows

REDUCTIONS = (P.sum, P.mean, P.max, P.logsumexp, P.softmax)
WHOLE_ROWS = (P.cross_entropy, P.softmax_error, P.bce, P.onehot)
BY_ROW = (*REDUCTIONS, *WHOLE_ROWS)


def reducible(system, n: Node) -> bool:
    """Whether a reduction or a loss is one of a row's."""
    ranks = [system.rank(a) for a in n.args]
    if n.op in WHOLE_ROWS:
        return n.op is P.onehot or (ranks[0] == 1 and n.args[0].op is not CONST)
    if option(n) is None:
        return ranks[0] == 1 or (ranks[0] == 2 and n.op in (P.sum, P.mean))
    return option(n) != BATCH


def taken_whole(s: Node | Equation) -> str | None:
    """The index that a reduction reads at all its positions: it is done once for all of them."""
    return option(s) if isinstance(s, Node) and s.op.fill is not None else None


def reads(stage: Rows, n: Node) -> list[Node]:
    """The values in memory that a reduction is made from."""
    absorbed = stage.writer.absorbed
    found = topological([n], lambda m: operands(m) if m is n or m in absorbed else ())
    return [m for m in found if m is not n and m not in absorbed]


def expression(stage: Rows, root: Node, example, j, mask) -> Vector:
    """A pointwise value of what lies in memory, where the stage stands."""
    lanes, absorbed = stage.frame.lanes, stage.writer.absorbed
    made: dict[Node, Vector] = {}
    for n in topological([root], lambda n: operands(n) if n in absorbed else ()):
        source = stage.resolved(n)
        if source.op is CONST:
            made[n] = lanes.constant(source.params[0])
        elif source.op is INDEX or source.op is EXTENT:
            made[n] = counted(stage.frame, source, stage.at, example)
        elif n in absorbed:
            made[n] = computed(lanes, n, [made[a] for a in operands(n)])
        elif stage.writer.dims(source):
            made[n] = lanes.load(stage.address(stage.locate(source), example, j), mask)
        else:
            made[n] = lanes.load_one(stage.address(stage.locate(source), example))
    return made[root]


def reduce(stage: Rows, n: Node) -> None:
    """One reduction, at every position and for every example of a stage."""
    index = option(n) if n.op not in WHOLE_ROWS else None
    over = tuple(i for i in stage.over if i != index)
    frame = stage.frame

    def one(example):
        with frame.builder.if_then(frame.within({i: stage.at[i] for i in (*stage.outer, *over)}, example)):
            if n.op in WHOLE_ROWS:
                {P.cross_entropy: cross_entropy, P.softmax_error: softmax_error, P.bce: bce, P.onehot: onehot}[n.op](
                    stage, n, example)
            elif index is None:
                along_components(stage, n, example)
            else:
                along_index(stage, n, index, example)

    stage.everywhere(lambda: loop(frame.builder, stage.first, stage.last, 1, one), over)


# --- over components -----------------------------------------------------------------------------------------------


def fold_lanes(lanes: Lanes, x: Vector, operation: Callable) -> Vector:
    """operation over all lanes, in each of them: halves with halves, quarters with quarters."""
    step = lanes.width // 2
    while step:
        turned = [ir.Constant(I32, (k + step) % lanes.width) for k in range(lanes.width)]
        mask = ir.Constant(ir.VectorType(I32, lanes.width), turned)
        x = operation(x, Vector(lanes, lanes.builder.shuffle_vector(x.value, x.value, mask)))
        step //= 2
    return x


def fold_row(stage: Rows, count, value: Callable, operation: Callable, neutral: float) -> Vector:
    """operation over value(j, mask) for all components; what a masked vector lacks is neutral."""
    b, lanes, width = stage.frame.builder, stage.frame.lanes, stage.writer.width
    steps = b.sdiv(count, stage.frame.number(width))
    start = lanes.constant(neutral)
    found = folded(lanes, stage.frame.number(0), steps, start,
                   lambda k, before: operation(before, value(b.mul(k, stage.frame.number(width)), None)))
    whole = b.mul(steps, stage.frame.number(width))
    mask = lanes.first(b.sub(count, whole))
    rest = lanes.choose(mask, value(whole, mask), neutral)
    return fold_lanes(lanes, operation(found, rest), operation)


def each_component(stage: Rows, count, body: Callable) -> None:
    """body(j, mask) for vector after vector of components."""
    frame, width = stage.frame, stage.writer.width

    def vector(j):
        body(j, frame.lanes.first(frame.builder.sub(count, j)))

    loop(frame.builder, frame.number(0), count, width, vector)


def add(a: Vector, b: Vector) -> Vector:
    return a + b


def along_components(stage: Rows, n: Node, example) -> None:
    frame, lanes, a = stage.frame, stage.frame.lanes, n.args[0]
    count = frame.product(stage.writer.dims(stage.resolved(a)))
    operand = lambda j, mask: expression(stage, a, example, j, mask)
    target = stage.spots[n]
    if n.op in (P.sum, P.mean):
        total = fold_row(stage, count, operand, add, 0.0)
        if n.op is P.mean:
            total = total / lanes.splat(frame.builder.sitofp(count, lanes.scalar))
        put(stage, target, example, total)
        return
    top = fold_row(stage, count, operand, lanes.maximum, float("-inf"))
    if n.op is P.max:
        put(stage, target, example, top)
        return
    top = finite(lanes, top) if n.op is P.logsumexp else top
    total = fold_row(stage, count, lambda j, mask: lanes.exp(operand(j, mask) - top), add, 0.0)
    if n.op is P.logsumexp:
        put(stage, target, example, top + lanes.log(total))
        return
    each_component(stage, count, lambda j, mask: lanes.store(
        lanes.exp(operand(j, mask) - top) / total, stage.address(target, example, j), mask))


def finite(lanes: Lanes, top: Vector) -> Vector:
    """The largest value, or 0 where that is infinite: what logsumexp takes off, see `primitives._logsumexp`."""
    return lanes.choose(lanes.compare("==", lanes.absolute(top), float("inf")), 0, top)


def put(stage: Rows, target, example, number: Vector) -> None:
    """Store the number that every lane holds."""
    lanes = stage.frame.lanes
    first = lanes.builder.extract_element(number.value, ir.Constant(I32, 0))
    lanes.builder.store(first, stage.address(target, example), align=lanes.bytes)


# --- over an index -------------------------------------------------------------------------------------------------


def along_index(stage: Rows, n: Node, index: str, example) -> None:
    """From the first position of an example to its last, vector after vector of components."""
    frame, lanes, a = stage.frame, stage.frame.lanes, n.args[0]
    b, one, target = frame.builder, frame.number(1), stage.spots[n]
    dims = stage.writer.dims(stage.resolved(a))
    count = frame.product(dims)
    last = frame.last(index, example)
    end = b.add(last, one)

    def components(j, mask):
        def operand(k):
            stage.at[index] = k
            return expression(stage, a, example, j, mask)

        def fold(operation, value, neutral):
            return folded(lanes, one, end, lanes.constant(neutral), lambda k, before: operation(before, value(k)))

        def store(value):
            if dims:
                lanes.store(value, stage.address(target, example, j), mask)
            else:
                put(stage, target, example, value)

        def so_far(j, mask):
            """What the stretches before have summed."""
            begun = b.icmp_signed("!=", frame.word("begun"), frame.number(0))
            place = stage.address(target, example, j if dims else None)
            return lanes.choose(begun, lanes.load(place, mask) if dims else lanes.load_one(place), 0)

        if n.op is P.sum:
            store(fold(add, operand, so_far(j, mask) if index == stage.system.time else 0))
            return
        if n.op is P.mean:
            store(fold(add, operand, 0) / lanes.splat(b.sitofp(last, lanes.scalar)))
            return
        top = fold(lanes.maximum, operand, float("-inf"))
        if n.op is P.max:
            store(top)
            return
        top = finite(lanes, top) if n.op is P.logsumexp else top
        total = fold(add, lambda k: lanes.exp(operand(k) - top), 0.0)
        if n.op is P.logsumexp:
            store(top + lanes.log(total))
            return
        loop(b, one, end, 1, lambda k: store(lanes.exp(operand(k) - top) / total))

    if dims:
        each_component(stage, count, components)
    else:
        components(frame.number(0), lanes.first(one))
    stage.at.pop(index, None)


# --- rows with a class or a target ---------------------------------------------------------------------------------


def class_of(stage: Rows, n: Node, example):
    """The class of an example, a whole number."""
    b, frame = stage.frame.builder, stage.frame
    spot = stage.locate(n)
    offset: Any = frame.number(0)
    for p, axis in zip(spot.at, spot.place.axes):
        offset = b.add(offset, b.mul(frame.position(p, stage.at, example), frame.word("stride", spot.place, axis)))
    offset = b.add(offset, b.mul(example, frame.word("stride", spot.place, BATCH)))
    start = b.inttoptr(frame.word("address", spot.place), POINTER)
    return b.load(b.gep(start, [offset], source_etype=I64), typ=I64)


def _target(stage: Rows, chosen, j):
    """The lanes, from component j on, that are the class."""
    b, lanes = stage.frame.builder, stage.frame.lanes
    steps = ir.Constant(ir.VectorType(I64, lanes.width), [ir.Constant(I64, k) for k in range(lanes.width)])
    one = b.insert_element(ir.Constant(steps.type, ir.Undefined), b.sub(chosen, j), ir.Constant(I32, 0))
    zeros = ir.Constant(ir.VectorType(I32, lanes.width), [ir.Constant(I32, 0)] * lanes.width)
    return b.icmp_signed("==", steps, b.shuffle_vector(one, ir.Constant(steps.type, ir.Undefined), zeros))


def cross_entropy(stage: Rows, n: Node, example) -> None:
    """log sum_j exp(y_j) - y_k, keeping every digit where the margin is large: see `primitives._cross_entropy`."""
    lanes, (y, k) = stage.frame.lanes, n.args
    count, chosen = stage.frame.product(stage.writer.dims(stage.resolved(y))), class_of(stage, k, example)
    value = lambda j, mask: expression(stage, y, example, j, mask)
    own = fold_row(stage, count, lambda j, mask: lanes.choose(_target(stage, chosen, j), value(j, mask), 0), add, 0.0)
    top = lanes.maximum(fold_row(stage, count, lambda j, mask: value(j, mask) - own, lanes.maximum, float("-inf")), 0)
    others = fold_row(stage, count, lambda j, mask: lanes.choose(
        _target(stage, chosen, j), 0, lanes.exp(value(j, mask) - own - top)), add, 0.0)
    large = lanes.log(lanes.exp(-top) + others)
    put(stage, stage.spots[n], example, top + lanes.choose(lanes.compare(">", top, 0), large,
                                                           lanes.log1p(others)))


def softmax_error(stage: Rows, n: Node, example) -> None:
    """softmax(y) - onehot(k); where y_k is large, minus the sum of the others: see `primitives._softmax_error`."""
    lanes, (y, k) = stage.frame.lanes, n.args
    count, chosen = stage.frame.product(stage.writer.dims(stage.resolved(y))), class_of(stage, k, example)
    value = lambda j, mask: expression(stage, y, example, j, mask)
    top = fold_row(stage, count, value, lanes.maximum, float("-inf"))
    part = lambda j, mask: lanes.exp(value(j, mask) - top)
    total = fold_row(stage, count, part, add, 0.0)
    rest = fold_row(stage, count, lambda j, mask: lanes.choose(_target(stage, chosen, j), 0, part(j, mask) / total),
                    add, 0.0)
    each_component(stage, count, lambda j, mask: lanes.store(
        lanes.choose(_target(stage, chosen, j), -rest, part(j, mask) / total),
        stage.address(stage.spots[n], example, j), mask))


def onehot(stage: Rows, n: Node, example) -> None:
    """1 at the class, 0 elsewhere; nothing where the class is none."""
    lanes, chosen = stage.frame.lanes, class_of(stage, n.args[0], example)
    each_component(stage, stage.frame.product(stage.writer.dims(n)), lambda j, mask: lanes.store(
        lanes.choose(_target(stage, chosen, j), 1, 0), stage.address(stage.spots[n], example, j), mask))


def bce(stage: Rows, n: Node, example) -> None:
    """sum max(y, 0) - x y + log(1 + exp(-|y|))"""
    lanes, (y, x) = stage.frame.lanes, n.args
    count = stage.frame.product(stage.writer.dims(stage.resolved(y)))

    def term(j, mask):
        logit, wanted = expression(stage, y, example, j, mask), expression(stage, x, example, j, mask)
        return lanes.maximum(logit, 0) - wanted * logit + lanes.log1p(lanes.exp(-lanes.absolute(logit)))

    put(stage, stage.spots[n], example, fold_row(stage, count, term, add, 0.0))
