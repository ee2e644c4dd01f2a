"""The table of primitives, row by row: values, derivatives against the complex step, closure, linearity, accuracy."""

from functools import cache
from importlib.util import find_spec

import mpmath
import numpy as np
import pytest

from autograd_rnn import Cell, CellError, Primitive
from autograd_rnn import primitives as P
from autograd_rnn.gradient import Typing, fit
from autograd_rnn.graph import LEAVES, READ, node, read, topological
from autograd_rnn.primitives import PRIMITIVES
from autograd_rnn.reader import library
from autograd_rnn.signature import signature

# One use of every primitive, as a person writes it: v, w vectors, n a number, M a matrix; y is what is differentiated.
USES = {
    "add": "v[t] + w[t] + v[t]", "neg": "-v[t]", "mul": "v[t] * w[t]",
    "div": "v[t] / (1.5 + w[t]**2)", "pow": "v[t]**3",
    "matmul": "M @ v[t]", "transpose": "M.T @ v[t]", "outer": "outer(v[t], w[t]) @ v[t]", "like": "like(n[t], v[t])",
    "diag": "diag(v[t]) @ w[t]", "diagonal": "diagonal(outer(v[t], w[t]))",
    "sum": "like(sum(v[t] * w[t]), v[t])", "mean": "like(mean(v[t]), v[t])", "max": "like(max(v[t]), v[t])",
    "first_top": "first_top(v[t]) * w[t]", "softmax": "softmax(v[t])", "logsumexp": "like(logsumexp(v[t]), v[t])",
    "cumsum": "cumsum(v[t])", "cumsum_right": "cumsum_right(v[t])", "concat": "N @ concat(v[t], w[t])",
    "split": "split(concat(v[t], w[t]), v[t], w[t], 2) * v[t]", "slice": "N @ slice(v[t], 1, 3)",
    "unslice": "unslice(slice(v[t], 1, 3), w[t], 0, 2)", "exp": "exp(v[t])", "log": "log(1.2 + v[t]**2)",
    "sqrt": "sqrt(0.4 + v[t]**2)", "sin": "sin(v[t])", "cos": "cos(v[t])", "tanh": "tanh(v[t])", "sech": "sech(v[t])",
    "sigmoid": "sigmoid(v[t])", "softplus": "softplus(v[t])", "abs": "abs(v[t])", "sign": "sign(v[t]) * w[t]",
    "floor": "floor(3 * v[t]) * w[t]", "mod": "mod(v[t], 0.7 + w[t]**2)", "maximum": "maximum(v[t], w[t])",
    "minimum": "minimum(v[t], w[t])", "where": "where(v[t] > w[t], v[t]**2, w[t])", "lt": "(v[t] < w[t]) * v[t]",
    "le": "(v[t] <= w[t]) * v[t]", "gt": "(v[t] > w[t]) * v[t]", "ge": "(v[t] >= w[t]) * v[t]",
    "eq": "(v[t] == w[t]) * v[t] + w[t]", "ne": "(v[t] != w[t]) * v[t]",
    "stop_gradient": "stop_gradient(v[t]) * w[t]", "onehot": "M @ onehot(k[t]) + v[t]",
    "cross_entropy": "like(cross_entropy(v[t], k[t]), v[t])", "softmax_error": "softmax_error(v[t], k[t])",
    "bce": "like(bce(v[t], w[t]), v[t])",
}
OVER = {
    "sum": "sum_j(tanh(v[t] * a[j]))", "max": "max_j(v[t] * a[j])", "logsumexp": "logsumexp_j(v[t] * a[j])",
    "softmax": "sum_j(softmax_j(v[t] * a[j]) * a[j])", "cumsum": "sum_j(cumsum_j(v[t] * a[j]) * a[j])",
    "cumsum_right": "sum_j(cumsum_right_j(v[t] * a[j]) * a[j])", "first_top": "sum_j(first_top_j(v[t] * a[j]) * a[j])",
    "mean": "mean_j(v[t] * a[j])",
}


