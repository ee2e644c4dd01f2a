"""Grading: true equations are right in any form, every mutated line is wrong, typical mistakes are named."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import systems
from test_safety import HOSTILE

import autograd_rnn as ar
from autograd_rnn import Cell, CellError
from autograd_rnn import primitives as P
from autograd_rnn.__main__ import main
from autograd_rnn.derivation.points import drawn
from autograd_rnn.equations import Equation, System
from autograd_rnn.evaluate import evaluate
from autograd_rnn.graph import READ, Node, node, topological
from autograd_rnn.naming import replaced
from autograd_rnn.printing.text import equation, expression
from autograd_rnn.shapes import carry_over

HOMEWORK = Path(__file__).parents[1] / "examples" / "homework.txt"


@cache
def cell(name: str) -> Cell:
    return ar.zoo[name] if name in ar.zoo else systems.cell(name)


def recursion(name: str) -> tuple[Equation, ...]:
    return cell(name).derivation().recursion


def judged(name: str, text: str) -> list:
    return list(cell(name).grade(text).lines)


def only(name: str, line: str):
    (found,) = judged(name, line)
    return found


# --- what is right -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", systems.NAMES)
def test_the_true_recursion_is_right(name):
    grade = cell(name).grade("\n".join(map(equation, recursion(name))))
    assert grade.ok and not grade.missing and not grade.left_out, str(grade)
    assert {line.verdict for line in grade.lines} == {"right"}


@pytest.mark.parametrize("name", systems.NAMES)
def test_the_library_s_own_form_is_right(name):
    grade = cell(name).grade(str(cell(name).backward()))  # carries by name, sums over the batch, sech and sigmoid(-a)
    assert grade.ok, str(grade)


FORMS = [
    ("lstm", "da_f[t] = dc[t] * c[t-1] * f[t] * (1 - f[t])"),
    ("lstm", "da_f[t] = df[t] * (f[t] - f[t]**2)"),
    ("lstm", "da_f[t] = df[t] * sigmoid(a_f[t]) * sigmoid(-a_f[t])"),
    ("lstm", "da_f[t] = df[t] * exp(-a_f[t]) / (1 + exp(-a_f[t]))**2"),
    ("lstm", "da_g[t] = dg[t] * sech(a_g[t])**2"),
    ("lstm", "da_g[t] = dg[t] * (1 - g[t]) * (1 + g[t])"),
    ("lstm", "dc[t] = (1 - tanh(c[t])**2) * o[t] * dh[t] + f[t+1] * dc[t+1]"),
    ("lstm", "dc[t] = dh[t] * o[t] - h[t] * tanh(c[t]) * dh[t] + dc[t+1] * f[t+1]"),
    ("lstm", "dW_f = sum_t(outer(da_f[t], x[t]))"),
    ("lstm", "dW_f = sum_batch(sum_t(outer(da_f[t], x[t])))"),
    ("lstm", "dW_f = sum_t(outer(x[t], da_f[t]).T)"),
    ("lstm", "dW_f = sum_t(diag(da_f[t]) @ outer(like(1, a_f[t]), x[t]))"),
    ("lstm", "dc[T+1] = 0"),
    ("lstm", "dh[0] = U_i.T @ da_i[1] + U_f.T @ da_f[1] + U_o.T @ da_o[1] + U_g.T @ da_g[1]"),
    ("lstm", "f[t] = sigmoid(a_f[t])"),
    ("lstm_peephole",
     "dc[t] = da_o[t]*p_o + dh[t]*o[t]*sech(c[t])**2 + p_i*da_i[t+1] + p_f*da_f[t+1] + dc[t+1]*f[t+1]"),
    ("gru", "dz[t] = dh[t] * (n[t] - h[t-1])"),
    ("gru", "dz[t] = dh[t] * n[t] - dh[t] * h[t-1]"),
    ("gru_reset_after", "dr[t] = da_n[t] * (U_n @ h[t-1]) + b_Rn * da_n[t]"),
    ("antisymmetric_penalty", "dU = dA - dA.T + 0.02 * U"),
    ("matrix_memory", "df[t] = sum(dC[t] * C[t-1]) + sum(dn[t] * n[t-1])"),
    ("two_layers", "di[t,l] = dc[t,l] * tanh(a_g[t,l])"),
]


@pytest.mark.parametrize(("name", "line"), FORMS)
def test_any_algebraically_equal_form_is_right(name, line):
    assert only(name, line).verdict == "right", only(name, line)


def test_delays_of_several_steps_are_read_as_they_are_written():
    far = Cell("h[t] = tanh(W @ x[t] + U @ h[t-1] + R @ h[t-3])")
    grade = far.grade("""
        dh[t] = Delta_h[t] + U.T @ da_h[t+1] + R.T @ da_h[t+3]
        da_h[t] = dh[t] * (1 - h[t]**2)
        dW = sum_t(outer(da_h[t], x[t]))
        dU = sum_t(outer(da_h[t], h[t-1]))
        dR = sum_t(outer(da_h[t], h[t-3]))""")
    assert grade.ok and not any("lag" in name for name in grade.left_out), grade
    (wrong,) = far.grade("dh[t] = Delta_h[t] + U.T @ da_h[t+1]").lines
    assert "missing: `R.T @ da_h[t+3]`" in wrong.notes[0]


def test_what_lies_two_steps_outside_is_no_zero():
    far = Cell("h[t] = tanh(U @ h[t-1] + x[t])\ny[t] = h[t-1] * x[t-2]")
    line = "dh[0] = U.T @ da_h[1]"
    assert [one.verdict for text in (line, f"{line} + dy[1] * x_lag1[0]") for one in far.grade(text).lines] == [
        "wrong", "right"]


def test_names_of_her_own_are_taken_as_she_defines_them():
    grade = ar.zoo["rnn"].grade("""
        bend(v) = 1 - v**2
        back[t] = U.T @ da_h[t+1]        # what comes back
        da_h[t] = (Delta_h[t] + back[t]) * bend(h[t])
        dW = sum_t(outer(da_h[t], x[t]))
        dU = sum_t(outer(da_h[t], h[t-1]))
        db = sum_t(da_h[t])""")
    assert grade.ok and [line.verdict for line in grade.lines] == ["own name", *["right"] * 4]
    assert grade.missing == () and grade.left_out == ("dx[t]", "dh[0]")


def test_what_is_missing_is_named():
    grade = ar.zoo["rnn"].grade("dU = sum_t(outer(da_h[t], h[t-1]))")
    assert not grade.ok and grade.missing == ("dh[t]", "da_h[t]", "dW", "db")
    assert "missing" in str(grade)


RNN = """dh[t] = Delta_h[t] + {}
da_h[t] = dh[t] * (1 - h[t]**2)
dW = sum_t(outer(da_h[t], x[t]))
dU = sum_t(outer(da_h[t], h[t-1]))
db = sum_t(da_h[t])"""


def test_a_carry_that_is_used_and_not_derived_is_missing():
    grade = ar.zoo["rnn"].grade(RNN.format("dh_tm1[t+1]"))
    assert {line.verdict for line in grade.lines} == {"right"} and grade.missing == ("dh_tm1[t]",) and not grade.ok
    assert ar.zoo["rnn"].grade(RNN.format("dh_tm1[t+1]") + "\ndh_tm1[t] = U.T @ da_h[t]").ok
    assert not ar.zoo["rnn"].grade(RNN.format("dh_tm1[t+1]") + "\ndh_tm1[t] = dh[t-1] - Delta_h[t-1]").ok


@pytest.mark.parametrize("name", systems.weighed(systems.BASES))
def test_a_pass_that_never_goes_back_is_not_all_right(name):
    """The library's own lines without those of the carries."""
    backward = cell(name).backward()
    carries = set(cell(name).derivation().derived.carries)
    lines = [line for line in str(backward).splitlines() if line.split("[")[0].split(" ")[0] not in carries]
    grade = cell(name).grade("\n".join(lines))
    read = {c for c in carries for line in lines if f"{c}[" in line.split(" = ")[1]}
    assert not read or (grade.missing and not grade.ok), grade


