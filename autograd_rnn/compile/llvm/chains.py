"""Stages put together: nested in loops, one after another along an index, as functions of a program.

    Nest      a loop over stages
    Chain     stages along one index, block of positions by block of positions
    phase     chains, for a thread's share of the examples
    pack      weights into panels, before the rows come
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

from llvmlite import ir

from ...graph import Node
from ...order import Loop
from ..columns import matrix
from .lanes import POINTER, loop
from .places import Frame, Writer, start
from .rows import Rows, axes_of, stage_function, weight


class Nest:
    """A loop over stages."""

    def __init__(self, writer: Writer, loop_: Loop, outer: tuple[str, ...], stages: list[Rows | Nest]):
        self.writer, self.loop, self.outer, self.stages = writer, loop_, outer, stages
        self.over = (loop_.index,)

    @property
    def weights(self) -> list[Node]:
        return [n for stage in self.stages for n in stage.weights]

    @cached_property
    def function(self) -> ir.Function:
        return stage_function(self.writer, self.outer, self.write)

    def write(self, frame: Frame, scratch, first, last, base, low, high, at: dict) -> None:
        b, one = frame.builder, frame.number(1)

        def step(k):
            position = k if self.loop.sign == 1 else b.sub(b.add(low, b.sub(high, one)), k)
            for stage in self.stages:
                end = b.add(frame.word("extent", stage.over[0]), one) if stage.over else one
                b.call(stage.function, [frame.context, scratch, first, last, base, one, end, *at.values(), position])

        loop(b, low, high, 1, step)


class Chain:
    """Stages along one index as one function over examples, block of positions after block in the order of `sign`."""

    def __init__(self, over: str | None, sign: int | None):
        self.over, self.sign = over, sign
        self.stages: list[Rows | Nest] = []

    def write(self, frame: Frame, scratch, first, last) -> None:
        b, one = frame.builder, frame.number(1)
        context = frame.context
        if self.over is None:
            for stage in self.stages:
                b.call(stage.function, [context, scratch, first, last, one, one, one])
            return
        end, block = b.add(frame.word("extent", self.over), one), frame.word("block")

        def some(k):
            after = b.add(k, block)
            after = b.select(b.icmp_signed(">", after, end), end, after)
            low, high = (k, after) if self.sign != -1 else (b.sub(b.add(end, one), after), b.sub(b.add(end, one), k))
            for stage in self.stages:
                b.call(stage.function, [context, scratch, first, last, low, low, high])

        loop(b, one, end, block, some)


def phase(writer: Writer, chains: Iterable[Chain]) -> str:
    """The name of a function that runs chains for some of the examples."""
    def write(frame, scratch, first, last):
        for chain in chains:
            chain.write(frame, scratch, first, last)

    return writer.function(write).name


def pack(writer: Writer, weights: Iterable[Node]) -> str:
    """The name of a function that packs its share of these weights."""
    def write(frame, scratch, part, parts):
        b = frame.builder
        for k, n in enumerate(weights):
            with b.if_then(b.icmp_signed("==", b.srem(frame.number(k), parts), part)):
                pack_at(writer, frame, n, axes_of(writer, n), {}, frame.word("panels", n))

    return writer.function(write).name


def pack_at(writer: Writer, frame: Frame, n: Node, axes: tuple[str, ...], at: dict, panels) -> None:
    """Pack one weight, at every position of the indices it varies with."""
    b, zero, one = frame.builder, frame.number(0), frame.number(1)
    if axes:
        def position(k):
            step = b.mul(b.sub(k, one), frame.word("panel stride", n, axes[0]))
            pack_at(writer, frame, n, axes[1:], {**at, axes[0]: k}, b.add(panels, step))

        loop(b, one, b.add(frame.word("extent", axes[0]), one), 1, position)
        return
    turned, matrices = weight(writer, n)
    target, depth, done = b.inttoptr(panels, POINTER), frame.size(writer.dims(n)[1]), zero
    for m in matrices:
        (height, width), (_, row) = (map(frame.size, writer.dims(x)) for x in (m, matrix(m)))
        source, end = start(frame, writer.locate(m), at), b.add(done, height)
        b.call(writer.products.pack, [source, one, row, target, depth, zero, width, done, height] if turned else
               [source, row, one, target, depth, done, end, zero, width])
        done = end
