"""The checker bites: seeded faults in rules, terms, transposes, carries and steps are all caught."""

from dataclasses import replace

import numpy as np
import pytest
import verdicts
from test_primitives import USES, problem

from autograd_rnn import Cell, zoo
from autograd_rnn import primitives as P
from autograd_rnn.equations import System
from autograd_rnn.graph import READ, const, extent, index, node, rewrite, topological
from autograd_rnn.primitives import PRIMITIVES

RULES = [(name, k) for name, p in PRIMITIVES.items() if p.vjp is not None
         for k, part in enumerate(p.vjp(*(lambda n: (n, n, *n.args))(
             next(n for n in problem(USES[name])[0].system.nodes if n.op.name == name))))
         if part is not None]


def damaged(rule, k, factor):
    """The rule with operand k's cotangent scaled."""
    def wrong(g, y, *x):
        parts = list(rule(g, y, *x))
        if k < len(parts) and parts[k] is not None:
            parts[k] = parts[k] * const(factor)
        return tuple(parts)

    return wrong


@pytest.mark.parametrize("factor", [-1.0, 1 + 1e-9])
@pytest.mark.parametrize("name, k", RULES)
def test_a_damaged_rule_is_caught(name, k, factor):
    """A sign, and an error of one part in a billion, in each operand of each primitive."""
    cell, params, inputs = problem(USES[name])
    primitive = PRIMITIVES[name]
    right = primitive.vjp
    object.__setattr__(primitive, "vjp", damaged(right, k, factor))
    try:
        by_adjoint = cell.check_gradients(params, tape=False, **inputs)
        by_tape = cell.check_gradients(params, tape=True, **inputs)
    finally:
        object.__setattr__(primitive, "vjp", right)
    assert not by_adjoint.ok
    assert any(s.note == "tape" or s.error > 1e-12 for s in by_tape.slices) and not by_tape.ok


def lstm(T=6, loss="\nL = sum_t(sum(h[t]**2))"):
    cell = Cell(zoo["lstm"].text + loss)
    rng = np.random.default_rng(0)
    params = {n: 0.6 * rng.normal(size=v.shape) for n, v in cell.init(x=3, h=3).items()}
    return cell, params, {"x": rng.normal(size=(T, 2, 3))}


def with_damage(cell, params, inputs, change):
    """The check of a cell whose adjoint equations have been changed: change(equation) gives the new value."""
    cell.gradient(params, **inputs)
    cache = vars(cell.system)["_adjoints"]
    (key, derived), = cache.items()
    forward = set(derived.forward.equations)
    equations = [eq if eq in forward else replace(eq, value=change(eq)) for eq in derived.system.equations]
    system = System(equations, derived.system.axes, derived.system.model, derived.system.declarations)
    cache[key] = replace(derived, system=system)
    return cell.check_gradients(params, tape=False, **inputs)


def adjoint_equations():
    cell, params, inputs = lstm()
    cell.gradient(params, **inputs)
    (derived,) = vars(cell.system)["_adjoints"].values()
    forward = set(derived.forward.equations)
    return [eq for eq in derived.system.equations if eq not in forward]


EQUATIONS = adjoint_equations()
TERMS = [(str(eq), k) for eq in EQUATIONS if eq.value.op is P.add for k in range(len(eq.value.args))]
TRANSPOSES = [(str(eq), k) for eq in EQUATIONS
              for k, _ in enumerate(n for n in topological([eq.value]) if n.op is P.transpose)]


def test_the_undamaged_adjoint_passes():
    cell, params, inputs = lstm()
    assert with_damage(cell, params, inputs, lambda eq: eq.value).ok


@pytest.mark.parametrize("name", [str(eq) for eq in EQUATIONS])
def test_a_sign_is_caught(name):
    cell, params, inputs = lstm()
    assert not with_damage(cell, params, inputs, lambda eq: -eq.value if str(eq) == name else eq.value).ok


@pytest.mark.parametrize("name, k", TERMS)
def test_a_missing_term_is_caught(name, k):
    """Every term of every sum of the adjoint, the carries from the next step among them."""
    def change(eq):
        if str(eq) != name:
            return eq.value
        return P.total(*(a for j, a in enumerate(eq.value.args) if j != k))

    cell, params, inputs = lstm()
    assert not with_damage(cell, params, inputs, change).ok


@pytest.mark.parametrize("name, k", TRANSPOSES)
def test_a_transpose_is_caught(name, k):
    def change(eq):
        if str(eq) != name:
            return eq.value
        target = [n for n in topological([eq.value]) if n.op is P.transpose][k]
        return rewrite([eq.value], lambda n, args: args[0] if n is target else None)[eq.value]

    cell, params, inputs = lstm()
    assert not with_damage(cell, params, inputs, change).ok