def problem(body, T=3, batch=2, seed=0, size=4):
    """A cell around one expression, with random data for what it reads."""
    cell = Cell(f"n: input()\nv: input(y)\nw: input(y)\ny[t] = {body}\nz[t] = y[t] * w[t] + like(n[t], v[t])")
    rng = np.random.default_rng(seed)
    every = {"n": (T, batch), "v": (T, batch, size), "w": (T, batch, size), "a": (5, batch, size)}
    inputs = {name: rng.normal(size=shape) for name, shape in every.items() if name in cell.inputs}
    if "k" in cell.inputs:
        inputs["k"] = rng.integers(0, size, (T, batch))
    wide = {"M": size, "N": 2 * size if "concat" in body else 2}
    params = {name: rng.normal(size=(size, wide[name])) for name in cell.parameters}
    return cell, params, inputs


def test_every_primitive_has_a_use_here():
    assert set(USES) == set(PRIMITIVES)
    assert set(OVER) == {name for name, p in PRIMITIVES.items() if p.fill is not None}


@pytest.mark.parametrize("name", USES)
def test_derivative_by_complex_step(name):
    cell, params, inputs = problem(USES[name])
    assert any(n.op.name == name for n in cell.system.nodes)
    report = cell.check_gradients(params, **inputs)
    assert report.ok, report


@pytest.mark.parametrize("name", OVER)
def test_derivative_of_reductions_over_an_index(name):
    cell, params, inputs = problem(OVER[name])
    for lengths in (None, {"j": np.array([5, 2]), "t": np.array([1, 3])}):
        report = cell.check_gradients(params, lengths=lengths, **inputs)
        assert report.ok, report


@pytest.mark.parametrize("name", USES)
def test_second_derivative(name):
    """The backward pass differentiated once more, against complex step: the set is closed under its derivatives."""
    cell, params, inputs = problem(USES[name], T=2)
    backward = cell.backward()
    for n in backward.system.nodes:
        assert n.op in LEAVES or PRIMITIVES[n.op.name] is n.op
    rng = np.random.default_rng(1)
    seeds = {d: rng.normal(size=inputs["v"].shape) for d in backward.inputs if d.startswith("Delta")}
    output = next(d for d in ("dv", "dw") if d in backward.system.defined)
    cotangents = {output: rng.normal(size=inputs["v"].shape)}
    report = backward.check_gradients(params, cotangents=cotangents, **inputs, **seeds)
    assert report.ok, report


@pytest.mark.parametrize("name", USES)
def test_real_part_of_a_complex_run_is_the_real_run(name):
    cell, params, inputs = problem(USES[name])
    real = cell.run(params, **inputs)["y"]
    shifted = {k: v + 1e-100j if v.dtype.kind == "f" else v for k, v in inputs.items()}
    np.testing.assert_allclose(cell.run(params, **shifted)["y"].real, real, rtol=1e-14, atol=1e-300)


@pytest.mark.parametrize("name", [name for name, p in PRIMITIVES.items() if p.vjp is not None])
def test_vjp_is_linear_in_the_cotangent(name):
    """No rule applies anything but linear operations to what depends on g."""
    cell, _, _ = problem(USES[name])
    typing = Typing(cell.system)
    for n in [n for n in cell.system.nodes if n.op.name == name]:
        g = read("g", ())
        typing.declare("g", cell.system.rank(n), False)
        for part in n.op.vjp(g, n, *n.args):
            if part is None:
                continue
            depends = {g}
            for m in topological([fit(part, n, typing) if part is g else part]):
                inner = [k for k, a in enumerate(m.args) if a in depends]
                if not inner:
                    continue
                depends.add(m)
                linear = {"add", "neg", "like", "sum", "transpose", "diag", "diagonal", "concat", "split", "slice",
                          "unslice", "cumsum",
                          "cumsum_right", "mean"}
                assert (m.op.name in linear or (m.op.name in ("mul", "matmul", "outer") and len(inner) == 1)
                        or (m.op.name == "div" and inner == [0]) or (m.op.name == "where" and 0 not in inner)), m


@pytest.mark.parametrize("name", PRIMITIVES)
def test_signatures_parse_and_operands_are_counted(name):
    operands, result = signature(PRIMITIVES[name].shape)
    assert result and all(operands)
    if PRIMITIVES[name].vjp is not None:
        n = next(n for n in problem(USES[name])[0].system.nodes if n.op.name == name)
        assert len(n.op.vjp(n, n, *n.args)) == len(n.args)