def test_an_end_that_is_read_and_not_given_is_missing():
    first = Cell("h[0] = h0\nh[t] = tanh(W @ x[t] + U @ h[t-1] + b)")
    text = RNN.format("U.T @ da_h[t+1]") + "\ndh0 = dh[0]"
    assert first.grade(text).missing == ("dh[0]",) and not first.grade(text).ok
    assert first.grade(text + "\ndh[0] = U.T @ da_h[1]").ok


def test_a_root_is_graded_where_it_has_a_value():
    for text in ("s[t] = sqrt(w + b * s[t-1]) + x[t]", "s[t] = w + b * s[t-1] + x[t]**1.5",
                 "s[t] = log(w * x[t] + b) * s[t-1]", "s[t] = where(x[t] > b, sqrt(x[t] - b), w * s[t-1])"):
        root = Cell(f"x: input()\nw: ()\nb: ()\n{text}\nL = sum_t(log(s[t]))")
        lines = [equation(eq) for eq in root.derivation().recursion]
        assert root.grade("\n".join(lines)).ok and root.grade(str(root.backward())).ok, text
        for line in lines:
            (found,) = root.grade(f"{line} + {line.split(' = ')[1]}").lines
            assert found.verdict == "wrong" and not any("nan" in note for note in found.notes), found


