"""The final recursion as it is printed, proved: its SymPy objects, evaluated on the complex step's own gradients.

    every equation's value moved by ih -> the gradient of every variable;   SymPy right side == left side, everywhere
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import product
from math import inf, isfinite, isnan, nan, prod
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import primitives as P
from ..arrays import Given, bordered_shape
from ..check import STEP, TOLERANCE, in_dtype, path_sums
from ..equations import BATCH, System
from ..evaluate import evaluate
from ..graph import Node, Position, extent_name, node, read
from ..naming import replaced
from ..parse import Declaration, Line
from ..printing.components import Symbols, free_symbols, symbol_name
from ..shapes import carry_over
from .domain import long_enough, points

if TYPE_CHECKING:
    from . import Derivation

DIGITS = 25  # of SymPy's numbers, where a double's do not do


def prove_recursion(d: Derivation, seed: int, dtype: type = np.float64) -> Iterator[tuple[str, float]]:
    """(equation, error) for each SymPy equation of the final recursion, the complex step's gradients on both sides.

    Left out are equations with functions that SymPy has none for: their steps are proved, without SymPy. A gradient
    whose contributions cancel is judged against the sum of their absolute values.
    """
    from sympy.core.function import AppliedUndef

    forward = d.derived.forward
    point = points(d.derived, seed, size=3, batch=1 + 2 * d.joined, length=long_enough(forward, d.horizon))
    given = in_dtype(replace(point, sizes=carry_over(point.sizes, d.printed.inferred, forward.inferred)), dtype)
    seeds = {n: point.values[d.derived.seeds[n]] if d.derived.seeds else np.ones(()) for n in d.outputs}
    found = _Values(d, given, true_cotangents(d, given, seeds))
    sums: dict[str, np.ndarray] = {}
    equations = d.sympy("elementwise")
    for eq in d.recursion:
        key = str(eq) if eq.end else eq.name
        left, right = equations[key].lhs, equations[key].rhs
        if right.atoms(AppliedUndef):
            continue
        letters = list(getattr(left, "indices", ()))
        ranges = [range(1, given.extents[p.index] + 1) if p.base == "i" else (None,) for p in eq.at]
        components = found.arrays[eq.name].shape[len(eq.at) + (eq.name in d.printed.per_example):]
        ranges += [range(1, n + 1) for n in components]
        examples = range(1, 1 + (given.batch if eq.name in d.printed.per_example else 1))
        gap = largest = 0.0
        compared = False
        for example, *place in product(examples, *ranges):
            here = {found.example: example} | {letter: float(k) for letter, k in zip(letters, place) if k is not None}
            told, true = found.number(right, here), found.number(left, here)
            edge = any(k in (1, given.extents[p.index]) for k, p in zip(place, eq.at) if p.base == "i")
            compared |= isfinite(true)
            if isfinite(told) and isfinite(true):
                gap, largest = max(gap, abs(told - true)), max(largest, found.number(right, here, True))
            elif isfinite(true) and not edge:  # at the edge, a zero from outside may meet no number
                gap = inf
        if gap > TOLERANCE * largest:
            sums = sums or path_sums(d.derived, given, seeds)
            largest = max(largest, float(np.max(sums[eq.name])))
        yield key, float(gap / largest if largest else gap) if compared else nan


def true_cotangents(d: Derivation, given: Given, seeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every variable's gradient by the complex step, as bordered arrays: each equation's value is moved in each entry.

    Cotangents from outside, the seeds, come along under their own names.
    """
    forward, names = d.derived.forward, dict(d.derived.names)
    carries = {eq.name: d.derived.carries[eq.name] for eq in d.recursion if eq.name in d.derived.carries}
    names |= {carry: carry for carry in carries}  # what a step sends is the gradient of what it reads
    system, moves = _movable(forward, carries)
    sizes = carry_over(given.sizes, forward.inferred, system.inferred)
    printed = replace(given, sizes=carry_over(given.sizes, forward.inferred, d.printed.inferred))

    def zeros(name: str) -> np.ndarray:
        comps = tuple(s if isinstance(s, int) else sizes[s] for s in system.shapes[name])
        axes = tuple(given.extents[i] for i in system.axes[name])
        return np.zeros(axes + (given.batch,) * (name in system.per_example) + comps, given.dtype)

    point = replace(given, values={**given.values, **{b: zeros(b) for b in moves.values()}}, sizes=sizes)
    places: dict[tuple[str, tuple[Position, ...]], Any] = dict(moves)
    places |= {(n, tuple(map(Position, forward.axes[n]))): n for n in forward.having("parameter", "input")}
    places |= dict.fromkeys(given.ends)  # moved where they are
    found = {adj: np.zeros(bordered_shape(d.printed, adj, printed), given.dtype) for adj in names.values()}
    for (name, at), target in places.items():
        if name not in names:
            continue
        value = _gradient(system, point, seeds, target, (name, at))
        if name in system.per_example and names[name] not in d.printed.per_example:  # dL = 1 has no batch
            value = value.take(0, axis=sum(p.base == "i" for p in at))
        place = tuple(slice(1, -1) if p.base == "i" else 0 if p.base == "1" else -1 for p in at)
        found[names[name]][place] = value
    for name, outside in d.derived.seeds.items():
        found[outside] = np.zeros(bordered_shape(d.printed, outside, printed))
        found[outside][(slice(1, -1),) * len(forward.axes[name])] = seeds[name]
    return found