@pytest.mark.parametrize("bias", ["b_i", "b_f", "b_o", "b_g"])
def test_a_dropped_bias_is_caught(bias):
    cell, params, inputs = lstm()
    change = lambda eq: eq.value * const(0.0) if eq.name == f"d{bias}" else eq.value
    assert not with_damage(cell, params, inputs, change).ok


@pytest.mark.parametrize("cut", range(1, 50))
def test_a_recurrence_cut_at_one_step_is_caught(cut):
    """BPTT over 50 steps that loses what comes back over one of its boundaries."""
    def change(eq):
        if eq.name in ("dh_tm1", "dc_tm1"):
            return node(P.where, node(P.eq, index("t"), const(cut + 1)), const(0), eq.value)
        return eq.value

    cell, params, inputs = lstm(T=50, loss="\nL = sum(h[T]**2)")
    assert not with_damage(cell, params, inputs, change).ok


def test_a_sequence_cut_by_its_length_is_caught():
    def change(eq):
        if eq.name in ("dh_tm1", "dc_tm1"):
            return node(P.where, node(P.eq, index("t"), extent("t")), const(0), eq.value)
        return eq.value

    cell, params, inputs = lstm(T=5)
    assert not with_damage(cell, params, inputs, change).ok


def test_an_example_does_not_hide_beside_a_larger_one():
    """The second example is saturated: its gradients are 1e-10 of the first one's, and wrong."""
    cell, params, inputs = lstm(T=3)
    inputs["x"][:, 1] *= 30
    change = lambda eq: eq.value * const(1.001) if eq.name == "dx" else eq.value
    report = with_damage(cell, params, inputs, change)
    assert {s.at[1] for s in report.slices if s.name == "x" and s.error > 1e-12} == {0, 1}


def test_a_layer_does_not_hide_beside_a_larger_one():
    cell = Cell("l: axis\nh[t,0] = x[t]\nh[t,l] = tanh(W[l] @ h[t,l-1] + U[l] @ h[t-1,l])\nloss = sum_t(sum(h[t,L]))")
    rng = np.random.default_rng(0)
    params = {n: rng.normal(size=v.shape) for n, v in cell.init(h=3, l=3).items()}
    params["W"][2] *= 1e-14
    lower = node(P.lt, index("l"), const(3))
    change = lambda eq: node(P.where, lower, const(0), eq.value) if eq.name == "dU" else eq.value
    assert not with_damage(cell, params, {"x": rng.normal(size=(4, 2, 3))}, change).ok


def test_the_report_names_the_worst_first():
    cell, params, inputs = lstm()
    report = with_damage(cell, params, inputs, lambda eq: eq.value * const(2.0) if eq.name == "dW_o" else eq.value)
    assert str(report).splitlines()[1].startswith("W_o")
    assert "NOT all within 1e-12" in str(report) and f"{report.count} slices" in str(report)


def test_cancelling_contributions_are_judged_by_their_size():
    """A shift under a softmax has a gradient of exactly zero; rounding leaves 1e-17 of it, and that is no error."""
    cell = Cell("""
        a[t,j] = softmax_j(sum(v * tanh(W @ s[t-1] + U @ h[j])) + c0)
        s[t] = tanh(sum_j(a[t,j] * h[j]) + x[t])
        L = sum_t(sum(s[t]**2))
        c0: ()
        """)
    rng = np.random.default_rng(0)
    params = {n: rng.normal(size=v.shape) for n, v in cell.init(h=3, v=2).items()}
    report = cell.check_gradients(params, h=rng.normal(size=(4, 2, 3)), x=rng.normal(size=(5, 2, 3)))
    assert report.ok, report
    assert any(s.name == "c0" and s.size < 1e-13 for s in report.slices)


def test_float32_parameters_are_checked_in_float64():
    cell, params, inputs = lstm()
    params = {n: v.astype(np.float32) for n, v in params.items()}
    assert cell.check_gradients(params, x=inputs["x"].astype(np.float32)).ok


# --- no false alarm, and nothing that hides behind one ---------------------------------------------------------------

STABILISED = """
k[t] = W_k @ x[t]
v[t] = W_v @ x[t]
p[t] = maximum(m[t-1], k[t] + u)
y[t] = (exp(m[t-1] - p[t]) * a[t-1] + exp(k[t] + u - p[t]) * v[t]) / (
    exp(m[t-1] - p[t]) * b[t-1] + exp(k[t] + u - p[t]))
m[t] = maximum(m[t-1] - exp(w), k[t])
a[t] = exp(m[t-1] - exp(w) - m[t]) * a[t-1] + exp(k[t] - m[t]) * v[t]
b[t] = exp(m[t-1] - exp(w) - m[t]) * b[t-1] + exp(k[t] - m[t])
""".replace("(\n   ", "(")  # a maximum that is taken out of every exponent: nothing depends on m
LOG_SPACE = "x: input()\nw: ()\nl[0] = log(0)\nl[t] = log(exp(l[t-1] + w) + exp(x[t]))\nL = sum_t(l[t])"