def test_where_no_point_tells_no_line_is_judged():
    (line,) = Cell("x: input()\nL = sum_t(log(tanh(x[t]) - 1))").grade("dx[t] = dL / (tanh(x[t]) - 1)").lines
    assert line.verdict == "not judged" and not line.ok and "No point was found" in line.notes[0]


CASES = [  # (what is added to a right line, the verdict)
    ("where(t > 4, h[t], 0 * h[t])", "wrong"),
    ("where(t > 60, h[t], 0 * h[t])", "wrong"),
    ("where(t == 25, h[t], 0 * h[t])", "wrong"),
    ("where(t % 50 == 49, h[t], 0 * h[t])", "wrong"),
    ("where(t == T - 7, h[t], 0 * h[t])", "wrong"),
    ("where(T > 10, h[t], 0 * h[t])", "wrong"),
    ("floor(t / 12) * h[t]", "wrong"),
    ("maximum(t - 30, 0) * h[t]", "wrong"),
    ("(abs(t - 9) - (9 - t)) * h[t]", "wrong"),
    ("where(t > late, h[t], 0 * h[t])\nlate = 3 * 9", "wrong"),
    ("where(t > 4, h[t], h[t]) - h[t]", "right"),
    ("where(t > 1000, h[t], 0 * h[t])", "not judged"),
    ("floor(t / 700) * h[t]", "not judged"),
]


@pytest.mark.parametrize("added, verdict", CASES)
def test_a_case_that_comes_up_late_is_seen(added, verdict):
    line = judged("rnn", f"dh[t] = Delta_h[t] + U.T @ da_h[t+1] + {added}")[0]
    assert line.verdict == verdict, line


@pytest.mark.parametrize("cut", [1, 7, 25, 49])
def test_a_recurrence_cut_at_one_step_is_wrong(cut):
    line = only("rnn", f"dh[t] = Delta_h[t] + where(t == {cut}, 0 * dh[t], U.T @ da_h[t+1])")
    assert line.verdict == "wrong", line


# --- what is wrong -----------------------------------------------------------------------------------------------

