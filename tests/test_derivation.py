"""The derivation: every step proved, every printed form well formed, textbook formulas by value and by structure."""

import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
import sympy
import systems
from test_printing import balanced

from autograd_rnn import Cell, CellError, zoo
from autograd_rnn import primitives as P
from autograd_rnn.derivation import Derivation
from autograd_rnn.derivation.document import LEVELS
from autograd_rnn.derivation.points import small_sizes
from autograd_rnn.derivation.proof import prove_closed, prove_steps
from autograd_rnn.derivation.recursion import prove_recursion
from autograd_rnn.derivation.rewrites import single
from autograd_rnn.graph import const, index, node, rewrite
from autograd_rnn.primitives import PRIMITIVES
from autograd_rnn.printing import latex
from autograd_rnn.printing.names import ADJOINTS
from autograd_rnn.printing.text import equation

CELLS = systems.NAMES


def cell_of(name: str) -> Cell:
    return zoo[name] if name in zoo else systems.cell(name)


# --- proved ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CELLS)
def test_every_step_and_every_printed_equation_is_proved(name):
    derivation = cell_of(name).derivation()
    proof = derivation.check()
    assert proof.ok, proof
    assert len(proof.steps) == len(derivation.steps) and len(proof.recursion) == len(derivation.recursion)


@pytest.mark.parametrize("name", systems.SHORT_FIRST)
@pytest.mark.parametrize("order", ["backward", "tangent"])
def test_second_order_is_proved_the_same_way(name, order):
    derivation = getattr(zoo[name], order)().derivation()
    proof = derivation.check(points=5)
    assert proof.ok, proof
    assert balanced(derivation.latex()) and derivation.text() and derivation.sympy()


@pytest.mark.parametrize("text", [
    "h[t] = tanh(w * h[t-1] + x[t])\nL = sum_t(h[t])\nx: input()\nw: ()",  # a state that is a number
    "h[t] = layer_norm(W @ x[t] + U @ h[t-1])\nL = sum_t(sum(h[t]**3))",  # of two components it hardly has a gradient
    "h[t] = tanh(W @ x[t] + U @ h[t-3])\nL = sum_t(sum(h[t]**2))",
    "h[t] = tanh(U @ h[t-1] + x[t])\nL = sum_t(sum((h[t] - h[t-1])**2))",  # a carry that does not vanish outside
    "h[t] = tanh(W @ x[t] + U @ h[t+1])\nL = sum_t(sum(h[t]**2))",
    "h[0] = tanh(b)\nh[t] = where(t % 2 == 0, tanh(W @ x[t]), h[t-1])\nL = sum(h[T]**2)",
    "h[t] = 0.6 * h[t-1] + like(-0.3, h[t-1]) * exp(tanh(h[t-1])) + x[t]",  # a factor that is spread is no identity
    "h[t] = tanh(where(where(t == T, sum(x[t]) > 0.1, 1), U @ h[t-1] + x[t], x[t]))\nL = sum_t(sum(h[t]**2))",
    "h[t] = tanh(U @ h[t-1] + x[t])\n"  # cases in a sum in a function in a sum
    "L = sum_t(sum(sigmoid(V @ concat(h[t], x[t])) * (P @ concat(x[t], h[t]))))",
    "an[j] = tanh(U @ an[j-1] + src[j])\ne[t,j] = sum(u * tanh(an[j]))\n"  # indices in another order for a copy of x
    "ctx[t] = sum_j(sigmoid(e[t,j]) * an[j])\nL = sum_t(sum(ctx[t] * (W @ x[t-1]) + V @ x[t+1]))",
    "h[t] = where(where(1 < 2, 0.5, 0.2) > 0.1, tanh(U @ h[t-1] + x[t]), 0)",  # cases in a condition, of no letter
])
def test_unusual_cells_are_proved_too(text):
    derivation = Cell(text).derivation()
    proof = derivation.check(points=5)
    assert proof.ok and len(proof.recursion) == len(derivation.recursion), proof


OFTEN = "h[t] = tanh(U @ h[t-1] + x[t])\n"

