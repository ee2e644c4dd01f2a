"""The unrolled graph with values, swept backwards: the independent reference for backpropagation through time.

    bound arrays -> unroll -> values instance by instance -> cotangents the same way back -> gradients by name

Each operation's value and cotangents come from its declaration alone; the adjoint's equations are not used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .adjoint import outputs_of
from .arrays import Arrays, Given
from .backpropagate import cotangent, differentiated
from .bind import Bound
from .equations import BATCH, Equation, System, tokens_reduce
from .errors import CellError
from .evaluate import plan
from .gradient import Typing, fit
from .graph import CONST, INDEX, READ, Node, Position, node, option, read
from .parse import Declaration, Line
from .signature import tokens
from .unroll import Unrolled, grid

if TYPE_CHECKING:
    import networkx


class _Kernel:
    """One node's value and cotangents in numbers, from its declaration alone."""

    def __init__(self, tape: Tape, n: Node):
        system, given = tape.system, tape.given
        over: Any = tape.unrolled._over(n)
        self.parts: list = []
        declarations: dict[str, Declaration] = {}
        axes: dict[str, tuple[str, ...]] = {}

        def concrete(of: Node):
            return tuple(d if isinstance(d, int) else given.sizes[d] for d in system.inferred.nodes[of])

        def leaf(name, of: Node, stacked: bool, dims_of: Node):
            sizes = concrete(dims_of)
            kind = "input" if BATCH in system.free(of) else "parameter"
            declarations[name] = Declaration(name, kind, sizes, None, Line("", 0))
            axes[name] = (over,) if stacked else ()
            return read(name, tuple(Position(i) for i in axes[name]))

        operands = []
        for k, a in enumerate(n.args):
            if a.op is CONST:
                operands.append(a)
            else:
                operands.append(leaf(f"x{k}", a, over is not None, n if _fits_anywhere(k, n, system) else a))
        y = node(n.op, *operands, params=n.params)
        keeps = over is not None and not tokens_reduce(n)
        g = leaf("g", n, keeps, n)
        at = tuple(Position(i) for i in ((over,) if keeps else ()))
        forward = System([Equation("y", at, y)], {**axes, "y": tuple(p.index for p in at)}, system.model, declarations)
        sizes = {d: size for d, size in zip(forward.shapes["y"], concrete(n)) if isinstance(d, str)}
        self.run = Arrays(forward, Given({}, sizes, given.extents, given.batch, given.dtype))
        self.constants = {c: np.asarray(c.params[0], self.run.real) for c in plan(forward).constants}
        self.forward = self.steps(forward)
        places = [k for k in range(len(operands)) if k not in n.op.shape_only]
        wide = (..., *(None,) * system.rank(n))
        self.leaves = [(at, operands[k], wide if _fits_anywhere(k, n, system) else ...) for at, k in enumerate(places)
                       if operands[k].op is READ]
        self.y, self.g = y, g
        self.backward = None
        if n.op.vjp is None:
            return
        typing = Typing(forward)
        typing.declare("g", len(system.inferred.nodes[n]), BATCH in system.free(n))
        equations = [Equation("y", at, y)]
        for k, (x, part) in enumerate(zip(operands, n.op.vjp(g, y, *operands))):
            if part is not None and x.op is READ and not _fits_anywhere(k, n, system):
                part = fit(part, x, typing)
                equations.append(Equation(f"d{k}", x.params[1], part))
                axes[f"d{k}"] = tuple(p.index for p in x.params[1])
                self.parts.append((k, x, part))
        back = System(equations, {**axes, "y": tuple(p.index for p in at)}, system.model, declarations)
        sizes = {d: size for d, size in zip(back.shapes["y"], concrete(n)) if isinstance(d, str)}
        self.back_run = Arrays(back, replace(self.run.given, sizes=sizes))
        self.constants.update({c: np.asarray(c.params[0], self.run.real) for c in plan(back).constants})
        self.backward = self.steps(back)

    def bound(self, operands):
        return {x: operands[at][line_up] for at, x, line_up in self.leaves}

    def steps(self, system):
        return [step for step, what in zip(plan(system).steps, plan(system).order)
                if isinstance(what, Node) and what.op is not READ]

    def value(self, operands):
        values = {**self.constants, **self.bound(operands)}
        for step in self.forward:
            step(self.run, values, {})
        return values[self.y]

    def cotangents(self, g, operands):
        values = {**self.constants, **self.bound(operands), self.g: g}
        for step in self.backward or ():
            step(self.back_run, values, {})
        return {k: np.broadcast_to(values[part], values[x].shape) for k, x, part in self.parts}


def _fits_anywhere(k: int, n: Node, system: System) -> bool:
    """Whether operand k is a number where equal shapes are wanted: made of literals, indices and extents alone."""
    return n.op.pointwise and tokens(n)[0][k] == "s" and system.rank(n.args[k]) < system.rank(n)


