"""Equations as text, LaTeX, MathML, HTML and SymPy: every cell, every primitive, every form, and what they compute."""

import math
import re
import sys
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import sympy
import systems

from autograd_rnn import Cell, CellError, Primitive, zoo
from autograd_rnn.graph import READ, Position, topological
from autograd_rnn.primitives import PRIMITIVES
from autograd_rnn.printing.components import Symbols, symbol_name
from autograd_rnn.printing.latex import WIDEST, breaks, width
from autograd_rnn.printing.text import expression, system_text

FORMS = ("matrix", "elementwise", "scalar")
LOSS = "\nL = sum_t(sum(h[t]**2))"
CELLS = systems.NAMES
OPS = {name: {n.op.name for n in zoo[name].system.nodes} for name in zoo}
SINGLE = [name for name in zoo if zoo[name].system.indices == ("t",) and zoo[name].loss is None
          and "concat" not in OPS[name]]  # what can be written with numbers for vectors
OPERANDS = {"s": "v[t]", "s?": "v[t]", "_": "v[t]", "(n)": "v[t]", "(m n)": "M", "(n n)": "M", "(n ...)": "v[t]",
            "(m ...)": "v[t]",
            "k": "k[t]"}


def cell_of(name: str) -> Cell:
    return zoo[name] if name in zoo else systems.cell(name)


def family(cell: Cell):
    """The cell, its backward and its tangent."""
    return cell, cell.backward(), cell.tangent()


def balanced(text: str) -> bool:
    """Whether braces, environments and stretched brackets match, inside one another."""
    stack = []
    for token in re.findall(r"\\begin\{[a-z*]+\}|\\end\{[a-z*]+\}|\\left(?![a-z])|\\right(?![a-z])|(?<!\\)[{}]",
                            text.replace("\\\\", " ")):
        if token.startswith((r"\begin", r"\left", "{")):
            stack.append(token)
        else:
            wanted = {"}": "{", r"\right": r"\left"}.get(token, token.replace("end", "begin"))
            if not stack or stack.pop() != wanted:
                return False
    return not stack


# --- every cell in every language --------------------------------------------------------------------------------


def test_the_checks_of_this_file_can_fail():
    assert balanced(r"\begin{cases} {a} \end{cases}") and not balanced("{a") and not balanced(r"\left( {a \right) }")
    assert not balanced(r"\begin{cases} \end{align}")
    assert number(sympy.Symbol("x") + 1, {sympy.Symbol("x"): 2.0}) == 3.0
    with pytest.raises(KeyError):
        number(sympy.Symbol("x"), {})


@pytest.mark.parametrize("name", CELLS)
def test_text_parses_back(name):
    for cell in family(cell_of(name)):
        called = {n.op.name: n.op for n in cell.system.nodes if n.args and n.op.name not in PRIMITIVES}
        assert Cell(system_text(cell.system), **called) == cell


@pytest.mark.parametrize("name", CELLS)
def test_latex_is_well_formed(name):
    for cell in family(cell_of(name)):
        text = cell.latex()
        assert balanced(text)
        lines = text.split("\n")[1:-1]
        assert all(line.endswith(r" \\") for line in lines[:-1]) and not lines[-1].endswith(r"\\")
        assert not re.search(r"(?<!\\)_(?!\{)|[<>]{2}|[#$%~]", text.replace("\\_", "")), "unescaped"
        assert "^{\\top}^" not in text and not re.search(r"\}_\{[^{}]*\}_\{", text), "a double script"
        room = WIDEST
        for line in lines:
            left, body = re.split(r"&= |&\\quad\{\}", line.removesuffix(r" \\"), maxsplit=1)
            room = WIDEST - width(left) if left else room
            assert width(body) <= room + 3 or not breaks(body), line


@pytest.mark.parametrize("name", CELLS)
def test_mathml_and_html_are_well_formed(name):
    for cell in family(cell_of(name)):
        root = ET.fromstring(cell.mathml())
        words = "".join(root.itertext())
        assert "\\" not in words and words.count("=") >= len(cell.latex().split("&=")) - 1
        page = cell._repr_html_()
        ET.fromstring(page)
        assert "<math" in page and "<table>" in page
        assert cell._repr_latex_() == cell.latex()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", CELLS)
