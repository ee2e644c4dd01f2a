"""The ways to a gradient, a row each, and what makes two answers the same.

    case -> PATHS[name].run(case) -> Answer;   compare(case, paths) -> what disagrees with the reference

A slice is a parameter's gradient, one step of an input's or of an initial value's, or a value of the run. Its error is
the largest difference over its largest entry: at most 1e-11 in float64, 50 eps in float32. A slice that fails by that
is judged by rounding, which is what is left where terms cancel: 64 eps of the largest entry of all slices, or a hundred
times what the reference itself loses there in this precision against the next higher one, at the same point and at
three beside it. Where the reference refuses a run with a CellError, every path must.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from time import process_time
from typing import Any, NamedTuple

import numpy as np
from generated import Case

from autograd_rnn import CellError
from autograd_rnn.backpropagate import differentiate
from autograd_rnn.evaluate import evaluate

TOLERANCE = {"float64": 1e-11, "float32": 50 * float(np.finfo(np.float32).eps)}
HIGHER = {"float64": np.longdouble, "float32": np.float64}
BUDGETS = ("32KB", "128KB", "512KB", "2MB", "8MB")
TAPE = 64  # positions up to which every operation is unrolled
COMPLEX = 250  # numbers up to which each is perturbed


@dataclass
class Answer:
    """A value, gradients by name, and values of the run by name."""

    value: float = 0.0
    gradients: Mapping[str, np.ndarray] = field(default_factory=dict)
    values: Mapping[str, np.ndarray] = field(default_factory=dict)


class Path(NamedTuple):
    """refuses: whether it must refuse what the reference refuses; otherwise it is not asked then."""

    run: Callable[[Case], Answer]
    takes: Callable[[Case], bool] = lambda case: True
    precision: str = "float64"
    refuses: bool = True


class Fault(NamedTuple):
    """Where a path disagrees with the reference, by how much, and what it printed."""

    path: str
    where: str
    error: float
    note: str = ""

    def __str__(self):
        return f"{self.path}: {self.where} {self.error:.1e} {self.note}"


# --- ways to a gradient ----------------------------------------------------------------------------------------------


def reference(case: Case) -> Answer:
    """The equations and their adjoint, evaluated as they stand."""
    cell, options = case.cell, case.options
    value, gradients, _ = differentiate(
        cell.system, cell.loss, cell.outputs, case.params, options.get("loss"), options.get("cotangents"), case.inputs,
        options.get("initial"), options.get("lengths"), options.get("steps"), None, evaluate)
    return Answer(value, gradients, run_values(cell.run(case.params, **case.run_arguments())))


def run_values(trace) -> dict[str, np.ndarray]:
    """The values of a run, and what it hands on."""
    final = {f"final {n}": np.asarray(v) for n, v in trace.final.items()}
    return {**{n: trace[n] for n in trace}, **final}


def tape(case: Case) -> Answer:
    """Every operation at every step on one list, swept backward."""
    found = case.cell.unroll(case.params, **case.run_arguments()).backward(
        case.options.get("cotangents"), case.options.get("loss"))
    return Answer(np.nan, dict(found))


def complex_step(case: Case) -> Answer:
    """What `check_gradients` says: it raises where the report is not ok."""
    report = case.cell.check_gradients(case.params, tape=False, **case.arguments())
    assert report.ok, str(report)
    return Answer(np.nan)


def program(forward=False, again=False, dtype=np.float64, **how) -> Callable[[Case], Answer]:
    """A compiled program; again: a second call gives the same bits."""
    def run(case: Case) -> Answer:
        case = case.astype(dtype)
        made = case.cell.compile(**{k: v(case) if callable(v) else v for k, v in how.items()})
        with alone(how):
            if forward:
                return Answer(np.nan, {}, run_values(made.forward(case.params, **case.run_arguments())))
            value, gradients = made.gradient(case.params, **case.arguments())
            if again:
                kept = {n: g.copy() for n, g in gradients.items()}
                other = made.gradient(case.params, **case.arguments())
                assert other[0] == value and all((g == kept[n]).all() and (g == gradients[n]).all()
                                                 for n, g in other[1].items()), "a second call gives other numbers"
        return Answer(value, gradients)
    return run


@contextmanager
def alone(how):
    """With threads asked for, small work is shared among them too."""
    if "threads" not in how:
        yield
        return
    from autograd_rnn.compile.llvm import machine

    before, machine.ALONE = machine.ALONE, 0
    try:
        yield
    finally:
        machine.ALONE = before


def within_a_budget(case: Case) -> Answer:
    """The least of some budgets that the program can keep to; a case that fits none is the whole's."""
    for memory in BUDGETS:
        try:
            return program(backend="llvm", memory=memory)(case)
        except CellError as error:
            if "budget" not in str(error) and "cannot keep" not in str(error):
                raise
    return program(backend="llvm")(case)