class Tape:
    """The unrolled graph with values; `backward` sweeps it.

    `tape["h"]` is a variable's value at every step, as in a Trace; `graph` is the NetworkX graph of the instances.
    """

    def __init__(self, bound: Bound, loss: str | None):
        if bound.given.lengths:
            raise CellError("A tape takes examples of one length.", remedy="Unroll each example on its own.")
        for i, count in bound.given.extents.items():
            if not count:
                raise CellError(f"A sequence without positions along `{i}` has nothing to unroll.",
                                remedy="Unroll one with at least one step.")
        self.bound, self.system, self.given, self.loss = bound, bound.system, bound.given, loss
        self.unrolled = Unrolled(self.system, self.given.extents, self.given.ends)
        self._kernels: dict[Node, _Kernel] = {}
        self.values: list[np.ndarray] = []
        with np.errstate(all="ignore"):
            for k in range(len(self.unrolled)):
                self.values.append(self._value(k))

    def __repr__(self):
        return f"<Tape: {len(self.unrolled)} instances>"

    def __reduce__(self):
        return Tape, (self.bound, self.loss)

    @property
    def graph(self) -> networkx.DiGraph:
        return self.unrolled.graph

    def __getitem__(self, name: str) -> np.ndarray:
        return self._collect(name, self.values)

    def _collect(self, name: str, values) -> np.ndarray:
        extents = [self.given.extents[i] for i in self.system.axes[name]]
        rows = [values[self.unrolled.slot(name, where)] for where in grid(extents)]
        array = np.asarray(rows).reshape(*extents, *rows[0].shape)
        batched = self.bound.batched or name not in self.system.per_example
        return array if batched else array.take(0, axis=len(extents))

    def _kernel(self, n: Node) -> _Kernel:
        if n not in self._kernels:
            self._kernels[n] = _Kernel(self, n)
        return self._kernels[n]

    def _shape(self, name) -> tuple[int, ...]:
        comps = tuple(d if isinstance(d, int) else self.given.sizes[d] for d in self.system.shapes[name])
        return ((self.given.batch,) if name in self.system.per_example else ()) + comps

    def _value(self, k: int) -> np.ndarray:
        u = self.unrolled
        kind, of, where = u.kind[k], u.of[k], u.at[k]
        operands = [self.values[a] for a in u.args[k]]
        if kind == "leaf":
            return self._leaf(of, where)
        if kind == "var":
            name = of if isinstance(of, str) else of[0]
            eq = u._equation(of)
            x = operands[0]
            rank = len(self.system.shapes[name])
            if x.ndim and self.system.rank(eq.value) < rank:
                x = x[..., *(None,) * rank]
            return np.broadcast_to(x, self._shape(name)).astype(self.given.dtype)
        if kind == "stack":
            rows = [np.asarray(x) for x in operands]
            if option(of) not in self.system.model and BATCH not in self.system.free(of.args[0]):
                rows = [np.broadcast_to(x, (self.given.batch, *x.shape)) for x in rows]  # a data index brings the batch
            return np.stack(rows)
        if kind == "pick":
            return operands[0][where[u.axes(of).index(option(of))] - 1]
        return self._kernel(of).value(operands)

    def _leaf(self, of, where) -> np.ndarray:
        given = self.given
        real = np.zeros((), given.dtype).real.dtype
        if isinstance(of, Node):
            if of.op is CONST:
                return np.asarray(of.params[0], real)
            i = of.params[0]
            if of.op is INDEX:
                value = np.asarray(where[0] + given.offsets.get(i, 0), real)
                return value if i in self.system.model else np.broadcast_to(value, (given.batch,))
            extent = np.asarray(given.extents[i], real)
            return extent if i in self.system.model else np.broadcast_to(extent, (given.batch,))
        name, end = (of, None) if isinstance(of, str) else of
        is_class = self.system.roles[name] == "class"
        if isinstance(of, str):
            array = given.values[name][tuple(k - 1 for k in where)]
            return array if is_class else np.asarray(array, given.dtype)
        if (name, end) in given.ends:
            array = given.ends[name, end][tuple(k - 1 for k in where)]
            return array if is_class else np.asarray(array, given.dtype)
        return np.full(self._shape(name), -1, np.int64) if is_class else np.zeros(self._shape(name), given.dtype)

    def backward(self, cotangents: Mapping | None = None, loss: str | None = None) -> Gradients:
        """Gradients by name, as `Cell.gradient` gives them; `.steps(name)` is each step's contribution."""
        names = differentiated(self.system, self.loss, outputs_of(self.system), loss, cotangents)
        return Gradients(self, {n: np.ones(self._shape(n), self.given.dtype) if cotangents is None else cotangent(
            self.bound, n, cotangents[n]) for n in names})


