"""Points that say something: inside the domain of every function, on sequences that meet every case of t and T.

    derived -> points(...) -> Given;   expressions -> horizon(...) -> length
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from .. import primitives as P
from ..adjoint import Derived, adjoint
from ..arrays import Given
from ..equations import Equation, System
from ..errors import CellError
from ..evaluate import evaluate
from ..gradient import Typing, fit
from ..graph import CONST, EXTENT, INDEX, READ, Node, Position, const, node, read, rewrite, topological
from ..parse import Declaration, Line
from ..shapes import carry_over
from .points import LENGTH, drawn

MARGIN = 0.1  # what has to be positive is moved until it is as large as this
ATTEMPTS, DESCENTS = 4, 40  # draws of a point, and steps into the domain from each
FARTHEST = 100  # steps of the longest sequence that is drawn
CASES = (P.lt, P.le, P.gt, P.ge, P.eq, P.ne, P.mod, P.floor, P.sign, P.abs, P.maximum, P.minimum)


class OutsideError(CellError):
    """No point was found at which all values of a derivation are numbers."""


def points(derived: Derived, seed: int, size: int | None = None, batch: int = 2, lanes: int = 0,
           length: int = LENGTH) -> Given:
    """A point of forward and adjoint equations together, or one for each lane, where all of them are numbers.

    On every second lane forward values do: of `where(a > 0, sqrt(a), b)` the gradient is no number where b is taken,
    and b has to be taken somewhere. Cotangents outside the sequence are zero. A lane without a point takes another's.
    """
    rng = np.random.default_rng(seed)
    found: Given | None = None
    met = np.zeros(max(lanes, 1), bool)
    for _ in range(ATTEMPTS):
        given = drawn(derived.system, int(rng.integers(2**32)) if found else seed, size, batch, len(met), length)
        for name, at in given.ends:
            if name not in derived.forward.axes:
                given.ends[name, at] = np.zeros_like(given.ends[name, at])
        fits = _numbers(derived, given)
        if not (met | fits).all():
            given = _moved_inside(derived, given, fits)
            fits = _numbers(derived, given)
        found = given if found is None else _each(lambda a, b, met=met: np.where(_beside(met, a), a, b), found, given)
        met |= fits
        if met.all():
            break
    if found is None or not met[strict(len(met))].any():
        raise OutsideError("No point was found at which all values are numbers.",
                           remedy="Look for a log, a root or a quotient that has no value.")
    lane = np.where(met, np.arange(len(met)), np.argmax(met & strict(len(met))))
    return _each(lambda v: v[lane], found) if lanes else replace(_each(lambda v: v[lane[0]], found), lanes=0)


def _each(change: Callable, first: Given, *others: Given) -> Given:
    """A run of arrays that are made of those of other runs of the same shapes."""
    return replace(first, values={n: change(v, *(g.values[n] for g in others)) for n, v in first.values.items()},
                   ends={k: change(v, *(g.ends[k] for g in others)) for k, v in first.ends.items()})


def _beside(lanes: np.ndarray, array: np.ndarray) -> np.ndarray:
    """One value a lane, lined up with an array whose first axis are the lanes."""
    return lanes.reshape(-1, *(1,) * (array.ndim - 1))


def strict(lanes: int) -> np.ndarray:
    """The lanes on which gradients have to be numbers too."""
    return np.arange(lanes) % 2 == 0


def _numbers(derived: Derived, given: Given) -> np.ndarray:
    """The lanes on which every value is a number that has to be one."""
    system, forward = derived.system, set(derived.forward.equations)
    stores = evaluate(system, given, {eq.name for eq in system.equations})
    fits = np.ones(given.lanes, bool)
    for eq in system.equations:
        known = ~np.isnan(stores[eq.name][(slice(None), *_place(eq.at))]).reshape(given.lanes, -1).any(axis=1)
        fits &= known if eq in forward else known | ~strict(given.lanes)
    return fits


def _place(at: Iterable[Position]) -> tuple:
    """Where a position lies in a bordered array."""
    return tuple(slice(1, -1) if p.base == "i" else 0 if p.base == "1" else -1 for p in at)


def _bounded(n: Node) -> bool:
    """Whether the operand has to be positive: that of log, sqrt, and of a power that is no whole number."""
    return n.op in (P.log, P.sqrt) or (n.op is P.pow and not float(n.params[0]).is_integer())


def _moved_inside(derived: Derived, given: Given, fits: np.ndarray) -> Given:
    """Newton's steps to the root of V = sum max(margin - a, 0)**2, over every a that has to be positive.

    x <- x - 2 V grad V / |grad V|**2 on each lane that does not fit, where log and its like are held at the margin.
    What stands in a case of `where` counts on the strict lanes alone.
    """
    forward = derived.forward
    bounded = [n for n in forward.nodes if _bounded(n)]
    held = rewrite((eq.value for eq in forward.equations), lambda n, args: node(
        n.op, node(P.maximum, args[0], const(MARGIN)), params=n.params) if _bounded(n) else None)
    typing = Typing(forward)
    bare = set(topological((eq.value for eq in forward.equations), lambda n: n.args[:1 if n.op is P.where else None]))
    goal, weight = "#goal", "#weight"  # no identifiers: they meet no name of a text
    short = {n: node(P.maximum, const(MARGIN) - held[n.args[0]], const(0)) ** 2 for n in bounded}
    total = P.total(*(fit(v, const(0), typing) * (const(1) if n in bare else read(weight)) for n, v in short.items()))
    system = System([*(replace(eq, value=held[eq.value]) for eq in forward.equations), Equation(goal, (), total)],
                    {**forward.axes, goal: (), weight: ()}, forward.model,
                    {**forward.declarations, weight: Declaration(weight, "const", (), None, Line("", 0))})
    try:
        down = adjoint(system, [goal], unit=True)
    except CellError:  # nothing bounded, or nothing that could be moved
        return given
    run = replace(given, sizes=carry_over(given.sizes, derived.system.inferred, down.system.inferred),
                  values={**given.values, weight: strict(len(fits)).astype(float)})
    places: dict[Any, tuple] = {n: _place(map(Position, axes)) for n, axes in forward.axes.items() if n in given.values}
    places |= {(n, at): _place(at) for n, at in given.ends}
    for _ in range(DESCENTS):
        stores = evaluate(down.system, run, {goal, *down.names.values()})
        slopes = {}
        for key, place in places.items():
            name = key if isinstance(key, str) else key[0]
            if name in down.names and forward.roles[name] in ("parameter", "input", "state"):
                slope = stores[down.names[name]]
                if name in forward.per_example and down.names[name] not in down.system.per_example:
                    slope = np.expand_dims(slope, 1 + len(forward.axes[name]))
                slopes[key] = slope[(slice(None), *place)]
        square = sum((slope**2).reshape(len(fits), -1).sum(axis=1) for slope in slopes.values())
        far = stores[goal]
        step = np.where(fits | ~(square > 0) | ~(far > 0), 0, 2 * far / np.where(square > 0, square, 1))
        if not step.any():
            break
        moved = lambda key, v, step=step, slopes=slopes: v - _beside(step, v) * slopes[key] if key in slopes else v
        run = replace(run, values={n: moved(n, v) for n, v in run.values.items()},
                      ends={k: moved(k, v) for k, v in run.ends.items()})
    return replace(run, sizes=given.sizes, values={n: v for n, v in run.values.items() if n != weight})


# --- how far a sequence has to reach -----------------------------------------------------------------------------


def horizon(roots: Iterable[Node]) -> int | None:
    """The length at which every case that expressions tell apart by t and T has come up, and two steps more.

    `t > 4` needs 7. None: there is a case that does not come up within FARTHEST steps, as far as can be seen.
    """
    clocks: set[Node] = set()  # what depends on nothing but positions and extents
    for n in topological(roots):
        plain = n.args and n.op.pointwise and not n.op.shape_only
        if n.op in (CONST, INDEX, EXTENT) or (plain and all(a in clocks for a in n.args)):
            clocks.add(n)
    cases = [n for n in topological(clocks) if n.op in CASES]
    indices = {n.params[0] for n in topological(cases) if n.op in (INDEX, EXTENT)}
    if not indices:
        return 1
    literals = {abs(n.params[0]) for n in topological(cases) if n.op is CONST}
    beyond = [int(c) + k for c in literals if FARTHEST / 2 < c < 2**31 for k in (-1, 0, 1, 2)]
    grid = [(n, np.arange(1, n + 1)) for n in range(1, FARTHEST + 1)]
    grid += [(n, np.r_[np.linspace(1, n, 1000).round(), [k for k in beyond if k <= n]])
             for n in (*beyond, *(10**k for k in range(3, 7)))]
    longest = np.concatenate([np.full(len(steps), float(n)) for n, steps in grid])
    steps = np.concatenate([steps for _, steps in grid]).astype(float)
    rng = np.random.default_rng(0)  # with several indices, the others anywhere
    others = {i: np.ceil(longest * rng.random(longest.shape)) if k else steps for k, i in enumerate(sorted(indices))}
    values: dict[Node, Any] = {}
    first: dict[tuple, float] = {}
    with np.errstate(all="ignore"):
        for n in topological(cases):
            if n.args:
                value: Any = n.op.value
                values[n] = value(*(values[a] for a in n.args), *n.params)
            else:
                values[n] = (np.asarray(float(n.params[0])) if n.op is CONST else longest if n.op is EXTENT else
                             others[n.params[0]])
            if n in cases:
                whole = np.broadcast_to(values[n], longest.shape)
                sides = np.stack([whole == values[n.args[0]], np.nan_to_num(np.sign(whole))])
                for side in np.unique(sides, axis=1).T:
                    first[n, *side] = longest[(sides == side[:, None]).all(axis=0)].min()
    least = int(max(first.values()))
    return least + 2 if least <= FARTHEST else None


def long_enough(system: System, needed: int | None) -> int:
    """The length of the sequences to draw, where `needed` steps would do for what is said of them: within FARTHEST.

    A value that equations only hand on, like the copies of delayed ones, arrives in it.
    """
    handed = sum(eq.value.op is READ and any(p.base == "i" and p.offset for p in eq.value.params[1])
                 for eq in system.equations)
    return min(max(LENGTH, FARTHEST if needed is None else needed, 2 + handed), FARTHEST)
