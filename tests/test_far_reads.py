"""Reads far away along several indices, against an evaluation position by position that shares no code with ours.

A position is inside, or an end (outside along one index, by one step), or nothing: zero.
"""

from itertools import product

import numpy as np
import pytest

from autograd_rnn import Cell

T, J = 5, 4
FAR = range(-3, 4)
P = 0.7
ENDS = {
    "none": {},
    "literal": {"0,j": "2", "T+1,j": "3", "t,0": "5", "t,J+1": "7"},
    "computed": {"0,j": "p * j", "T+1,j": "x[1,j] + p", "t,0": "x[t,J] * p", "t,J+1": "t - p"},
    "below along j": {"t,0": "p + t"},
    "above along j": {"t,J+1": "p + t"},
    "before": {"0,j": "p + j"},
    "after": {"T+1,j": "p + j"},
}
LITERAL = {"0,j": lambda x, p, k: 2, "T+1,j": lambda x, p, k: 3, "t,0": lambda x, p, k: 5, "t,J+1": lambda x, p, k: 7}
COMPUTED = {"0,j": lambda x, p, k: p * k, "T+1,j": lambda x, p, k: x[0, k - 1] + p,
            "t,0": lambda x, p, k: x[k - 1, -1] * p, "t,J+1": lambda x, p, k: k - p}
BY_HAND = {"none": {}, "literal": LITERAL, "computed": COMPUTED,
           **{name: {at: lambda x, p, k: p + k for at in ENDS[name]} for name in list(ENDS)[3:]}}


def position(ends, inside, t, j, x, p):
    """y at any position: inside, at an end that is outside along one index by one step, or zero."""
    (steps, places) = x.shape
    if 1 <= t <= steps and 1 <= j <= places:
        return inside(t, j)
    if 1 <= j <= places and t in (0, steps + 1):
        end, k = "0,j" if t == 0 else "T+1,j", j
    elif 1 <= t <= steps and j in (0, places + 1):
        end, k = "t,0" if j == 0 else "t,J+1", t
    else:
        return 0
    return ends[end](x, p, k) if end in ends else 0


def moved(index, by):
    return index + (f"{by:+d}" if by else "")


def declared(kind):
    return "x: input()\np: ()\n" + ("j: axis\n" if kind == "axis" else "")


def ended(ends):
    return "".join(f"y[{at}] = {value}\n" for at, value in ENDS[ends].items())


def agree(cell, evaluated, compiled, seed=0):
    """The values of o, and the gradients of its inner product with m, on every path."""
    rng = np.random.default_rng(seed)
    x, m = rng.normal(size=(2, T, J))
    params = {"p": P}
    by_hand = evaluated(x, P)
    np.testing.assert_allclose(cell.run(params, x=x)["o"], by_hand, rtol=1e-12, atol=1e-12)
    none = np.sum(m * evaluated(0 * x, P))
    dx = np.array([np.sum(m * evaluated(one.reshape(T, J), P)) - none for one in np.eye(T * J)]).reshape(T, J)
    dp = np.sum(m * (evaluated(x + 0j, P + 1e-100j))).imag / 1e-100
    for program in (cell, *(cell.compile(backend=b) for b in compiled)):
        value, gradients = program.gradient(params, x=x, cotangents={"o": m})
        np.testing.assert_allclose(value, np.sum(m * by_hand), rtol=1e-11, atol=1e-11)
        np.testing.assert_allclose(gradients["x"], dx, rtol=1e-11, atol=1e-11)
        np.testing.assert_allclose(gradients["p"], dp, rtol=1e-11, atol=1e-11)
    tape = cell.unroll(params, x=x)
    np.testing.assert_allclose(tape["o"], by_hand, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["axis", "data"])