def test_sympy_has_every_equation_in_order(name, form):
    for cell in family(cell_of(name)):
        found = cell.sympy(form)
        assert list(found) == [str(eq) if eq.end else eq.name for eq in cell.system.equations]
        assert all(isinstance(eq, sympy.Eq) for eq in found.values())
        names = {*cell.system.axes, *cell.system.indices}
        for equation in found.values():
            for bound in equation.atoms(sympy.Sum):
                (var,) = {v.name for v in bound.variables[:1]}
                assert var in cell.system.indices or var not in names
            assert sympy.sstr(equation, order="none") and sympy.latex(equation, order="none")


FORMS_OF_THEIR_OWN = re.compile(r"(sum|mean|max|softmax|logsumexp|cumsum)_|where|split|outer|like|sqrt|[<>=/%]|0\.")


def words(text: str) -> list[str]:
    """Names in the order they are printed, without positions."""
    return re.findall(r"[A-Za-z]\w*", re.sub(r"_\{[^}]*\}|\[[^]]*\]", "", text).replace("**", " "))


@pytest.mark.parametrize("name", CELLS)
def test_terms_stay_in_the_authors_order(name):
    for cell in family(cell_of(name)):
        found = cell.sympy("matrix")
        for eq in cell.system.equations:
            written = expression(eq.value)
            if FORMS_OF_THEIR_OWN.search(written):
                continue
            printed = sympy.sstr(found[str(eq) if eq.end else eq.name].rhs, order="none")
            assert words(printed) == words(written), eq


def test_the_matrix_form_prints_as_the_paper():
    found = zoo["gru_reset_after"].sympy()
    show = {name: sympy.sstr(eq.rhs, order="none") for name, eq in found.items()}
    assert show["r"] == "sigmoid(W_r x_{t} + U_r h_{t-1} + b_r)"
    assert show["h"] == "z_{t} ⊙ h_{t-1} + (1 - z_{t}) ⊙ n_{t}"
    assert sympy.latex(found["h"], order="none") == (
        r"h_{t} = z_{t} \odot h_{t-1} + (1 - z_{t}) \odot n_{t}")
    scaled = Cell("h[t] = 2 * (U.T @ (W @ h[t-1])) / s\ns: ()").sympy()["h"].rhs
    assert sympy.sstr(scaled, order="none") == "(2*(U.T (W h_{t-1})))/s"


# --- names -------------------------------------------------------------------------------------------------------

TYPESET = {
    "W_hf": "W_{hf}", "alpha": r"\alpha", "c_tilde": r"\tilde{c}", "h_dot": r"\dot{h}", "Delta_h": r"\Delta_{h}",
    "alpha_beta_gamma": r"\alpha_{\beta,\gamma}", "T_x": "T_{x}", "lambda_": r"\lambda", "_x": r"\mathit{\_x}",
    "E": "E", "I": "I", "S": "S", "N": "N", "pi": r"\pi", "ctx": r"\mathit{ctx}", "h2": "h_{2}",
    "h_prime": "h'", "W_c_hat": r"W_{\hat{c}}", "input_": r"\mathit{input\_}", "exp": r"\mathit{exp}",
}


@pytest.mark.parametrize("name", TYPESET)
def test_names_are_typeset_and_stay_symbols(name):
    cell = Cell(f"h[t] = {name} * h[t-1] + x[t]\n{name}: (h)")
    assert cell.latex("h").split("\n")[1] == rf"h_{{t}} &= {TYPESET[name]} \odot h_{{t-1}} + x_{{t}}"
    equation = cell.sympy("scalar")["h"]
    own = sympy.Symbol(symbol_name(name))
    assert type(own) is sympy.Symbol and equation.rhs.diff(own) == sympy.Symbol("h_{t-1}")
    assert name in str(cell.sympy("elementwise")["h"]) and name in str(cell.sympy()["h"])
    assert "<math" in cell._repr_html_()


@pytest.mark.parametrize("name", ["select", "less", "tanh", "exp", "numpy", "len", "E", "lambda_", "Sum", "heaviside"])
def test_no_name_disturbs_lambdify(name):
    text = f"h[t] = where({name} > 0, tanh({name} * x[t]), exp(x[t]) / {name})\n{name}: ()\nx: input()"
    rhs = Cell(text).sympy("scalar")["h"].rhs
    f = sympy.lambdify([sympy.Symbol(symbol_name(name)), sympy.Symbol("x_{t}")], rhs)
    assert f(0.5, 0.3) == pytest.approx(math.tanh(0.15)) and f(-0.5, 0.3) == pytest.approx(-2 * math.exp(0.3))


