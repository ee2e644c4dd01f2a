"""Gradients that are right: the complex step against the adjoint and the tape, per tensor and per time step.

f(x + ih) = f(x) + ih f'(x): with h = 1e-100 the imaginary part is the derivative, without cancellation, through the
reference evaluator (Squire and Trapp, SIAM Review 40, 1998). Each entry's perturbation rides on a lane of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from . import primitives as P
from .arrays import Given, inside
from .backpropagate import adjoint_of, backpropagate, cotangent
from .bind import Bound, bind
from .equations import System
from .evaluate import evaluate
from .graph import Node, node, topological
from .shapes import carry_over
from .tape import Tape
from .trace import inner

if TYPE_CHECKING:
    from .cell import Cell

STEP = 1e-100
TINY = 1e-190
TOLERANCE = 1e-12
LOST = 1e-6  # rounding that costs more than this is an error: the rule loses its digits
ROUNDING = "rounding: it shrinks in longdouble"


@dataclass(frozen=True)
class Slice:
    """One comparison: a parameter's gradient (a layer of it), or one step of an input's, or an initial value's, of one
    example. `at` is where it lies in the gradient's array."""

    name: str
    step: int | None
    error: float
    size: float
    note: str = ""
    at: tuple[int, ...] = ()

    def __str__(self):
        return self.name + (f" at step {self.step}" if self.step is not None else "")


@dataclass
class Report:
    """Every slice's error, the worst first when printed. `ok`: all are within 1e-12."""

    slices: list[Slice] = field(default_factory=list)

    @property
    def worst(self) -> float:
        """The largest error that is not rounding."""
        errors = [s.error for s in self.slices if s.note != ROUNDING]
        return np.inf if any(np.isnan(errors)) else max(errors, default=0.0)

    @property
    def ok(self) -> bool:
        return bool(self.worst <= TOLERANCE)

    @property
    def count(self) -> int:
        return len(self.slices)

    def __str__(self):
        rows: dict[str, list[Slice]] = {}
        for s in self.slices:
            rows.setdefault(s.name, []).append(s)
        width = max((len(name) for name in rows), default=4)
        lines = [f"{'tensor':<{width}}  slices  worst error  at step  largest entry"]
        for name, group in sorted(rows.items(), key=lambda item: -max(s.error for s in item[1])):
            worst = max(group, key=lambda s: s.error)
            step = "" if worst.step is None else str(worst.step)
            lines.append(f"{name:<{width}}  {len(group):>6}  {worst.error:>11.1e}  {step:>7}  "
                         f"{max(s.size for s in group):>13.2e}  {worst.note}".rstrip())
        tiny = sum(s.note == "tiny" for s in self.slices)
        rounding = sum(s.note == ROUNDING for s in self.slices)
        verdict = "all within" if self.ok else "NOT all within"
        lines.append(f"{self.count} slices, {verdict} {TOLERANCE:g}; worst {self.worst:.1e}"
                     + (f"; {rounding} are rounding, and shrink in longdouble" if rounding else "")
                     + (f"; {tiny} below {TINY:g} counted apart" if tiny else ""))
        return "\n".join(lines)

    __repr__ = __str__


def check_gradients(cell: Cell, params: Mapping, cotangents: Mapping | None = None, *, tape: bool | None = None, seed=0,
                    **given) -> Report:
    """Compare the adjoint's gradient, and the tape's where the graph is small, with the complex step.

    Without a loss or cotangents, random cotangents are drawn: at every step, and again at the last step only.
    """
    report = Report()
    loss = given.pop("loss", None)
    if cotangents is None and loss is None and cell.loss is None:
        choices = _draw(cell, params, given, seed)
    else:
        choices = [cotangents]
    for chosen in choices:
        problem = _Problem(cell, params, chosen, loss or cell.loss, given)
        report.slices += problem.compare(problem.by_adjoint, "")
        small = not problem.given.lengths and np.prod([*problem.given.extents.values(), 1]) <= 64
        if tape or (tape is None and small):
            report.slices += problem.compare(problem.by_tape, "tape")
    return report


def _draw(cell, params, given, seed):
    """Cotangents at every step, and at the last step only."""
    bound = bind(cell.system, params, *_inputs(given))
    rng = np.random.default_rng(seed)
    every, last = {}, {}
    for name in cell.outputs:
        system, g = bound.system, bound.given
        shape = tuple(g.extents[i] for i in system.axes[name])
        shape += (g.batch,) if bound.batched and name in system.per_example else ()
        shape += tuple(d if isinstance(d, int) else g.sizes[d] for d in system.shapes[name])
        every[name] = rng.normal(size=shape)
        last[name] = every[name].copy()
        if system.axes[name]:
            last[name][:-1] = 0
    return [every, last] if any((every[n] != last[n]).any() for n in every) else [every]


def _inputs(given):
    options = {k: given.get(k) for k in ("initial", "lengths", "steps", "noise")}
    inputs = {k: v for k, v in given.items() if k not in options}
    return inputs, *options.values()