def _movable(forward: System, carries: Mapping[str, Node]
             ) -> tuple[System, dict[tuple[str, tuple[Position, ...]], str]]:
    """The system with an input added to every equation's value, and to what each carry sends back to; their names."""
    axes, declarations, moves = dict(forward.axes), dict(forward.declarations), {}

    def move(key: str, at: tuple[Position, ...], name: str, free: tuple[str, ...]) -> Node:
        moves[key, at] = word = f"#{len(axes)}"
        axes[word] = free
        kind = "input" if name in forward.per_example else "parameter"
        shape = None if forward.shapes[name] else ()  # beside literals alone nothing else would say it
        declarations[word] = Declaration(word, kind, shape, None, Line("", 0))
        return read(word, tuple(map(Position, free)))

    sent = {}
    for carry, n in carries.items():
        free = tuple(p.index for p in n.params[1] if p.base == "i")
        sent[n] = node(P.add, n, move(carry, tuple(map(Position, free)), n.params[0], free))
    equations = [replace(eq, value=node(P.add, replaced(eq.value, sent), move(eq.name, eq.at, eq.name, eq.free)))
                 for eq in forward.equations]
    return System(equations, axes, forward.model, declarations), moves


def _gradient(system: System, point: Given, seeds: Mapping[str, np.ndarray], target: str | None, end) -> np.ndarray:
    """The gradient by the complex step, of a value by its name, or else of an end; a lane for each entry."""
    base = point.ends[end] if target is None else point.values[target]
    count = base.size
    lanes = {id(v): np.broadcast_to(v, (count, *v.shape)) for v in (*point.values.values(), *point.ends.values())}
    dtype = np.result_type(point.dtype, np.complex64)
    moved = np.broadcast_to(base, (count, *base.shape)).astype(dtype)
    moved.reshape(count, count)[np.diag_indices(count)] += 1j * STEP
    run = replace(point, values={n: lanes[id(v)] for n, v in point.values.items()}, dtype=dtype,
                  ends={k: lanes[id(v)] for k, v in point.ends.items()}, lanes=count)
    if target is None:
        run.ends[end] = moved
    else:
        run.values[target] = moved
    stores = evaluate(system, run, seeds)
    total = np.zeros(count, point.dtype)
    for name, seed in seeds.items():
        inner = stores[name][(slice(None), *(slice(1, -1),) * len(system.axes[name]))].imag / STEP
        total += (inner * seed).reshape(count, -1).sum(axis=1)
    return total.reshape(base.shape)


