"""The benchmarks: their short forms run, their judgement can fail, and their pages say what they find."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import sympy

from autograd_rnn import Cell

ROOT = Path(__file__).parents[1]


def benchmark(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


sy = benchmark("sympy_derivatives")
QUICK = [sy.Case("rnn", "U", 1), sy.Case("rnn", "U", 2), sy.Case("lstm", "U_i", 1)]


def told(line: str) -> list[str]:
    """A line of the table without its times."""
    cells = [cell.strip() for cell in line.split("|")[1:-1]]
    return [cell for k, cell in enumerate(cells) if sy.COLUMNS[k] != "seconds"]


@pytest.mark.parametrize("case", [case if case in QUICK else pytest.param(case, marks=pytest.mark.long)
                                  for case in sy.CASES], ids=lambda c: f"{c}, T = {c.T}")
def test_the_page_says_what_is_found(case):
    found = told(sy.line(case, sy.theirs(case), sy.ours(case)))
    printed = sy.PAGE.read_text(encoding="utf-8").splitlines()
    (row,) = (told(line) for line in printed if line.startswith(f"| {case} | {case.T} |"))
    assert found[4:] == row[4:] and found[4] == "right", "ours"
    if f"SymPy {sympy.__version__} " in printed[2]:
        assert found == row
    assert len(printed) > len(sy.CASES) and all(len(line) <= 120 for line in printed)


def test_a_wrong_answer_is_called_wrong():
    case = sy.Case("rnn", "U", 1)
    s, loss, back = next(sy.forms(case))
    right = loss(sy.unrolled(case, s)).diff(s.symbol("U", sy.n, sy.n))
    assert sy.judged(right, case, back) == "right"
    for wrong in (2 * right, right.T, -right, right + s.symbol("U", sy.n, sy.n)):
        assert sy.judged(wrong, case, back) == "wrong"
    ill = loss(sy.unrolled(QUICK[1], s)).diff(s.symbol("U", sy.n, sy.n))
    assert sy.judged(ill, case, back) == "wrong: ShapeError"
    assert sy.judged(right, case, lambda h, a: 2 * a) == "wrong"


def test_a_gradient_of_ours_that_is_wrong_is_called_wrong(monkeypatch):
    gradient = Cell.gradient
    case = QUICK[0]

    def damaged(self, *args, **given):
        value, gradients = gradient(self, *args, **given)
        return value, {**gradients, "U": gradients["U"] * (1 + 1e-6)}

    assert sy.ours(case).said == "right"
    monkeypatch.setattr(Cell, "gradient", damaged)
    assert sy.ours(case).said == "wrong"
    assert not sy.agree(np.zeros((2, 2)), np.ones((2, 2))) and not sy.agree(np.ones((2, 1)), np.ones((2, 2)))


def test_what_takes_too_long_is_no_answer(monkeypatch):
    monkeypatch.setattr(sy, "SECONDS", 0.01)
    assert sy.theirs(QUICK[0]).said == "no answer in 0.01 s"


def test_the_best_result_counts():
    right, wrong, error = (sy.Outcome(said, 1, 0.0) for said in ("right", "wrong: ShapeError", "error: ValueError"))
    assert right.rank < wrong.rank < sy.Outcome("unevaluated", 1, 0.0).rank < error.rank