class Gradients(Mapping):
    """Gradients of a tape, by name, and what each step contributes to them."""

    def __init__(self, tape: Tape, cotangents: dict):
        self.tape, self.cotangents = tape, cotangents
        self._leaves = self._sweep(None)
        self._found = self._gather()

    def _sweep(self, watched: str | None):
        """Reverse order over the list; cotangents of leaves, or of one parameter step by step."""
        tape, u = self.tape, self.tape.unrolled
        waiting: list[np.ndarray | None] = [None] * len(u)
        for name, value in self.cotangents.items():
            for where in grid([tape.given.extents[i] for i in tape.system.axes[name]]):
                k = u.slot(name, where)
                part = value[tuple(i - 1 for i in where)]
                waiting[k] = part if waiting[k] is None else waiting[k] + part
        leaves: dict = {}
        steps: dict[int, np.ndarray] = {}
        with np.errstate(all="ignore"):
            for k in range(len(u) - 1, -1, -1):
                g = waiting[k]
                if g is None:
                    continue
                waiting[k] = None
                if isinstance(u.of[k], tuple) or (u.kind[k] == "leaf" and isinstance(u.of[k], str)):
                    leaves[u.of[k], u.at[k]] = g  # what is given, or lies outside, given or defined
                if u.kind[k] == "leaf":
                    continue
                for a, part in self._parts(k, g):
                    if watched is not None and u.kind[a] == "leaf" and u.of[a] == watched:
                        time = u._time(u._varies(u.kind[k], u.of[k]), u.at[k]) if isinstance(u.of[k], Node) else None
                        step = steps.setdefault(time or 0, np.zeros(self[watched].shape, tape.given.dtype))
                        step[tuple(i - 1 for i in u.at[a])] += part
                    waiting[a] = part if waiting[a] is None else waiting[a] + part
        return leaves if watched is None else steps

    def _parts(self, k: int, g: np.ndarray):
        """The cotangents that one instance sends to its operands."""
        tape, u = self.tape, self.tape.unrolled
        kind, of, args = u.kind[k], u.of[k], u.args[k]
        if kind == "var":
            (a,) = args
            yield a, _summed(g, tape.values[a].shape, tape.system.rank(u._equation(of).value))
        elif kind == "stack":
            for position, a in enumerate(args):
                yield a, _summed(g[position], tape.values[a].shape, None)
        elif kind == "pick":
            whole = np.zeros_like(tape.values[args[0]], dtype=g.dtype)
            whole[u.at[k][u.axes(of).index(option(of))] - 1] = g
            yield args[0], whole
        else:
            kernel = tape._kernel(of)
            values = [tape.values[a] for a in args]
            parts = kernel.cotangents(g, values) if kernel.backward is not None else {}
            at = [j for j, x in enumerate(of.args) if j not in of.op.shape_only]
            for position, a in zip(at, args):
                if position in parts:
                    yield a, parts[position]

    def _gather(self) -> dict[str, np.ndarray]:
        tape = self.tape
        system, given = tape.system, tape.given
        found: dict[str, np.ndarray] = {}
        for name in system.having("parameter", "input"):
            extents = tuple(given.extents[i] for i in system.axes[name])
            array = np.zeros(extents + tape._shape(name), given.dtype)
            for (of, where), g in self._leaves.items():
                if of == name:
                    array[tuple(k - 1 for k in where)] += g
            found[name] = array if tape.bound.batched or name not in system.per_example else array.take(
                0, axis=len(extents))
        for name, end in system.beginnings:
            extents = tuple(given.extents[i] for i in system.axes[name] if i != end.index)
            array = np.zeros(extents + tape._shape(name), given.dtype)
            for (of, where), g in self._leaves.items():
                if of == (name, system.outside(name, end)):
                    array[tuple(k - 1 for k in where)] += g
            found[system.labels[name, end]] = array if tape.bound.batched else array.take(
                0, axis=len(extents))
        return found | tape.bound.unread

    def steps(self, name: str) -> np.ndarray:
        """(T, *shape): what each step adds to a parameter's gradient; they sum to it."""
        if self.tape.system.roles.get(name) != "parameter":
            raise CellError(f"`{name}` is no parameter.", remedy="Parameters: " + ", ".join(
                self.tape.system.having("parameter")) + ".")
        steps = self._sweep(name)
        data = [i for i in self.tape.system.indices if i not in self.tape.system.model]
        count = max((self.tape.given.extents[i] for i in data), default=1)
        array = np.zeros((count, *self[name].shape), self.tape.given.dtype)
        for time, part in steps.items():
            array[max(time - 1, 0)] += part
        return array

    def __getitem__(self, name: str) -> np.ndarray:
        return self._found[name]

    def __iter__(self):
        return iter(self._found)

    def __len__(self):
        return len(self._found)


def _summed(g: np.ndarray, shape: tuple[int, ...], rank: int | None) -> np.ndarray:
    """The cotangent of what was spread to g's shape."""
    if rank is not None and g.ndim - rank > len(shape) - rank and rank == 0 and g.ndim > 1:
        g = g.sum(axis=tuple(range(1, g.ndim)))
    while g.ndim > len(shape):
        g = g.sum(axis=0)
    return g


