"""Cell: the public face. Text in; roles, shapes, runs, gradients, adjoints, printed equations out.

Each method is a line or a few over the files that do the work.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .adjoint import Derived, adjoint, loss_of, outputs_of, tangent
from .bind import Bound, bind
from .elaborate import elaborate
from .equations import System
from .errors import CellError
from .evaluate import evaluate
from .graph import Primitive
from .init import Rule, initialise
from .order import rolled_graph
from .printing.text import equation, system_text
from .shapes import carry_over
from .substitute import substitute
from .trace import Trace, at_end, end_key, inner

if TYPE_CHECKING:
    import networkx

    from .check import Report
    from .tape import Tape


class Cell:
    """A recurrent system, written as a paper prints it.

    text: one equation a line (see docs/notation.md). name: for printing. Cells and primitives of your own that the text
    calls are passed by name. Raises CellError, with the line and a caret, on any text that is not well formed.

    >>> cell = Cell("h[t] = tanh(W @ x[t] + U @ h[t-1] + b)")
    >>> cell.states, cell.inputs, cell.parameters
    (('h',), ('x',), ('W', 'U', 'b'))
    >>> cell.shapes["W"]
    ('h', 'x')
    """

    def __init__(self, text: str, name: str | None = None, **cells_and_primitives: Cell | Primitive):
        cells, leaves = {}, {}
        for key, value in cells_and_primitives.items():
            if isinstance(value, Cell):
                cells[key] = value.system
            elif isinstance(value, Primitive):
                leaves[key] = value
            else:
                raise CellError(f"`{key}` is a {type(value).__name__}, neither a Cell nor a Primitive.",
                                remedy="Pass what the text calls: Cell(text, enc=Cell(...), erf=Primitive(...)).")
        self.text, self.name = text, name
        self._called = cells_and_primitives
        self._rules: dict[str, Rule] = {}
        self._derived: dict[Any, Derived] = {}
        self._shown: frozenset[str] | None = None
        self.system, calls = elaborate(text, cells, leaves)
        for prefix, key in calls.items():  # a called cell brings its own initialisation
            self._rules.update({f"{prefix}_{n}": rule for n, rule in cells_and_primitives[key]._rules.items()})
        assert self.shapes and self.schedule  # contradictions and cycles are found here, not at the first run

    @classmethod
    def _of(cls, system: System, name: str | None, shown: Iterable[str] | None, called: dict) -> Cell:
        cell = cls.__new__(cls)
        cell.text, cell.name, cell.system = system_text(system), name, system
        cell._called = {k: v for k, v in called.items() if isinstance(v, Primitive)}
        cell._rules, cell._derived = {}, {}
        cell._shown = None if shown is None else frozenset(shown)
        return cell

    # --- what was inferred ---------------------------------------------------------------------------------------

    @property
    def equations(self) -> dict[str, str]:
        """Left side -> equation, in the author's order."""
        return {str(eq): equation(eq) for eq in self.system.equations}

    @property
    def inputs(self) -> tuple[str, ...]:
        return self.system.having("input", "class", "noise")

    @property
    def states(self) -> tuple[str, ...]:
        """Names computed here and read at another step."""
        return tuple(n for n in self.system.defined_in_order if n in self.system.delayed)

    @property
    def parameters(self) -> tuple[str, ...]:
        return self.system.having("parameter")

    @property
    def constants(self) -> tuple[str, ...]:
        return self.system.having("const")

    @property
    def intermediates(self) -> tuple[str, ...]:
        return tuple(n for n in self.system.defined_in_order if n not in self.system.delayed)

    @property
    def loss(self) -> str | None:
        """The equation that `gradient` differentiates: the last number without indices that nothing reads."""
        return None if self._shown is not None else loss_of(self.system)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The loss, or where there is none the variables that nothing reads at their own step."""
        if self._shown is not None:
            read = {n.params[0] for n in self.system.reads}
            return tuple(n for n in self.system.defined_in_order if n in self._shown and n not in read)
        return (self.loss,) if self.loss else outputs_of(self.system)

    @property
    def shapes(self) -> dict[str, tuple[str | int, ...]]:
        """Name -> its dimensions, each named by a variable that has it."""
        return {n: self.system.shapes[n] for n in self.system.names}

    @property
    def dims(self) -> dict[str, tuple[str, ...]]:
        """Each size's name -> all names it answers to."""
        sizes = {d: names for d, names in self.system.inferred.aliases.items()}
        return {**sizes, **{i: (i,) for i in self.system.indices if i in self.system.model}}

    @property
    def schedule(self) -> tuple:
        """Operations and loops in order: what lies on a cycle through time stays in a loop."""
        from .evaluate import _plan

        return _plan(self.system, False).order

    @property
    def graph(self) -> networkx.DiGraph:
        """The rolled dependence graph: operations and equations, and uses with their distance along each index.

        Nodes carry op, variable, equation, indices and shape; edges carry distance.
        """
        return rolled_graph(self.system)

    def substitute(self, **changes: str | float) -> Cell:
        """A new cell with definitions or parameters replaced, and constants folded.

        >>> lstm = Cell('''i[t] = sigmoid(W_i @ x[t] + U_i @ c[t-1])
        ... f[t] = sigmoid(W_f @ x[t] + U_f @ c[t-1])
        ... c[t] = f[t] * c[t-1] + i[t] * tanh(W @ x[t])''')
        >>> print(lstm.substitute(f="1 - i[t]"))
        i[t] = sigmoid(W_i @ x[t] + U_i @ c[t-1])
        f[t] = 1 - i[t]
        c[t] = f[t] * c[t-1] + i[t] * tanh(W @ x[t])
        """
        cell = Cell(substitute(self.text, changes), self.name, **self._called)
        cell._rules = self._rules
        return cell

    def initialised(self, **rules: Rule) -> Cell:
        """The same cell, whose `init` fills the named parameters by a number or by `rule(rng, shape)`.

        `default` names the rule of all parameters that are not named.
        """
        cell = Cell(self.text, self.name, **self._called)
        cell._rules = {**self._rules, **rules}
        return cell

    # --- numbers -------------------------------------------------------------------------------------------------

    def init(self, seed=0, dtype=np.float64, **sizes) -> dict[str, np.ndarray]:
        """Parameters by name: uniform within 1/sqrt(fan-in), biases zero, unless the cell has its own rules.

        Sizes are given by the name of any variable that has them; declared constants may be given by name and travel
        in the same dict.

        >>> params = Cell("h[t] = tanh(W @ x[t] + U @ h[t-1] + b)").init(x=3, h=4)
        >>> {name: p.shape for name, p in params.items()}
        {'W': (4, 3), 'U': (4, 4), 'b': (4,)}
        """
        return initialise(self.system, self._rules, seed, dtype, sizes)

    def run(self, params: Mapping, initial: Mapping | None = None, lengths=None, steps: int | None = None, noise=None,
            **inputs) -> Trace:
        """Every named value, through the reference evaluator.

        Inputs are time-major (T, batch, size), or (T, size) without a batch. initial: values just before the first step,
        by name, and "t", the number of steps that came before. lengths: each example's, at most T; padding changes
        nothing. steps: T, where no input tells. noise: a seed or Generator for noise that is not given, or "mean".
        """
        bound = bind(self.system, params, inputs, initial, lengths, steps, noise)
        stores = evaluate(bound.system, bound.given)
        return Trace(bound.system, bound.given, stores, bound.batched)

    def step(self, params: Mapping, state: Mapping | None = None, noise=None, **inputs) -> tuple[dict, dict]:
        """One step with carried state: (every value of the step, the state to hand to the next).

        Inputs are (batch, size) or (size,). `state` is what the previous step gave, None at the start.
        """
        for n in self.system.reads:
            for p in n.params[1]:
                if p.index not in self.system.model and (p.base == "T" or p.offset > 0):
                    raise CellError(f"`{n.params[0]}` is read ahead of its step, at `{p}`: the cell cannot be stepped.",
                                    remedy="Run the whole sequence.")
        data = [i for i in self.system.indices if i not in self.system.model]
        if len(data) != 1:
            raise CellError(f"The cell runs over {len(data)} data indices and cannot be stepped.",
                            remedy="Run the whole sequence.")
        given = {k: np.asarray(v)[None] if self.system.axes.get(k) else v for k, v in inputs.items()}
        trace = self.run(params, initial=state, noise=noise, steps=1, **given)
        values = {n: trace[n][0] if self.system.axes[n][:1] == (data[0],) else trace[n] for n in trace}
        return values, trace.final

    def gradient(self, params: Mapping, loss: str | None = None, cotangents: Mapping | None = None,
                 initial: Mapping | None = None, lengths=None, noise=None, steps: int | None = None, **inputs
                 ) -> tuple[float, dict[str, np.ndarray]]:
        """(value, gradients) of a loss, summed over the batch; or of the inner product of `cotangents` with outputs.

        Gradients are by name: parameters, inputs, initial states ("h[0]"); classes, noise and constants have none.
        A value that is not finite raises CellError naming the first variable, step and equation that is not.

        >>> cell = Cell("h[t] = tanh(w * h[t-1] + x[t])\\nL = sum_t(h[t])\\nx: input()\\nw: ()")
        >>> value, grads = cell.gradient({"w": 0.5}, x=[1.0, 0.0])
        >>> print(round(value, 6), round(float(grads["w"]), 6), grads["x"].round(6))
        1.124994 0.661019 [0.602231 0.867941]
        """
        if cotangents is not None and loss is not None:
            raise CellError("Both a loss and cotangents are given.", remedy="Give one of them.")
        if cotangents is None and loss is None and self.loss is None:
            raise CellError("The cell has no loss equation.", remedy="Add one, like `L = sum_t(sum(h[t]**2))`, or give "
                            f"cotangents={{'{self.outputs[-1]}': array}}.")
        forward = bind(self.system, params, inputs, initial, lengths, steps, noise)
        outputs = tuple(cotangents) if cotangents is not None else (loss or self.loss,)
        derived = self._adjoint(forward.system, outputs, cotangents is None)
        return _gradient(forward, derived, outputs, cotangents)

    def _adjoint(self, system: System, outputs: tuple[str, ...], unit: bool) -> Derived:
        key = (system, outputs, unit)
        if key not in self._derived:
            self._derived[key] = adjoint(system, outputs, unit)
        return self._derived[key]

    def check_gradients(self, params: Mapping, cotangents: Mapping | None = None, **given) -> Report:
        """Gradients against the complex step and the tape: the worst error of every tensor and every time step.

        Takes what `gradient` takes. The report prints as a table; `report.worst` is the largest error, `report.ok`
        whether it is at most 1e-12.
        """
        from .check import check_gradients

        return check_gradients(self, params, cotangents, **given)

    def unroll(self, params: Mapping | int | None = None, initial: Mapping | None = None, steps: int | None = None,
               noise=None, T: int | None = None, **inputs) -> Tape:
        """The tape: `unroll(T=3)` without values, `unroll(params, x=X)` with them; see Tape."""
        from .tape import Tape, symbolic

        if isinstance(params, int) or params is None:
            return symbolic(self.system, T if T is not None else params)
        bound = bind(self.system, params, inputs, initial, None, steps, noise)
        return Tape(bound)

    # --- equations from equations --------------------------------------------------------------------------------

    def backward(self, outputs: Iterable[str] | None = None) -> Cell:
        """Backpropagation through time as equations: a Cell again, whose carries read [t+1].

        `dv` is the adjoint of `v`; what step t sends to `c[t-1]` is the carry `dc_tm1[t]`. outputs: names whose
        cotangents come from outside, as inputs `Delta_h[t]`; by default the loss, or what nothing reads at its step.

        >>> print(Cell("h[t] = tanh(U @ h[t-1] + x[t])").backward())
        dh[t] = Delta_h[t] + dh_tm1[t+1]
        da_h[t] = dh[t] * sech(a_h[t])**2
        dh_tm1[t] = U.T @ da_h[t]
        dU = sum_batch(sum_t(outer(da_h[t], h[t-1])))
        dx[t] = da_h[t]
        dh[0] = dh_tm1[1]
        """
        unit = outputs is None and self.loss is not None
        names = tuple(self.outputs if outputs is None else outputs)
        derived = self._adjoint(self.system, names, unit)
        new = set(derived.system.defined) - {eq.name for eq in derived.forward.equations}
        return Cell._of(derived.system, f"backward of {self.name}" if self.name else None, new, self._called)

    def tangent(self, wrt: Iterable[str] | None = None) -> Cell:
        """Forward mode as equations: `v_dot` of every v that depends on the directions `wrt` (all leaves by default).

        >>> print(Cell("h[t] = tanh(U @ h[t-1] + x[t])").tangent(["x"]))
        a_h_dot[t] = U @ h_dot[t-1] + x_dot[t]
        h_dot[t] = a_h_dot[t] * sech(a_h[t])**2
        """
        derived = tangent(self.system, wrt)
        new = set(derived.system.defined) - {eq.name for eq in derived.forward.equations}
        return Cell._of(derived.system, f"tangent of {self.name}" if self.name else None, new, self._called)

    # --- printed -------------------------------------------------------------------------------------------------

    def __str__(self):
        if self._shown is None:
            return self.text.strip()
        return "\n".join(equation(eq) for eq in self.system.equations if eq.name in self._shown)

    def __repr__(self):
        return f"<Cell {self.name or ''}: {', '.join(self.states) or 'no states'} from {', '.join(self.inputs)}>"

    def __eq__(self, other):
        return isinstance(other, Cell) and self.system == other.system

    def __hash__(self):
        return hash(self.system)

    def __reduce__(self):
        return _rebuilt, (self.text, self.name, self._called, self._rules, self._shown)