SENT = [  # what arrives from another step does not vanish outside the sequence by itself
    "h[t] = tanh(U @ h[t+1] + x[t])\nL = sum_t(sum((h[t] - h[t+1])**2))",
    OFTEN + "L = sum_t(sum(exp(h[t-1])))",
    OFTEN + "c[t] = 0.5 * c[t-1] + h[t] * exp(c[t-1])\nL = sum_t(sum((h[t] - c[t-1])**2)) + sum_t(sum(c[t] * h[t-1]))",
    OFTEN + "L = sum_t(sum((h[t] - 1) * (h[t-1] - 2)))",
    OFTEN + "L = sum_t(sum((h[t] - h[t-2])**2))",
    OFTEN + "L = sum_t(sum(where(t > 1, (h[t] - h[t-1])**2, h[t-1])))",
    "h[0] = tanh(b)\n" + OFTEN + "L = sum_t(sum((h[t] - h[t-1])**2))",
    "f[t] = tanh(U @ f[t-1] + x[t])\nb[t] = tanh(V @ b[t+1] + x[t])\nL = sum_t(sum((f[t-1] - b[t+1])**2))",
    "h[t,j] = tanh(U @ h[t-1,j] + V @ h[t,j-1] + x[t,j])\nL = sum_t(sum_j(sum((h[t-1,j] - h[t,j-1])**2)))",
    "h[t] = 0.5 * h[t-1] + 2 * x[t+1]\nL = sum_t(sum(h[t]**2))",  # x[t] hears from t-1: of h[0] from outside
    "h[t] = 0.5 * h[t-1] + x[t+1] * (E @ onehot(k[t-1]))\nL = sum_t(sum(h[t]**2))",  # and there is no class at t-2
    "l: axis\nh[t,0] = x[t]\nh[t,l] = tanh(U[l] @ h[t-1,l] + W[l] @ h[t,l-1])\n"
    "Q = sum_t(sum_l(sum((h[t,l] - h[t-1,l])**2)))",
]


@pytest.mark.parametrize("text", SENT)
def test_what_arrives_vanishes_outside_the_sequence(text):
    cell = Cell(text)
    derivation = cell.derivation()
    proof = derivation.check(points=3)
    assert proof.ok and len(proof.recursion) == len(derivation.recursion), proof
    grade = cell.grade("\n".join(map(equation, derivation.recursion)))
    assert grade.ok and grade.missing == grade.left_out == (), grade


BOUNDED = [  # at a random point, log, a root or a power has no value
    "s[t] = w + b * s[t-1] + 0 * x[t]\nL = sum_t(log(s[t]))",
    "s[t] = sqrt(w + b * s[t-1]) + x[t]\nL = sum_t(s[t]**1.5)",
    "z[t] = sigmoid(w * x[t])\ns[t] = log(exp(log(1 - z[t]) + s[t-1]) + exp(log(z[t]) + log(b * x[t])))\n"
    "L = sum_t(exp(s[t]))",  # a gate in log space
    "y[t] = where(x[t] > 0, sqrt(x[t]), 0)\nL = sum_t(w * y[t] + b)",
    "s[0] = log(0)\ns[t] = log(exp(s[t-1] + w) + exp(b * x[t]))\nL = sum_t(s[t])",  # an infinity that is meant
    "s[t] = w * s[t-1] + b * x[t-7]**2\nL = sum_t(s[t]**2.5)",
    "s[t] = where(t > 40, log(x[t]), w * s[t-1] + b)\nL = sum_t(s[t])",
]


@pytest.mark.parametrize("text", BOUNDED)
def test_points_lie_inside_the_domain(text):
    cell = Cell(f"x: input()\nw: ()\nb: ()\n{text}")
    derivation = cell.derivation()
    proof = derivation.check(points=5)
    assert proof.ok and not proof.unchecked and len(proof.recursion) == len(derivation.recursion), proof
    damaged = Derivation(derivation.derived, derivation.outputs)
    damaged.__dict__["steps"] = tuple(step._replace(after=2 * step.after + 1) for step in derivation.steps)
    assert not [v for v in prove_steps(damaged, 5, 0) if v.ok or not v.checked]


def test_vectors_inside_several_domains():
    text = "\n".join(f"{n}[t] = W_{n} @ x[t] + U_{n} @ h[t-1]" for n in "abcd")
    text += "\nh[t] = log(a[t]) + log(b[t]) + sqrt(c[t]) + d[t]**0.3\nL = sum_t(sum(h[t]**1.5))"
    proof = Cell(text).derivation().check(points=5)
    assert proof.ok, proof