REFERENCE = {
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)), "softplus": lambda x: mpmath.log1p(mpmath.exp(x)),
    "tanh": mpmath.tanh, "sech": mpmath.sech, "exp": mpmath.exp, "sin": mpmath.sin, "cos": mpmath.cos,
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", REFERENCE)
def test_values_keep_their_digits_over_the_whole_range(name, dtype):
    points = [0.0, 1e-8, -1e-8, 0.3, -0.3, 1.0, -1.0, 5.0, -5.0, 20.0, -20.0, 80.0, -80.0, 1e4, -1e4]
    limit = np.finfo(dtype)
    with mpmath.workdps(60):
        for x in points:
            x = dtype(x)
            exact = REFERENCE[name](mpmath.mpf(float(x)))
            with np.errstate(all="ignore"):
                value = PRIMITIVES[name].value(np.array([x]))[0]
            assert value.dtype == dtype
            if abs(exact) > limit.max:
                assert np.isinf(value)
            elif abs(exact) >= limit.tiny:
                assert abs(mpmath.mpf(float(value)) - exact) <= 8 * limit.eps * abs(exact), (name, x)
            else:
                assert abs(float(value)) <= limit.tiny


def sigma(x):
    return 1 / (1 + mpmath.exp(-x))


def bent(x):  # what gelu takes the sigmoid of
    return mpmath.mpf(1.5957691216057308) * (x + mpmath.mpf(0.044715) * x**3)


# An expression of a number, its true value, and what multiplies the slope of a gate in its derivative.
FUNCTIONS = {
    "sigmoid(n[t])": (sigma, lambda x: 1), "sigmoid(-n[t])": (lambda x: sigma(-x), lambda x: 1),
    "tanh(n[t])": (mpmath.tanh, lambda x: 1), "sech(n[t])": (mpmath.sech, lambda x: 0),
    "sech(n[t])**2 + 0 * tanh(n[t])": (lambda x: mpmath.sech(x)**2, lambda x: 0),
    "exp(n[t])": (mpmath.exp, lambda x: 0), "softplus(n[t])": (lambda x: mpmath.log1p(mpmath.exp(x)), lambda x: 0),
    "softplus(-n[t]) + 0 * sigmoid(n[t])": (lambda x: mpmath.log1p(mpmath.exp(-x)), lambda x: 0),
    "silu(n[t])": (lambda x: x * sigma(x), lambda x: x),
    "gelu(n[t])": (lambda x: x * sigma(bent(x)), lambda x: x * mpmath.diff(bent, x)),
    "elu(n[t])": (lambda x: x if x > 0 else mpmath.expm1(x), lambda x: x <= 0),
    "1 + logsumexp(v[t])": (lambda x: 1 + mpmath.log1p(mpmath.exp(x)), lambda x: 0),
    "sum(softmax(v[t]) * w)": (sigma, lambda x: 1),
    "cross_entropy(v[t], k)": (lambda x: mpmath.log1p(mpmath.exp(-x)), lambda x: 0),
    "bce(v[t], w)": (lambda x: mpmath.log1p(mpmath.exp(-x)) + mpmath.log(2), lambda x: 0),
}


@cache
def exactly(expression: str, dtype) -> tuple[np.ndarray, list[list]]:
    """Points to +-1e4 where value and slope are finite, and there the value, its first two derivatives, the factor."""
    true, factor = FUNCTIONS[expression]
    sizes = [1e-8, 1e-3, 0.3, 1.0, 3.0, 5.0, 10.0, 16.0, 20.0, 30.0, 40.0, 80.0, 300.0, 1e4]
    with mpmath.workdps(600):
        rows = [(x, [*(mpmath.diff(true, mpmath.mpf(float(x)), k) for k in range(3)), factor(mpmath.mpf(float(x)))])
                for x in map(dtype, [0.0, *sizes, *(-size for size in sizes)])]
        rows = [row for row in rows if max(map(abs, row[1][:2])) < np.finfo(dtype).max]
    return np.array([x for x, _ in rows]), [found for _, found in rows]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("backend", ["reference", "numpy", "llvm"])