class _Values:
    """Arrays of forward values and cotangents as the elementwise form reads them, and SymPy expressions as numbers."""

    def __init__(self, d: Derivation, given: Given, cotangents: dict[str, np.ndarray]):
        self.system, self.given = d.printed, given
        self.real: Any = float if given.dtype == np.float64 else given.dtype.type
        self.arrays = {**evaluate(d.derived.forward, given), **cotangents}
        self.free: dict[Any, frozenset] = {}
        self.known: dict[tuple, float] = {}
        self.symbols = {symbol_name(n): n for n in self.system.axes}
        sizes = carry_over(given.sizes, d.derived.forward.inferred, d.final_system.inferred)
        symbols = Symbols(d.final_system)
        self.example = symbols.index(BATCH)  # the letter of the example that an equation is about
        self.scalars = {s.name: sizes[str(k)] for k, s in symbols.sizes.items() if s.is_Symbol}
        self.scalars |= {extent_name(i): n for i, n in given.extents.items()} | {symbols.batch_extent: given.batch}

    def at(self, name: str, place: tuple[int, ...], example: int) -> float:
        """An entry: positions as they are, examples and components from 1; zero outside the sequence and its ends."""
        array, axes = self.arrays[name], len(self.system.axes[name])
        if name in self.system.per_example and len(place) < array.ndim:  # no sum over the batch has bound the example
            place = (*place[:axes], example, *place[axes:])
        where = (*place[:axes], *(k - 1 for k in place[axes:]))
        inside = all(0 <= k < n for k, n in zip(where, array.shape))
        return self.real(array[where]) if inside else 0.0

    def read(self, e) -> float:
        """A SymPy number in the precision of the arrays."""
        return float(e) if self.real is float else self.real(str(e.evalf(DIGITS)))

    def number(self, e, here: dict, size: bool = False) -> float:
        """A SymPy expression as a number, or the `size` of its terms, for the letters and the example `here`.

        Nothing is compiled: names are looked up, and what sums within sums ask for again is remembered.
        """
        if e in here:
            return here[e]
        key = (e, size, here[self.example], *map(here.get, free_symbols(e, self.free)))
        if key not in self.known:
            self.known[key] = self.worked_out(e, here, size)
        return self.known[key]

    def worked_out(self, e, here: dict, size: bool) -> float:
        """The same, from the numbers of its operands."""
        import sympy
        from sympy.logic.boolalg import BooleanFunction

        if size and not isinstance(e, sympy.Add | sympy.Mul | sympy.Sum):
            return abs(self.number(e, here))
        if e.is_Number or (e.is_Boolean and not e.args):
            return float(bool(e)) if e.is_Boolean else self.read(e)
        if isinstance(e, sympy.Symbol):
            name = self.symbols.get(e.name)  # a letter whose sum SymPy moved a case out of has no value
            return self.scalars.get(e.name, nan) if name is None else self.at(name, (), here[self.example])
        if isinstance(e, sympy.Indexed):
            name, place = e.base.label.name, [self.number(i, here) for i in e.indices]  # T[b] is example b's own
            known = name not in self.scalars and all(map(isfinite, place))
            return self.at(name, tuple(map(round, place)), here[self.example]) if known else self.scalars.get(name, nan)
        if isinstance(e, sympy.Sum):
            places = [here]
            for var, first, last in reversed(e.limits):
                places = [{**place, var: float(k)} for place in places for k in range(
                    round(self.number(first, place)), round(self.number(last, place)) + 1)]
            return sum(self.number(e.function, place, size) for place in places)
        if isinstance(e, sympy.Piecewise):
            return next(self.number(a, here) for a, c in e.args if self.number(c, here))
        args = [self.number(a, here, size) for a in e.args]
        if isinstance(e, sympy.Add):
            return sum(args)
        if isinstance(e, sympy.Mul):
            return prod(args)
        if isinstance(e, BooleanFunction):
            return float(bool(e.func(*(sympy.true if a else sympy.false for a in args))))
        if any(map(isnan, args)):
            return nan
        if isinstance(e, sympy.KroneckerDelta):
            return float(args[0] == args[1])
        value = e.func(*(sympy.Float(str(a), DIGITS) if self.real is not float else sympy.Float(a) for a in args))
        if value.is_Boolean:
            return float(bool(value))
        return self.read(value) if value.is_real else nan