@pytest.mark.parametrize("text, fact", [
    ("L = sum_t(log(tanh(x[t]) - 1))", "No point was found"),
    ("h[t] = tanh(h[t-1] + where(t > 400, x[t], 0))\nL = sum_t(h[t])", "do not come up within 100 steps"),
])
def test_what_no_point_tells_is_neither_right_nor_wrong(text, fact):
    proof = Cell(f"x: input()\n{text}").derivation().check(points=3)
    assert not proof.ok and not proof.wrong and len(proof.unchecked) == 1, proof
    assert "not checked" in str(proof).splitlines()[0] and fact in str(proof).splitlines()[-1]


@pytest.mark.parametrize("late", [6, 25, 49])
def test_a_printed_recursion_cut_at_one_step_is_caught(late):
    derivation = Cell("h[t] = tanh(w * h[t-1] + x[t])\nx: input()\nw: ()").derivation()
    at = node(P.eq, index("t"), const(late))
    cut = tuple(replace(eq, value=node(P.where, at, const(0), eq.value)) if str(eq) == "dh[t]" else eq
                for eq in derivation.recursion)
    damaged = Derivation(derivation.derived, derivation.outputs)
    damaged.__dict__["recursion"] = cut
    assert [key for key, error in prove_recursion(damaged, 0) if not error <= 1e-12] == ["dh"]


LOOPS = {  # text -> the indices of its loops, and how many closed forms are proved
    "h[t] = tanh(W @ x[t] + U @ stop_gradient(h[t-1]))": ([], 0),
    "l: axis\nh[t] = tanh(x[t] + U @ h[t-1])\ns[l] = tanh(V[l] + A @ s[l-1])\ny[t,l] = h[t] * s[l]": (["t", "l"], 4),
    "h[t] = tanh(w * h[t-1] + x[t])\ny = T * 1.0\nz[t] = h[t] * y\nx: input()\nw: ()": (["t"], 0),
}


@pytest.mark.parametrize("text", LOOPS)
def test_only_what_a_gradient_runs_back_through_is_a_loop(text):
    derivation = Cell(text).derivation()
    proof = derivation.check(points=3)
    assert proof.ok and ([r.index for r in derivation.recurrences], len(proof.closed)) == LOOPS[text], proof
    assert len(proof.recursion) == len(derivation.recursion)


CANCELLING = [
    "a[t] = W @ x[t] + U @ h[t-1]\nm[t] = mean_batch(a[t])\nh[t] = tanh(a[t] - m[t])\nL = sum_t(sum(h[t]**3))",
    "h[t] = layer_norm(layer_norm(W @ x[t] + U @ h[t-1]))\nL = sum_t(sum(h[t]**2))",
    OFTEN + "L = sum_t(sum(softmax(h[t])))",
    "M = 100000 * A + U\nh[t] = tanh(x[t] + M @ h[t-1] - 100000 * (A @ h[t-1]))\nL = sum_t(sum(h[t]**2))",
]


@pytest.mark.parametrize("text", CANCELLING)
def test_rounding_is_no_fault(text):
    proof = Cell(text).derivation().check(points=5)
    assert proof.ok and proof.worst <= 1e-12, proof
    assert [v.rounding for v in proof.all] == [v.error > 1e-12 for v in proof.all]


def test_a_fault_is_no_rounding():
    derivation = Cell(CANCELLING[-1]).derivation()
    (loop,) = derivation.recurrences
    (block,) = loop.blocks
    wrong = replace(block, routes=((None, block.routes[0][1] * (1 + 1e-10)),))
    damaged = Derivation(derivation.derived, derivation.outputs)
    damaged.__dict__["_recurrences"] = [replace(loop, blocks=(wrong,))], derivation._recurrences[1]
    assert [v.what for v in damaged.check(points=3).wrong] == [
        "the closed form along t", "what truncation keeps and drops along t"]


def test_sums_within_sums():
    text = "h[t] = tanh(W @ x[t] + U @ h[t-1])\ny[t] = layer_norm(layer_norm(h[t]))\nL = sum_t(sum(y[t]**3))"
    assert Cell(text).derivation().check(points=2).ok