def default(case: Case) -> Answer:
    """What `cell.gradient` does by itself."""
    return Answer(*case.cell.gradient(case.params, **case.arguments()))


def by_torch(case: Case) -> Answer:
    """What tests/conformance/oracle.py makes of a case: it shares no line with the library."""
    from oracle import Oracle

    loss = None if "cotangents" in case.options else case.cell.loss
    given = {"loss": loss, "batch": case.batch, **case.arguments()}
    return Answer(*Oracle(case.text, **case.cells).gradient(case.params, **given))


def small(case: Case) -> bool:
    return case.work * case.extents.get("l", 1) <= TAPE


PATHS = {
    "tape": Path(tape, lambda c: small(c) and "lengths" not in c.options),
    "complex step": Path(complex_step, lambda c: small(c) and sum(
        a.size for group in (c.params, c.inputs) for a in group.values()) <= COMPLEX),
    "NumPy": Path(program(backend="numpy", again=True)),
    "NumPy forward": Path(program(backend="numpy", forward=True), lambda c: c.seed % 2 == 0),
    "NumPy float32": Path(program(backend="numpy", dtype=np.float32), lambda c: c.single, "float32"),
    "machine code": Path(program(backend="llvm", again=True, threads=lambda c: c.threads)),
    "machine code forward": Path(program(backend="llvm", forward=True, threads=1), lambda c: c.seed % 4 == 0),
    "machine code float32": Path(program(backend="llvm", dtype=np.float32), lambda c: c.single, "float32"),
    "machine code within a budget": Path(within_a_budget, lambda c: c.budget),
    "machine code by default": Path(default, lambda c: c.work >= 500),
}
CHEAP = {n: p for n, p in PATHS.items() if "machine" not in n}
ORACLE = {"PyTorch": Path(by_torch, refuses=False)}  # where torch is installed, and tests/conformance on the path


# --- what makes two answers the same ---------------------------------------------------------------------------------


def slices(case: Case, answer: Answer) -> dict[str, np.ndarray]:
    """Every slice by what it is called; padding, which nobody asks for, is left out."""
    found = {"value": np.asarray(answer.value)}
    for label, array in answer.gradients.items():
        name = label.split("[")[0]
        along = len(case.names[name].axes) if name in case.names and name == label else 0
        if not along or name not in case.names or case.names[name].role != "input":
            found[f"d {label}"] = array
            continue
        for at in np.ndindex(array.shape[:1]):
            found[f"d {label} at step {at[0] + 1}"] = array[at]
    return found | {f"{n}": v for n, v in answer.values.items()}


def largest(array) -> float:
    return float(np.max(np.abs(array), initial=0))


class Outcome(NamedTuple):
    answer: Answer | None
    refused: Exception | None = None


def outcome(run: Callable[[Case], Answer], case: Case) -> Outcome:
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.filterwarnings("error", "The machine code")  # a program that says of itself that it is wrong
            return Outcome(run(case))
    except Exception as error:  # what a path raises is what it says
        return Outcome(None, error)