def test_dummies_and_sizes_clash_with_no_name():
    names = "ijklmnpqrsuvw"
    cell = Cell("h[t] = tanh(W @ x[t] + " + " + ".join(f"{c} @ h[t-1]" for c in names) + ")\ny[t] = n_h * x[t] + b * B")
    for form in FORMS:
        found = str(cell.sympy(form)["h"])
        assert all(c in found for c in names)
    sums = cell.sympy("elementwise")["h"].rhs.atoms(sympy.Sum)
    assert len(sums) == 14 and not {str(s.variables[0]) for s in sums} & {*names, "t", "h", "x", "W"}
    assert {str(s.limits[0][2]) for s in sums} == {"n_h_1", "n_x"}
    gradient = Cell("h[t] = b * h[t-1] + B * x[t]").backward().sympy()["db"]
    assert {str(v) for s in gradient.atoms(sympy.Sum) for v in s.variables} == {"t", "b_1"}


def test_primes_keep_a_sum_apart_from_what_stands_outside():
    cell = Cell("a[t,j] = e[t,j] - sum_j(e[t,j])\ns[t] = sum_j(q[j] * sum_j(e[t,j]))\nq: input()\ne: input()")
    assert cell.latex("a").split("\n")[1] == r"a_{t,j} &= e_{t,j} - \sum_{j'=1}^{J} e_{t,j'}"
    assert cell.latex("s").split("\n")[1] == r"s_{t} &= \sum_{j=1}^{J} q_{j} \, \sum_{j'=1}^{J} e_{t,j'}"
    inner = cell.sympy("elementwise")["a"].rhs
    e = sympy.IndexedBase("e")
    assert inner.diff(e[sympy.Symbol("t"), sympy.Symbol("j")]).subs(sympy.Symbol("j"), 2) != 0
    assert {str(s.variables[0]) for s in inner.atoms(sympy.Sum)} == {"j_1"}


LATEX = {
    "h[t] = r[t] * (U @ h[t-1])": r"h_{t} &= r_{t} \odot (U h_{t-1})",
    "h[t] = -(h[t-1] + x[t]) * x[t] - (x[t] - h[t-1])":
        r"h_{t} &= (-(h_{t-1} + x_{t})) \odot x_{t} - (x_{t} - h_{t-1})",
    "h[t] = 0.5 * x[t] + x[t] * 2": r"h_{t} &= 0.5 \, x_{t} + x_{t} \cdot 2",
    "h[t] = tanh(U.T @ x[t])**2 * 1e-05": r"h_{t} &= \tanh^{2}(U^{\top} x_{t}) \, (1 \cdot 10^{-5})",
    "h[t] = x[t] / sum(x[t]) / (1 + x[t]**2)":
        r"h_{t} &= \frac{x_{t}}{\operatorname{sum}(x_{t})} \oslash (1 + x_{t}^{2})",
    "h[t] = where(t == T, x[t], 0)":
        r"h_{t} &= \begin{cases} x_{t} & \text{if } t = T \\ 0 & \text{otherwise} \end{cases}",
    "L = sum_t(sum(x[t]) - 1) + T": r"L &= \sum_{t=1}^{T} (\operatorname{sum}(x_{t}) - 1) + T",
    "h[tau] = h[tau-1] + x[tau] * sum_tau(sum(x[tau]))":
        r"h_{\tau} &= h_{\tau-1} + x_{\tau} \, \sum_{\tau'=1}^{T_{\tau}} \operatorname{sum}(x_{\tau'})",
    "h[t] = (t % 2 == 0) * x[t]": r"h_{t} &= [t \bmod 2 = 0] \, x_{t}",
}


@pytest.mark.parametrize("text", LATEX)
def test_latex_of_expressions(text):
    assert Cell(text).latex().split("\n")[1] == LATEX[text]