def test_the_closed_form_is_proved_where_there_is_one_loop():
    joined = {name for name in systems.BASES if re.search(r"concat\([^)]*\[t-1\]", zoo[name].text)}  # in the loop
    nested = {name for name in systems.BASES if len(zoo[name].system.indices) > 1} - {"cho", "bahdanau"}  # two of s
    found = {name for name in systems.BASES if not zoo[name].derivation().check(points=2).closed}
    assert found == joined | nested and {"vrnn", "draw", "lstm_stacked"} <= found
    both_ways = systems.cell("bidirectional").derivation().check(points=2)
    assert len(both_ways.closed) == 6 and both_ways.ok  # whole and truncated; forward, backward, and above them


@pytest.mark.parametrize("name", [pytest.param("lstm_peephole", marks=pytest.mark.long), "gru", "vanilla"])
def test_every_damaged_step_is_caught_and_named(name):
    derivation = cell_of(name).derivation()
    steps = derivation.steps
    for k, step in enumerate(steps):
        damaged = Derivation(derivation.derived, derivation.outputs)
        damaged.__dict__["steps"] = (*steps[:k], step._replace(after=2 * step.after), *steps[k + 1:])
        verdicts = list(prove_steps(damaged, 2, 0))
        assert [v.ok for v in verdicts] == [j != k for j in range(len(steps))], step
        assert verdicts[k].what.startswith(step.rule)


@pytest.mark.parametrize("primitive", ["sigmoid", "tanh", "mul", "matmul"])
def test_a_damaged_rule_is_caught_and_named(primitive, monkeypatch):
    rule = PRIMITIVES[primitive].vjp
    monkeypatch.setitem(PRIMITIVES[primitive].__dict__, "vjp", lambda g, y, *x: tuple(
        part if part is None else 3 * part for part in rule(g, y, *x)))
    wrong = Cell(zoo.entry("gru").text).derivation().check(points=3).wrong
    assert any(v.what.startswith(f"{primitive} at") for v in wrong)


def without_a_term(value):
    return P.total(*value.args[1:]) if value.op is P.add else -value


@pytest.mark.parametrize("name", ["lstm", "clockwork"])
@pytest.mark.parametrize("damage", [lambda value: value + P.like(0.001, value), without_a_term])
def test_a_damaged_recursion_is_caught_and_named(name, damage):
    derivation = zoo[name].derivation()
    for k, eq in enumerate(derivation.recursion):
        damaged = Derivation(derivation.derived, derivation.outputs)
        damaged.__dict__["recursion"] = (
            *derivation.recursion[:k], replace(eq, value=damage(eq.value)), *derivation.recursion[k + 1:])
        found = [key for key, error in prove_recursion(damaged, 0) if error > 1e-12]
        assert found == [str(eq) if eq.end else eq.name]


def test_damaged_blocks_break_the_closed_form():
    derivation = zoo["lstm"].derivation()
    (loop,) = derivation.recurrences
    for k, block in enumerate(loop.blocks):
        (through, matrix), *others = block.routes
        wrong = replace(block, routes=((through, 2 * matrix), *others))
        damaged = Derivation(derivation.derived, derivation.outputs)
        damaged.__dict__["_recurrences"] = (
            [replace(loop, blocks=(*loop.blocks[:k], wrong, *loop.blocks[k + 1:]))], derivation._recurrences[1])
        assert not all(v.ok for v in prove_closed(damaged, 2, 0))


# --- printed -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CELLS)
def test_every_format_is_well_formed(name):
    derivation = cell_of(name).derivation()
    for level in LEVELS:
        text, tex = derivation.text(level=level), derivation.latex(level=level)
        assert balanced(tex) and tex.count(r"\begin{align*}") == tex.count(r"\end{align*}") > 0
        assert "None" not in text and "object at" not in text and "\\" not in text
        ET.fromstring(derivation.html(level=level).split("\n", 1)[1].replace('<meta charset="utf-8">', "").replace(
            '<meta name="viewport" content="width=device-width, initial-scale=1">', ""))
    for notation in ADJOINTS:
        assert balanced(derivation.latex(level="summary", notation=notation))
        assert derivation.text(level="summary", notation=notation)


@pytest.mark.parametrize("name", CELLS)
def test_text_fits_a_terminal(name):
    lines = cell_of(name).derivation().text(width=96).split("\n")
    wide = [line for line in lines if len(line) > 96]
    assert all(" + " not in line.strip()[2:] or "(" in line for line in wide), wide  # only what has no + to cut at