def compare(case: Case, paths: Mapping[str, Path | Callable[[Case], Answer]]) -> tuple[dict[str, float], list[Fault]]:
    """The paths that a case took, with their seconds, and where they disagree with the reference.

    A path is a row as above, or a function from a case to an Answer whose gradients may leave out those of ends.
    """
    begun = process_time()
    truth = outcome(reference, case)
    taken, faults = {"reference": process_time() - begun}, []
    if truth.refused is not None and not isinstance(truth.refused, CellError):
        faults.append(Fault("reference", "raised", np.inf, repr(truth.refused)[:300]))
    rounding = Rounding(case)
    for name, path in paths.items():
        path = path if isinstance(path, Path) else Path(path)
        if not path.takes(case) or (isinstance(truth.refused, CellError) and not path.refuses):
            continue
        begun = process_time()
        found = outcome(path.run, case)
        taken[name] = process_time() - begun
        if truth.refused is not None or found.refused is not None:
            agreed = isinstance(truth.refused, CellError) and isinstance(found.refused, CellError)
            if not agreed:
                faults.append(Fault(name, "raised" if found.refused is not None else "does not refuse", np.inf,
                                    repr(found.refused or truth.refused)[:2000]))
            continue
        faults += [Fault(name, *f) for f in differences(case, truth.answer, found.answer, path.precision, rounding)]
    return taken, faults


def differences(case: Case, truth: Answer, found: Answer, precision: str, rounding: Rounding):
    """(where, error, note) of each slice of `found` that differs from `truth`."""
    true, other = slices(case, truth), slices(case, found)
    if found.gradients:
        missing = {n for n in truth.gradients if n not in found.gradients and "[" not in n}
        strange = {n for n in found.gradients if n not in truth.gradients}
        if missing or strange:
            yield "gradients", np.inf, f"missing {sorted(missing)}, strange {sorted(strange)}"
    scale = max((largest(v) for n, v in true.items() if n.startswith("d ")), default=0.0)
    for name in other:
        if name not in true or (name == "value" and np.isnan(found.value)):
            continue
        a, b = np.asarray(true[name]), np.asarray(other[name])
        if a.shape != b.shape:
            yield name, np.inf, f"shape {b.shape}, not {a.shape}"
            continue
        error, size = largest(a - b), largest(a)
        if np.isnan(error) and (np.isnan(a) == np.isnan(b)).all():
            error = largest(np.nan_to_num(a) - np.nan_to_num(b))
        if error <= TOLERANCE[precision] * size:
            continue
        floor = 64 * float(np.finfo(precision).eps) * max(scale if name.startswith("d ") else 1.0, size)
        if error <= floor or error <= 100 * rounding.of(name, precision):
            continue
        yield name, error / size if size else np.inf, f"largest {size:.3g}"


class Rounding:
    """What the reference loses against the next higher precision, in each slice: at the point and beside it."""

    def __init__(self, case: Case):
        self.case, self.known = case, {}

    def of(self, name: str, precision: str) -> float:
        if precision not in self.known:
            self.known[precision] = self.measure(precision)
        return self.known[precision].get(name, 0.0)

    def measure(self, precision: str) -> dict[str, float]:
        lost: dict[str, float] = {}
        rng, eps = np.random.default_rng(self.case.seed), float(np.finfo(precision).eps)
        for k in range(4):
            jitter = lambda a, k=k: a * (1 + 4 * eps * k * rng.normal(size=a.shape)) if isinstance(
                a, np.ndarray) and a.dtype.kind == "f" else a
            case = replace(self.case, params={n: jitter(v) for n, v in self.case.params.items()},
                           inputs={n: jitter(v) for n, v in self.case.inputs.items()})
            low = outcome(reference, case.astype(precision)).answer
            high = outcome(reference, case.astype(precision).astype(HIGHER[precision])).answer
            if low is None or high is None:
                continue
            exact: dict[str, Any] = slices(case, high)
            for name, value in slices(case, low).items():
                error = largest(np.asarray(value) - exact[name]) if name in exact else 0.0
                lost[name] = max(lost.get(name, 0.0), error if np.isfinite(error) else 0.0)
        return lost