@pytest.mark.parametrize("ends", ENDS)
def test_every_far_read_meets_the_ends_next_to_it(ends, kind):
    for a in FAR:
        reads = {b: 1 + 0.1 * (b + 3) for b in FAR}
        text = declared(kind) + ended(ends) + "y[t,j] = p * x[t,j]\no[t,j] = " + " + ".join(
            f"{w} * y[{moved('t', a)},{moved('j', b)}]" for b, w in reads.items())

        def evaluated(x, p, a=a, reads=reads):
            y = lambda t, j: position(BY_HAND[ends], lambda t, j: p * x[t - 1, j - 1], t, j, x, p)
            return np.array([[sum(w * y(t + a, j + b) for b, w in reads.items()) for j in range(1, J + 1)]
                             for t in range(1, T + 1)])

        compiled = ("numpy", "llvm") if abs(a) == 2 and ends in ("literal", "computed") else ()
        agree(Cell(text), evaluated, compiled)


@pytest.mark.parametrize("kind", ["axis", "data"])
@pytest.mark.parametrize("ends", ENDS)
def test_far_reads_at_an_end_of_the_other_index(ends, kind):
    at = {"0": lambda n: 0, "1": lambda n: 1, "{}": lambda n: n, "{}+1": lambda n: n + 1}
    reads = [(moved("t", a) + "," + k.format("J"), lambda t, j, a=a, k=k: (t + a, at[k](J))) for a in FAR for k in at]
    reads += [(k.format("T") + "," + moved("j", b), lambda t, j, b=b, k=k: (at[k](T), j + b)) for b in FAR for k in at]
    weights = {r: 0.3 + 0.05 * k for k, (r, _) in enumerate(reads)}
    text = declared(kind) + ended(ends) + "y[t,j] = p * x[t,j]\no[t,j] = " + " + ".join(
        f"{w} * y[{r}]" for r, w in weights.items())

    def evaluated(x, p):
        y = lambda t, j: position(BY_HAND[ends], lambda t, j: p * x[t - 1, j - 1], t, j, x, p)
        return np.array([[sum(weights[r] * y(*where(t, j)) for r, where in reads) for j in range(1, J + 1)]
                         for t in range(1, T + 1)])

    agree(Cell(text), evaluated, ("numpy", "llvm") if ends == "computed" else ())


@pytest.mark.parametrize("kind", ["axis", "data"])
@pytest.mark.parametrize("a, b", [(-2, -1), (-1, -2), (-2, 1), (-1, 2), (2, -1), (1, 3), (-3, -3), (0, -2), (-3, 0),
                                  (2, 2)])
def test_a_recurrence_over_far_reads(a, b, kind):
    for ends in ("computed", "before", "above along j"):
        text = declared(kind) + ended(ends) + (
            f"y[t,j] = p * y[{moved('t', a)},{moved('j', b)}] + x[t,j]\no[t,j] = y[t,j]")

        def evaluated(x, p, ends=ends):
            inside = lambda t, j: p * y(t + a, j + b) + x[t - 1, j - 1]
            y = lambda t, j: position(BY_HAND[ends], inside, t, j, x, p)
            return np.array([[y(t, j) for j in range(1, J + 1)] for t in range(1, T + 1)])

        agree(Cell(text), evaluated, ("numpy", "llvm") if ends == "computed" and b == -1 else ())


@pytest.mark.parametrize("a", FAR)
def test_far_reads_where_examples_differ_in_length(a):
    """Each example has its own ends: positions count to its own last."""
    lengths = {"t": [T, 3, 1], "j": [2, J, 3]}
    x = np.random.default_rng(1).normal(size=(T, J, 3))
    text = declared("data") + ended("literal") + "y[t,j] = p * x[t,j]\no[t,j] = " + " + ".join(
        f"{b + 5} * y[{moved('t', a)},{moved('j', b)}]" for b in FAR)
    cell = Cell(text)
    cotangents = {"o": np.ones((T, J, 3))}
    for program in (cell, cell.compile(backend="numpy")):
        dx = program.gradient({"p": P}, x=x, lengths=lengths, cotangents=cotangents)[1]["x"]
        found = cell.run({"p": P}, x=x, lengths=lengths)["o"]
        for k, (steps, places) in enumerate(zip(lengths["t"], lengths["j"])):
            own = x[:steps, :places, k]
            y = lambda t, j, own=own: position(LITERAL, lambda t, j: P * own[t - 1, j - 1], t, j, own, P)
            by_hand, weight = np.zeros((T, J)), np.zeros((T, J))
            for t, j, b in product(range(1, steps + 1), range(1, places + 1), FAR):
                by_hand[t - 1, j - 1] += (b + 5) * y(t + a, j + b)
                if 1 <= t + a <= steps and 1 <= j + b <= places:
                    weight[t + a - 1, j + b - 1] += (b + 5) * P
            np.testing.assert_allclose(found[..., k], by_hand, rtol=1e-12)
            np.testing.assert_allclose(dx[..., k], weight, rtol=1e-12)