@pytest.mark.parametrize("name", CELLS)
def test_a_wide_left_side_pushes_nothing_off_the_page(name):
    tex = cell_of(name).derivation().latex(level="every")
    for block in re.findall(r"\\begin\{align\*\}\n(.*?)\n\\end\{align\*\}", tex, re.S):
        lines = [line.split("&", 1) for line in block.split(" \\\\\n")]
        beside = max(latex.width(left) for left, _ in lines)
        assert beside <= latex.WIDEST / 2
        for _, right in lines:
            body = re.sub(r" \\tag\*\{.*\}$", "", right).removeprefix("=").removeprefix(r"\quad{}").strip()
            assert beside + latex.width(body) <= latex.WIDEST + 3 or not latex.breaks(body), body


def test_levels_contain_one_another():
    derivation = zoo["lstm"].derivation()
    sizes = [len(derivation.text(level=level)) for level in LEVELS]
    assert sizes == sorted(sizes) and len(set(sizes)) == 3
    assert derivation.text().endswith(derivation.text(level="summary").split("\n\n")[-1])  # the recursion itself


def test_parts_are_asked_for_by_name():
    derivation = zoo["lstm"].derivation()
    assert derivation.latex("dc").startswith(r"\begin{align*}" + "\n" + r"\mathrm{d}c_{t} &= ")
    assert r"\frac{\partial \mathcal{L}}{\partial c_{t}}" in derivation.latex("dc", notation="partial")
    assert r"\delta c_{t}" in derivation.latex("dc", notation="delta")
    assert "document" not in derivation.latex(document=False)
    assert set(derivation.sympy()) >= {"dc", "dU_f", "dh[0]"}
    assert isinstance(derivation.sympy()["dc"], sympy.Eq)
    for wrong in (lambda: derivation.latex("dq"), lambda: derivation.text(level="all"),
                  lambda: derivation.html(notation="D")):
        with pytest.raises(CellError):
            wrong()


def test_a_notebook_shows_the_derivation():
    shown = zoo["rnn"].derivation()._repr_html_()
    assert "<math" in shown and "<script" not in shown and "http" not in shown.replace("http://www.w3.org/1998", "")


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", r"\input{/etc/passwd}", r"}\end{document}", "$x$ & #1"])
def test_a_hostile_name_injects_nothing(name):
    derivation = Cell("h[t] = tanh(U @ h[t-1] + x[t])", name=name).derivation()
    assert "<script" not in derivation.html() and r"\input" not in derivation.latex()
    assert derivation.latex().count(r"\end{document}") == 1
    assert balanced(derivation.latex().replace(r"\textbackslash{}", "").replace(r"\}", "").replace(r"\{", ""))


@pytest.mark.parametrize("name", ["exec", "input", "os_system", "lambda_", "E", "I", "N", "S", "pi", "b", "J"])
def test_names_that_mean_something_elsewhere_are_names(name):
    cell = Cell(f"{name}[t] = tanh(W_{name} @ {name}[t-1] + R @ {name}[t-2] + x[t])")
    derivation, backward, tangent = cell.derivation(), cell.backward(), cell.tangent()
    assert derivation.check(points=2).ok and f"d{name}" in derivation.sympy() and cell.outputs == (name,)
    assert Cell(backward.text) == backward and Cell(tangent.text) == tangent and cell.grade(str(backward)).ok


# --- the textbooks -----------------------------------------------------------------------------------------------