def test_adjoints_carries_and_tangents_have_their_signs():
    lines = zoo["lstm"].backward().latex()
    assert r"\mathrm{d}c_{t-1}^{\leftarrow t} &= \mathrm{d}c_{t} \odot f_{t} \\" in lines
    assert r"\mathrm{d}h_{0} &= \mathrm{d}h_{0}^{\leftarrow 1}" in lines
    assert r"\mathrm{d}c_{t}^{\leftarrow t+1}" in lines
    assert r"\mathrm{d}U_{i} &= \sum_{b} \sum_{t=1}^{T} \mathrm{d}a_{i,t} \, h_{t-1}^{\top}" in lines
    assert r"\dot{c}_{t} &= \dot{f}_{t} \odot c_{t-1}" in zoo["lstm"].tangent().latex()
    twice = Cell("h[t] = tanh(U @ h[t-1])" + LOSS).backward().backward(["dU"])
    assert balanced(twice.latex()) and r"\mathrm{d}_{2}" in twice.latex()
    last = Cell("h[t] = tanh(U @ h[t-1] + x[t])\nL = sum(h[T]**2)")
    assert r"\mathrm{d}h_{T}^{\leftarrow}" in last.backward().latex()
    begun = systems.cell("bahdanau").backward()  # the pre-activation a_d_0 of an end is no carry of a_d
    assert r"\mathrm{d}a_{d,0} &= \mathrm{d}d_{0} \odot" in begun.latex("da_d_0")


def test_long_lines_are_broken_at_plus():
    cell = Cell("h[t] = tanh(" + " + ".join(f"W_{k} @ x_{k}[t]" for k in range(30)) + ")")
    lines = cell.latex().split("\n")[1:-1]
    assert len(lines) > 2 and all(line.startswith(r"&\quad{}+ ") for line in lines[1:])
    assert re.findall(r"W_\{\d+\}", "".join(lines)) == [f"W_{{{k}}}" for k in range(30)]


def test_requests_that_cannot_be_met(monkeypatch):
    cell = Cell("h[t] = tanh(U @ h[t-1])", name="<script>&")
    with pytest.raises(CellError, match="no form"):
        cell.sympy("tensor")
    with pytest.raises(CellError, match="No equation defines `q`"):
        cell.latex("q")
    assert "<script>" not in cell._repr_html_() and "&lt;script&gt;&amp;" in cell._repr_html_()
    monkeypatch.setitem(sys.modules, "latex2mathml.converter", None)
    with pytest.raises(ImportError, match=re.escape("pip install 'autograd_rnn[html]'")):
        cell.mathml()
    assert "<pre>h[t] = tanh(U @ h[t-1])</pre>" in cell._repr_html_()


# --- every primitive ---------------------------------------------------------------------------------------------


SPECIAL = {"neg": "-v[t]", "pow": "v[t]**3", "transpose": "M.T", "split": "split(w[t], v[t], v[t], 2)",
           "slice": "slice(w[t], 1, 3)", "unslice": "unslice(v[t], w[t], 1, 3)"}


def call(primitive: Primitive) -> str:
    """A call of a primitive in the notation, from its signature."""
    tokens = [t.strip() for t in primitive.shape.split("->")[0].split(",")]
    operands = [OPERANDS[t.rstrip("*")] for t in tokens for _ in range(2 if t.endswith("*") else 1)]
    infix = primitive.infix and f" {primitive.infix[0]} ".join(operands)
    return SPECIAL.get(primitive.name) or infix or f"{primitive.name}({', '.join(operands)})"


@pytest.mark.parametrize("name", PRIMITIVES)
def test_every_primitive_prints_in_every_language(name):
    primitive, text = PRIMITIVES[name], call(PRIMITIVES[name])
    cell = Cell(f"y[t] = {text}" + "\nv: input(2)" * ("v[t]" in text) + "\nw: input(4)" * ("w[t]" in text))
    assert any(n.op is primitive for n in cell.system.nodes)
    assert Cell(system_text(cell.system)) == cell and balanced(cell.latex())
    ET.fromstring(cell._repr_html_())
    for form in FORMS:
        rhs = cell.sympy(form)["y"].rhs
        assert sympy.sstr(rhs, order="none") and balanced(sympy.latex(rhs, order="none"))
        if primitive.sympy is None:
            assert name in {f.func.__name__ for f in rhs.atoms(sympy.Function)}


