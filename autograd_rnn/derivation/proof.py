"""The proof of a derivation: every step before and after at random points, and what is printed, by the complex step.

    a step of two expressions      both sides evaluated, entry by entry
    a step from (dy/dx)' g         <(dy/dx)' g, v> = <g, Im y(x + ihv) / h> against <after, v>, for a random v
    the closed form                sums of products of Jacobians, kept and dropped, against what the steps send back
    the final recursion            its SymPy objects, with the complex step's values on the right: see recursion.py

A difference is judged by the size of what adds up to the value, which may cancel. What is still doubtful is done again
in longdouble: rounding shrinks at least a hundredfold, a fault does not. What is no number at any point that was found
is not checked, and is called so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import isnan, nan
from typing import TYPE_CHECKING

import numpy as np

from .. import primitives as P
from ..arrays import Given
from ..check import LOST, STEP, TOLERANCE, in_dtype, magnitude
from ..gradient import PULLBACK, Step
from ..graph import Node, Position, node, read
from ..naming import replaced
from ..printing import plain
from .domain import FARTHEST, OutsideError, long_enough, points, strict
from .jacobian import Recurrence
from .points import Bench, unmet
from .recursion import prove_recursion

if TYPE_CHECKING:
    from . import Derivation


@dataclass(frozen=True)
class Verdict:
    """One step or printed equation, and the largest relative difference of its two sides over all points.

    No number: not checked, for no point was found where both sides could be compared.
    """

    what: str
    error: float
    rounding: bool = False

    @property
    def ok(self) -> bool:
        return self.error <= TOLERANCE or self.rounding

    @property
    def checked(self) -> bool:
        return not isnan(self.error)

    def __str__(self):
        return f"{self.error:9.1e}  {self.what}" if self.checked else f"not checked: {self.what}"


@dataclass(frozen=True)
class Proof:
    """What was proved: the steps of the record, the closed forms, the equations of the final recursion.

    `ok`: all within 1e-12; `wrong`: those that are not; `unchecked`: those that no point inside the domain tells.
    """

    steps: tuple[Verdict, ...]
    closed: tuple[Verdict, ...]
    recursion: tuple[Verdict, ...]

    @property
    def all(self) -> tuple[Verdict, ...]:
        return self.steps + self.closed + self.recursion

    @property
    def wrong(self) -> tuple[Verdict, ...]:
        return tuple(v for v in self.all if v.checked and not v.ok)

    @property
    def unchecked(self) -> tuple[Verdict, ...]:
        return tuple(v for v in self.all if not v.checked)

    @property
    def worst(self) -> float:
        """The largest error that is not rounding."""
        return max((v.error for v in self.all if v.checked and not v.rounding), default=0.0)

    @property
    def ok(self) -> bool:
        return not self.wrong and not self.unchecked

    def __str__(self):
        said = [f"{len(self.wrong)} WRONG"] * bool(self.wrong)
        said += [f"{len(self.unchecked)} not checked"] * bool(self.unchecked)
        verdict = ", ".join(said) or f"all within {TOLERANCE:g}"
        line = (f"{len(self.steps)} steps, {len(self.closed)} closed forms and {len(self.recursion)} printed "
                f"equations, {verdict}; worst {self.worst:.1e}")
        return "\n".join([line, *map(str, self.wrong + self.unchecked)])

    __repr__ = __str__


def prove(d: Derivation, count: int, seed: int) -> Proof:
    def settled(part: Callable[[Derivation, int, int, type], Iterator[Verdict]]) -> tuple[Verdict, ...]:
        found = tuple(part(d, count, seed, np.float64))
        if all(v.ok or not v.checked for v in found):
            return found
        again = part(d, count, seed, np.longdouble)
        return tuple(replace(v, rounding=not v.ok and v.error <= LOST and finer.error <= v.error / 100)
                     for v, finer in zip(found, again))

    try:
        parts = [settled(part) for part in (prove_steps, prove_closed, prove_printed)]
    except OutsideError as e:
        return Proof((Verdict(e.fact, nan),), (), ())
    if d.horizon is None:
        parts[0] += (Verdict(f"there are cases of t that do not come up within {FARTHEST} steps", nan),)
    return Proof(*parts)


def prove_printed(d: Derivation, count: int, seed: int, dtype: type = np.float64) -> Iterator[Verdict]:
    """Every printed equation: at one point, for SymPy takes its time."""
    return (Verdict(f"the printed equation of {key}", error) for key, error in prove_recursion(d, seed, dtype))


def _seeded(d: Derivation, lanes: int, seed: int, dtype: type) -> Given:
    """Points of forward and adjoint system together; CellError where none was found.

    Of examples taken together there are three: what is centred over two of them cancels.
    """
    length = long_enough(d.derived.forward, d.horizon)
    return in_dtype(points(d.derived, seed, batch=2 + d.joined, lanes=lanes, length=length), dtype)


# --- steps -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Sides:
    """A step's two sides as names on a bench: terms that stand for themselves, and pullbacks as pairs (g, moved y)."""

    after: str
    size: str
    terms: tuple[str, ...]
    direction: str | None
    pulled: tuple[tuple[str, str], ...]


