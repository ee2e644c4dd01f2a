"""Cell: the public face. Text in; roles, shapes, runs, gradients, adjoints, printed equations out.

Each method is a line or a few over the files that do the work.
"""

from __future__ import annotations

import copyreg
import inspect
import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING

import numpy as np

from .adjoint import loss_of, outputs_of, tangent
from .backpropagate import adjoint_of, differentiate
from .bind import bind
from .check import Report, check_gradients
from .compile.program import Program, fastest
from .derivation import Derivation
from .derivation.grade import Grade, grade
from .elaborate import elaborate
from .equations import Equation, System
from .errors import CellError
from .evaluate import evaluate, plan
from .graph import Primitive
from .init import Rule, biases, initialise
from .order import rolled_graph
from .parse import Declaration
from .primitives import PRIMITIVES
from .printing.latex import latex
from .printing.mathml import html, mathml
from .printing.symbolic import sympy_equations
from .printing.text import equation, system_text
from .substitute import substitute
from .tape import Tape
from .trace import Trace
from .unroll import Unrolled, symbolic
from .untargeted import untargeted

if TYPE_CHECKING:
    import networkx


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
        cells: dict[str, Cell] = {k: v for k, v in cells_and_primitives.items() if isinstance(v, Cell)}
        leaves = {k: v for k, v in cells_and_primitives.items() if isinstance(v, Primitive)}
        for key, value in cells_and_primitives.items():
            if key not in cells and key not in leaves:
                raise CellError(f"`{key}` is a {type(value).__name__}, neither a Cell nor a Primitive.",
                                remedy="Pass what the text calls: Cell(text, enc=Cell(...), erf=Primitive(...)).")
        self._called = cells_and_primitives
        self._rules: dict[str, Rule] = {}
        self._shown: frozenset[str] | None = None
        system, calls = elaborate(text, {k: c.system for k, c in cells.items()}, leaves)
        self.system: System = system
        self.text, self.name = inspect.cleandoc(re.sub(r"\A(?:[ \t]*\n)+", "\n", text)), name
        for prefix, key in calls.items():  # a called cell brings its own initialisation
            callee = cells[key]
            weights = {*callee.parameters} - biases(callee.system) if "default" in callee._rules else ()
            rules = dict(callee._rules)
            for n in weights:
                rules.setdefault(n, callee._rules["default"])
            self._rules.update({f"{prefix}_{n}": rule for n, rule in rules.items()})
        plan(self.system)  # contradictions of shapes and cycles are found here, not at the first run

    @classmethod
    def _of(cls, system: System, name: str | None, shown: Iterable[str] | None, called: dict) -> Cell:
        cell = cls.__new__(cls)
        cell.text, cell.name, cell.system = system_text(system), name, system
        cell._called = {k: v for k, v in called.items() if isinstance(v, Primitive)}
        cell._rules = {}
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
            unread = tuple(n for n in self.system.defined_in_order if n in self._shown and n not in read)
            return unread or tuple(n for n in outputs_of(self.system) if n in self._shown)
        return (self.loss,) if self.loss else outputs_of(self.system)

    @property
    def shapes(self) -> dict[str, tuple[str | int, ...]]:
        """Name -> its dimensions, each named by a variable that has it."""
        return {n: self.system.shapes[n] for n in self.system.names}

    @property
    def dims(self) -> dict[str, tuple[str, ...]]:
        """Each size's name -> all names it answers to."""
        return {**self.system.inferred.aliases, **{i: (i,) for i in self.system.indices if i in self.system.model}}

    @property
    def schedule(self) -> tuple:
        """Operations and loops in order: what lies on a cycle through time stays in a loop."""
        return plan(self.system).order

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
        try:
            text = substitute(self.text, changes)
        except RecursionError:
            raise CellError("An equation is too long to put anything in its place.",
                            remedy="Name a part of it in a line of its own.") from None
        return _rebuilt(text, self.name, self._called, self._rules, self._shown)

    def initialised(self, **rules: Rule) -> Cell:
        """The same cell, whose `init` fills the named parameters or constants by a number or by `rule(rng, shape)`.

        `default` names the rule of all parameters that are neither named nor biases. The rules belong to this object;
        the text has none, so `Cell(str(cell))` and a cell that `learn.load` reads from a file have the usual ones.

        >>> Cell("h[t] = tanh(W @ x[t] + U @ h[t-1] + b)").initialised(b=1.0).init(x=1, h=2)["b"]
        array([1., 1.])
        """
        names = self.parameters + self.system.having("const")
        for name, rule in rules.items():
            if name != "default" and name not in names:
                near = get_close_matches(name, names, 1)
                raise CellError(f"`{name}` is no parameter of this cell.", remedy=(
                    f"Did you mean `{near[0]}`? " if near else "") + "Parameters: " + ", ".join(names) + ".")
            if not callable(rule) and not (np.ndim(rule) == 0 and np.asarray(rule).dtype.kind in "biuf"):
                raise CellError(f"The rule for `{name}` is neither a number nor a function.",
                                remedy="Give a number, or a function of (rng, shape).")
        return _rebuilt(self.text, self.name, self._called, {**self._rules, **rules}, self._shown)

    # --- numbers -------------------------------------------------------------------------------------------------

    def init(self, seed=0, dtype=np.float64, **sizes) -> dict[str, np.ndarray]:
        """Parameters by name: uniform within 1/sqrt(fan-in), biases zero, unless the cell has its own rules.

        Sizes are given by the name of any variable that has them; declared constants may be given by name, or have a
        rule of their own, and travel in the same dict.

        >>> params = Cell("h[t] = tanh(W @ x[t] + U @ h[t-1] + b)").init(x=3, h=4)
        >>> {name: p.shape for name, p in params.items()}
        {'W': (4, 3), 'U': (4, 4), 'b': (4,)}
        """
        return initialise(self.system, self._rules, seed, dtype, sizes)

    def run(self, params: Mapping, initial: Mapping | None = None, lengths=None, steps: int | None = None, noise=None,
            **inputs) -> Trace:
        """Every named value, through the reference evaluator.

        Inputs are time-major (T, batch, size), or (T, size) without a batch. initial: values just before the first
        step, by name, and "t", the number of steps that came before. lengths: each example's, at most T; padding
        changes nothing. steps: T, where no input tells. noise: a seed or Generator for noise not given, or "mean".

        An input that leads to nothing but the loss, a target, may be left out: so is the loss then, and all on the way
        to it; reading those from the trace raises CellError.

        >>> cell = Cell("y[t] = W @ x[t]\\nL = sum_t(cross_entropy(y[t], k[t]))")
        >>> cell.run({"W": np.eye(2)}, x=[[1.0, 2.0]])["y"]
        array([[1., 2.]])
        """
        system, left_out = self._without_targets(params, inputs)
        if left_out:
            params, inputs = ({n: v for n, v in given.items() if n in system.given or n not in self.system.given}
                              for given in (params, inputs))
            unread = {*self.system.initials} - {*system.initials}
            initial = {n: v for n, v in initial.items() if n not in unread} if isinstance(initial, Mapping) else initial
        bound = bind(system, params, inputs, initial, lengths, steps, noise)
        stores = evaluate(bound.system, bound.given)
        return Trace(bound.system, bound.given, stores, bound.batched, left_out)

    def _without_targets(self, params, inputs) -> tuple[System, dict[str, str]]:
        """The system that a run with these arrays takes, and what it leaves out."""
        if not isinstance(params, Mapping) or any(n not in self.system.given for n in inputs):
            return self.system, {}  # `bind` says what is wrong, and what a misspelt name may have stood for
        missing = [n for n in self.system.having("input", "class") if n not in inputs and n not in params]
        return untargeted(self.system, self.loss, missing) if missing else (self.system, {})

    def step(self, params: Mapping, state: Mapping | None = None, noise=None, **inputs) -> tuple[dict, dict]:
        """One step with carried state: (every value of the step, the state to hand to the next).

        Inputs are (batch, size) or (size,); targets may be left out, as in `run`. `state` is what the previous step
        gave, None at the start. A cell that reads ahead of its step, or runs over two data indices (time and source
        positions, say), cannot be stepped.
        """
        system, _ = self._without_targets(params, inputs)
        for n in system.reads:
            for p in n.params[1]:
                if p.index not in system.model and (p.base == "T" or p.offset > 0):
                    raise CellError(f"`{n.params[0]}` is read ahead of its step, at `{p}`: the cell cannot be stepped.",
                                    remedy="Run the whole sequence.")
        data = [i for i in system.indices if i not in system.model]
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
        return self._gradient(params, loss, cotangents, initial, lengths, noise, steps, inputs)[:2]

    def gradient_and_final(self, params: Mapping, loss: str | None = None, cotangents: Mapping | None = None,
                           initial: Mapping | None = None, lengths=None, noise=None, steps: int | None = None, **inputs
                           ) -> tuple[float, dict[str, np.ndarray], dict[str, np.ndarray | int]]:
        """(value, gradients, final): what `gradient` gives, and the state to hand on as `initial`.

        One forward pass serves both, so that truncated BPTT costs no second one; `final` is that of `run`'s trace.

        >>> cell = Cell("h[t] = tanh(w * h[t-1] + x[t])\\nL = sum_t(h[t])\\nx: input()\\nw: ()")
        >>> value, grads, final = cell.gradient_and_final({"w": 0.5}, x=[1.0, 0.0])
        >>> float(final["h"].round(6)), final["t"]
        (0.363399, 2)
        """
        value, gradients, trace = self._gradient(params, loss, cotangents, initial, lengths, noise, steps, inputs)
        return value, gradients, trace.final

    def _gradient(self, params, loss, cotangents, initial, lengths, noise, steps, inputs) -> tuple[float, dict, Trace]:
        return differentiate(self.system, self.loss, self.outputs, params, loss, cotangents, inputs, initial, lengths,
                             steps, noise, fastest)

    def check_gradients(self, params: Mapping, cotangents: Mapping | None = None, **given) -> Report:
        """Gradients against the complex step and the tape: the worst error of every tensor and every time step.

        Takes what `gradient` takes. The report prints as a table; `report.worst` is the largest error, `report.ok`
        whether it is at most 1e-12.
        """
        return check_gradients(self, params, cotangents, **given)

    def unroll(self, params: Mapping | None = None, initial: Mapping | None = None, steps: int | None = None,
               noise=None, **inputs) -> Tape | Unrolled:
        """The unrolled graph: `unroll(params, x=X)` with values, which `.backward()` sweeps; `unroll(T=3)` without.

        >>> cell = Cell("h[t] = tanh(u * h[t-1] + x[t])\\nL = sum_t(h[t])\\nx: input()\\nu: ()")
        >>> cell.unroll(T=3).graph.number_of_nodes()
        20
        >>> tape = cell.unroll({"u": 0.5}, x=[1.0, 0.0, 0.0])
        >>> tape.backward().steps("u").round(6)  # what each step adds to dL/du
        array([0.      , 0.980852, 0.351661])
        """
        if params is None:
            return symbolic(self.system, {name.lower(): count for name, count in inputs.items()})
        return Tape(bind(self.system, params, inputs, initial, None, steps, noise), self.loss)

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
        unit, names = self._ends(outputs)
        derived = adjoint_of(self.system, names, unit)
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

    def _ends(self, outputs: Iterable[str] | None) -> tuple[bool, tuple[str, ...]]:
        """Whether a loss is differentiated, and the names that cotangents start from."""
        names = tuple(self.outputs if outputs is None else (outputs,) if isinstance(outputs, str) else outputs)
        for name in names:
            if not isinstance(name, str) or name not in self.system.defined:
                raise CellError(f"There is no output `{name}`: no equation defines it.",
                                remedy="Outputs: " + ", ".join(self.system.written) + ".")
        return outputs is None and self.loss is not None, names

    def derivation(self, outputs: Iterable[str] | None = None) -> Derivation:
        """Backpropagation through time, derived: every step with its rule, printed and proved.

        What `backward` gives, with the record of how it came about: `.steps`, `.latex()`, `.text()`, `.html()`,
        `.sympy()`, and `.check()`, which proves every step. Its size is that of the cell, whatever T.

        >>> derivation = Cell("h[t] = tanh(U @ h[t-1] + x[t])").derivation()
        >>> print(derivation.text("dh"))
        dh[t] = Δ_h[t] + dh[t]⟨t+1⟩                                                  the sum of its uses
              = Δ_h[t] + Uᵀ da_h[t+1]                                          what arrives, written out
        dh[0] = dh[0]⟨1⟩                                                             the sum of its uses
              = Uᵀ da_h[1]                                                     what arrives, written out
        <BLANKLINE>
        >>> derivation.check().ok
        True
        """
        unit, names = self._ends(outputs)
        return Derivation(adjoint_of(self.system, names, unit), names, self.name)

    def grade(self, text: str, outputs: Iterable[str] | None = None) -> Grade:
        """A student's backward equations, in the notation of `backward`, each judged in any algebraically equal form.

        Every line is judged with the true values of the names on its right; sums over the batch may be left out. The
        result prints as a table; `.ok`, `.lines` and `.missing` say the same.

        >>> print(Cell("h[t] = tanh(U @ h[t-1] + x[t])").grade('''
        ... dh[t] = Delta_h[t] + U.T @ da_h[t+1]
        ... da_h[t] = dh[t] * (1 - h[t]) * (1 + h[t])
        ... dU = sum_t(outer(h[t-1], da_h[t]))'''))
           2  right       dh[t] = Delta_h[t] + U.T @ da_h[t+1]
           3  right       da_h[t] = dh[t] * (1 - h[t]) * (1 + h[t])
           4  transpose   dU = sum_t(outer(h[t-1], da_h[t]))
                          `outer(h[t-1], da_h[t])` should be `outer(da_h[t], h[t-1])`
                          for instance dU, component 1,2, is 0.5617 by this line and -0.8267 in truth
              not given   dx[t], dh[0]
              in all      2 of 3 lines right
        """
        return grade(self.derivation(outputs), text)

    def compile(self, outputs: Iterable[str] | None = None, backend: str = "auto", threads: int | None = None,
                memory: str | int | None = None) -> Program:
        """The cell and its adjoint as a program, made once: machine code for this processor, or NumPy.

        `program.gradient` and `program.forward` take what `gradient` and `run` take and give the same numbers;
        `program.source` is the NumPy text, `program.save(path)` a file that needs only NumPy, `program.report()` says
        what stayed in a loop. outputs: names whose cotangents will be given; by default the loss, or the cell's
        outputs. backend: "llvm", machine code (the extra `fast`); "numpy"; "auto", the first that is there. threads:
        how many the examples are shared among; by default as many as there are processors. memory: what a gradient
        may take beside the arrays given and handed out, like "64MB"; it then goes over the sequence in stretches, at
        the price of computing most of it twice, or over some examples at a time where a cell allows no stretches.
        Neither batch, length nor sizes change a program, and neither threads nor stretches a bit of what it gives.

        >>> program = Cell("h[t] = tanh(w * h[t-1] + x[t])\\nL = sum_t(h[t])\\nx: input()\\nw: ()").compile()
        >>> value, grads = program.gradient({"w": 0.5}, x=[1.0, 0.0])
        >>> print(round(value, 6), round(float(grads["w"]), 6))
        1.124994 0.661019
        """
        unit, names = self._ends(outputs)
        return Program(self.system, names[0] if unit else None, names, self.name, backend, threads, memory)

    # --- printed -------------------------------------------------------------------------------------------------

    def __str__(self):
        if self._shown is None:
            return self.text.strip()
        return "\n".join(equation(eq) for eq in self.system.equations if eq.name in self._shown)

    def sympy(self, form: str = "matrix") -> dict:
        """Every equation as a sympy.Eq: by name, in the author's order; an end goes by its position, "h[0]".

        form: "matrix" for reading: whole vectors, terms in the author's order where printed with order="none".
        "elementwise": components, sums over them written out, for SymPy to differentiate. "scalar": every size 1, one
        example; what adds up sizes (concat, slice) stays an undefined function. Reads are Symbols named as the text
        writes them, `h_{t-1}`; where a sum binds their index, and component by component, Indexed: h[t].

        >>> cell = Cell("h[t] = tanh(W @ x[t] + z[t] * h[t-1] + b)")
        >>> print(cell.sympy()["h"].rhs)
        tanh(b + W x_{t} + z_{t} ⊙ h_{t-1})
        >>> import sympy
        >>> print(cell.sympy("scalar")["h"].rhs.diff(sympy.Symbol("x_{t}")))
        W*(1 - tanh(W*x_{t} + b + h_{t-1}*z_{t})**2)
        """
        return sympy_equations(self.system, form)

    def latex(self, *names: str) -> str:
        """The equations `str` shows, or those of the names given, as an align* environment in the author's order.

        >>> print(Cell("h[t] = tanh(W @ x[t] + z[t] * h[t-1])").latex("h"))
        \\begin{align*}
        h_{t} &= \\tanh(W x_{t} + z_{t} \\odot h_{t-1})
        \\end{align*}
        """
        return latex(self.system, self._printed(names))

    def mathml(self, *names: str) -> str:
        """The same equations as MathML, for web pages. Needs the extra `html`."""
        return mathml(self.system, self._printed(names))

    def _repr_html_(self) -> str:
        return html(self.system, self._printed(), self.name)

    def _repr_latex_(self) -> str:
        return self.latex()

    def _printed(self, names: tuple[str, ...] = ()) -> tuple[Equation, ...]:
        """The equations of `names`; by default all of a written cell, the new ones of a derived one."""
        for name in names:
            if name not in self.system.definitions:
                raise CellError(f"No equation defines `{name}`.",
                                remedy="Defined: " + ", ".join(self.system.definitions) + ".")
        shown = names or self._shown
        return tuple(eq for eq in self.system.equations if shown is None or eq.name in shown)

    def __repr__(self):
        name = f" {self.name}" if self.name else ""
        return f"<Cell{name}: {', '.join(self.states) or 'no states'} from {', '.join(self.inputs) or 'no inputs'}>"

    def __eq__(self, other):
        return isinstance(other, Cell) and self.system == other.system

    def __hash__(self):
        return hash(self.system)

    def __reduce__(self):
        return _rebuilt, (self.text, self.name, self._called, self._rules, self._shown)


def _reduced(system: System):
    """A system pickles as its text, with the primitives that are not the library's own."""
    leaves = {n.op.name: n.op for n in system.nodes if n.args and PRIMITIVES.get(n.op.name) is not n.op}
    return _parsed, (system_text(system), leaves, system.declarations)


def _parsed(text: str, leaves: dict[str, Primitive], declarations: dict[str, Declaration]) -> System:
    system = elaborate(text, {}, leaves)[0]
    return System(system.equations, system.axes, system.model, declarations)  # some shapes no text can say


copyreg.pickle(System, _reduced)


def _rebuilt(text, name, called, rules, shown) -> Cell:
    cell = Cell(text, name, **called)
    cell._rules, cell._shown = rules, shown
    return cell