TEXTBOOKS = {
    # Zhang, Lipton, Li, Smola, Dive into Deep Learning, section 9.7, equations 9.7.10 to 9.7.16
    "Dive into Deep Learning": ("""
h[t] = W_hx @ x[t] + W_hh @ h[t-1]
o[t] = W_qh @ h[t]
l[t] = cross_entropy(o[t], y[t])
L = sum_t(l[t]) / T
""", """
do[t] = dl[t] * softmax_error(o[t], y[t])
dh[t] = W_qh.T @ do[t] + W_hh.T @ dh[t+1]
dW_qh = sum_t(outer(do[t], h[t]))
dW_hx = sum_t(outer(dh[t], x[t]))
dW_hh = sum_t(outer(dh[t], h[t-1]))
"""),
    # the form of most lecture notes; Goodfellow, Bengio, Courville, Deep Learning, section 10.2.2
    "tanh RNN with softmax": ("""
h[t] = tanh(b + U @ h[t-1] + W @ x[t])
o[t] = c + V @ h[t]
l[t] = cross_entropy(o[t], y[t])
L = sum_t(l[t])
""", """
do[t] = dl[t] * softmax_error(o[t], y[t])
dh[t] = V.T @ do[t] + U.T @ da_h[t+1]
da_h[t] = dh[t] * (1 - h[t]**2)
dV = sum_t(outer(do[t], h[t]))
dc = sum_t(do[t])
dW = sum_t(outer(da_h[t], x[t]))
dU = sum_t(outer(da_h[t], h[t-1]))
db = sum_t(da_h[t])
"""),
    # Greff, Srivastava, Koutnik, Steunebrink, Schmidhuber, LSTM: a search space odyssey, arXiv:1503.04069, section II.B
    "peephole LSTM": ("""
z[t] = tanh(W_z @ x[t] + R_z @ y[t-1] + b_z)
i[t] = sigmoid(W_i @ x[t] + R_i @ y[t-1] + p_i * c[t-1] + b_i)
f[t] = sigmoid(W_f @ x[t] + R_f @ y[t-1] + p_f * c[t-1] + b_f)
c[t] = z[t] * i[t] + c[t-1] * f[t]
o[t] = sigmoid(W_o @ x[t] + R_o @ y[t-1] + p_o * c[t] + b_o)
y[t] = tanh(c[t]) * o[t]
""", """
dy[t] = Delta_y[t] + R_z.T @ da_z[t+1] + R_i.T @ da_i[t+1] + R_f.T @ da_f[t+1] + R_o.T @ da_o[t+1]
do[t] = dy[t] * tanh(c[t])
da_o[t] = do[t] * (o[t] * (1 - o[t]))
dc[t] = da_o[t] * p_o + dy[t] * o[t] * (1 - tanh(c[t])**2) + da_i[t+1] * p_i + da_f[t+1] * p_f + dc[t+1] * f[t+1]
df[t] = dc[t] * c[t-1]
da_f[t] = df[t] * (f[t] * (1 - f[t]))
di[t] = dc[t] * z[t]
da_i[t] = di[t] * (i[t] * (1 - i[t]))
dz[t] = dc[t] * i[t]
da_z[t] = dz[t] * (1 - z[t]**2)
dx[t] = W_z.T @ da_z[t] + W_i.T @ da_i[t] + W_f.T @ da_f[t] + W_o.T @ da_o[t]
dW_f = sum_t(outer(da_f[t], x[t]))
dR_f = sum_t(outer(da_f[t], y[t-1]))
db_f = sum_t(da_f[t])
dp_i = sum_t(da_i[t] * c[t-1])
dp_f = sum_t(da_f[t] * c[t-1])
dp_o = sum_t(da_o[t] * c[t])
"""),
}


def unordered(root):
    """An expression with the terms of its sums, and the factors of its products, in one order for all writers."""
    key = lambda n: (n.op.name, str(n.params), *map(key, n.args))

    def change(n, args):
        return node(n.op, *sorted(args, key=key), params=n.params) if n.op in (P.add, P.mul) else None

    return rewrite([root], change)[root]


@pytest.mark.parametrize("name", TEXTBOOKS)
def test_the_textbook_comes_out(name):
    text, printed = TEXTBOOKS[name]
    derivation = Cell(text).derivation()
    assert derivation.check().ok
    given = Cell(text).system.defined
    expected = {eq.name: eq.value for eq in Cell(text + printed).system.equations if eq.name not in given}
    found = {eq.name: eq.value for eq in derivation.recursion if not eq.end}
    assert len(expected) == len(printed.strip().splitlines())
    for adjoint, value in expected.items():
        assert unordered(found[adjoint]) is unordered(value), adjoint