def _rebuilt(text, name, called, rules, shown) -> Cell:
    cell = Cell(text, name, **called)
    cell._rules, cell._shown = rules, shown
    return cell


def _gradient(forward: Bound, derived: Derived, outputs, cotangents) -> tuple[float, dict[str, np.ndarray]]:
    given, batched = forward.given, forward.batched
    system, names = derived.system, derived.names
    seeds = {}
    for name, value in (cotangents or {}).items():
        seeds[derived.seeds[name]] = _cotangent(forward, name, value)
    leaves = [n for n in forward.system.having("parameter", "input") if n in names]
    ends = {(n, end): names[n] for n, reached in forward.system.delayed.items() if n in names for end in reached}
    keep = {names[n] for n in leaves} | set(ends.values()) | set(outputs)
    sizes = carry_over(given.sizes, forward.system.inferred, system.inferred)
    full = replace(given, values={**given.values, **seeds}, sizes=sizes)
    stores = evaluate(system, full, keep)
    value = 0.0
    for name in outputs:
        axes = len(system.axes[name])
        out = stores[name][(slice(1, -1),) * axes]
        value = value + (np.sum(out) if cotangents is None else np.sum(out * seeds[derived.seeds[name]]))
    gradients = {}
    for n in forward.system.having("parameter", "input"):
        if n in names:
            gradients[n] = np.array(inner(system, names[n], stores[names[n]], batched))
        else:
            array = given.values[n]
            gradients[n] = np.zeros_like(array if batched or n not in system.per_example else array.take(
                0, axis=len(system.axes[n])))
    for (n, end), adj in ends.items():
        where: int | np.ndarray = 0
        if end.base == "T":
            lengths = given.lengths.get(end.index)
            where = given.extents[end.index] + 1 if lengths is None else lengths + 1
        gradients[end_key(n, end)] = np.array(at_end(system, adj, stores[adj], end.index, where, batched))
    finite = np.isfinite(value) and all(np.isfinite(g).all() for g in gradients.values())
    if not finite:
        _explain(forward, derived, full)
    return value[()] if isinstance(value, np.ndarray) else value, gradients


