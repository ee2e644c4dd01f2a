"""The three verdicts on many texts: none may be wrong, and no fault that changes a gradient may pass.

    python tests/verdicts.py zoo 0-300 FILE...      names of texts that are wronged, faults that pass, and their counts

A text is a file, the `zoo`, or a range of seeds of the generator. Of each text are asked: `check_gradients`,
`derivation().check()`, `grade` of the true lines and of the library's own; and again with a fault in each.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import systems
from generated import case_of

from autograd_rnn import Cell, CellError, zoo
from autograd_rnn import primitives as P
from autograd_rnn.backpropagate import adjoint_of
from autograd_rnn.derivation import Derivation
from autograd_rnn.derivation.domain import points
from autograd_rnn.derivation.recursion import prove_recursion
from autograd_rnn.equations import Equation, System
from autograd_rnn.evaluate import evaluate
from autograd_rnn.graph import Node, const, extent, index, node, topological
from autograd_rnn.naming import replaced
from autograd_rnn.printing.text import equation
from autograd_rnn.shapes import carry_over


def texts(asked: list[str]) -> Iterator[tuple[str, Cell]]:
    for word in asked:
        if word == "zoo":
            yield from zoo.items()
        elif word.replace("-", "").isdigit():
            first, _, last = word.partition("-")
            cases = map(case_of, range(int(first), int(last or first) + 1))
            yield from ((f"generated {case.seed}", case.cell) for case in cases if not case.cells)
        else:
            yield Path(word).stem, Cell(Path(word).read_text())


def at_a_point(cell: Cell) -> tuple[dict, dict]:
    """Parameters and all else that a check takes, where the gradient is finite."""
    for seed in range(50):
        params, inputs = systems.draw(cell, seed=seed)
        given = {**inputs, **systems.steps(cell)}
        trace = cell.run(params, **given)
        cotangents = None if cell.loss else {n: np.ones_like(trace[n]) for n in cell.outputs}
        try:
            cell.gradient(params, cotangents=cotangents, **given)
        except CellError:
            continue
        return params, given
    raise CellError("No point was drawn at which the gradient is finite.")


def faults(eq: Equation, time_index: str) -> list[Node]:
    """A right side with one thing wrong: a sign, a term, a transpose, a factor, a step at which it is cut."""
    found = [-eq.value, node(P.where, node(P.eq, index(time_index), const(3)), const(0), eq.value),
             node(P.where, node(P.lt, index(time_index), extent(time_index)), eq.value, eq.value + eq.value)]
    found = found[:1] if time_index not in eq.free else found
    for n in topological([eq.value]):
        parts = []
        if n.op is P.add:
            parts = [P.total(*(b for b in n.args if b is not a)) for a in n.args]
        elif n.op is P.transpose:
            parts = [n.args[0]]
        elif n.op is P.mul:
            parts = [2 * n]
        found += [replaced(eq.value, {n: part}) for part in parts]
    return found


# --- each verdict: whether it is right about a true text, and (seeded, caught) of faults ----------------------------


def by_check(cell: Cell, rng, count: int) -> tuple[str, int, int]:
    params, given = at_a_point(cell)
    report = cell.check_gradients(params, **given)
    said = "" if report.ok else str(report)
    if not count:
        return said, 0, 0
    cell = systems.with_loss(cell)
    params, given = at_a_point(cell)
    outputs = (cell.loss,)
    derived, cache = adjoint_of(cell.system, outputs, True), vars(cell.system)["_adjoints"]
    new = [eq for eq in derived.system.equations if eq not in set(derived.forward.equations)]
    true = cell.gradient(params, **given)[1]
    seeded = caught = 0
    for eq, value in drawn(new, cell, rng, count):
        equations = [replace(e, value=value) if e is eq else e for e in derived.system.equations]
        system = System(equations, derived.system.axes, derived.system.model, derived.system.declarations)
        cache[outputs, True] = replace(derived, system=system)
        try:
            found = cell.gradient(params, **given)[1]
            if any(np.max(np.abs(found[n] - true[n]), initial=0) > 1e-9 * np.max(np.abs(true[n]), initial=0)
                   for n in true):
                seeded += 1
                caught += not cell.check_gradients(params, tape=False, **given).ok
        except (CellError, ValueError):  # no order runs through it, its shapes do not fit, or no number comes of it
            pass
        finally:
            cache[outputs, True] = derived
    return said, seeded, caught


def by_proof(cell: Cell, rng, count: int) -> tuple[str, int, int]:
    d = cell.derivation()
    proof = d.check(points=5)
    said = "" if proof.ok else str(proof)
    seeded = caught = 0
    for eq, value in drawn(d.recursion, cell, rng, count):
        if changes(d, eq, value):
            damaged = Derivation(d.derived, d.outputs)
            damaged.__dict__["recursion"] = tuple(replace(e, value=value) if e is eq else e for e in d.recursion)
            errors = dict(prove_recursion(damaged, 0))
            printed = (str(eq) if eq.end else eq.name) in errors  # not so where SymPy has no function for it
            seeded += printed
            caught += printed and any(not error <= 1e-9 for error in errors.values())
    return said, seeded, caught


def by_grade(cell: Cell, rng, count: int) -> tuple[str, int, int]:
    d = cell.derivation()
    true, own = cell.grade("\n".join(map(equation, d.recursion))), cell.grade(str(cell.backward()))
    fine = true.ok and own.ok and not true.missing and not true.left_out
    said = "" if fine else f"{true}\n{own}"
    wrong = [(eq, value) for eq, value in drawn(d.recursion, cell, rng, count) if changes(d, eq, value)]
    caught = sum(not line.ok for eq, value in wrong
                 for line in cell.grade(equation(replace(eq, value=value))).lines)
    return said, len(wrong), caught


def drawn(equations, cell: Cell, rng, count: int) -> list[tuple[Equation, Node]]:
    """Some faults, each in one of these equations."""
    time_index = cell.system.time or ""
    every = [(eq, value) for eq in equations for value in faults(eq, time_index) if value is not eq.value]
    return [every[k] for k in rng.permutation(len(every))[:count]]


def changes(d: Derivation, eq: Equation, value: Node) -> bool:
    """Whether an equation of the recursion so damaged gives other gradients: at one point, of sequences of 12 steps."""
    point = points(d.derived, 4, batch=1 + 2 * d.joined, length=12)

    def solved(lines) -> dict[str, np.ndarray]:
        final = d.final_system
        system = System([*d.derived.forward.equations, *lines], final.axes, final.model, final.declarations)
        sizes = carry_over(point.sizes, d.printed.inferred, system.inferred)
        return evaluate(system, replace(point, sizes=sizes), {e.name for e in lines})

    try:
        found = solved([replace(e, value=value) if e is eq else e for e in d.recursion])
    except (CellError, ValueError):  # no order of evaluation, or shapes that do not fit together
        return False
    true = solved(d.recursion)
    return not all(np.allclose(found[n], true[n], rtol=1e-7, atol=1e-10, equal_nan=True) for n in true)


VERDICTS = {"check_gradients": by_check, "derivation().check()": by_proof, "grade": by_grade}


def main(asked: list[str], count: int) -> int:
    start, rng = time.perf_counter(), np.random.default_rng(0)
    texts_read, wrong, seeded, caught = Counter(), Counter(), Counter(), Counter()
    for name, cell in texts(asked):
        for verdict, ask in VERDICTS.items():
            said, some, met = ask(cell, rng, count)
            texts_read[verdict] += 1
            wrong[verdict] += bool(said)
            seeded[verdict] += some
            caught[verdict] += met
            if said or met < some:
                print(f"--- {name}: {verdict}: {some - met} of {some} faults pass\n{said}", flush=True)
    for verdict in VERDICTS:
        print(f"{verdict}: {texts_read[verdict]} texts, {wrong[verdict]} wrong; {seeded[verdict]} faults seeded, "
              f"{caught[verdict]} caught")
    print(f"{time.perf_counter() - start:.0f} s")
    return int(any(wrong.values()) or seeded != caught)


if __name__ == "__main__":
    number = next((int(a.removeprefix("--faults=")) for a in sys.argv[1:] if a.startswith("--faults=")), 0)
    sys.exit(main([a for a in sys.argv[1:] if not a.startswith("--")] or ["zoo"], number))