MISTAKES = [  # (cell, line, verdict, what a note says)
    ("lstm", "da_f[t] = df[t]", "wrong", "missing the factor `f[t] * (1 - f[t])`"),
    ("lstm", "da_f[t] = dc[t] * c[t-1] * f[t]", "wrong", "missing the factor `1 - f[t]`"),
    ("lstm", "dc[t] = dh[t] * o[t] * (1 - tanh(c[t])**2)", "wrong", "missing: `dc[t+1] * f[t+1]`, what c[t] owes"),
    ("lstm", "dh[t] = Delta_h[t] + U_i @ da_i[t+1] + U_f.T @ da_f[t+1] + U_o.T @ da_o[t+1] + U_g.T @ da_g[t+1]",
     "transpose", "`U_i` should be `U_i.T`"),
    ("lstm", "dh[t] = Delta_h[t] + U_i @ da_i[t+1] + U_f @ da_f[t+1] + U_o @ da_o[t+1] + U_g @ da_g[t+1]",
     "transpose", "`U_g` should be `U_g.T`"),
    ("lstm", "df[t] = dc[t] * c[t]", "time index", "`c[t]` should be `c[t-1]`"),
    ("lstm", "dc[t] = dh[t] * o[t] * (1 - tanh(c[t])**2) + dc[t] * f[t]", "time index",
     "`dc[t] * f[t]` should be `dc[t+1] * f[t+1]`"),
    ("lstm_peephole", "dc[t] = dh[t]*o[t]*(1 - tanh(c[t])**2) + da_i[t+1]*p_i + da_f[t+1]*p_f + dc[t+1]*f[t+1]",
     "wrong", "missing: `da_o[t] * p_o`, what c[t] owes through a_o[t]"),
    ("lstm_peephole", "dc[0] = dc[1] * f[1] + da_i[1] * p_i", "wrong", "missing: `da_f[1] * p_f`"),
    ("lstm", "dW_i = sum_t(outer(x[t], da_i[t]))", "transpose", "should be `outer(da_i[t], x[t])`"),
    ("lstm", "dW_i = sum_t(da_i[t] @ x[t].T)", "shape", "should be `outer(da_i[t], x[t])`"),
    ("lstm", "dx[t] = W_i.T * da_i[t] + W_f.T @ da_f[t] + W_o.T @ da_o[t] + W_g.T @ da_g[t]", "shape",
     "`W_i.T * da_i[t]` should be `W_i.T @ da_i[t]`"),
    ("lstm", "db_i = sum_t(outer(da_i[t], x[t]))", "shape", "its shape is (h, x); db_i has the shape (h)"),
    ("lstm", "db_i = sum_t(x[t])", "shape", "`x[t]` should be `da_i[t]`"),
    ("lstm", "df[t] = -dc[t] * c[t-1]", "wrong", "wrong sign"),
    ("lstm", "da_g[t] = dg[t] * (1 + g[t]**2)", "wrong", "wrong sign: `g[t]**2` in `dg[t] * (1 + g[t]**2)`"),
    ("divide", "dq[t] = -dy[t]", "wrong", "wrong sign"),
    ("lstm", "da_g[t] = dg[t] * g[t] * (1 - g[t])", "wrong", "`g[t] * (1 - g[t])` should be `1 - g[t]**2`"),
    ("lstm", "df[t] = dc[t] * c[t-1] * f[t]", "wrong", "the factor `f[t]` is too much"),
    ("lstm", "df[t] = dc[t] * c[t-1] + di[t]", "wrong", "too much: `di[t]`"),
    ("lstm", "dW_f = sum_t(outer(da_f[t+1], x[t+1]))", "time index", "should be `sum_t(outer(da_f[t], x[t]))`"),
    ("gru", "dU_n = sum_t(outer(da_n[t], h[t-1]))", "wrong", "missing the factor `r[t]`"),
    ("gru", "dr[t] = U_n.T @ (da_n[t] * h[t-1])", "wrong", "should be `(U_n.T @ da_n[t]) * h[t-1]`"),
    ("vanilla", "dy[t] = softmax(y[t])", "wrong", "should be"),
    ("two_layers", "di[t,l] = dc[t,l] * tanh(a_g[t,l-1])", "time index", "`a_g[t,l-1]` should be `a_g[t,l]`"),
    ("bidirectional", "dhb[t] = split(dm[t], hf[t], hb[t], 2) + U_b.T @ da_hb[t+1]", "time index", "`da_hb[t-1]`"),
    ("lstm", "dh[t] = sum_batch(Delta_h[t])", "wrong", "for instance"),
    ("rnn", "dW = mean_batch(sum_t(outer(da_h[t], x[t])))", "wrong", "for instance"),
    ("rnn", "da_h[t] = dh[t] * (1 - h[t]**2) + 1000000000 * (x[t] @ x[t])", "wrong", "too much: `1000000000"),
    ("rnn", "db = sum_t(da_h[t]) * T / 3", "wrong", "for instance"),
    ("antisymmetric_penalty", "dzeta = -sum(dA * I) + 0 * log(-1 - zeta**2)", "wrong", "for instance"),
]