def prove_steps(d: Derivation, count: int, seed: int, dtype: type = np.float64) -> Iterator[Verdict]:
    """Every step of the record, at all points at once: a lane for each."""
    system, style = d.derived.system, plain.Style(d.derived.system)
    bench = Bench(system)
    plans = [(step, _sides(d, bench, step)) for step in d.steps]
    values = bench.run(_seeded(d, count, seed, dtype), seed)
    for step, sides in plans:
        if sides.direction is None:
            before, after, size = (values[name].real for name in (sides.terms[0], sides.after, sides.size))
            before, after, size = np.broadcast_arrays(before, after, size)
            outside = unmet(after, len(system.indices))
            after, size = np.where(outside, before, after), np.where(outside, np.abs(before), size)
            error = _difference(before, after, size.reshape(count, -1).max(axis=1))
        else:
            error = _inner_products(sides, values, count)
        yield Verdict(f"{step.rule} at {plain.expression(style, step.site)}", error)


def _inner_products(sides: _Sides, values: dict[str, np.ndarray], count: int) -> float:
    """<before, v> against <after, v>, judged by the size of their terms."""
    v = values[sides.direction or ""].imag / STEP
    along = lambda name: (_like(values[name].real, v) * v).reshape(count, -1)
    products = [*map(along, sides.terms)]
    products += [(values[g].real * values[y].imag / STEP).reshape(count, -1) for g, y in sides.pulled]
    size = np.sum([np.abs(p).sum(axis=1) for p in (*products, along(sides.size))], axis=0)
    return _difference(np.sum([p.sum(axis=1) for p in products], axis=0), along(sides.after).sum(axis=1), size)


def _sides(d: Derivation, bench: Bench, step: Step) -> _Sides:
    after, size = bench.measure(step.after), bench.measure(magnitude(step.after))
    terms = step.before.args if step.before.op is P.add else (step.before,)
    stripped = [_stripped(n) for n in terms]
    if all(n.op is not PULLBACK for n in stripped):
        return _Sides(after, size, (bench.measure(step.before),), None, ())
    x = next(n.args[2] for n in stripped if n.op is PULLBACK)
    direction, v = bench.direction(x)
    pulled = []
    for n in stripped:
        if n.op is PULLBACK:
            g, y, x = n.args
            moved = P.total(x, v)
            if y is x:  # a carry that is the cotangent itself
                value = moved
            elif y is step.site and y.args:  # a rule speaks of its operands, not of what may stand below them too
                value = node(y.op, *(moved if a is x else a for a in y.args), params=y.params)
            else:
                value = replaced(_defined(d, y), {x: moved})
            pulled.append((bench.measure(g), bench.measure(value)))
    plain_terms = tuple(bench.measure(n) for n, inner in zip(terms, stripped) if inner.op is not PULLBACK)
    return _Sides(after, size, plain_terms, direction, tuple(pulled))


def _defined(d: Derivation, y: Node) -> Node:
    """The right side of a variable's equation; any other expression as it is."""
    return next((eq.value for eq in d.derived.forward.equations if y is read(eq.name, eq.at)), y)


def _stripped(n: Node) -> Node:
    while n.op is P.sum and n.params:
        n = n.args[0]
    return n


def _like(a: np.ndarray, v: np.ndarray) -> np.ndarray:
    return a.reshape(a.shape + (1,) * (v.ndim - a.ndim))