@pytest.mark.parametrize("expression", FUNCTIONS)
def test_every_path_keeps_the_digits_of_values_and_derivatives(expression, backend, dtype):
    """To 8 eps of a value and of what its argument's rounding moves it; where compiled, the slope of a gate to 2 eps.

    A vector is (n, 0), with the weights w = (1, 0) and the class k = 0. Numbers below the normal ones may be zero.
    """
    if backend == "llvm":
        pytest.importorskip("llvmlite")
    points, exact = exactly(expression, dtype)
    vector, inner = "v[t]" in expression, expression.replace("exp", "")
    others = "".join(line for line in ("\nw: const(2)", "\nk: input") if line[1] in inner)
    cell = Cell(("v: input(2)" if vector else "n: input()") + f"\ny[t] = {expression}{others}")
    params = {"w": np.array([1, 0], dtype)} if "w" in inner else {}
    given = {"v": np.stack([points, 0 * points], -1)} if vector else {"n": points}
    given |= {"k": np.zeros((), int)} if "k" in inner else {}
    path = cell if backend == "reference" else cell.compile(backend=backend)
    values = (cell.run if path is cell else path.forward)(params, **given)["y"]
    slopes = path.gradient(params, cotangents={"y": np.ones_like(points)}, **given)[1]["v" if vector else "n"]
    limit, gates = np.finfo(dtype), backend != "reference" or "softmax" in expression
    for x, value, slope, (true, first, second, factor) in zip(points, values, slopes.reshape(len(points), -1), exact):
        slack = 8 * limit.eps * (abs(true) + abs(first * float(x))) + 2 * limit.tiny
        assert abs(mpmath.mpf(float(value)) - true) <= slack, (x, value, true)
        slack = 8 * limit.eps * (abs(first) + abs(second * float(x))) + 2 * limit.tiny
        slack += 2 * limit.eps * abs(factor) * gates
        assert abs(mpmath.mpf(float(slope[0])) - first) <= slack, (x, slope, first)


PATHS = ["reference", "numpy", *(["llvm"] if find_spec("llvmlite") else [])]


@pytest.mark.parametrize("body, at, value, slope", [
    ("-log(sigmoid(w * n[t]))", -40.0, 40.0, 40.0), ("log(sigmoid(-w * n[t]))", 40.0, -40.0, -40.0),
    ("log(sech(w * n[t])**2)", 40.0, -80 + 2 * np.log(2), -80.0), ("log(sech(w * n[t])**3)", 20.0, -57.92056, -60.0)])
def test_a_loss_of_a_saturated_gate_is_finite_on_every_path(body, at, value, slope):
    cell = Cell(f"n: input()\nw: ()\np[t] = sigmoid(w * n[t])\ng[t] = tanh(w * n[t])\n"
                f"L = sum_t({body} + 0 * p[t] * g[t])")
    for backend in PATHS:
        for dtype in (np.float32, np.float64):
            path = cell if backend == "reference" else cell.compile(backend=backend)
            found, gradients = path.gradient({"w": dtype(1)}, n=np.array([at], dtype))
            assert found == pytest.approx(value, rel=1e-6) and gradients["w"] == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize("backend", PATHS)
def test_a_logsumexp_of_nothing_is_minus_infinity(backend):
    """Of -inf alone -inf, of +inf and others +inf, as SciPy and torch have it; softmax and gradients are nan there."""
    cell = Cell("""
x: input(2)
l[t] = logsumexp(x[t])
p[t] = softmax(x[t])
y = logsumexp_t(x[t])
q[t] = softmax_t(x[t])
s[t] = logsumexp(concat(like(s[t-1], x[t]), x[t]))
s[0] = log(0)
""")
    path = cell if backend == "reference" else cell.compile(backend=backend)
    x = np.full((3, 2, 2), -np.inf)
    x[1, 0], x[2] = (np.inf, 1.0), [[5.0, -np.inf], [2.0, 3.0]]
    for lengths in (None, [2, 3]):
        trace = (cell.run if path is cell else path.forward)({}, x=x, lengths=lengths)
        for name in ("l", "s"):
            np.testing.assert_array_equal(trace[name][:2], [[-np.inf, -np.inf], [np.inf, -np.inf]])
        np.testing.assert_array_equal(trace["y"], [[np.inf, 1.0], [2.0, 3.0]])
        assert np.isnan(trace["p"][0]).all() and np.isnan(trace["q"][:2, 0, 0]).all()
        np.testing.assert_array_equal(trace["q"][:, 1], [[0, 0], [0, 0], [1, 1]])
        with pytest.raises(CellError, match="not finite"):
            path.gradient({}, x=x, lengths=lengths, cotangents={"l": np.ones((3, 2))})