@pytest.mark.parametrize(("name", "line", "verdict", "note"), MISTAKES)
def test_mistakes_are_named(name, line, verdict, note):
    found = only(name, line)
    assert found.verdict == verdict, found
    assert any(note in said for said in found.notes), found.notes


CIRCULAR = [  # (cell, text, verdicts)
    ("rnn", "dU = dU", ["circular"]),
    ("rnn", "q[t] = dx[t]\ndx[t] = q[t]", ["circular", "circular"]),
    ("rnn", "dh[t] = da_h[t] / (1 - h[t]**2)\nda_h[t] = dh[t] * (1 - h[t]**2)", ["circular", "circular"]),
    ("rnn", "dh[t] = Delta_h[t] + U.T @ da_h[t+1] + 0 * dh[t]\nda_h[t] = dh[t] * (1 - h[t]**2)", ["circular", "right"]),
    ("rnn", "dh[t] = Delta_h[t] + U.T @ da_h[t+1]\nda_h[t] = dh[t] * (1 - h[t]**2)", ["right", "right"]),
    ("rnn", "q[t] = dx[t-1]\ndx[t] = q[t+1] + like(0, x[t])", ["own name", "wrong"]),  # x[T+1] is none of ours
    ("rnn", "s = sum_t(da_h[t])\ndb = s\nq = db", ["own name", "right", "own name"]),
    ("rnn", "dh[t] = Delta_h[t] + U.T @ da_h[t]\nda_h[t] = dh[t] * (1 - h[t]**2)", ["time index", "right"]),
    ("two_layers", "dc[t,l] = dc[t,l]", ["circular"]),
    ("rnn", "dh[t] = Delta_h[t] + U.T @ da_h[t+1] + 0 * dh[t-1]\nda_h[t] = dh[t] * (1 - h[t]**2)", ["both ways"] * 2),
]


@pytest.mark.parametrize(("name", "text", "verdicts"), CIRCULAR)
def test_a_line_that_waits_for_itself_defines_nothing(name, text, verdicts):
    lines = judged(name, text)
    assert [line.verdict for line in lines] == verdicts, lines
    assert all(bool(line.notes) != line.ok for line in lines)


CANCELS = "h[t] = tanh(W @ x[t] + U @ h[t-1])\nL = sum_t(sum(softmax(h[t])))"  # which is T
CENTRED = """
    a[t] = W @ x[t] + U @ h[t-1]
    m[t] = mean_batch(a[t])
    h[t] = tanh(a[t] - m[t])
    L = sum_t(sum(h[t]**3))"""