class _Problem:
    """One scalar function of parameters, inputs and initial values, differentiated entry by entry."""

    def __init__(self, cell, params, cotangents, loss, given):
        bound = bind(cell.system, params, *_inputs(given))
        if bound.given.dtype == np.float32:
            bound = replace(bound, given=in_dtype(bound.given, np.float64))
        self.bound, self.system, self.given = bound, bound.system, bound.given
        self.cotangents, self.loss = cotangents, loss
        self.outputs = tuple(cotangents) if cotangents is not None else (loss,)
        self.exact: dict[str, np.ndarray] = {}
        self.scale: dict[str, np.ndarray] | None = None

    def by_adjoint(self, bound: Bound) -> Mapping[str, np.ndarray]:
        return backpropagate(bound, self.outputs, self.cotangents)[1]

    def by_tape(self, bound: Bound) -> Mapping[str, np.ndarray]:
        return Tape(bound).backward(self.cotangents, loss=self.loss)

    def compare(self, differentiate: Callable[[Bound], Mapping], note: str) -> list[Slice]:
        found = differentiate(self.bound)
        if not self.exact:
            self.exact = self.complex_step(self.given)
        slices = []
        doubtful = False
        for name, exact in self.exact.items():
            if np.shape(found[name]) != exact.shape:
                slices.append(Slice(name, None, np.inf, 0.0, f"shape {np.shape(found[name])}, not {exact.shape}"))
                continue
            for at in self.cut(name, exact):
                x, y = found[name][at], exact[at]
                size = float(np.max(np.abs(y), initial=0))
                error = float(np.max(np.abs(x - y), initial=0))
                tiny = size < TINY and error < TINY
                relative = 0.0 if tiny else error / size if size else np.inf
                doubtful |= not relative <= TOLERANCE
                slices.append(Slice(name, self.step(name, at), relative, size, "tiny" if tiny and size else note, at))
        return self.again(slices, found, differentiate, note) if doubtful else slices

    def cut(self, name, exact):
        """Where a gradient's slices lie: one a step, layer and example, so that none hides beside a larger one."""
        return np.ndindex(exact.shape[:exact.ndim - len(self.system.shapes[name.split("[")[0]])])

    def step(self, name, at) -> int | None:
        axes = self.system.axes[name.split("[")[0]] if "[" not in name else ()
        return next((k + 1 for i, k in zip(axes, at) if i not in self.system.model), None)

    def again(self, slices, found, differentiate, note):
        """Doubtful slices judged by their contributions' size, then by both sides in longdouble."""
        scale = self.magnitudes()
        better = []
        long_found: Any = None
        long_exact: Any = None
        for s in slices:
            if s.error <= TOLERANCE or s.note.startswith("shape"):
                better.append(s)
                continue
            size = max(s.size, float(np.max(scale[s.name][s.at], initial=0)) if s.name in scale else 0.0)
            error = float(np.max(np.abs(found[s.name][s.at] - self.exact[s.name][s.at]))) / size if size else np.inf
            if not error <= TOLERANCE and self.given.dtype != np.longdouble:
                if long_exact is None:
                    bound = replace(self.bound, given=in_dtype(self.bound.given, np.longdouble))
                    long_exact, long_found = self.complex_step(bound.given), differentiate(bound)
                difference = np.abs(long_found[s.name][s.at] - long_exact[s.name][s.at])
                long_error = float(np.max(difference) / max(size, TINY))
                if long_error <= error / 100 and error <= LOST:
                    better.append(replace(s, error=error, note=ROUNDING))
                    continue
            better.append(replace(s, error=error, note=note or "sum of cancelling terms"))
        return better

    def magnitudes(self) -> dict[str, np.ndarray]:
        """Each gradient with the absolute values of its terms in place of the terms."""
        if self.scale is not None:
            return self.scale
        derived = adjoint_of(self.system, self.outputs, self.cotangents is None)
        names = {adj: n for n, adj in derived.names.items() if self.system.roles.get(n) in ("parameter", "input")}
        equations = [replace(eq, value=magnitude(eq.value)) if eq.name in names and not eq.end else eq
                     for eq in derived.system.equations]
        system = System(equations, derived.system.axes, self.system.model, derived.system.declarations)
        seeds = {derived.seeds[n]: cotangent(self.bound, n, v) for n, v in (self.cotangents or {}).items()}
        sizes = carry_over(self.given.sizes, self.system.inferred, system.inferred)
        stores = evaluate(system, replace(self.given, values={**self.given.values, **seeds}, sizes=sizes), names)
        self.scale = {n: inner(system, adj, stores[adj], self.given, self.bound.batched) for adj, n in names.items()}
        return self.scale

    def complex_step(self, given: Given) -> dict[str, np.ndarray]:
        """Im f(x + ih) / h for every entry, many entries at a time."""
        dtype = np.result_type(given.dtype, np.complex64)
        targets: list[tuple[object, tuple[int, ...]]] = []
        shapes: dict[object, tuple[int, ...]] = {}
        ends = {}
        for name in self.system.having("parameter", "input"):
            shapes[name] = given.values[name].shape
        for name, end in self.system.beginnings:
            at = self.system.outside(name, end)
            if any((eq.name, eq.at) == (name, at) for eq in self.system.equations):
                continue
            shape = tuple(given.extents[i] for i in self.system.axes[name] if i != end.index)
            shape += (given.batch,) if name in self.system.per_example else ()
            shape += tuple(d if isinstance(d, int) else given.sizes[d] for d in self.system.shapes[name])
            ends[name, at] = np.broadcast_to(given.ends.get((name, at), np.zeros((), given.dtype)), shape)
            shapes[name, at] = shape
        for key, shape in shapes.items():
            targets += [(key, where) for where in np.ndindex(*shape)]
        weight = sum(int(np.prod(shape)) for shape in shapes.values()) + 1
        steps = int(np.prod([n + 2 for i, n in given.extents.items()], initial=1))
        lanes = max(8, min(1024, int(3e7 // (steps * given.batch * (len(self.system.axes) + 4) + weight))))
        results: dict[object, np.ndarray] = {key: np.zeros(shape, given.dtype) for key, shape in shapes.items()}
        for start in range(0, len(targets), lanes):
            chunk = targets[start:start + lanes]
            derivative = self.lanes(given, dtype, ends, chunk)
            for (key, where), d in zip(chunk, derivative):
                results[key][where] = d
        return {self.label(key): self.unbatched(key, array) for key, array in results.items()}

    def label(self, key) -> str:
        if isinstance(key, str):
            return key
        name, at = key
        return self.system.labels[name, next(p for p in at if p.outside)]

    def unbatched(self, key, array):
        name = key if isinstance(key, str) else key[0]
        if self.bound.batched or name not in self.system.per_example:
            return array
        return array.take(0, axis=len(self.system.axes[name]) - (not isinstance(key, str)))

    def lanes(self, given: Given, dtype, ends, chunk) -> np.ndarray:
        count = len(chunk)
        touched = {key for key, _ in chunk}
        values, borders = {}, {}
        for name, array in given.values.items():
            spread = np.broadcast_to(array, (count, *array.shape))
            values[name] = spread.astype(dtype) if name in touched else spread
        for key, array in {**given.ends, **ends}.items():
            spread = np.broadcast_to(array, (count, *array.shape))
            borders[key] = spread.astype(dtype) if key in touched else spread
        for lane, (key, where) in enumerate(chunk):
            (values[key] if isinstance(key, str) else borders[key])[(lane, *where)] += 1j * STEP
        run = replace(given, values=values, ends=borders, dtype=np.dtype(dtype), lanes=count)
        stores = evaluate(self.system, run, self.outputs)
        total = np.zeros(count, given.dtype)
        for name in self.outputs:
            out = stores[name][(slice(None), *(slice(1, -1),) * len(self.system.axes[name]))].imag
            if self.cotangents is not None:
                mask = inside(self.system.axes[name], len(self.system.shapes[name]), given)
                out = (out if mask is None else np.where(mask, out, 0)) * cotangent(
                    self.bound, name, self.cotangents[name])
            total += out.reshape(count, -1).sum(axis=1)
        return total / STEP


def in_dtype(given: Given, dtype) -> Given:
    """The same run in another precision."""
    cast = lambda v: v if v.dtype.kind in "iu" else v.astype(dtype)
    return replace(given, values={n: cast(v) for n, v in given.values.items()},
                   ends={k: cast(v) for k, v in given.ends.items()}, dtype=np.dtype(dtype))


# Linear in every operand whose values they use; div and where are so beside their divisor and their condition.
LINEAR = (P.add, P.sum, P.like, P.transpose, P.concat, P.split, P.slice, P.unslice, P.cumsum, P.cumsum_right, P.diag,
          P.diagonal)


def magnitude(root: Node) -> Node:
    """An expression with the absolute values of its terms: |a b'| + |c| for a b' - c."""
    size: dict[Node, Node] = {}
    for n in topological([root]):
        if n.op is P.neg:
            size[n] = size[n.args[0]]
        elif n.op in LINEAR:
            size[n] = node(n.op, *(a if k in n.op.shape_only else size[a] for k, a in enumerate(n.args)),
                           params=n.params)
        elif n.op in (P.outer, P.matmul, P.mul):
            size[n] = node(n.op, *(size[a] for a in n.args))
        elif n.op is P.div:
            size[n] = node(P.div, size[n.args[0]], node(P.abs, n.args[1]))
        elif n.op is P.where:
            size[n] = node(P.where, n.args[0], size[n.args[1]], size[n.args[2]])
        else:
            size[n] = node(P.abs, n)
    return size[root]