def test_a_primitive_without_a_declaration_is_an_undefined_function():
    cell = Cell("h[t] = bump(h[t-1])\ny[t] = max(h[t])", bump=Primitive("bump", np.abs))
    assert str(cell.sympy("elementwise")["h"].rhs) == "bump(h[t - 1, i])"
    assert str(cell.sympy("elementwise")["y"].rhs) == "max(Lambda(i, h[t, i]))"
    assert str(cell.sympy("scalar")["h"].rhs) == "bump(h_{t-1})" == str(cell.sympy("matrix")["h"].rhs)
    assert r"\operatorname{bump}(h_{t-1})" in cell.latex()


# --- what the forms compute --------------------------------------------------------------------------------------


def number(e, values):
    """A SymPy expression as a number, by its own small recursion; a missing value is a KeyError."""
    if e in values:
        return values[e]
    if e.is_Number or e in (sympy.true, sympy.false):
        return float(e) if e.is_Number else bool(e)
    if isinstance(e, sympy.Sum):
        var, first, last = e.limits[-1]
        inner = e.func(e.function, *e.limits[:-1]) if len(e.limits) > 1 else e.function
        steps = range(round(number(first, values)), round(number(last, values)) + 1)
        return sum(number(inner, {**values, var: float(k)}) for k in steps)
    if isinstance(e, sympy.Indexed):
        return values[e.base.label.name][tuple(round(number(i, values)) for i in e.indices)]
    if isinstance(e, sympy.Piecewise):
        return next(number(a, values) for a, c in e.args if number(c, values))
    if not e.args:
        raise KeyError(e)
    args = [number(a, values) for a in e.args]
    if isinstance(e, sympy.And | sympy.Or):
        return all(args) if isinstance(e, sympy.And) else any(args)
    if isinstance(e, sympy.KroneckerDelta):
        return float(args[0] == args[1])
    if isinstance(e, sympy.core.relational.Relational):
        return bool(e.func(*args))
    return float(e.func(*map(sympy.Float, args)))


class Zero(dict):
    """Values by position; zero outside, as in a cell."""

    def __missing__(self, key):
        return 0.0


def indexed(system, trace):
    """Arrays as the elementwise form reads them: positions and components from 1."""
    values = {}
    for name in system.axes:
        if system.axes[name] or system.shapes[name]:
            array = np.asarray(trace[name], float)
            values[name] = Zero({tuple(i + 1 for i in at): x for at, x in np.ndenumerate(array)})
            if system.roles[name] == "class":
                values[name] = type("Class", (Zero,), {"__missing__": lambda self, key: -1.0})(values[name])
        else:
            values[sympy.Symbol(symbol_name(name))] = float(np.asarray(trace[name]))
    return values


def reads_an_end(system, n, extents) -> bool:
    """Whether a node read at position 2 reaches an outside position that an equation gives a value."""
    inside = n.op is not READ or all(
        1 <= 2 + p.offset <= extents[p.index] if p.base == "i" else not p.outside for p in n.params[1])
    return not inside and any(eq.end for eq in system.definitions.get(n.params[0], ()))


def sized(cell, eq, extents):
    """Sizes and extents by the symbols an equation has for them."""
    known, names = systems.sizes(cell), Symbols(cell.system).sizes
    sizes = {names[d]: n for d, n in known.items() if d in names}
    sizes |= {sympy.Symbol(i.upper()): n for i, n in extents.items()}
    return {s: float(n) for s, n in sizes.items() if s in eq.free_symbols}


@pytest.mark.parametrize("name", CELLS)
def test_elementwise_equations_hold_where_the_cell_ran(name):
    cell = cell_of(name)
    params, inputs = systems.draw(cell, T=3, batch=None)
    trace = cell.run(params, **inputs, **systems.steps(cell, T=3))
    extents = systems.extents(cell, T=3)
    values, held = indexed(cell.system, trace), 0
    for eq, written in zip(cell.sympy("elementwise").values(), cell.system.equations):
        if written.end or any(reads_an_end(cell.system, n, extents) for n in topological([written.value])):
            continue
        at = eq.lhs.indices if isinstance(eq.lhs, sympy.Indexed) else ()
        here = {**values, **sized(cell, eq, extents)}
        here |= {i: 2.0 if k < len(written.at) else 1.0 for k, i in enumerate(at)}
        assert number(eq.rhs, here) == pytest.approx(number(eq.lhs, here), rel=1e-9, abs=1e-12), written
        held += 1
    assert held