def _difference(a: np.ndarray, b: np.ndarray, size: np.ndarray | None = None) -> float:
    """The largest difference over `size`, or else the largest entry, in the worst lane, or no number where none counts.

    Lanes do not count on which `a` is no number, nor, where gradients need not be numbers, those on which `b` is none.
    """
    a, b = np.broadcast_arrays(a, b)
    a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
    size = np.max(np.where(np.isfinite(a), np.abs(a), 0), axis=1) if size is None else np.broadcast_to(size, len(a))
    known = ~np.isnan(a).any(axis=1) & (strict(len(a)) | ~np.isnan(b).any(axis=1))
    if not known.any():
        return nan
    with np.errstate(invalid="ignore"):  # infinities that are the same do not differ
        gap = np.where(a == b, 0, np.abs(a - b)).max(axis=1)
        error = np.where(gap == 0, 0, gap / np.where(size == 0, 1, size))[known]
    return float(np.max(np.where(np.isnan(error), np.inf, error)))


# --- the closed form ---------------------------------------------------------------------------------------------


def prove_closed(d: Derivation, count: int, seed: int, dtype: type = np.float64) -> Iterator[Verdict]:
    """g_t as the sum over later steps of products of Jacobians; and, truncated after a step, with what that drops."""
    for r in d.recurrences:
        vectors = all(d.printed.axes[n.params[0]] == (r.index,) and d.printed.rank(n) == 1 for n in r.states)
        if r.simple and r.worked_out and vectors:
            loop = _Loop(d, r, count, seed, dtype)
            for kept, what in ((loop.length, "the closed form"), (1, "what truncation keeps and drops")):
                error = max(_difference(loop.sent(u, 0), total) for u, total in loop.closed(kept).items())
                yield Verdict(f"{what} along {r.index}", error)


class _Loop:
    """A recurrence at random points: its Jacobians step by step, in the order in which it runs."""

    def __init__(self, d: Derivation, r: Recurrence, count: int, seed: int, dtype: type):
        self.r = r
        bench, given = Bench(d.derived.system), _seeded(d, count, seed, dtype)
        self.length = given.extents[r.index]
        self.local = {n: bench.measure(g) for n, g in r.local.items()}
        self.beside = {n: bench.measure(g) for n, g in r.beside.items()}
        self.carries = {n: bench.measure(read(c, tuple(map(Position, d.printed.axes[c]))))
                        for c, n in d.derived.carries.items() if n in r.reached}
        routes = {b: [(w, bench.measure(m)) for w, m in b.routes] for b in r.blocks}
        axis = 1 + d.printed.indices.index(r.index)
        self.values = {}
        for name, v in bench.run(given, seed).items():
            moved = np.moveaxis(v.real, axis, 0)
            self.values[name] = np.broadcast_to(moved, (self.length, *moved.shape[1:]))[::r.sign]
        self.jacobians: dict[tuple[Node, Node], np.ndarray] = {}
        for b in r.blocks:
            parts = [self.values[m] if w is None else self.values[m] @ self.jacobians[w, b.reached]
                     for w, m in routes[b] if w is None or (w, b.reached) in self.jacobians]
            self.jacobians[b.state, b.reached] = sum(parts[1:], parts[0])

    def sent(self, u: Node, t: int) -> np.ndarray:
        """What step t sends to u through the loop."""
        found = self.values[self.carries[u]][t]
        return found - self.values[self.beside[u]][t] if u in self.beside else found

    def back(self, g: dict[Node, np.ndarray], t: int) -> dict[Node, np.ndarray]:
        """J_t' g: from the states of step t to what reached it."""
        found: dict[Node, np.ndarray] = {}
        for (v, u), jacobian in self.jacobians.items():
            if v in g:
                part = np.squeeze(np.swapaxes(jacobian[t], -1, -2) @ g[v][..., None], -1)
                found[u] = found[u] + part if u in found else part
        return found

    def named(self, g: dict[Node, np.ndarray]) -> dict[Node, np.ndarray]:
        """What reached a step, as the states of the step before."""
        states = {v.params[0]: v for v in self.r.states}
        return {states[u.params[0]]: value for u, value in g.items() if u.params[0] in states}

    def closed(self, kept: int) -> dict[Node, np.ndarray]:
        """sum_k (J_k ... J_1)' Delta_k over the first `kept` steps, and (J_kept ... J_1)' g_kept, which that drops."""
        starts = [(k, {n: self.values[name][k] for n, name in self.local.items()}) for k in range(kept)]
        if kept < self.length:
            starts.append((kept - 1, self.named({u: self.sent(u, kept) for u in self.carries})))
        total: dict[Node, np.ndarray] = {u: np.zeros(1) for u in self.carries}
        for k, g in starts:
            reached = self.back(g, k)
            for t in range(k - 1, -1, -1):
                reached = self.back(self.named(reached), t)
            total = {u: value + reached[u] if u in reached else value for u, value in total.items()}
        return total
