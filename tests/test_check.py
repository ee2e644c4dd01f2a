"""The checker bites: seeded faults in rules, terms, transposes, carries and steps are all caught."""

from dataclasses import replace

import numpy as np
import pytest
from test_primitives import USES, problem

from autograd_rnn import Cell, zoo
from autograd_rnn import primitives as P
from autograd_rnn.equations import System
from autograd_rnn.graph import const, extent, index, node, rewrite, topological
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