AS_PRINTED = {  # the same, with as much worked in as the books do: by value
    "tanh RNN with softmax": """
dh[t] = V.T @ (softmax(o[t]) - onehot(y[t])) + U.T @ ((1 - h[t+1]**2) * dh[t+1])
dV = sum_t(outer(softmax(o[t]) - onehot(y[t]), h[t]))
dc = sum_t(softmax(o[t]) - onehot(y[t]))
dW = sum_t(outer((1 - h[t]**2) * dh[t], x[t]))
dU = sum_t(outer((1 - h[t]**2) * dh[t], h[t-1]))
db = sum_t((1 - h[t]**2) * dh[t])
""",
    "peephole LSTM": """
da_o[t] = dy[t] * tanh(c[t]) * sigmoid(a_o[t]) * (1 - sigmoid(a_o[t]))
dc[t] = dy[t] * o[t] * sech(c[t])**2 + p_o * da_o[t] + p_i * da_i[t+1] + p_f * da_f[t+1] + dc[t+1] * f[t+1]
da_f[t] = dc[t] * c[t-1] * f[t] * sigmoid(-a_f[t])
da_i[t] = dc[t] * z[t] * i[t] * sigmoid(-a_i[t])
da_z[t] = dc[t] * i[t] * sech(a_z[t])**2
""",
}


@pytest.mark.parametrize("name", AS_PRINTED)
def test_the_textbook_s_own_lines_are_right(name):
    lines = Cell(TEXTBOOKS[name][0]).grade(AS_PRINTED[name]).lines
    assert [line.verdict for line in lines] == ["right"] * len(lines), lines


def test_the_step_jacobians_of_the_textbooks_come_out():
    """tanh RNN: dh_t/dh_{t-1} = diag(1 - h_t^2) U. LSTM: dc_t/dc_{t-1} = diag(f_t), and routes through the gates."""
    (loop,) = zoo["rnn"].derivation().recurrences
    assert [written(zoo["rnn"], b.value) for b in loop.blocks] == ["diag(1 - h[t]²) U"]
    (loop,) = zoo["lstm"].derivation().recurrences
    shown = {str(b.state.params[0] + b.reached.params[0]): written(zoo["lstm"], b.value) for b in loop.blocks}
    assert shown["cc"] == "diag(f[t])"
    assert shown["hc"] == "diag(o[t] ⊙ (1 - tanh(c[t])²)) ∂c[t]/∂c[t-1]"
    assert all(f"U_{gate}" in shown["ch"] for gate in "ifg") and "U_o" in shown["hh"]


def written(cell, n):
    from autograd_rnn.printing import plain

    return plain.expression(plain.Style(cell.derivation().printed), n)


def test_memory_is_what_the_backward_pass_reads():
    text = " ".join(zoo["lstm"].derivation().text().split())
    assert "The backward pass reads x[t], h[t-1], i[t], f[t], o[t], g[t], c[t-1] and c[t]." in text
    needed = {n.params[0] for n in zoo["lstm"].derivation().memory}
    assert not any(name.startswith("a_") for name in needed)


# --- sizes, delays, batches --------------------------------------------------------------------------------------

SIZED = {  # text -> sizes that its proof is drawn at
    "h[t] = tanh(W @ x[t] + U @ h[t-1])": {"x": 2, "h": 3},
    "h[t] = tanh(W @ slice(x[t], 0, 5) + U @ h[t-1])": {"x": 5, "h": 2},
    "h[t] = tanh(slice(x[t], 3, 40) + U @ h[t-1])": {"x": 40},
    "h[t] = tanh(concat(x[t], y[t]) + U @ h[t-1])": {"x": 2, "y": 3, "h": 5},
    "h[t] = tanh(U @ h[t-1] + concat(a[t], b[t]) + concat(x[t], y[t], z[t]))":
        {"x": 2, "y": 3, "z": 4, "a": 5, "b": 4, "h": 9},
    "h[t] = h[t-1] * w[t] + tanh(concat(x[t], y[t], z[t]))\nw: input(3)": {"x": 1, "y": 1, "z": 1},
    "h[t] = tanh(W @ x[t] + V @ y[t] + P @ z[t] + Q @ w[t] + U @ h[t-1])": {"x": 2, "y": 3, "z": 4, "w": 5, "h": 6},
}


@pytest.mark.parametrize("text", SIZED)
def test_sizes_fit_the_equations_and_differ_while_they_can(text):
    cell = Cell(text)
    sizes = small_sizes(cell.system)
    assert {name: sizes[name] for name in SIZED[text]} == SIZED[text]
    assert cell.derivation().check(points=2).ok
    assert cell.grade(str(cell.backward())).ok


