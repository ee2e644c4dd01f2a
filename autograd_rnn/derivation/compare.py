"""What differs between two cells, forward and backward, as equations side by side.

    two derivations -> equations matched by name -> those that differ, or stand on one side only
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html import escape

from ..equations import Equation
from ..graph import read
from ..printing import plain
from . import Derivation, render
from .document import Chain

SAME = "the same"


@dataclass(frozen=True)
class Difference:
    """An equation of the first cell and its counterpart in the second; None where a cell has none of that name."""

    name: str
    first: Equation | None
    second: Equation | None


@dataclass(frozen=True)
class Comparison:
    """Two derivations, and what differs between their equations."""

    first: Derivation
    second: Derivation

    @property
    def forward(self) -> tuple[Difference, ...]:
        """The forward equations, pre-activations named, that are not the same in both."""
        return _differences(self.first.derived.forward.equations, self.second.derived.forward.equations)

    @property
    def backward(self) -> tuple[Difference, ...]:
        """The equations of the final recursion that are not the same in both."""
        return _differences(self.first.recursion, self.second.recursion)

    @property
    def same(self) -> bool:
        """Whether nothing differs, forward or backward."""
        return not self.forward and not self.backward

    @property
    def names(self) -> tuple[str, str]:
        """What the two cells are called."""
        same = self.first.name == self.second.name
        return (self.first.name or "first", self.second.name or "second") if not same else ("first", "second")

    def text(self) -> str:
        """Unicode text: under each name that differs, the equation of either cell."""
        width = max(map(len, self.names))
        room = plain.WIDEST - width - 2
        out = []
        for title, found in (("Forward", self.forward), ("Backward", self.backward)):
            out += [title, "-" * len(title)] + ([] if found else [SAME, ""])
            for difference in found:
                for d, eq, name in zip((self.first, self.second), (difference.first, difference.second), self.names):
                    lines = ["-"] if eq is None else plain.equation(plain.Style(d.printed), eq, room)
                    out += [f"{name if not k else '':<{width}}  {line}" for k, line in enumerate(lines)]
                out.append("")
        return "\n".join(out).strip() + "\n"

    __str__ = text

    def latex(self) -> str:
        """An align* environment for either cell, each line tagged with its cell."""
        return SAME if self.same else "\n".join(render.aligned(render.Writer(d, "d"), (
            Chain(read(eq.name, eq.at), ((eq.value, name),)) for eq in equations))
            for d, name, equations in self._sides())

    def _repr_html_(self) -> str:
        rows = f"<p>{SAME}</p>" * self.same
        for d, name, equations in self._sides():
            w = render.Writer(d, "d")
            rows += f"<h3>{escape(name)}</h3><table>" + "".join(
                render.rows(w, Chain(read(eq.name, eq.at), ((eq.value, ""),))) for eq in equations) + "</table>"
        return rows

    def _sides(self) -> Iterator[tuple[Derivation, str, list[Equation]]]:
        """Each cell with the equations that it does not share with the other, where it has any."""
        found = (*self.forward, *self.backward)
        for d, name, equations in ((self.first, self.names[0], [x.first for x in found]),
                                   (self.second, self.names[1], [x.second for x in found])):
            if any(equations):
                yield d, name, [eq for eq in equations if eq is not None]


def _differences(first: Iterable[Equation], second: Iterable[Equation]) -> tuple[Difference, ...]:
    """Equations matched by what they define, in the first cell's order, then those that only the second has."""
    a, b = ({str(eq): eq for eq in equations} for equations in (first, second))
    keys = [*a, *(key for key in b if key not in a)]
    pairs = ((key, a.get(key), b.get(key)) for key in keys)
    return tuple(Difference(key, x, y) for key, x, y in pairs if x is None or y is None or x.value is not y.value)
