"""What one step leaves for the next, and nothing else reads: it rests in one place while its loop runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import primitives as P
from ..equations import Equation
from ..graph import Node, Position, read
from ..order import Loop

if TYPE_CHECKING:
    from .source import Source


def resting(writer: Source, loop: Loop) -> list[Equation]:
    """The equations of a loop whose values the next step alone reads, before it writes its own.

    A variable's array then has what it begins with, and after the loop what the last step leaves.
    """
    last = ("T", 0) if loop.sign > 0 else ("1", 0)
    ends = {Position(loop.index, *end) for end in (("1", -1), ("T", 1), last)}
    order = {s: k for k, s in enumerate(writer.level)}
    return [eq for eq in loop.body if isinstance(eq, Equation) and not writer.path and not eq.end
            and writer.system.axes[eq.name] == (loop.index,) and eq.name in writer.system.per_example
            and not (eq.name in writer.inside or eq.name in writer.shared)
            and rests(writer, eq, read(eq.name, (Position(loop.index, "i", -loop.sign),)), ends, order)]


def rests(writer: Source, eq: Equation, near: Node, ends: set[Position], order: dict) -> bool:
    """Whether all is read in time: by the next step, before its statement writes there, or at an end."""
    level, index = writer.level, near.params[1][0].index
    readers, others = writer.plan.consumers.get(near, []), writer.plan.consumers[eq.value]
    return (level.get(near) == level[eq]
            and all(n == near or n.params[1][0] in ends for n in writer.readers.get(eq.name, ()))
            and all(level[s] == level[eq] for s in (*readers, *others))
            and all(isinstance(s, Node) and s.op is not P.neg and order[s] < order[eq.value] for s in readers)
            and all(writer.written_in_place(n, (index,)) for n in (*readers, eq.value)))
