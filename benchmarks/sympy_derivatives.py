"""The same gradients by SymPy's matrix calculus and by ours: who derives them, who is right, how long, how fast.

    python benchmarks/sympy_derivatives.py          measures everything, prints the page, writes docs/sympy.md

SymPy is given every form of a case in turn (three losses, two ways to write the product of two vectors), in a process
of its own; its best result counts. What is right is said by the complex step through the reference evaluator.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from statistics import median
from textwrap import wrap
from typing import Any, NamedTuple

import numpy as np
import sympy
from sympy import DiagMatrix, MatrixSymbol, OneMatrix, Trace, hadamard_product

from autograd_rnn import Cell, zoo
from autograd_rnn.graph import READ, topological
from autograd_rnn.printing import plain

PAGE = Path(__file__).parents[1] / "docs" / "sympy.md"
SECONDS = 60  # that SymPy has for a case
RUNS = 7  # of ours, whose median counts
STEP, TOLERANCE = 1e-100, 1e-10
SEED = 0


class Case(NamedTuple):
    """The gradient of what the last of T steps gives, with respect to a weight of a cell of the zoo."""

    cell: str
    weight: str
    T: int
    matrices: bool = True

    def __str__(self):
        return f"{self.cell}, {self.weight}" + (", sizes 1, scalar `diff`" if not self.matrices else "")


CASES = (*(Case("rnn", "U", T) for T in (1, 2, 3)), *(Case("lstm", f"U_{g}", T) for T in (1, 2) for g in "ifog"),
         Case("gru", "U_n", 1), *(Case("lstm", "U_f", T, matrices=False) for T in (1, 2)))


class Outcome(NamedTuple):
    """`said`: right, wrong (with what SymPy says when it evaluates it), unevaluated, or the error; characters of the
    answer, seconds until there was one."""

    said: str
    length: int | None
    seconds: float

    @property
    def rank(self) -> int:
        return next((k for k, word in enumerate(("right", "wrong", "unevaluated")) if self.said.startswith(word)), 3)


# --- SymPy -------------------------------------------------------------------------------------------------------


class Algebra(NamedTuple):
    """How an equation is written in SymPy: a symbol, the product of two vectors, a function of each entry."""

    symbol: Callable
    times: Callable
    apply: Callable
    one: Any


v, n, m = sympy.Symbol("v"), *sympy.symbols("n m", integer=True, positive=True)
SIGMOID, TANH = sympy.Lambda(v, 1 / (1 + sympy.exp(-v))), sympy.Lambda(v, sympy.tanh(v))
MATRICES = (Algebra(MatrixSymbol, hadamard_product, lambda f, a: a.applyfunc(f), OneMatrix(n, 1)),
            Algebra(MatrixSymbol, lambda a, b: DiagMatrix(a) * b, lambda f, a: a.applyfunc(f), OneMatrix(n, 1)))
NUMBERS = (Algebra(lambda name, *shape: sympy.Symbol(name), lambda a, b: a * b, lambda f, a: f(a), 1),)
# The loss, and its gradient with respect to the last h. Trace makes a number of it: without, SymPy gives tensors.
LOSSES = ((lambda h: Trace(MatrixSymbol("a", n, 1).T * h), lambda h, a: a),
          (lambda h: Trace(OneMatrix(n, 1).T * h), lambda h, a: np.ones_like(h)),
          (lambda h: Trace(h.T * h), lambda h, a: 2 * h))
NUMBER = ((lambda h: h, lambda h, a: np.ones_like(h)),)


def unrolled(case: Case, s: Algebra):
    """h of the last step, of a cell written in SymPy as the zoo writes it."""
    state, one = {name: s.symbol(f"{name}_0", n, 1) for name in zoo[case.cell].states}, s.one

    def at(gate, x, h):
        W, U, b = (f"{letter}_{gate}" if gate else letter for letter in "WUb")
        return s.symbol(W, n, m) * x + s.symbol(U, n, n) * h + s.symbol(b, n, 1)

    for t in range(1, case.T + 1):
        x, h = s.symbol(f"x_{t}", m, 1), state["h"]
        if case.cell == "rnn":
            state = {"h": s.apply(TANH, at("", x, h))}
        elif case.cell == "gru":
            r, z = (s.apply(SIGMOID, at(gate, x, h)) for gate in "rz")
            state = {"h": s.times(one - z, h) + s.times(z, s.apply(TANH, at("n", x, s.times(r, h))))}
        else:
            i, f, o = (s.apply(SIGMOID, at(gate, x, h)) for gate in "ifo")
            c = s.times(f, state["c"]) + s.times(i, s.apply(TANH, at("g", x, h)))
            state = {"c": c, "h": s.times(o, s.apply(TANH, c))}
    return state["h"]


def forms(case: Case) -> Iterator[tuple[Algebra, Callable, Callable]]:
    """Every way in which a case is put to SymPy: (algebra, loss, gradient of the loss with respect to h)."""
    algebras, losses = (MATRICES, LOSSES) if case.matrices else (NUMBERS, NUMBER)
    for s, (loss, back) in product(algebras, losses):
        yield s, loss, back


def attempt(case: Case, s: Algebra, loss: Callable, back: Callable) -> Outcome:
    """One form put to SymPy."""
    start = time.perf_counter()
    try:
        found = loss(unrolled(case, s)).diff(s.symbol(case.weight, n, n))
    except Exception as e:  # whatever it raises is its answer
        return Outcome(f"error: {type(e).__name__}", None, time.perf_counter() - start)
    seconds = time.perf_counter() - start
    if found.has(sympy.Derivative):
        return Outcome("unevaluated", len(str(found)), seconds)
    return Outcome(judged(found, case, back), len(str(found)), seconds)


def judged(found, case: Case, back: Callable) -> str:
    """SymPy's expression, evaluated by SymPy at a random point, against the complex step."""
    params, inputs, a = point(case)
    arrays = {**params, "a": a, **{f"x_{t + 1}": x for t, x in enumerate(inputs["x"])},
              **{f"{name}_0": value for name, value in inputs["initial"].items()}}
    values = {}
    for symbol in found.free_symbols:
        if symbol.name in arrays:
            array = arrays[symbol.name]
            values[symbol] = sympy.ImmutableMatrix(array) if case.matrices else sympy.Float(array.item(), 30)
    sizes = {n: len(a), m: inputs["x"].shape[1]}
    known = {(k.subs(sizes) if case.matrices else k): value for k, value in values.items()}
    try:
        told = found.subs(sizes).subs(known).doit()
        numbers = np.array(told.as_explicit() if case.matrices else [[told]]).astype(float)
    except Exception as e:
        return f"wrong: {type(e).__name__}"
    h = Cell(zoo[case.cell].text).run(params, **inputs)["h"][-1]
    return "right" if agree(numbers, truth(case, back(h, a))) else "wrong"