def test_sizes_that_cannot_be_are_an_error():
    cell = Cell("h[t] = h[t-1] * w[t] + tanh(concat(x[t], y[t], z[t]))\nw: input(2)")
    with pytest.raises(CellError, match="No small sizes"):
        cell.derivation().check()


DELAYED = ["h[t] = tanh(W @ x[t] + U @ h[t-1] + R @ h[t-3])", "h[t,j] = tanh(x[t,j] + U @ h[t-2,j] + R @ h[t,j+3])",
           "h_lag1[t] = tanh(h[t-1])\nh[t] = tanh(U @ h[t-2]) + h_lag1[t]", "y[t] = V @ x[t-3]"]


@pytest.mark.parametrize("text", DELAYED)
def test_the_library_s_own_copies_are_nobody_s_outputs(text):
    cell = Cell(text)
    assert cell.outputs == (cell.system.equations[-1].name,)
    backward = cell.backward()
    assert not re.search(r"Delta_\w*_(lag|lead)", str(backward)) and Cell(backward.text) == backward
    assert cell.derivation().check(points=3).ok and cell.grade(str(backward)).ok


def test_a_copy_is_an_output_where_it_is_asked_for():
    assert "Delta_h_lag2[t]" in str(Cell(DELAYED[0]).backward(["h_lag2"]))
    assert Cell(DELAYED[0]).derivation(["h_lag2"]).check(points=3).ok


BATCHED = {
    "centred": """
        h[t] = tanh(W @ x[t] + U @ h[t-1])
        m[t] = mean_batch(h[t])
        y[t] = V @ (h[t] - m[t])
        L = sum_t(cross_entropy(y[t], k[t]))""",
    "normalised": """
        a[t] = W @ x[t] + U @ h[t-1]
        m[t] = mean_batch(a[t])
        s[t] = sqrt(mean_batch((a[t] - m[t])**2) + 0.1)
        h[t] = tanh(g * (a[t] - m[t]) / s[t] + b)""",
    "frame average": """
        h[t] = tanh(U @ h[t-1] + x[t])
        L = sum_batch(sum_t(sum(h[t]**2))) / sum_batch(T)""",
    "contrast": """
        h[t] = tanh(U @ h[t-1] + x[t])
        L = log(softmax_batch(sum(w * h[T])))""",
    "in the loop": "h[t] = tanh(U @ h[t-1] + x[t]) - 0.5 * mean_batch(h[t-1])",
}


@pytest.mark.parametrize("name", BATCHED)
def test_sums_over_the_batch_stand_where_examples_are_taken_together(name):
    cell = Cell(BATCHED[name])
    derivation = cell.derivation()
    proof = derivation.check(points=3)
    assert derivation.joined and proof.ok and len(proof.recursion) == len(derivation.recursion), proof
    text = derivation.text(level="summary")
    assert "dU = Σ_b Σ_t " in text and "take the examples of a batch together" in text and "of one example" not in text
    assert cell.grade(str(cell.backward())).ok
    dropped = Derivation(derivation.derived, derivation.outputs)
    dropped.__dict__["recursion"] = tuple(replace(eq, value=single(eq.value)) for eq in derivation.recursion)
    assert "dU" in [key for key, error in prove_recursion(dropped, 0) if error > 1e-6]


def test_one_example_s_equations_stand_where_examples_are_apart():
    text = zoo["rnn"].derivation().text(level="summary")
    assert "Σ_b" not in text and "The equations are those of one example; gradients of parameters are summed" in text


@pytest.mark.parametrize("text, left_out", [
    ("h[t] = tanh(U @ h[t-1] + x[t])\nL = sum_t(max(h[t]))", 1),
    ("h[t] = hard_sigmoid(like(max(W @ x[t]), h[t-1]) + h[t-1])", 1),  # SymPy cannot compare it with a number
])
def test_what_sympy_has_no_function_for_is_proved_step_by_step(text, left_out):
    derivation = Cell(text).derivation()
    proof = derivation.check(points=3)
    assert proof.ok and len(proof.recursion) == len(derivation.recursion) - left_out


def test_the_size_is_that_of_the_cell():
    """A stack of equal layers over `l: axis` is derived once; nothing anywhere speaks of a number of steps."""
    derivation = systems.cell("grid_lstm_tied").derivation()
    assert not re.search(r"\[\d{2,}", derivation.text())