SOUND = {  # name -> (text, the size of its state or x itself, the exact gradient of one name where it can be said)
    "a stabiliser": (STABILISED, {"k": 4}, None),
    "softmax of a softmax": ("h[t] = tanh(W @ x[t] + U @ h[t-1])\nL = sum_t(sum(softmax(h[t])))", {"h": 4}, ("W", 0)),
    "a root at zero": ("x: input()\ny[t] = x[t]**2.5\nL = sum_t(y[t])", [0, 1, 4], ("x", [0, 2.5, 20])),
    "a root of a square at zero": ("x: input()\nh[t] = 0.5 * h[t-1] + x[t]**2\nL = sum_t(h[t]**1.5)", [0, 0, 4], None),
    "a square that decides": ("x: input()\nL = sum_t(where(x[t]**2 >= 0, x[t], 0))", [0, 1], ("x", [1, 1])),
    "an infinite end": (LOG_SPACE, [0, 1, 2], None),
    "an infinite end, scaled": (LOG_SPACE.replace("l[t-1] + w", "maximum(0.5 * l[t-1] + w, -9)"), [0, 1, 2], None),
}


@pytest.mark.parametrize("name", SOUND)
def test_no_false_alarm(name):
    text, x, known = SOUND[name]
    cell, rng = Cell(text), np.random.default_rng(0)
    sizes, x = ({"x": 3, **x}, rng.normal(size=(6, 2, 3))) if isinstance(x, dict) else ({}, np.asarray(x, float))
    params = {n: rng.normal(size=v.shape) for n, v in cell.init(**sizes).items()}
    report = cell.check_gradients(params, x=x)
    assert report.ok and report.count, report
    if known:
        found = cell.gradient(params, x=x)[1][known[0]]
        np.testing.assert_allclose(found, np.broadcast_to(known[1], found.shape), atol=1e-14)


def test_a_stabiliser_s_fault_is_caught():
    """Each term of what cancels, left out or with the other sign: the rest is as large as the terms.

    Not so what comes through a maximum: it is the gradient of another stabiliser, which is zero.
    """
    cell, rng = Cell(STABILISED + "L = sum_t(sum(y[t]**2))"), np.random.default_rng(0)
    params = {n: rng.normal(size=v.shape) for n, v in cell.init(x=3, k=4).items()}
    inputs = {"x": rng.normal(size=(6, 2, 3))}
    cell.gradient(params, **inputs)
    (derived,) = vars(cell.system)["_adjoints"].values()
    values = {eq.value for eq in derived.system.equations if eq.name in ("dm", "dm_tm1") and eq.value.op is P.add}
    assert len(values) == 2
    chosen = {eq.name for eq in derived.system.equations if eq.value.op is P.where}
    for value in values:
        for a in (a for a in value.args if a.op is not P.where and not (a.op is READ and a.params[0] in chosen)):
            for stand_in in ((), (-a,)):
                fresh = Cell(cell.text)
                wrong = P.total(*(b for b in value.args if b is not a), *stand_in)
                report = with_damage(fresh, params, inputs, lambda eq, old=value, new=wrong: (
                    new if eq.value is old else eq.value))
                assert not report.ok, (value, a)


@pytest.mark.parametrize("cut", [2, 25, 48])
def test_a_cut_does_not_hide_behind_paths_that_cancel(cut):
    """U is half of a Hadamard matrix: |U| doubles at every step what U only turns, 1e15 over 50 steps."""
    cell = Cell("h[t] = U @ h[t-1] + x[t]\nL = sum(h[T]**3)")
    square = np.array([[1, 1], [1, -1]])
    params, inputs = {"U": 0.45 * np.kron(square, square)}, {"x": np.random.default_rng(0).normal(size=(50, 1, 4))}
    change = lambda eq: node(P.where, node(P.eq, index("t"), const(cut)), const(0), eq.value) if (
        eq.name == "dh_tm1") else eq.value
    assert with_damage(Cell(cell.text), params, inputs, lambda eq: eq.value).ok
    assert not with_damage(cell, params, inputs, change).ok


@pytest.mark.parametrize("asked", ["0-2", pytest.param("3-40", marks=pytest.mark.long)])
def test_all_three_verdicts_on_generated_systems_and_their_faults(asked, capsys):
    assert verdicts.main([asked], 2) == 0, capsys.readouterr().out