def theirs(case: Case) -> Outcome:
    """The best that SymPy makes of any form of a case, in a process that has SECONDS."""
    command = [sys.executable, __file__, "--case", str(CASES.index(case))]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True).stdout
    except subprocess.TimeoutExpired as e:
        said = (e.stdout or b"").decode()
    found = [Outcome(*json.loads(line)) for line in said.splitlines()]
    none = Outcome(f"no answer in {SECONDS} s", None, SECONDS)
    return min(found, key=lambda o: (o.rank, o.length or 0), default=none)


# --- ours --------------------------------------------------------------------------------------------------------


def ours(case: Case) -> Outcome:
    """Text to derivation to the equations of that gradient; it does not depend on T."""
    def derived() -> tuple[float, str]:
        start = time.perf_counter()
        derivation = Cell(zoo[case.cell].text).derivation()
        told = needed(derivation, "d" + case.weight)
        return time.perf_counter() - start, told

    seconds, texts = zip(*(derived() for _ in range(RUNS)))
    params, inputs, a = point(case)
    cell = Cell(zoo[case.cell].text)
    cotangent = np.zeros((case.T, len(a)))
    cotangent[-1] = a[:, 0]
    gradient = cell.gradient(params, cotangents={"h": cotangent}, **inputs)[1][case.weight]
    right = cell.derivation().check().ok and agree(gradient, truth(case, a[:, 0]))
    return Outcome("right" if right else "wrong", len(texts[0]), median(seconds))


def needed(derivation, name: str) -> str:
    """The equations of a gradient and all that they read, forward and backward, as text."""
    style, system = plain.Style(derivation.printed), derivation.final_system
    found, stack = {name}, [name]
    while stack:
        reads = (r for eq in system.definitions.get(stack.pop(), ()) if not eq.end for r in topological([eq.value]))
        new = {r.params[0] for r in reads if r.op is READ} - found
        found |= new
        stack += new
    return "\n".join(line for eq in system.equations if eq.name in found and not eq.end
                     for line in plain.equation(style, eq, sys.maxsize))


# --- the truth ---------------------------------------------------------------------------------------------------


def point(case: Case) -> tuple[dict, dict, np.ndarray]:
    """(params, inputs, a) at random, where nothing saturates."""
    cell, rng, size = zoo[case.cell], np.random.default_rng(SEED), 3 if case.matrices else 1
    params = {name: rng.normal(0, 0.6, p.shape) for name, p in cell.init(x=max(1, size - 1), h=size).items()}
    inputs = {"x": rng.normal(size=(case.T, max(1, size - 1))),
              "initial": {name: rng.normal(size=size) for name in cell.states}}
    return params, inputs, rng.normal(size=(size, 1))


