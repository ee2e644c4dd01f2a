"""Gradients that are right: the complex step against the adjoint and the tape, per tensor and per time step.

f(x + ih) = f(x) + ih f'(x): with h = 1e-100 the imaginary part is the derivative, without cancellation, through the
reference evaluator (Squire and Trapp, SIAM Review 40, 1998). Each entry's perturbation rides on a lane of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from . import primitives as P
from .adjoint import Derived
from .arrays import Given, inside
from .backpropagate import adjoint_of, backpropagate, cotangent, differentiated, gathered
from .bind import Bound, bind
from .equations import System
from .evaluate import evaluate
from .graph import READ, Node, node, topological
from .shapes import carry_over
from .tape import Tape
from .trace import at_end

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
        differentiated(cell.system, cell.loss, cell.outputs, loss, cotangents)
        choices = [cotangents]
    for chosen in choices:
        problem = _Problem(cell, params, chosen, loss or cell.loss, given)
        report.slices += problem.compare(problem.by_adjoint, "")
        small = not problem.given.lengths and 1 <= np.prod([*problem.given.extents.values(), 1]) <= 64
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
        return Tape(bound, self.loss).backward(self.cotangents)

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
        """Doubtful slices once more: rounding shrinks at least a hundredfold in longdouble, a fault does not."""
        scale, unit = self.magnitudes(), np.finfo(self.given.dtype).eps
        finer = np.finfo(np.longdouble).eps < unit
        if finer:
            bound = replace(self.bound, given=in_dtype(self.bound.given, np.longdouble))
            long_exact, long_found = self.complex_step(bound.given), differentiate(bound)
        better = []
        for s in slices:
            if s.error <= TOLERANCE or s.note.startswith("shape"):
                better.append(s)
                continue
            terms = float(np.max(scale[s.name][s.at], initial=0))
            size = max(s.size, terms if np.isfinite(terms) else 0.0)
            difference = float(np.max(np.abs(found[s.name][s.at] - self.exact[s.name][s.at])))
            error = difference / size if size else np.inf
            shrinks = error <= TOLERANCE
            if finer:  # to a hundredth, or to that of what one operation on the terms may lose
                left = float(np.max(np.abs(long_found[s.name][s.at] - long_exact[s.name][s.at])))
                shrinks = error <= LOST and left <= max(difference, unit * size) / 100
            better.append(replace(s, note=note) if not shrinks else replace(
                s, error=error, note=(note or "sum of cancelling terms") if error <= TOLERANCE else ROUNDING))
        return better

    def magnitudes(self) -> dict[str, np.ndarray]:
        """Each gradient with the absolute values of all that adds up to it, along every path, in its place."""
        if self.scale is None:
            derived = adjoint_of(self.system, self.outputs, self.cotangents is None)
            seeds = {n: cotangent(self.bound, n, v) for n, v in (self.cotangents or {}).items()}
            sizes = carry_over(self.given.sizes, self.system.inferred, derived.forward.inferred)
            given = replace(in_dtype(self.given, np.float64), sizes=sizes)
            self.scale = gathered(self.bound, derived, path_sums(derived, given, seeds))
        return self.scale

    def complex_step(self, given: Given) -> dict[str, np.ndarray]:
        """Im f(x + ih) / h for every entry, many entries at a time."""
        dtype = np.result_type(given.dtype, np.complex64)
        shapes: dict[object, tuple[int, ...]] = {}
        ends = {}
        for name in self.system.having("parameter", "input"):
            shapes[name] = given.values[name].shape
        stores = evaluate(self.system, given, {name for name, _ in self.system.beginnings})
        for name, end in self.system.beginnings:  # what the text defines there is moved too, by way of what reads it
            at, last = self.system.outside(name, end), given.lengths.get(end.index, given.extents[end.index])
            where = 0 if end.base == "1" else last + 1
            ends[name, at] = at_end(self.system, name, stores[name], end.index, where, batched=True)
            shapes[name, at] = ends[name, at].shape
        weight = sum(int(np.prod(shape)) for shape in shapes.values()) + 1
        steps = int(np.prod([n + 2 for i, n in given.extents.items()], initial=1))
        lanes = max(8, min(1024, int(3e7 // (steps * given.batch * (len(self.system.axes) + 4) + weight))))
        results: dict[object, np.ndarray] = {key: np.zeros(shape, given.dtype) for key, shape in shapes.items()}
        defined = {(eq.name, eq.at) for eq in self.system.equations}
        groups: dict[frozenset, list[tuple[object, tuple[int, ...]]]] = {}  # each end that is defined is one
        for key, shape in shapes.items():
            groups.setdefault(frozenset({key} & defined), []).extend((key, at) for at in np.ndindex(*shape))
        for overridden, targets in groups.items():
            system = self.system.without_ends(overridden)
            for start in range(0, len(targets), lanes):
                chunk = targets[start:start + lanes]
                derivative = self.lanes(system, given, dtype, ends, chunk)
                for (key, place), d in zip(chunk, derivative):
                    results[key][place] = d
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

    def lanes(self, system: System, given: Given, dtype, ends, chunk) -> np.ndarray:
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
        sizes = carry_over(given.sizes, self.system.inferred, system.inferred)
        run = replace(given, values=values, ends=borders, dtype=np.dtype(dtype), lanes=count, sizes=sizes)
        stores = evaluate(system, run, self.outputs)
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


def magnitude(root: Node, moving: Collection[str] | None = None) -> Node:
    """An expression with the absolute values of its terms: |a b'| + |c| for a b' - c.

    moving: names that the expression is linear in; what reads none of them is a factor, whose own terms do not count.
    """
    size: dict[Node, Node] = {}
    whole: set[Node] = set()
    for n in topological([root]):
        reads = n.op is READ and (moving is None or n.params[0] in moving)
        if moving is not None and not reads and all(a in whole for a in n.args):
            whole.add(n)
            size[n] = node(P.abs, n)
        elif n.op is P.neg:
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


def path_sums(derived: Derived, given: Given, seeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The sum over all paths of |the product of their local derivatives| for every adjoint: bordered arrays by name.

    It is what a gradient would be if nothing in it cancelled, so rounding is judged by it.
    """
    forward = set(derived.forward.equations)
    moving = {eq.name for eq in derived.system.equations if eq not in forward} | set(derived.seeds.values())
    equations = [eq if eq in forward else replace(eq, value=magnitude(eq.value, moving))
                 for eq in derived.system.equations]
    system = System(equations, derived.system.axes, derived.system.model, derived.system.declarations)
    values = {**given.values, **{derived.seeds[n]: np.abs(value) for n, value in seeds.items() if derived.seeds}}
    sizes = carry_over(given.sizes, derived.forward.inferred, system.inferred)
    return evaluate(system, replace(given, values=values, sizes=sizes), moving - set(derived.seeds.values()))