def test_a_wrong_declaration_is_seen():
    right = PRIMITIVES["sigmoid"].sympy
    object.__setattr__(PRIMITIVES["sigmoid"], "sympy", lambda e, x: 1 / (1 + e.exp(x)))
    try:
        with pytest.raises(AssertionError):
            test_elementwise_equations_hold_where_the_cell_ran("lstm")
        with pytest.raises(AssertionError):
            test_scalar_form_is_the_evaluator_at_size_one("lstm")
    finally:
        object.__setattr__(PRIMITIVES["sigmoid"], "sympy", right)


@pytest.mark.parametrize("text", [
    "h[t] = tanh(W @ x[t] + U @ h[t-1] + b)", "h[t] = softmax(W @ x[t]) + b",
    "h[t] = x[t] * logsumexp(W @ x[t]) + x[t]",
    "h[t] = W @ concat(x[t], tanh(x[t]))", "h[t] = cumsum(W @ x[t])", "h[t] = layer_norm(W @ x[t])",
    "h[t] = outer(x[t], W @ x[t]) @ (W @ x[t])", "h[t] = where(W @ x[t] < 9, x[t] * sin(W @ x[t]), x[t])",
    "h[t] = gelu(W @ x[t]) / (2 + x[t]**2)"])
def test_elementwise_form_differentiates_right(text):
    cell = Cell(text + "\nx: input(3)")
    params, inputs = systems.draw(cell, T=1, batch=None)
    trace = cell.run(params, **inputs)
    eq = cell.sympy("elementwise")["h"]
    t, i = eq.lhs.indices
    cotangent = np.zeros(trace["h"].shape)
    cotangent[0, 1] = 1.0
    _, gradients = cell.gradient(params, cotangents={"h": cotangent}, **inputs)
    here = {**indexed(cell.system, trace), **sized(cell, eq, {"t": 1}), t: 1.0, i: 2.0}
    p, q = sympy.symbols("p q", integer=True)
    for name, leaf, at in (("x", sympy.IndexedBase("x")[t, p], (0, 2)), ("W", sympy.IndexedBase("W")[p, q], (1, 2))):
        here |= {p: float(at[-1 if name == "x" else 0] + 1), q: float(at[1] + 1)}
        found = number(eq.rhs.diff(leaf), here)
        assert found == pytest.approx(gradients[name][at], rel=1e-9, abs=1e-12) and found != 0.0


def ones(cell: Cell, T: int, seed: int = 3):
    """Numbers for a cell whose sizes are all 1: (params, inputs, initial values)."""
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> np.ndarray:
        return rng.uniform(0.2, 1.1, shape)

    system = cell.system
    params = {n: draw(*(1,) * len(system.shapes[n])) for n in cell.parameters}
    params |= {n: np.ones((1,) * len(system.shapes[n])) for n in system.having("const")}
    inputs = {n: draw(T, *(1,) * len(system.shapes[n])) for n in cell.inputs}
    return params, inputs, {n: draw(*(1,) * len(system.shapes[n])) for n in system.carried}


class Unrolled:
    """The scalar form of a cell at positions 1..T: `value(name, k)`, by substituting positions into its equations.

    Leaves are Symbols, or the numbers in `given`."""

    def __init__(self, cell: Cell, T: int, given=None):
        self.cell, self.T, self.given, self.known = cell, T, given, {}
        self.equations = cell.sympy("scalar")

    def value(self, name: str, k: int | None):
        if (name, k) not in self.known:
            self.known[name, k] = self.fresh(name, k)
        return self.known[name, k]

    def fresh(self, name, k):
        system = self.cell.system
        end = f"{name}[{'0' if k == 0 else 'T+1'}]"
        if k in (0, self.T + 1):
            if end in self.equations:
                return self.at(self.equations[end].rhs, system.definitions[name], None)
            if k or name not in system.carried:
                return sympy.Integer(0)
        elif name in system.defined:
            return self.at(self.equations[name].rhs, system.definitions[name], k)
        at = name if k is None else f"{name}[{k}]"
        return symbol_of(at) if self.given is None else sympy.Float(self.given[at])

    def at(self, rhs, equations, k):
        t, T = sympy.symbols("t T")
        rhs = rhs.subs(T, self.T).doit() if rhs.has(sympy.Sum) else rhs.subs(T, self.T)
        values = {t: sympy.Integer(k or 0)}
        for n in topological(eq.value for eq in equations):
            if n.op is READ:
                symbol, (name, positions) = sympy.Symbol(symbol_name(*n.params)), n.params
                if rhs.has(symbol):
                    values[symbol] = self.value(name, self.place(positions[0], k) if positions else None)
        for n in rhs.atoms(sympy.Indexed):
            values[n] = self.value(n.base.label.name, int(n.indices[0]))
        return rhs.xreplace(values)

    def place(self, p: Position, k):
        return {"i": k, "1": 1, "T": self.T}[p.base] + p.offset