def truth(case: Case, cotangent: np.ndarray) -> np.ndarray:
    """The gradient of cotangent' h by the complex step, entry by entry, through the reference evaluator."""
    cell, (params, inputs, _) = Cell(zoo[case.cell].text), point(case)
    exact = np.zeros(params[case.weight].shape)
    for place in np.ndindex(exact.shape):
        moved = {**params, case.weight: params[case.weight].astype(complex)}
        moved[case.weight][place] += 1j * STEP
        exact[place] = np.sum(cell.run(moved, **inputs)["h"][-1].imag * np.ravel(cotangent)) / STEP
    return exact


def agree(found: np.ndarray, exact: np.ndarray) -> bool:
    """Whether two gradients have the same shape and the same numbers."""
    return found.shape == exact.shape and bool(np.max(np.abs(found - exact)) <= TOLERANCE * np.max(np.abs(exact)))


# --- the page ----------------------------------------------------------------------------------------------------

HEAD = """# Beside SymPy's matrix calculus

The same gradients, derived by SymPy {version} and by this library: of a number made of the last hidden state after T
steps, with respect to a recurrent weight, for cells of the zoo. `python benchmarks/sympy_derivatives.py` measures all
of it again and writes this page.

**How SymPy was asked.** Weights and states are `MatrixSymbol`s of symbolic size, gates `applyfunc`, the question is
`.diff(MatrixSymbol)`. Each case was put in six forms: three losses (`Trace(a.T*h)`, `Trace(OneMatrix.T*h)`,
`Trace(h.T*h)`) by two ways to multiply vectors (`hadamard_product`, `DiagMatrix(a)*b`). The best result counts, of
several the shortest. Each case has {seconds} seconds in a process of its own; the time is one run of the form that
counts, with SymPy's caches as the forms before it left them. The last rows are ordinary `diff` of the unrolled scalar
LSTM, every size 1.

**How we were asked.** The cell's text is parsed, its derivation made, and the equations of that gradient printed with
everything they read, forward and backward, so that they stand alone as SymPy's answer does; the time is the median of
{runs} runs, all of it included. The equations are those of any T and of every size.

**What is right.** SymPy's answer is evaluated by SymPy at a random point and compared with the complex step through
the reference evaluator, to {tolerance:g}. `wrong: ShapeError` is an expression that multiplies a column with a row,
entry by entry. Ours is right where its number agrees and `derivation().check()` proves every printed equation.

"""
COLUMNS = ("gradient", "T", "SymPy", "characters", "seconds", "ours", "characters", "seconds")


def rows(cases=CASES) -> Iterator[tuple[Case, Outcome, Outcome]]:
    for case in cases:
        print(f"{case}, T = {case.T}", file=sys.stderr, flush=True)
        yield case, theirs(case), ours(case)


def line(case: Case, *outcomes: Outcome) -> str:
    cells = [str(case), str(case.T)]
    for o in outcomes:
        cells += [o.said, f"{o.length:,}" if o.length else "", f"{o.seconds:.3f}"]
    return "| " + " | ".join(cells) + " |"


def page(measured: list[tuple[Case, Outcome, Outcome]]) -> str:
    """The page: how it was measured, the table, what it says, for and against."""
    table = ["| " + " | ".join(COLUMNS) + " |", "|---|" + "---:|---|---:|---:|---|---:|---:|"]
    matrices = [row for row in measured if row[0].matrices]
    right = [(t, o) for _, t, o in matrices if t.said == "right"]
    shorter, faster = (sum(getattr(t, k) < getattr(o, k) for t, o in right) for k in ("length", "seconds"))
    told = (f"Of {len(matrices)} gradients by matrix calculus SymPy gets {len(right)} right, this library "
            f"{sum(o.said == 'right' for _, _, o in matrices)}. Where SymPy is right, its answer is the shorter one in "
            f"{shorter} of {len(right)} and the faster one in {faster} of {len(right)}: of a single step, one "
            "expression is less to write than a recursion. Scalar `diff` is right, and its answer grows with T.")
    head = HEAD.format(version=sympy.__version__, seconds=SECONDS, runs=RUNS, tolerance=TOLERANCE)
    return head + "\n".join([*table, *(line(*row) for row in measured), "", *wrap(told, 120)]) + "\n"


def main(argv: list[str]) -> None:
    if argv[:1] == ["--case"]:  # the process in which SymPy works: one line for each form
        for form in forms(CASES[int(argv[1])]):
            print(json.dumps(attempt(CASES[int(argv[1])], *form)), flush=True)
        return
    written = page(list(rows()))
    PAGE.write_text(written, encoding="utf-8")
    print(written, end="")


if __name__ == "__main__":
    main(sys.argv[1:])
