"""Wrong numbers that compiled programs once gave, each by its text with its right value.

What let each of them through stands in docs/decisions.md.
"""

import numpy as np
import pytest

from autograd_rnn import Cell
from autograd_rnn.backpropagate import differentiate
from autograd_rnn.evaluate import evaluate

BACKENDS = ["llvm", "numpy"]


def program(cell: Cell, backend: str, **options):
    if backend == "llvm":
        pytest.importorskip("llvmlite", reason="machine code needs llvmlite")
    return cell.compile(backend=backend, **options)


def worst(found: dict, true: dict) -> float:
    """The largest difference, relative to the largest entry of its gradient."""
    assert set(found) == set(true)
    return max(float(np.abs(found[n] - true[n]).max() / (np.abs(true[n]).max() or 1)) for n in true)


def compare(text: str, backend: str, sizes: dict, extents: dict, batch: int, lengths=None, initial=None, **options
            ) -> None:
    """A program's value and gradients are the reference's, at random parameters, inputs and cotangents."""
    cell, rng = Cell(text), np.random.default_rng(0)
    params = {n: rng.normal(0, 0.5, p.shape) for n, p in cell.init(**sizes).items()}
    known = cell.system.sizes(sizes)
    own = lambda n: tuple(d if isinstance(d, int) else known[d] for d in cell.shapes[n])
    inputs = {n: rng.normal(size=(*(extents[i] for i in cell.system.axes[n]), batch, *own(n))) for n in cell.inputs}
    cotangents = None
    if cell.loss is None:
        trace = cell.run(params, initial, lengths, **inputs)
        cotangents = {n: rng.normal(size=trace[n].shape) for n in cell.outputs}
    value, true, _ = differentiate(cell.system, cell.loss, cell.outputs, params, None, cotangents, inputs, initial,
                                   lengths, run=evaluate)
    told, found = program(cell, backend, **options).gradient(params, cotangents=cotangents, initial=initial,
                                                             lengths=lengths, **inputs)
    assert told == pytest.approx(value, rel=1e-12) and worst(found, true) <= 1e-12


# --- products of weights -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_gradient_of_a_product_of_two_weights(backend):
    cell = Cell("E = A @ B\nL = sum(E * C) + sum_t(x[t])\nA: (2, 2)\nB: (2, 2)\nC: (2, 2)\nx: input()")
    params = {"A": [[1.0, 2], [3, 4]], "B": [[5.0, 6], [7, 8]], "C": [[1.0, 10], [100, 1000]]}
    value, found = program(cell, backend).gradient(params, x=np.zeros(3))
    assert value == 19 + 220 + 4300 + 50000
    assert found["A"].tolist() == [[65, 87], [6500, 8700]] and found["B"].tolist() == [[301, 3010], [402, 4020]]