@pytest.mark.parametrize("name", SINGLE)
def test_scalar_form_is_the_evaluator_at_size_one(name):
    cell = zoo[name]
    params, inputs, initial = ones(cell, 3)
    trace = cell.run(params, initial=initial, **inputs)
    for eq, written in zip(cell.sympy("scalar").values(), cell.system.equations):
        reads = [n for n in topological([written.value]) if n.op is READ]
        args = [trace[n.params[0]][1 + n.params[1][0].offset] if n.params[1] else {**params, **trace}[n.params[0]]
                for n in reads]
        f = sympy.lambdify([sympy.Symbol("t"), *(sympy.Symbol(symbol_name(*n.params)) for n in reads)], eq.rhs)
        ran = float(np.squeeze(trace[written.name][1] if cell.system.axes[written.name] else trace[written.name]))
        assert f(2, *(float(np.squeeze(a)) for a in args)) == pytest.approx(ran, rel=1e-14)


def at_size_one(name: str, T: int):
    """(unrolled loss, gradient, gradient by the unrolled adjoint): SymPy over `given`'s symbols, numbers by key."""
    cell = Cell(zoo[name].text + LOSS)
    params, inputs, initial = ones(cell, T)
    value, gradients = cell.gradient(params, initial=initial, **inputs)
    given = {n: float(np.squeeze(v)) for n, v in params.items()}
    given |= {f"{n}[{k + 1}]": float(np.squeeze(v[k])) for n, v in inputs.items() for k in range(T)}
    given |= {f"{n}[0]": float(np.squeeze(v)) for n, v in initial.items()}
    adjoint, found, derived = Unrolled(cell.backward(), T, given), {}, {}
    for key in given.keys() - set(cell.system.having("const")):
        stem, at = re.fullmatch(r"(\w+?)(?:\[(\d+)\])?", key).groups()
        mine = gradients[key] if key in gradients else gradients[stem] if at is None else gradients[stem][int(at) - 1]
        found[key] = float(np.squeeze(mine))
        derived[key] = float(adjoint.value(f"d{stem}", None if at is None else int(at)))
    return Unrolled(cell, T).value("L", None), value, given, found, derived


def symbol_of(key: str) -> sympy.Symbol:
    """A leaf of the unrolled loss; known to be real, which spares SymPy minutes of asking."""
    return sympy.Symbol(re.sub(r"\[(\d+)\]", r"_{\1}", key), real=True)


@pytest.mark.parametrize("name, T", [(name, T) for name in SINGLE for T in (1, 2) if T == 1 or name in systems.BASES
                                     if "stop_gradient" not in OPS[name]])  # of which SymPy knows nothing
def test_sympys_own_derivative_of_the_unrolled_loss_is_the_gradient(name, T):
    loss, value, given, found, derived = at_size_one(name, T)
    symbols = {key: symbol_of(key) for key in given}
    wanted = [loss, *(loss.diff(symbols[key]) for key in found)]
    total, *own = sympy.lambdify([*symbols.values()], wanted, cse=True)(*given.values())
    assert total == pytest.approx(value, rel=1e-13)
    assert sum(d != 0.0 for d in own) > len(own) / 2
    for key, d in zip(found, own):
        assert found[key] == pytest.approx(d, rel=1e-11, abs=1e-14), key
        assert derived[key] == pytest.approx(d, rel=1e-11, abs=1e-14), key