VANISHING = [  # (cell, line, verdict): the truth is zero, always or of two examples
    (CENTRED, "dW = sum_batch(sum_t(outer(da[t], x[t])))", "right"),
    (CENTRED, "dW = sum_batch(sum_t(outer(da[t], 3 * x[t])))", "wrong"),
    (CENTRED, "dx[t] = 2 * (W.T @ da[t])", "wrong"),
    (CANCELS, "dW = sum_t(outer(da_h[t], x[t]))", "right"),
    (CANCELS, "da_h[t] = dh[t] * (1 - h[t])*(1 + h[t])", "right"),
    (CANCELS, "da_h[t] = dh[t]", "not judged"),
    (CANCELS, "da_h[t] = dh[t] * (1 - h[t-1]**2)", "not judged"),
    (CANCELS, "dW = sum_t(outer(da_h[t], 3 * x[t]))", "not judged"),
    (CANCELS, "dW = 0 * W", "not judged"),
    (CANCELS, "dW = sum_t(outer(h[t], x[t]))", "wrong"),
]


@pytest.mark.parametrize(("text", "line", "verdict"), VANISHING)
def test_where_the_truth_vanishes_not_every_line_is_right(text, line, verdict):
    (found,) = Cell(text).grade(line).lines
    assert found.verdict == verdict and (found.ok or found.notes), found


UNFIT = [  # (cell, line): terms or trial edits whose shapes do not fit together
    ("h[t] = tanh(W @ slice(x[t], 0, 2) + U @ h[t-1])", "dx[t] = unslice(W.T @ da_h[t-1], x[t], 0, 2)"),
    ("h[t] = tanh(W @ slice(x[t], 0, 2) + U @ h[t-1])", "dx[t] = unslice(W.T @ da_h[t], x[t], 1, 3)"),
    ("h[t] = tanh(W @ slice(x[t], 0, 2) + U @ h[t-1])", "dx[t] = unslice(h[t-1], x[t], 0, 2)"),
    ("h[t] = tanh(U @ h[t-1] + sum_s(V @ z[s]) * T)\nL = sum_t(sum(h[t]**2)) / (S * T)",
     "dV = sum_s(outer(sum_t(da_h[t]), z[s])) * (S * T)"),
    ("h[t] = tanh(W @ x[t] + U @ h[t-1])", "dh[t] = Delta_h[t] + x[t] + W.T @ da_h[t+1] + 2 * W + h[t-1]"),
]


@pytest.mark.parametrize(("text", "line"), UNFIT)
def test_what_cannot_be_evaluated_does_not_count(text, line):
    (found,) = Cell(text).grade(line).lines
    assert not found.ok and found.notes, found


def mutants(root: Node) -> list[Node]:
    """An expression with one thing wrong: a sign, a transpose, a position, a term or a factor dropped."""
    found = [node(P.neg, root)]
    values = lambda n: [a for k, a in enumerate(n.args) if k not in n.op.shape_only]
    order = [n for n in reversed(topological([root], values)) if n.op is not P.neg]
    for n in order:
        new: list[Node] = []
        if n.op is P.add and not any(a.op.name == "const" for a in n.args):
            new += [P.total(*(a for a in n.args if a is not b)) for b in n.args]
            new += [P.total(*(-a if a is b else a for a in n.args)) for b in n.args]
        if n.op is P.mul and "dL" not in map(expression, n.args):  # which is 1
            new += n.args
        if n.op is P.transpose:
            new += n.args
        if n.op is P.outer:
            new.append(node(P.outer, *reversed(n.args)))
        if n.op is READ:
            new += [node(READ, params=(n.params[0], (*n.params[1][:k], p._replace(offset=p.offset + move),
                                                     *n.params[1][k + 1:])))
                    for k, p in enumerate(n.params[1]) if p.base == "i" for move in (-1, 1)]
        found += [replaced(root, {n: m}) for m in new]
    return list(dict.fromkeys(found))


DAMAGED = {*systems.BASES, "fgr", "bidirectional", "last_loss", "matrix_memory"}
DAMAGED -= {"lstm_depth_gated"}  # nothing is below its first layer's cell: a line that leaves out zero is right