def _cotangent(forward: Bound, name: str, value) -> np.ndarray:
    """A cotangent has its output's shape."""
    system, given = forward.system, forward.given
    if name not in system.defined:
        raise CellError(f"There is a cotangent for `{name}`, which no equation defines.",
                        remedy="Outputs: " + ", ".join(system.defined_in_order) + ".")
    comps = tuple(d if isinstance(d, int) else given.sizes[d] for d in system.shapes[name])
    lead = tuple(given.extents[i] for i in system.axes[name])
    batch = (given.batch,) if name in system.per_example and forward.batched else ()
    array = np.asarray(value)
    if array.shape != lead + batch + comps:
        raise CellError(f"The cotangent of `{name}` has shape {array.shape}; expected {lead + batch + comps}.",
                        remedy=f"A cotangent has the shape of its output: see trace['{name}'].shape.")
    if array.dtype.kind not in "iufc":
        raise CellError(f"The cotangent of `{name}` has dtype {array.dtype}.", remedy="Give real numbers.")
    if name in system.per_example and not forward.batched:
        array = np.expand_dims(array, len(lead))
    return np.asarray(array, given.dtype)


def _explain(forward: Bound, derived: Derived, given) -> None:
    """Name the first value that is not finite."""
    for system, values, what in ((forward.system, forward.given, "value"), (derived.system, given, "gradient")):
        trace = Trace(system, values, evaluate(system, values), forward.batched)
        found = trace.first_nonfinite()
        if found is None:
            continue
        name, at = found
        where = ", ".join(f"{i} = {k + values.offsets.get(i, 0)}" for i, k in at.items())
        line = next((eq.line for eq in system.equations if eq.name == name and eq.line), None)
        role = forward.system.roles.get(name, what)
        fact = f"`{name}`{f' at {where}' if where else ''} is not finite (its role: {role})."
        remedy = "Look at the data or the parameters given." if name in system.given else (
            "Everything before it is finite: lower the learning rate, clip, or guard the equation.")
        raise line.error(fact, None, remedy) if line else CellError(fact, remedy=remedy)
    raise CellError("The gradient is not finite.", remedy="Its terms overflow when summed: scale the loss down.")