@pytest.mark.parametrize("a, b", list(product(FAR, FAR)))
def test_what_is_given_outside_is_what_a_far_read_meets(a, b):
    """Each label names the positions that it fills, "y[-1,j-1]"; gradients have the same, and `initial` takes them."""
    cell = Cell(f"x: input()\ny[t,j] = 2 * x[t,j]\no[t,j] = y[{moved('t', a)},{moved('j', b)}]")
    rng = np.random.default_rng(2)
    x, m = rng.normal(size=(2, T, J))
    zero = cell.gradient({}, x=x, cotangents={"o": m})[1]
    given = {label: rng.normal(size=np.shape(g)) for label, g in zero.items() if label != "x"}
    filled = {}
    for label in given:
        for k in np.ndindex(given[label].shape):
            n = k[0] + 1 if k else None
            filled[tuple(eval(p, {}, {"t": n, "j": n, "T": T, "J": J}) for p in label[2:-1].split(","))] = label, k
    value, gradients = cell.gradient({}, x=x, initial=given, cotangents={"o": m})
    by_hand = {label: np.zeros_like(g) for label, g in zero.items()}
    total = 0.0
    for t, j in product(range(1, T + 1), range(1, J + 1)):
        where = t + a, j + b
        if 1 <= where[0] <= T and 1 <= where[1] <= J:
            total += m[t - 1, j - 1] * 2 * x[where[0] - 1, where[1] - 1]
            by_hand["x"][where[0] - 1, where[1] - 1] += 2 * m[t - 1, j - 1]
        elif where in filled:
            label, k = filled[where]
            total += m[t - 1, j - 1] * given[label][k]
            by_hand[label][k] += m[t - 1, j - 1]
    np.testing.assert_allclose(value, total, rtol=1e-12, atol=1e-12)
    assert set(gradients) == set(by_hand)
    for label, g in by_hand.items():
        np.testing.assert_allclose(gradients[label], g, rtol=1e-12, atol=1e-12)
    assert set(cell.run({}, x=x).final) <= {*given, "t"}


def test_the_two_texts_of_old():
    """A skip of two steps up one layer, and of one step two layers up: right values worked out by hand."""
    skip = Cell("l: axis\nx: input()\ny[t,0] = x[t]\ny[t,l] = y[t-2,l-1]\no[t] = y[t,L]")
    assert skip.run({"l": 1}, x=np.arange(1.0, 6.0))["o"].tolist() == [0, 0, 1, 2, 3]
    assert skip.run({"l": 2}, x=np.arange(1.0, 7.0))["o"].tolist() == [0, 0, 0, 0, 1, 2]
    row = Cell("j: axis\nx: input()\ny[0,j] = 100 + j\ny[t,j] = y[t-1,j-2] + x[t,j]")
    assert row.run({}, x=np.zeros((2, 5)))["y"].tolist() == [[0, 0, 101, 102, 103], [0, 0, 0, 0, 101]]
    ahead = Cell("l: axis\nx: input()\ny[t,0] = x[t]\ny[t,l] = y[t+2,l-1]\no[t] = y[t,L]")
    assert ahead.run({"l": 1}, x=np.arange(1.0, 6.0))["o"].tolist() == [3, 4, 5, 0, 0]