PRODUCTS = {
    "Gram matrix": ("G = W @ W.T\nh[t] = tanh(G @ h[t-1] + W @ x[t])\nL = sum_t(sum(h[t]*h[t])) + sum(G*G)",
                    dict(x=3, h=5)),
    "square": ("A = U @ U\nh[t] = tanh(A @ h[t-1] + x[t])", dict(x=5)),
    "scaled columns": ("h[t] = tanh((U @ diag(s)) @ h[t-1] + x[t])", dict(x=5)),
    "low rank": ("h[t] = tanh(U @ V @ h[t-1] + x[t])\nV: (2, x)", dict(x=5)),
    "three deep": ("M = A @ B @ C\nh[t] = tanh(M @ h[t-1] + x[t])\nB: (2, 3)\nC: (3, x)", dict(x=4)),
    "outer of matrices": ("M = outer(A, B) + outer(u, v)\nh[t] = tanh(M @ h[t-1] + x[t])\nA: (x, 3)\nB: (x, 3)\n"
                          "u: (x)\nv: (x)", dict(x=4)),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", PRODUCTS)
def test_products_of_weights(name, backend):
    text, sizes = PRODUCTS[name]
    compare(text, backend, sizes, {"t": 12}, 3)


def test_products_of_weights_within_a_budget():
    compare(*PRODUCTS["low rank"][:1], "llvm", PRODUCTS["low rank"][1], {"t": 400}, 4, memory="60kB")


# --- values that are carried in one place ------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_gradient_through_two_steps_back(backend):
    cell = Cell("x: input()\nh[t] = x[t] + h[t-2]")
    _, found = program(cell, backend).gradient({}, x=np.zeros(6), cotangents={"h": np.arange(1.0, 7)})
    assert found["x"].tolist() == [9, 12, 8, 10, 5, 6]


CARRIES = {
    "three steps back": ("h[t] = tanh(W@x[t] + U@h[t-3])", dict(x=3, h=5)),
    "two steps ahead": ("h[t] = tanh(W@x[t] + U@h[t+2])", dict(x=3, h=5)),
    "rotation": ("a[t] = b[t-1]\nb[t] = c[t-1]\nc[t] = a[t-1] + x[t]\nx: input()", {}),
    "exchange": ("a[t] = b[t-1] + x[t]\nb[t] = a[t-1] * x[t]", dict(x=3)),
    "both ways": ("h[t] = tanh(x[t] + h[t-5])\ng[t] = h[t-2] * g[t+3] + x[t]", dict(x=3)),
    "a sum replaced before it is read": ("s[t] = sum(h[t-1]*x[t])\nh[t] = tanh(U@h[t-1]) * s[t-1] + x[t]", dict(x=5)),
    "a softmax replaced before it is read": (
        "s[t] = softmax(h[t-1])\nh[t] = U@s[t-1] + h[t-1]*max(s[t-1]) + x[t]\nr[t] = sum(h[t-1])*r[t-1] + s[t-1]",
        dict(x=3)),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", CARRIES)
def test_carries_that_are_passed_on(name, backend):
    text, sizes = CARRIES[name]
    compare(text, backend, sizes, {"t": 9}, 2)


# --- reductions over an index, in more than one block of rows ----------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("T, B", [(43, 3), (65, 2), (90, 5), (129, 1)])
def test_a_softmax_over_more_than_a_block_of_rows(backend, T, B):
    cell, x = Cell("L = logsumexp_t(sum(x[t]))\nx: input(3)"), np.random.default_rng(0).normal(size=(T, B, 3))
    value, found = program(cell, backend).gradient({}, x=x)
    e = np.exp(x.sum(-1))
    assert value == pytest.approx(np.log(e.sum(0)).sum(), rel=1e-14)
    assert np.abs(found["x"] - (e / e.sum(0))[..., None]).max() < 1e-15


OVER_AN_INDEX = {
    "pooling": "w[t] = softmax_t(sum(W@x[t]))\nc = sum_t(w[t]*x[t])\nL = sum(c*c)\nW: (4, x)",
    "of vectors": "w[t] = softmax_t(tanh(W@x[t]))\nc = sum_t(w[t]*x[t])\nL = sum(c*c)",
    "twice": "w[t] = softmax_t(softmax_t(tanh(x[t])))\nL = sum_t(sum(w[t]*x[t])**3)",
    "read in a loop": "w[t] = softmax_t(sum(x[t]))\nh[t] = tanh(U@h[t-1] + w[t]*x[t])",
    "total read in a loop": "h[t] = tanh(U@h[t-1] + logsumexp_t(sum(x[t]))*x[t] + max_t(x[t]))",
    "nested": "L = sum_t(logsumexp_t(sum(x[t])) * mean_t(sum(x[t])) * sum(x[t]))\nx: input(3)",
}
TWO_INDICES = {
    "a total of totals": "h[t,j] = softplus(sum(x[t,j]) + h[t,j-1] + h[t-1,j])\nL = sum_t(logsumexp_j(h[t,j]))",
    "the other way": "h[t,j] = tanh(x[t,j] + U@h[t,j-1] + V@h[t-1,j])\nL = logsumexp_j(sum_t(sum(h[t,j])))",
    "one after the other": "a[t,j] = softmax_j(sum(W@x[t,j]))\nb[t,j] = softmax_t(a[t,j]*max(x[t,j]))\n"
                           "L = sum_t(sum_j(sum(b[t,j]*x[t,j]))**2)\nW: (x, x)",
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("lengths", [None, [43, 1, 17]])
@pytest.mark.parametrize("name", OVER_AN_INDEX)
def test_reductions_over_an_index(name, lengths, backend):
    compare(OVER_AN_INDEX[name], backend, {"x": 3}, {"t": 43}, 3, lengths)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("lengths", [None, {"t": [9, 1, 4], "j": [2, 25, 7]}])
@pytest.mark.parametrize("name", TWO_INDICES)
def test_reductions_over_one_of_two_indices(name, lengths, backend):
    compare(TWO_INDICES[name], backend, {"x": 3}, {"t": 9, "j": 25}, 3, lengths)


# --- matrices of each example ------------------------------------------------------------------------------------


MATRICES = {
    "summed outer products": "M[t] = diag(x[t]) @ outer(W @ x[t], V @ x[t])\nL = sum_t(sum(M[t].T @ x[t])**2)\n"
                             "W: (x, x)\nV: (x, x)",
    "one for each example": "M = sum_t(outer(x[t], tanh(W @ x[t])))\nh[t] = tanh(M @ h[t-1] + x[t])\nW: (x, x)",
    "a matrix state": "C[t] = C[t-1]*sigmoid(sum(x[t])) + outer(x[t], W@x[t])\n"
                      "L = sum_t(sum(C[t]@x[t] + C[t-2].T@(W@x[t])))\nW: (x, x)",
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("lengths", [None, [43, 1, 17]])
@pytest.mark.parametrize("name", MATRICES)
def test_matrices_of_each_example(name, lengths, backend):
    compare(MATRICES[name], backend, {"x": 3}, {"t": 43}, 3, lengths)


# --- values given just outside -----------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_end_given_for_positions_past_an_examples_own(backend):
    """h[0,j] is given for j = 1 to 5; an example of three columns has h[0,4] = 0, as what lies outside along both."""
    rng = np.random.default_rng(1)
    initial = {"h[0,j]": rng.normal(size=(5, 3)), "h[t,J+1]": rng.normal(size=(6, 3))}
    compare("h[t,j] = tanh(u * h[t-1,j+1] + x[t,j])\nx: input()\nu: ()", backend, {}, {"t": 6, "j": 5}, 3,
            {"t": [6, 2, 4], "j": [3, 5, 1]}, initial)


def test_values_given_beyond_the_last_steps_of_ragged_examples_within_a_budget():
    cell, rng = Cell("g[t] = tanh(U @ g[t+1] + x[t])"), np.random.default_rng(0)
    params, x, last = cell.init(x=5), rng.normal(size=(300, 4, 5)), {"g[T+1]": rng.normal(size=(4, 5))}
    lengths = [300, 1, 140, 16]
    true = cell.run(params, last, lengths, x=x)
    found = program(cell, "llvm", memory="90kB").forward(params, last, lengths, x=x)
    assert np.abs(found["g"] - true["g"]).max() < 1e-14