def solved(name: str, lines: tuple[Equation, ...]) -> dict:
    """The gradients of one example that lines in place of the recursion would give, at a random point."""
    d, rng = cell(name).derivation(), np.random.default_rng(0)
    forward, final = d.derived.forward, d.final_system
    system = System([*forward.equations, *lines], final.axes, forward.model, final.declarations)
    given = drawn(forward, seed=4, batch=1)
    for n in d.derived.seeds.values():
        shape = tuple(given.extents[i] for i in system.axes[n]), tuple(given.sizes[s] for s in forward.shapes[n[6:]])
        given.values[n] = rng.normal(size=(*shape[0], 1, *shape[1]))
    sizes = carry_over(given.sizes, forward.inferred, system.inferred)
    return evaluate(system, replace(given, sizes=sizes))


def holds(name: str, eq: Equation, mutant: Node) -> bool:
    """Whether a damaged line is true after all: what a last step does not feed may be left out, a factor is 1."""
    lines = recursion(name)
    try:
        new = solved(name, tuple(Equation(e.name, e.at, mutant) if e is eq else e for e in lines))
    except CellError:
        return False  # not even an order of evaluation
    return all(np.allclose(new[n], v, rtol=1e-9, atol=1e-12) for n, v in solved(name, lines).items())


@pytest.mark.parametrize("name", systems.weighed(sorted(DAMAGED)))
def test_no_mutated_line_is_right(name):
    lines = {eq: mutants(eq.value) for eq in recursion(name)}
    for k in range(max(map(len, lines.values()))):
        damaged = {f"{eq} = {expression(ms[k])}": (eq, ms[k]) for eq, ms in lines.items() if k < len(ms)}
        for line in judged(name, "\n".join(damaged)):
            assert not line.ok or holds(name, *damaged[line.text]), f"judged {line.verdict}: {line.text}"
            assert line.ok or line.notes


def test_a_wrong_line_does_not_hide_in_rounding():
    for extra in ("0.000001 * dh[t]", "1000000000000 * (h[t] - h[t]) + 0.00001 * h[t]"):
        assert not only("rnn", f"da_h[t] = dh[t] * (1 - h[t]**2) + {extra}").ok


# --- texts -------------------------------------------------------------------------------------------------------

UNREADABLE = [  # (text, the fact, the line's number, what stands at the caret)
    ("\ndq[t] = x[t] * dhh[t]", "`dhh` is no name of the cell", 2, "dhh"),
    ("da_h[t] = dh[s]", "`s` is no index of this cell", 1, "s]"),
    ("da_h[t] = dh[x]", "`x` is no index of this cell", 1, "x]"),
    ("dW = 1\ndW = 2", "`dW` is defined twice", 2, "dW"),
    ("W = 1", "`W` is given and needs no equation", 1, "W"),
    ("x[t] = h[t]", "`x` is given and needs no equation", 1, "x"),
    ("dW: axis", "equations only", 1, "dW"),
    ("dh[t], dW = h[t]", "one name", 1, "dW"),
    ("da_h = dh[t]", "stands here without its index", 1, "da_h"),
    ("dh[t] = dh[t+1] *", "This is not an expression", 1, None),
    ("dW = outer(da_h[t], x[t])", "`t` is not on the left side", 1, "da_h"),
    ("dh[t] = rnn(h[t])", "no function", 1, "rnn"),
    ("dh[t] = dh[t+101]", "101 steps away", 1, None),
    ("dh[t] = W[t] @ dh[t]", "other indices", 1, "W[t]"),
    ("q[t] = dh[t]\nda_h[t] = q", "stands here without its index", 2, "q"),
    ("f(v) = v @\nda_h[t] = f(dh[t])", "This is not an expression", 1, None),
    ("f(v) = W * v * dh\nda_h[t] = f(dh[t])", "stands here without its index", 1, "dh"),
    ("f(v) = v + v\n" + "dh[t] = " + "f(" * 30 + "h[t]" + ")" * 30, "operations", 2, None),
    ("g(v) = v\ng(v) = 2 * v", "defined twice", 2, "g"),
]


