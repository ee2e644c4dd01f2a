"""The true value of every name of a derivation at random points, and the values of any expressions over those names.

    forward and adjoint system -> drawn points -> true values, given to small systems of one expression each
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np

from ..arrays import Given
from ..elaborate import delays
from ..equations import Equation, System, free_indices
from ..errors import CellError
from ..evaluate import evaluate
from ..graph import READ, Node, Position, topological
from ..parse import Declaration, Line
from ..shapes import carry_over, solve
from .points import drawn, open_ends, unmet

if TYPE_CHECKING:
    from . import Derivation

POINTS = 8
OTHER = 7  # a size that no first point has
TOLERANCE, ROUNDING = 1e-9, 1e-13  # of the largest entry at a point; and what 1 - g**2 may lose where g is near 1
MINE, NOWHERE = "#", Line("", 0)  # no identifier: it meets no name of a text; and no line of one
PLACES = {"i": slice(1, -1), "1": slice(0, 1), "T": slice(-1, None)}

Value = np.ndarray | CellError  # along (lane, every index, batch, components), or why there is none


class Values:
    """Values at points of one size and length; `own` are equations of further names that expressions may read.

    free: cotangents are drawn, each by itself, and only what steps send to each other follows from them.
    """

    def __init__(self, d: Derivation, axes: dict[str, tuple[str, ...]], own: list[Equation], batch: int,
                 other: bool = False, free: bool = False):
        self.system, self.axes, self.own = d.derived.system, axes, own
        system = self.system
        given = drawn(system, batch, OTHER if other else None, batch, POINTS)
        for name, at in open_ends(system):  # no cotangent comes from outside
            if name not in d.derived.forward.axes:
                given.ends[name, at] = np.zeros_like(given.ends[name, at])
        self.given = _longer(system, given) if other else given
        self.stores = evaluate(system, self.given)
        self.sizes = {alias: given.sizes[d] for d, names in system.inferred.aliases.items() for alias in names
                      if d in given.sizes}
        shape = lambda n: tuple(s if isinstance(s, int) else given.sizes[s] for s in system.shapes[n])
        self.declared = {n: Declaration(n, "input" if n in system.per_example else "parameter", shape(n), None, NOWHERE)
                         for n in system.axes}
        copies = d.derived.forward.copies
        self.copies = {eq.value: eq.name for eq in system.equations if eq.name in copies}
        self.known: dict[Node, Value] = {}
        if free:
            self.stores = self._freed(d)

    def _freed(self, d: Derivation) -> dict[str, np.ndarray]:
        """Every name's values where the cotangents are drawn."""
        sent = {*d.derived.carries, *(d.derived.names.get(name) for name in d.derived.forward.copies)}
        kept = [eq for eq in self.system.equations if eq.name in d.derived.forward.axes or eq.name in sent]
        drawn, values = {}, dict(self.given.values)
        rng = np.random.default_rng(self.given.batch)
        for name in sorted(self.system.defined - {eq.name for eq in kept}):
            drawn[name] = np.zeros_like(self.stores[name])
            inside = (slice(None), *(slice(1, -1),) * len(self.system.axes[name]))
            drawn[name][inside] = values[name] = rng.normal(size=drawn[name][inside].shape)
        system = System(kept, self.system.axes, self.system.model, {
            **self.system.declarations, **{name: self.declared[name] for name in drawn}})
        run = replace(self.given, values=values, sizes=carry_over(self.given.sizes, self.system.inferred,
                                                                  system.inferred))
        return {**self.stores, **drawn, **evaluate(system, run)}

    def value(self, n: Node) -> Value:
        """An expression's values, or the contradiction of shapes in it."""
        if n not in self.known:
            try:
                self.known[n] = self._evaluated(n)
            except CellError as e:
                self.known[n] = e
        return self.known[n]

    def needed(self, n: Node) -> list[Equation]:
        """The equations of further names that an expression reads, at last."""
        found: dict[Equation, None] = {}
        stack = [n] if self.own else []
        while stack:
            reads = {m.params[0] for m in topological([stack.pop()]) if m.op is READ}
            new = [eq for eq in self.own if eq.name in reads and eq not in found]
            found.update(dict.fromkeys(new))
            stack += [eq.value for eq in new]
        return list(found)

    def _evaluated(self, n: Node) -> np.ndarray:
        """One expression as a system: every true name in it is given, with its shape and its values outside."""
        free = free_indices(n, frozenset(), self.system.model, {})
        axes = tuple(i for i in self.system.indices if i in free)
        at = tuple(map(Position, axes))
        known = {**self.axes, MINE: axes}
        equations = delays([*self.needed(n), Equation(MINE, at, n, NOWHERE)], known, self.copies)
        mine = System(equations, known, self.system.model, self.declared)
        sizes = solve(mine.inferred, {d: self.sizes[a] for d, names in mine.inferred.aliases.items() for a in names
                                      if a in self.sizes})
        if any(isinstance(s, str) and s not in sizes for name in mine.defined for s in mine.shapes[name]):
            raise CellError("nothing says what size this has")
        reads = [name for name in mine.given if name in self.stores]
        run = replace(self.given, values={name: self._at(name, tuple(map(Position, self.system.axes[name])))
                                          for name in reads},
                      ends={(name, at): self._at(name, at) for name in reads for at in self._outside(name)},
                      sizes={**self.given.sizes, **sizes})
        return self._spread(mine, MINE, evaluate(mine, run, [MINE])[MINE], at)

    def _outside(self, name: str) -> Iterator[tuple[Position, ...]]:
        main = tuple(map(Position, self.system.axes[name]))
        for k, p in enumerate(main):
            for end in (Position(p.index, "1", -1), Position(p.index, "T", 1)):
                yield (*main[:k], end, *main[k + 1:])

    def _at(self, name: str, at: tuple[Position, ...]) -> np.ndarray:
        outside = {"i": slice(1, -1), "1": 0, "T": -1}
        return self.stores[name][(slice(None), *(outside[p.base] for p in at))]

    def _spread(self, system: System, name: str, store: np.ndarray, at: tuple[Position, ...]) -> np.ndarray:
        """A store's values at a position, along every index and the batch, so that any two arrays meet."""
        axes, indices = system.axes[name], self.system.indices
        array = store[(slice(None), *(PLACES[p.base] for p in at))]
        order = sorted(range(len(axes)), key=lambda k: indices.index(axes[k]))
        array = array.transpose(0, *(1 + k for k in order), *range(1 + len(axes), array.ndim))
        if name not in system.per_example:
            array = np.expand_dims(array, 1 + len(axes))
        for k, i in enumerate(indices):
            if i not in axes:
                array = np.expand_dims(array, 1 + k)
        return array

    def true(self, eq: Equation) -> np.ndarray:
        """What an equation's left side is in truth."""
        return self._spread(self.system, eq.name, self.stores[eq.name], eq.at)

    # --- compared ------------------------------------------------------------------------------------------------

    def shape(self, value: np.ndarray) -> tuple[int, ...]:
        return value.shape[2 + len(self.system.indices):]

    def rank(self, n: Node) -> int | None:
        value = self.value(n)
        return None if isinstance(value, CellError) else len(self.shape(value))

    def combined(self, nodes: tuple[Node, ...], operation) -> Value:
        """The values of several expressions, put together."""
        values = [self.value(n) for n in nodes]
        fails = [v for v in values if isinstance(v, CellError)]
        if fails:
            return fails[0]
        if len({self.shape(v) for v in values} - {()}) > 1:
            return CellError("different shapes meet")
        with np.errstate(all="ignore"):
            return reduce(lambda a, b: operation(*lined(a, b)), values)

    def same(self, a: Value, b: Value) -> bool:
        """Whether two values agree at every point, to TOLERANCE of the largest entry of b there, but for ROUNDING.

        At the ends of a sequence a zero from outside may meet no number; elsewhere a number is wanted where b has one.
        """
        if isinstance(a, CellError) or isinstance(b, CellError) or (
                self.shape(a) != self.shape(b) and self.shape(a) and self.shape(b)):
            return False
        a, b = np.broadcast_arrays(*lined(a, b))
        excused = unmet(a, len(self.system.indices))
        lanes = np.isfinite(b).reshape(POINTS, -1).all(axis=1)
        with np.errstate(invalid="ignore"):
            gap = np.where(excused, 0, np.abs(a - b)).reshape(POINTS, -1).max(axis=1)
        size = np.abs(b).reshape(POINTS, -1).max(axis=1)
        return bool(lanes.any() and (gap <= TOLERANCE * size + ROUNDING)[lanes].all())

    def right(self, n: Node, true: np.ndarray) -> bool:
        """Whether an expression has these values and this shape; a literal fits anywhere."""
        value = self.value(n)
        fits = not isinstance(value, CellError) and (self.shape(value) == self.shape(true) or all(
            m.op is not READ for m in topological([n])))
        return fits and self.same(value, true)

    def lost(self, true: np.ndarray) -> bool:
        """Whether nothing but rounding is left of these values."""
        return not np.any(np.abs(true[np.isfinite(true)]) > 1000 * ROUNDING)

    def dimension(self, size: int) -> str:
        """A size by the names of what has it."""
        return "/".join(d for d in self.system.inferred.aliases if self.given.sizes.get(d) == size) or str(size)


def lined(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A number beside a vector or a matrix has as many axes."""
    rank = max(a.ndim, b.ndim)
    return a.reshape(a.shape + (1,) * (rank - a.ndim)), b.reshape(b.shape + (1,) * (rank - b.ndim))


def _longer(system: System, given: Given) -> Given:
    """The same point with one step more along every data index: a number that happened to be T is T no more."""
    def more(value: np.ndarray, indices) -> np.ndarray:
        for k, i in enumerate(indices, 1):
            if i not in system.model:
                value = np.concatenate([value, np.take(value, [0], axis=k)], axis=k)
        return value

    return replace(given, values={n: more(v, system.axes[n]) for n, v in given.values.items()},
                   ends={(n, at): more(v, [p.index for p in at if p.base == "i"]) for (n, at), v in given.ends.items()},
                   extents={i: n + (i not in system.model) for i, n in given.extents.items()})