@pytest.mark.parametrize("margin", [0.0, 1.0, 20.0, 40.0, 300.0, 1e4])
def test_losses_and_their_gradients_keep_their_digits(margin):
    logits = np.array([margin, 0.0, -1.0])
    with mpmath.workdps(9000 if margin > 1000 else 300):
        e = [mpmath.exp(mpmath.mpf(float(v))) for v in logits]
        total = mpmath.fsum(e)
        for k in range(3):
            exact = mpmath.log(total) - mpmath.mpf(float(logits[k]))
            value = P.cross_entropy.value(logits, np.array(k))
            assert abs(mpmath.mpf(float(value)) - exact) <= 1e-14 * exact + mpmath.mpf(1e-320)
            error = P.softmax_error.value(logits, np.array(k))
            for j in range(3):
                exact = e[j] / total - (j == k)
                assert abs(mpmath.mpf(float(error[j])) - exact) <= 1e-14 * abs(exact) + mpmath.mpf(1e-320)
        for target in (0.0, 1.0):
            exact = mpmath.log1p(mpmath.exp(mpmath.mpf(margin))) - target * mpmath.mpf(margin)
            value = P.bce.value(np.array([margin]), np.array([target]))
            assert abs(mpmath.mpf(float(value)) - exact) <= 1e-14 * abs(exact) + mpmath.mpf(1e-320)


def test_ties_and_kinks_go_where_the_documents_say():
    cell = Cell("n: input()\ny[t] = maximum(n[t], 0) + 10 * maximum(0, n[t]) + 100 * relu(n[t]) + 1000 * abs(n[t])")
    _, gradient = cell.gradient({}, cotangents={"y": np.ones(1)}, n=np.zeros(1))
    assert gradient["n"] == [1.0]


@pytest.mark.parametrize("function", list(library()))
def test_library_functions_pass_the_check(function):
    arity = len(library()[function].parameters)
    call = {1: f"{function}(v[t])", 2: f"like({function}(v[t], w[t]), v[t])", 3: f"{function}(v[t], w[t], 0.8)"}[arity]
    if function == "unused":
        pytest.skip("no function")
    cell, params, inputs = problem(call)
    assert cell.check_gradients(params, **inputs).ok


def test_a_primitive_of_the_users_own():
    """erf with its derivative; the same without its factor is caught."""
    from math import erf, pi, sqrt

    def value(x):
        real = np.vectorize(erf)(np.real(x)).astype(np.real(x).dtype)
        return real + 2 / sqrt(pi) * np.exp(-np.real(x)**2) * 1j * np.imag(x) if np.iscomplexobj(x) else real

    right = Primitive("erf", value, lambda g, y, x: (g * (2 / sqrt(pi) * P.exp(-(x**2))),))
    wrong = Primitive("erf", value, lambda g, y, x: (g * (1 / sqrt(pi) * P.exp(-(x**2))),))
    text = "h[t] = erf(W @ x[t] + U @ h[t-1])"
    rng = np.random.default_rng(0)
    for leaf, ok in ((right, True), (wrong, False)):
        cell = Cell(text, erf=leaf)
        assert cell.check_gradients(cell.init(x=2, h=3), x=rng.normal(size=(4, 2))).ok is ok
    with pytest.raises(CellError, match="no function"):
        Cell(text)


def test_nodes_are_consed():
    a, b = read("a"), read("b")
    assert node(P.mul, a, b) is node(P.mul, a, b)
    assert node(P.mul, a, b) is not node(P.mul, b, a)
    assert read("a").op is READ
    assert node(P.pow, a, params=(2,)) is not node(P.pow, a, params=(2.0,))