@pytest.mark.parametrize(("text", "fact", "number", "caret"), UNREADABLE)
def test_what_cannot_be_read_is_told_at_its_place_and_the_rest_is_judged(text, fact, number, caret):
    grade = ar.zoo["rnn"].grade(f"{text}\ndb = sum_t(da_h[t])")
    found = next(line for line in grade.lines if line.number == number)
    assert found.verdict == "unreadable" and fact in found.notes[0] and not grade.ok, grade
    source, mark = next((a, b) for a, b in zip(found.notes[1:], found.notes[2:]) if b.strip() == "^")
    assert source.endswith(found.text) and found.text in text
    assert caret is None or source[mark.index("^"):].startswith(caret)
    last = grade.lines[-1]
    assert (last.text, last.verdict, last.number) == ("db = sum_t(da_h[t])", "right", text.count("\n") + 2)


@pytest.mark.parametrize(("text", "fact"), [
    ("", "defines nothing"), ("# nothing\n", "defines nothing"), (7, "is a string"),
    ("\n".join(f"q{k}[t] = h[t]" for k in range(501)), "more than 500 lines")])
def test_what_is_no_homework_is_refused(text, fact):
    with pytest.raises(CellError, match=fact):
        ar.zoo["rnn"].grade(text)


def test_many_unreadable_lines():
    assert not ar.zoo["rnn"].grade("\n".join(f"q{k}[t] = q{k}" for k in range(100))).ok


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_are_refused_or_judged(text):
    with suppress(CellError):
        assert not ar.zoo["rnn"].grade(text).ok


def test_nothing_of_a_text_reaches_html_or_the_terminal():
    grade = ar.zoo["rnn"].grade("db = sum_t(da_h[t])   # <script>alert(1)</script> \x1b[2J")
    assert "<script" not in grade._repr_html_() and "\x1b" not in str(grade) and "script" not in str(grade)
    grade = ar.zoo["rnn"].grade("da_h[t] = where(h[t] < x[t], h[t], 0)")
    assert "h[t] &lt; x[t]" in grade._repr_html_()


def test_long_sums_and_many_mistakes():
    text = "dh[t] = " + " + ".join(f"{k} * h[t] * x[t]" for k in range(300))
    text += "\nda_h[t] = " + " + ".join(f"{k} * h[t-1] * dh[t+1] * h[t]" for k in range(38))
    assert not ar.zoo["rnn"].grade(text).ok


# --- the command line and the example ----------------------------------------------------------------------------


def test_the_homework_has_five_mistakes():
    grade = ar.zoo["lstm_peephole"].grade(HOMEWORK.read_text())
    wrong = {line.text.split("[")[0].split(" ")[0] if "[0]" not in line.text else "dc[0]": line.verdict
             for line in grade.lines if not line.ok}
    assert wrong == {"dh": "transpose", "dc": "wrong", "da_f": "wrong", "dU_f": "time index", "dc[0]": "wrong"}
    assert not grade.missing


@pytest.mark.parametrize(("text", "status"), [
    ("dh[t] = Delta_h[t] + U.T @ da_h[t+1]\nda_h[t] = dh[t] * (1 - h[t]**2)\ndW = sum_t(outer(da_h[t], x[t]))\n"
     "dU = sum_t(outer(da_h[t], h[t-1]))\ndb = sum_t(da_h[t])", 0),
    ("dh[t] = Delta_h[t]", 1), ("dh[t] = ", 1), ("# nothing", 2)])
def test_the_command_says_it_by_its_status(tmp_path, capsys, text, status):
    path = tmp_path / "homework.txt"
    path.write_text(text)
    assert main(["grade", "rnn", str(path)]) == status
    said = capsys.readouterr()
    assert ("lines right" in said.out) == (status < 2) and bool(said.err) == (status == 2)
    assert main(["grade", "rnn", str(tmp_path / "none.txt")]) == 2
