"""The notation, sentence by sentence: what a text means in numbers, against plain loops over plain NumPy arrays.

A case is a text and a reference that computes one example alone; the helper runs the cell on a batch, whole and ragged,
compares every example with the reference at its own length, and checks the gradients both ways.
"""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest
import systems

from autograd_rnn import Cell, CellError, Primitive, zoo
from autograd_rnn import primitives as P
from autograd_rnn.primitives import PRIMITIVES
from autograd_rnn.printing.text import system_text


def example(system, name, array, b, n):
    """One example's part of an array: up to its own length along data indices, without the batch."""
    axes = system.axes[name]
    if name in system.per_example:
        array = np.take(array, b, axis=len(axes))
    for k, i in enumerate(axes):
        array = np.take(array, range(n[i]), axis=k)
    return array


def agrees(cell, reference, T=5, batch=3, tolerance=1e-13, seed=0, **sizes):
    """Every example of a batch equals `reference(params, inputs, extents)`, whole and ragged; gradients are right."""
    system = cell.system
    params, inputs = systems.draw(cell, T, batch, seed, **sizes)
    steps = systems.steps(cell, T)
    for lengths in (None, systems.lengths(cell, T, batch, seed=seed + 1)):
        if lengths == {}:
            continue
        trace = cell.run(params, lengths=lengths, **inputs, **steps)
        compared = 0
        for b in range(batch):
            n = {i: int(lengths[i][b]) if lengths and i in lengths else e
                 for i, e in systems.extents(cell, T, **sizes).items()}
            one = {k: example(system, k, v, b, n) for k, v in inputs.items()}
            for name, want in reference(params, one, n).items():
                got = example(system, name, trace[name], b, n)
                assert got.shape == np.shape(want), name
                assert np.abs(got - want).max(initial=0) <= tolerance, (name, b, lengths)
                compared += 1
        assert compared >= batch
        report = cell.check_gradients(params, lengths=lengths, **inputs, **steps)
        assert report.ok, report
    return trace


def at(array, k):
    """Step k (from 1) of a sequence; zeros outside."""
    return array[k - 1] if 1 <= k <= len(array) else np.zeros_like(array[0])


def sigmoid(v):
    return 1 / (1 + np.exp(-v))


def softmax(v, axis=-1):
    e = np.exp(v - v.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def sweep(step, start, keys):
    """Values of step(k, previous) for every k of `keys`, in the order of positions."""
    found, state = {}, start
    for k in keys:
        found[k] = state = step(k, state)
    return np.array([found[k] for k in sorted(found)])


def steps_of(n):
    return range(1, n + 1)


# --- positions, ends, sweeps ----------------------------------------------------------------------------------------

def _rnn(p, x, n):
    return {"h": sweep(lambda t, h: np.tanh(p["W"] @ at(x["x"], t) + p["U"] @ h + p["b"]), 0 * p["b"],
        steps_of(n["t"]))}


def _own_ends(p, x, n):
    T = n["t"]
    f = sweep(lambda t, h: np.tanh(at(x["x"], t) + p["u"] * h), np.tanh(p["a"]), steps_of(T))
    b = sweep(lambda t, h: np.tanh(at(f, t) + p["v"] * h), 2 * p["a"], reversed(steps_of(T)))
    return {"f": f, "b": b, "y": f[0] + b[0] * f[-1]}


def _far(p, x, n):
    T, X, found = n["t"], x["x"], []
    for t in steps_of(T):
        far = found[t - 4] if t > 3 else 0 * X[0]
        found.append(np.tanh(p["u"] * far + at(X, t - 2) + at(X, t + 2)))
    return {"h": np.array(found)}


def _both_ways(p, x, n):
    T = n["t"]
    f = sweep(lambda t, h: np.tanh(at(x["x"], t) + p["u"] * h), 0 * p["u"], steps_of(T))
    b = sweep(lambda t, h: np.tanh(at(f, t) + p["v"] * h), 0 * p["u"], reversed(steps_of(T)))
    return {"f": f, "b": b, "y": f * b}


def _ends_read(p, x, n):
    X = x["x"]
    return {"first": X[0], "last": X[-1], "y": np.array([v * X[-1] - X[0] for v in X])}


def _clock(p, x, n):
    def step(t, h):
        return np.where(t % p["period"] == 0, np.tanh(at(x["x"], t) + p["u"] * h), h)

    return {"h": sweep(step, 0 * p["u"], steps_of(n["t"]))}


def _count(p, x, n):
    T = n["t"]
    return {"y": np.array([v * t / T + (t == T) for t, v in zip(steps_of(T), x["x"])])}


def _two_sequences(p, x, n):
    a = np.array([[np.sum(p["v"] * np.tanh(q + k)) for k in x["k"]] for q in x["q"]])
    w = softmax(a, 1)
    return {"a": w, "c": w @ x["k"], "m": np.array([np.max(row) for row in a]),
            "s": np.array([np.log(np.sum(np.exp(row))) for row in a]), "z": np.cumsum(a, 1), "g": x["k"].mean(0)}


def _layers(p, x, n):
    h = {(0, l): 0 * p["b"][0] for l in range(1, n["l"] + 1)}
    for t in steps_of(n["t"]):
        h[t, 0] = x["x"][t - 1]
        for l in range(1, n["l"] + 1):
            h[t, l] = np.tanh(p["W"] @ h[t, l - 1] + p["U"][l - 1] @ h[t - 1, l] + p["b"][l - 1])
    every = np.array([[h[t, l] for l in range(1, n["l"] + 1)] for t in steps_of(n["t"])])
    return {"h": every, "top": every[:, -1], "loss": np.sum(every[:, -1] ** 2)}


def _shared(p, x, n):
    A = p["U"] - p["U"].T
    return {"A": A, "h": sweep(lambda t, h: np.tanh(A @ h + at(x["x"], t)), 0 * x["x"][0], steps_of(n["t"]))}


def _classes(p, x, n):
    K, k = p["E"].shape[1], x["k"]
    onehot = [np.eye(K)[c] for c in k]
    y = np.array([p["E"] @ (onehot[t - 2] if t > 1 else np.zeros(K)) for t in steps_of(n["t"])])
    loss = sum(np.log(np.sum(np.exp(v))) - v[c] for v, c in zip(y @ p["V"].T, k))
    return {"y": y, "L": loss}


def _losses(p, x, n):
    y, z, k = x["y"], x["z"], x["k"]
    q = sigmoid(y)
    return {"a": np.array([-np.log(softmax(v)[c]) for v, c in zip(y, k)]),
            "b": -np.sum(z * np.log(q) + (1 - z) * np.log(1 - q), 1), "c": np.sum((y - z) ** 2, 1)}


def _noise(p, x, n):
    return {"z": p["m"] + p["s"] * x["eps"], "y": x["keep"] * x["x"] / 0.8}


def _reductions(p, x, n):
    X = x["x"]
    e = np.exp(X - X.max(0))
    return {"a": X.mean(0), "b": X.max(0), "c": np.cumsum(X, 0), "d": e / e.sum(0),
            "f": np.log(np.exp(X).sum(0)), "g": X.sum(0), "y": X - X.mean(0), "s": np.cumsum(X, 1),
            "m": X.mean(1), "r": X.max(1), "q": softmax(X, 1), "o": np.log(np.exp(X).sum(1))}


def _no_shift(p, x, n):
    y = np.exp(x["x"])
    return {"z": np.array([at(y, t - 1) for t in steps_of(n["t"])])}


def _grid(p, x, n):
    I, J = n["i"], n["j"]
    h = np.zeros((I + 2, J + 2, p["u"].size))
    for i in range(1, I + 1):
        for j in range(J, 0, -1):
            h[i, j] = np.tanh(x["x"][i - 1, j - 1] + p["u"] * h[i - 1, j] + p["v"] * h[i, j + 1])
    return {"h": h[1:-1, 1:-1]}


def _encoder(p, x, n):
    h = sweep(lambda s, h: np.tanh(at(x["x"], s) + p["u"] * h), 0 * p["u"], steps_of(n["s"]))
    d = sweep(lambda t, d: np.tanh(at(x["y"], t) + p["v"] * d), h[-1], steps_of(n["t"]))
    return {"h": h, "d": d}


CASES = {
    "carried": ("h[t] = tanh(W @ x[t] + U @ h[t-1] + b)", _rnn),
    "carried, in another order": ("y[t] = V @ h[t]   # first\nh[t] = tanh(W @ x[t] + U @ h[t-1] + b)", _rnn),
    "over two lines": ("h[t] = tanh(W @ x[t] +   # go on\n    U @ h[t-1] + b)", _rnn),
    "ends defined in the text": ("f[0] = tanh(a)\nb[T+1] = 2*a\nf[t] = tanh(x[t] + u*f[t-1])\n"
                                 "b[t] = tanh(f[t] + v*b[t+1])\n"
                                 "y = f[1] + b[1]*f[T]", _own_ends),
    "further steps": ("h[t] = tanh(u*h[t-3] + x[t-2] + x[t+2])", _far),
    "forward and backward": ("f[t] = tanh(x[t] + u*f[t-1])\nb[t] = tanh(f[t] + v*b[t+1])\ny[t] = f[t] * b[t]",
        _both_ways),
    "delayed inputs": ("y[t] = x[t-1] * x[t+1]", lambda p, x, n: {"y": np.array(
        [at(x["x"], t - 1) * at(x["x"], t + 1) for t in steps_of(n["t"])])}),
    "inside ends": ("first = x[1]\nlast = x[T]\ny[t] = x[t]*x[T] - x[1]", _ends_read),
    "t as a number": ("period: const(h)\nh[t] = where(t % period == 0, tanh(x[t] + u*h[t-1]), h[t-1])", _clock),
    "T as a number": ("x: input(2)\ny[t] = x[t]*t/T + where(t == T, 1, 0)", _count),
    "two data indices": ("a_[t,j] = sum(v * tanh(q[t] + k[j]))\na[t,j] = softmax_j(a_[t,j])\n"
                         "c[t] = sum_j(a[t,j] * k[j])\n"
                         "m[t] = max_j(a_[t,j])\ns[t] = logsumexp_j(a_[t,j])\nz[t,j] = cumsum_j(a_[t,j])\n"
                         "g = mean_j(k[j])",
                         _two_sequences),
    "a model index": ("l: axis\nh[t,0] = x[t]\nh[t,l] = tanh(W @ h[t,l-1] + U[l] @ h[t-1,l] + b[l])\ntop[t] = h[t,L]\n"
                      "loss = sum_t(sum(top[t]**2))",
                      _layers),
    "shared": ("A = U - U.T\nh[t] = tanh(A @ h[t-1] + x[t])", _shared),
    "classes": ("y[t] = E @ onehot(k[t-1])\nL = sum_t(cross_entropy(V @ y[t], k[t]))", _classes),
    "losses": ("y: input(4)\nz: input(4)\na[t] = cross_entropy(y[t], k[t])\nb[t] = bce(y[t], z[t])\n"
               "c[t] = mse(y[t], z[t])",
               lambda p, x, n: _losses(p, x, n)),
    "noise": ("eps: noise(z)\nkeep: bernoulli(x, 0.8)\nx: input(3)\nz[t] = m + s*eps[t]\n"
              "y[t] = dropout(x[t], keep[t], 0.8)",
              _noise),
    "reductions": ("x: input(3)\na = mean_t(x[t])\nb = max_t(x[t])\nc[t] = cumsum_t(x[t])\nd[t] = softmax_t(x[t])\n"
                   "f = logsumexp_t(x[t])\ng = sum_t(x[t])\ny[t] = x[t] - mean_t(x[t])\ns[t] = cumsum(x[t])\n"
                   "m[t] = mean(x[t])\nr[t] = max(x[t])\nq[t] = softmax(x[t])\no[t] = logsumexp(x[t])", _reductions),
    "no substitution through a shift": ("y[t] = exp(x[t])\nz[t] = y[t-1]", _no_shift),
    "two recurrent indices": ("h[i,j] = tanh(x[i,j] + u*h[i-1,j] + v*h[i,j+1])", _grid),
    "one sequence ends, another begins": ("h[s] = tanh(x[s] + u*h[s-1])\nd[0] = h[S]\nd[t] = tanh(y[t] + v*d[t-1])",
                                          _encoder),
    "functions of the text": ("swish(v, s) = v * sigmoid(s*v)\ntwice(v) = swish(v, 2) + v\n"
                              "x: input(3)\ny[t] = twice(x[t])",
                              lambda p, x, n: {"y": x["x"] * sigmoid(2 * x["x"]) + x["x"]}),
    "matrices": ("C[t] = 0.5*C[t-1] + outer(x[t], W @ x[t])\ny[t] = C[t].T @ x[t]", lambda p, x, n: (lambda C: {
        "C": C, "y": np.array([c.T @ v for c, v in zip(C, x["x"])])})(sweep(
            lambda t, C: 0.5 * C + np.outer(x["x"][t - 1], p["W"] @ x["x"][t - 1]), 0.0, steps_of(n["t"])))),
    "parts": ("x: input(5)\na[t] = slice(x[t], 0, 2)\nb[t] = slice(x[t], 2, 5)\ny[t] = concat(b[t], a[t], a[t])\n"
              "z[t] = split(y[t], b[t], a[t], a[t], 2)", lambda p, x, n: {
                  "y": np.hstack([x["x"][:, 2:], x["x"][:, :2], x["x"][:, :2]]), "z": x["x"][:, :2]}),
    "selection hides what is not finite": ("x: input(2)\ny[t] = where(x[t] > 0, log(maximum(x[t], 1e-9)), x[t])",
                                           lambda p, x, n: {"y": np.where(x["x"] > 0, np.log(np.maximum(x["x"], 1e-9)),
                                                                          x["x"])}),
}


@pytest.mark.parametrize("name", CASES)
def test_the_text_means_this(name):
    text, reference = CASES[name]
    agrees(Cell(text), reference)


def test_the_comparison_can_fail():
    def late(p, x, n):
        return {"h": sweep(lambda t, h: np.tanh(p["W"] @ at(x["x"], t - 1) + p["U"] @ h + p["b"]), 0 * p["b"],
                           steps_of(n["t"]))}

    with pytest.raises(AssertionError):
        agrees(Cell(CASES["carried"][0]), late)


# --- functions ------------------------------------------------------------------------------------------------------

erf = np.vectorize(math.erf)
FUNCTIONS = {
    "sigmoid(x[t])": sigmoid, "tanh(x[t])": np.tanh, "relu(x[t])": lambda v: np.maximum(v, 0),
    "leaky_relu(x[t])": lambda v: np.where(v > 0, v, 0.01 * v), "elu(x[t])": lambda v: np.where(v > 0, v, np.expm1(v)),
    "silu(x[t])": lambda v: v * sigmoid(v),
    "gelu(x[t])": lambda v: 0.5 * v * (1 + np.tanh(np.sqrt(2 / np.pi) * (v + 0.044715 * v**3))),
    "hard_sigmoid(x[t])": lambda v: np.clip(0.2 * v + 0.5, 0, 1), "softplus(x[t])": lambda v: np.log1p(np.exp(v)),
    "exp(x[t])": np.exp, "log(x[t]**2 + 1)": lambda v: np.log(v**2 + 1), "sqrt(x[t]**2 + 1)": lambda v: np.hypot(v, 1),
    "sin(x[t])": np.sin, "cos(x[t])": np.cos, "abs(x[t])": np.abs, "sign(x[t]) + x[t]": lambda v: np.sign(v) + v,
    "floor(x[t]) + x[t]": lambda v: np.floor(v) + v, "mod(x[t], 0.7)": lambda v: np.mod(v, 0.7),
    "x[t] % 0.7": lambda v: np.mod(v, 0.7),
    "maximum(x[t], 0.1)": lambda v: np.maximum(v, 0.1), "minimum(x[t], 0.1)": lambda v: np.minimum(v, 0.1),
    "where(x[t] > 0, x[t], 2)": lambda v: np.where(v > 0, v, 2), "where(t > 1, x[t], 2)": None,
    "x[t]**3": lambda v: v**3, "x[t]**-2": lambda v: v**-2.0, "(x[t]**2)**0.5": np.abs, "-x[t]**2": lambda v: -(v**2),
    "2 - 3 - x[t]": lambda v: -1 - v, "2 - (3 - x[t])": lambda v: v - 1,
    "8 / 2 / (2 + x[t]**2)": lambda v: 4 / (2 + v**2),
    "+x[t]": lambda v: v, "x[t] * (x[t] < 0.3)": lambda v: v * (v < 0.3), "x[t] * (x[t] != x[t]) + x[t]": lambda v: v,
    "softmax(x[t])": softmax, "cumsum(x[t])": lambda v: np.cumsum(v, -1),
    "layer_norm(x[t])": lambda v: (v - v.mean(-1, keepdims=True)) / np.sqrt(v.var(-1, keepdims=True) + 1e-5),
    "like(mean(x[t]), x[t])": lambda v: np.broadcast_to(v.mean(-1, keepdims=True), v.shape),
    "sum(x[t]) * x[t]": lambda v: v.sum(-1, keepdims=True) * v, "stop_gradient(x[t]) * x[t]": lambda v: v * v,
    "logsumexp(x[t]) * x[t]": lambda v: np.log(np.exp(v).sum(-1, keepdims=True)) * v,
}


@pytest.mark.parametrize("expression", FUNCTIONS)
def test_library_functions(expression):
    formula = FUNCTIONS[expression]

    def reference(p, x, n):
        if formula is None:
            return {"y": np.array([v if t > 1 else 0 * v + 2 for t, v in zip(steps_of(n["t"]), x["x"])])}
        return {"y": formula(x["x"])}

    agrees(Cell(f"x: input(3)\ny[t] = {expression}"), reference)


def test_a_primitive_of_the_users_own():
    root = Primitive("erf", lambda x: erf(np.real(x)) + (2j / np.sqrt(np.pi) * np.exp(-np.real(x)**2) * np.imag(x)
                                                        if np.iscomplexobj(x) else 0),
                     lambda g, y,
                     x: (g * (2 / math.sqrt(math.pi)) * PRIMITIVES["exp"](-(x**2)),))
    cell = Cell("h[t] = erf(W @ x[t] + U @ h[t-1])", erf=root)
    agrees(cell, lambda p, x, n: {"h": sweep(lambda t, h: erf(p["W"] @ at(x["x"], t) + p["U"] @ h), 0 * p["U"][0],
                                             steps_of(n["t"]))})
    with pytest.raises(CellError):
        Cell("h[t] = erf(x[t])")


# --- calls ----------------------------------------------------------------------------------------------------------

RNN = Cell("h[t] = tanh(W @ x[t] + U @ h[t-1])")
LSTM = Cell("f[t] = sigmoid(W_f @ x[t] + U_f @ h[t-1])\nc[t] = f[t]*c[t-1] + (1 - f[t])*tanh(W @ x[t] + U @ h[t-1])\n"
            "h[t] = tanh(c[t])")
LAYERS = Cell("l: axis\nh[t,0] = x[t]\nh[t,l] = tanh(W[l] @ h[t,l-1] + u[l]*h[t-1,l])\ny[t] = h[t,L]")
STARTED = Cell("h[0] = tanh(h0)\nh[t] = tanh(W @ x[t] + h[t-1])\ny[t] = 2*h[t]")
NOISY = Cell("eps: noise(h)\nh[t] = tanh(W @ x[t] + h[t-1] + s*eps[t])")
NESTED = Cell("m[t], c[t] = lstm(x=x[t], h=m[t-1], c=c[t-1])\ny[t] = rnn(x=m[t])", lstm=LSTM, rnn=RNN)

# text, the cells it calls, the same written out
CALLS = [
    ("z[t] = rnn(x=x[t])", {"rnn": RNN}, "z[t] = tanh(z_W @ x[t] + z_U @ z[t-1])"),
    ("z[t] = rnn(x=x[t], h=z[t-1])", {"rnn": RNN}, "z[t] = tanh(z_W @ x[t] + z_U @ z[t-1])"),
    ("z[t] = rnn(x=x[t], h=z[t+1])", {"rnn": RNN}, "z[t] = tanh(z_W @ x[t] + z_U @ z[t+1])"),
    ("z[s] = rnn(x=x[s], h=z[s-1])", {"rnn": RNN}, "z[s] = tanh(z_W @ x[s] + z_U @ z[s-1])"),
    ("z[t] = rnn(x=x[t], U=U)\ny[t] = rnn(x=z[t], U=U)", {"rnn": RNN},
     "z[t] = tanh(z_W @ x[t] + U @ z[t-1])\ny[t] = tanh(y_W @ z[t] + U @ y[t-1])"),
    ("z[t] = rnn(x=x[t], U=A - A.T)", {"rnn": RNN}, None),
    ("z[t], c[t] = lstm(x=x[t], h=z[t-1], c=c[t-1])", {"lstm": LSTM},
     "z_f[t] = sigmoid(z_W_f @ x[t] + z_U_f @ z[t-1])\n"
     "c[t] = z_f[t]*c[t-1] + (1 - z_f[t])*tanh(z_W @ x[t] + z_U @ z[t-1])\nz[t] = tanh(c[t])"),
    ("z[t] = lstm(x=x[t], h=z[t-1])", {"lstm": LSTM},
     "z_f[t] = sigmoid(z_W_f @ x[t] + z_U_f @ z[t-1])\n"
     "z_c[t] = z_f[t]*z_c[t-1] + (1 - z_f[t])*tanh(z_W @ x[t] + z_U @ z[t-1])\nz[t] = tanh(z_c[t])"),
    ("z[t] = lstm(x=x[t])", {"lstm": LSTM},
     "z_f[t] = sigmoid(z_W_f @ x[t] + z_U_f @ z[t-1])\n"
     "z_c[t] = z_f[t]*z_c[t-1] + (1 - z_f[t])*tanh(z_W @ x[t] + z_U @ z[t-1])\nz[t] = tanh(z_c[t])"),
    ("z[t] = rnn(x=tanh(V @ x[t]) + b)", {"rnn": RNN}, "z[t] = tanh(z_W @ (tanh(V @ x[t]) + b) + z_U @ z[t-1])"),
    ("z[0] = a\nz[t] = rnn(x=x[t], h=z[t-1])", {"rnn": RNN}, "z[0] = a\nz[t] = tanh(z_W @ x[t] + z_U @ z[t-1])"),
    ("a[t] = rnn(x=x[t], h=a[t-1])\nb[t] = rnn(x=x[t], h=b[t+1])\ny[t] = concat(a[t], b[t])", {"rnn": RNN},
     "a[t] = tanh(a_W @ x[t] + a_U @ a[t-1])\nb[t] = tanh(b_W @ x[t] + b_U @ b[t+1])\ny[t] = concat(a[t], b[t])"),
    ("y[t] = net(x=x[t])", {"net": LAYERS}, "y_l: axis\ny_h[t,0] = x[t]\n"
     "y_h[t,y_l] = tanh(y_W[y_l] @ y_h[t,y_l-1] + y_u[y_l]*y_h[t-1,y_l])\ny[t] = y_h[t,Y_L]"),
    ("y[t] = net(x=x[t])", {"net": STARTED},
        "y_h[0] = tanh(y_h0)\ny_h[t] = tanh(y_W @ x[t] + y_h[t-1])\ny[t] = 2*y_h[t]"),
    ("y[t] = net(x=x[t])", {"net": NOISY}, "y_eps: noise(y)\ny[t] = tanh(y_W @ x[t] + y[t-1] + y_s*y_eps[t])"),
    ("l: axis\nz[t,0] = x[t]\nz[t,l] = rnn(x=z[t,l-1], h=z[t-1,l])", {"rnn": RNN},
     "l: axis\nz[t,0] = x[t]\nz[t,l] = tanh(z_W[l] @ z[t,l-1] + z_U[l] @ z[t-1,l])"),
    ("q[t] = net(x=x[t])", {"net": NESTED}, None),
]


@pytest.mark.parametrize("text, cells, written_out", CALLS, ids=range(len(CALLS)))
def test_a_call_is_its_equations(text, cells, written_out):
    cell = Cell(text, **cells)
    params, inputs = systems.draw(cell)
    assert cell.check_gradients(params, **inputs).ok
    assert cell.check_gradients(params, lengths=systems.lengths(cell), **inputs).ok
    assert Cell(system_text(cell.system)) == cell
    if written_out:
        plain = Cell(written_out)
        assert cell == plain
        name = text.split("\n")[-1].split("[")[0]
        assert (cell.run(params, **inputs)[name] == plain.run(params, **inputs)[name]).all()


def test_a_backward_call_is_the_forward_call_on_the_reversed_sequence():
    ahead, back = (Cell(f"z[t] = net(x=x[t], h=z[t{sign}1])", net=RNN) for sign in "-+")
    params, inputs = systems.draw(ahead)
    turned = back.run(params, x=inputs["x"][::-1])["z"][::-1]
    assert np.abs(ahead.run(params, **inputs)["z"] - turned).max() < 1e-15


# --- roles, shapes, sizes -------------------------------------------------------------------------------------------

def test_roles():
    cell = Cell("eps: noise(h)\nperiod: const(h)\ny: input(h)\nkeep: bernoulli(h, 0.9)\nk: input\nA = U - U.T\n"
                "h[t] = where(t % period == 0, tanh(A @ h[t-1] + x[t-1] + eps[t]), h[t-1])*keep[t] + y + a\n"
                "o[t] = V @ h[t]\nL = sum_t(cross_entropy(o[t], q[t])) + cross_entropy(o[T], k)")
    assert cell.states == ("h",) and set(cell.inputs) == {"eps", "y", "keep", "x", "q", "k"}
    assert set(cell.parameters) == {"U", "V", "a"} and cell.constants == ("period",)
    assert cell.intermediates == ("A", "o", "L") and cell.loss == "L"
    assert set(cell.system.carried) == {"h", "x"}
    assert "A" not in cell.system.per_example and {"h", "o", "L", "y", "k"} <= cell.system.per_example


@pytest.mark.parametrize("text, shapes", [
    ("h[t] = tanh(W @ x[t] + U @ h[t-1] + b)", {"W": ("h", "x"), "U": ("h", "h"), "b": ("h",), "x": ("x",)}),
    ("y[t] = a * x[t] + sum(x[t]) * b", {"a": ("y",), "b": ("y",), "x": ("y",)}),
    ("y[t] = a * sum(x[t]**2)\na: ()\nx: input(3)", {"a": (), "y": (), "x": (3,)}),
    ("y[t] = V @ concat(a[t], b[t])\na: input(2)\nb: input(3)", {"a": (2,), "b": (3,)}),
    ("C[t] = C[t-1] + outer(v[t], k[t])\nh[t] = C[t] @ q[t]", {"C": ("v", "k"), "h": ("v",), "q": ("k",)}),
    ("A = U - U.T\nh[t] = A @ x[t]", {"U": ("x", "x"), "h": ("x",)}),
    ("P: (h, x)\nh[t] = P @ x[t]", {"P": ("h", "x")}),
    ("y[t] = E @ onehot(k[t])", {"E": ("y", "k"), "k": ()}),
    ("z: ()\ny[t] = z * x[t]", {"z": (), "y": ("x",)}),
    ("y[t] = t / T", {"y": ()}),
    # a number at an end fits any shape, computed or not
    *((f"h[t] = (1 - a) * h[t-1] + a * x[t]\nh[0] = {end}", {"a": ("x",), "h": ("x",), "x": ("x",)})
      for end in ("0", "1 - 2 * pi", "-inf", "log(0)", "1 / T")),
    ("y[t] = x[t-1]\nx[0] = 5", {"x": ("y",), "y": ("y",)}),
    ("l: axis\ny[t,0] = 1\ny[t,l] = a[l] * y[t,l-1] + x[t,l]", {"y": ("x",), "a": ("x",)}),
    ("h[t] = h[t-1] + sum(x[t])\nh[0] = 0", {"h": ()}),
    # what might be a number in a product is like the product
    ("y[t] = ((abs(W) * mask) @ diag(D)) @ x[t]", {"W": ("y", "x"), "mask": ("y", "x"), "D": ("x",)}),
    ("h[t] = tanh(A) * h[t-1] + outer(x[t], b[t])", {"A": ("x", "b"), "h": ("x", "b")}),
    ("h[t] = exp(A) * h[t-1] / (1 + B) + outer(x[t], b[t])", {"A": ("x", "b"), "B": ("x", "b")}),
    ("h[t] = where(m > 0, outer(x[t], b[t]), h[t-1])", {"m": ("x", "b")}),
    ("g = 0.5\nh[t] = tanh(g) * (W @ x[t])", {"g": (), "W": ("h", "x")}),
])
def test_shapes(text, shapes):
    cell = Cell(text)
    alias = {n: d for d, names in cell.dims.items() for n in names}
    for name, dims in shapes.items():
        assert tuple(alias.get(d, d) for d in cell.shapes[name]) == tuple(alias.get(d, d) for d in dims)


def test_pi_and_inf_are_numbers_unless_the_text_has_names_of_its_own():
    cell = Cell("w[t] = sin(2 * pi * t / T) * x[t] + pi\nm[t] = maximum(m[t-1], sum(w[t]))\nm[0] = -inf\n"
                "L = sum_t(m[t])")
    x = np.random.default_rng(0).normal(size=(5, 3)) - 4
    w = np.sin(2 * np.pi * np.arange(1, 6) / 5)[:, None] * x + np.pi
    assert cell.parameters == ()
    np.testing.assert_allclose(cell.run({}, x=x)["m"], np.maximum.accumulate(w.sum(axis=1)), rtol=1e-13)
    value, gradients = cell.gradient({}, x=x)
    for backend in ("numpy", "llvm"):
        program = cell.compile(backend=backend)
        np.testing.assert_allclose(program.gradient({}, x=x)[0], value, rtol=1e-13)
        np.testing.assert_allclose(program.gradient({}, x=x)[1]["x"], gradients["x"], rtol=1e-12, atol=1e-14)
    assert Cell(system_text(cell.system)).system == cell.system
    assert r"-\infty" in cell.latex("m") and r"\pi" in cell.latex("w") and "oo" in str(cell.sympy()["m[0]"])
    for text, parameters in (("pi: (s)\ns[t] = pi * x[t]", ("pi",)), ("a[t] = pi * x[t]\npi = softmax(q)", ("q",)),
                             ("s: axis\na[t] = sum_s(pi[s]) * x[t]", ("pi",)), ("inf: ()\nh[t] = inf * x[t]", ("inf",)),
                             ("f(pi) = 2 * pi\nh[t] = f(x[t]) * a", ("a",)), ("W: parameter\nh[t] = W @ x[t]", ("W",))):
        assert Cell(text).parameters == parameters
        assert Cell(system_text(Cell(text).system)).system == Cell(text).system


MARGIN = Primitive(
    "margin", lambda y, k: np.sum(y, axis=-1) - y.shape[-1] * np.sum(np.where(_is(k, y.shape[-1]), y, 0), axis=-1),
    lambda g, y, a, k: (g * (P.like(1, a) - P.onehot(k) * P.sum(P.like(1, a))), None), shape="(n), k -> ()")


def _is(k, n):
    return np.asarray(k)[..., None] == np.arange(n)


def test_a_class_is_what_the_signature_says():
    """A primitive of one's own takes a class by the token `k`: role, number of classes, checks and gradients follow."""
    cell = Cell("y[t] = W @ x[t]\nL = sum_t(margin(y[t], k[t]))", margin=MARGIN)
    assert cell.system.roles["k"] == "class" and cell.dims["y"] == ("y", "k")
    params, x, k = cell.init(x=2, k=3), np.random.default_rng(0).normal(size=(4, 2)), np.array([0, 2, 1, 2])
    y = x @ params["W"].T
    value, gradients = cell.gradient(params, x=x, k=k)
    assert "k" not in gradients
    np.testing.assert_allclose(value, np.sum(y) - 3 * np.sum(y[np.arange(4), k]), rtol=1e-13)
    np.testing.assert_allclose(gradients["W"], (1 - 3 * _is(k, 3)).T @ x, rtol=1e-13)
    assert cell.check_gradients(params, x=x, k=k).ok
    for wrong, fact in ((k + 5, "classes from 5 to 7; there are 3"), (k * 1.0, "is a class and has dtype float64")):
        with pytest.raises(CellError, match=fact):
            cell.gradient(params, x=x, k=wrong)
    inner = Cell("l[t] = margin(W @ x[t], k[t])", margin=MARGIN)
    called = Cell("v[t] = inner(x=x[t], k=q[t])", inner=inner)
    assert called.system.roles["q"] == "class"
    for text, fact in (("L = sum_t(margin(x[t], k[t-1]))", "shifted position"),
                       ("L = sum_t(margin(x[t], k[t-2]))", "one step"),
                       ("y[t] = 2 * x[t]\nL = sum_t(margin(x[t], y[t]))", "wants a class")):
        with pytest.raises(CellError, match=fact):
            Cell(text, margin=MARGIN)


KEYS = {  # the keys that `initial` and gradients share, and those of `final`
    "h[t] = tanh(u * h[t-1] + x[t])": (["h[0]"], ["h[0]"]),
    "h[t] = tanh(u * h[t+1] + x[t])": (["h[T+1]"], []),
    "c[t,r] = u * c[t-1,r] + x[t,r]": (["c[0,r]"], ["c[0,r]"]),
    "c[t,r] = u * c[t-1,r] + c[t,r-1] + x[t,r]": (["c[0,r]", "c[t,0]"], ["c[0,r]"]),
    "s[t] = u * s[t-12] + x[t]": ([f"s[{-k}]" for k in range(12)], [f"s[{-k}]" for k in range(12)]),
    "y[t] = u * x[t+3] + x[t]": (["x[T+1]", "x[T+2]", "x[T+3]"], []),
    "y[t] = u * x[0] + x[t]": (["x[0]"], ["x[0]"]),
    "y[t,r] = u * y[t-3,r] + x[t,r]": (["y[0,r]", "y[-1,r]", "y[-2,r]"], ["y[0,r]", "y[-1,r]", "y[-2,r]"]),
    "y[t,r] = u * y[t-2,r-1] + x[t,r]": (["y[0,r]", "y[t,0]", "y[-1,r-1]"], ["y[0,r]", "y[-1,r-1]"]),
}


@pytest.mark.parametrize("text", KEYS)
def test_ends_have_one_spelling(text):
    """Every key of a gradient is a key of `initial`, and so is every key of `final`, in the same order."""
    wanted, carried = KEYS[text]
    cell = Cell("x: input()\nu: ()\n" + text)
    output = cell.system.defined_in_order[-1]
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 3)[:len(cell.system.axes["x"])])
    m = {output: rng.normal(size=x.shape)}
    gradients = cell.gradient({"u": 0.5}, x=x, cotangents=m)[1]
    assert [key for key in gradients if key not in ("u", "x")] == wanted
    assert list(cell.run({"u": 0.5}, x=x).final) == [*carried, "t"]
    initial = {key: rng.normal(size=np.shape(gradients[key])) for key in wanted}
    values = []
    for moved in (initial, {key: a + 1e-4 * rng.normal(size=np.shape(a)) for key, a in initial.items()}):
        values.append((cell.gradient({"u": 0.5}, x=x, initial=moved, cotangents=m), moved))
    (a, (b, there)) = (values[0][0], values[1])
    step = sum(np.sum((there[key] - initial[key]) * (a[1][key] + b[1][key]) / 2) for key in wanted)
    np.testing.assert_allclose(b[0] - a[0], step, rtol=1e-6)


def test_a_season_goes_on_over_stretches():
    """Twelve lags: an end for each of the twelve steps before, in the text too."""
    x = np.random.default_rng(0).normal(size=40)
    ends = "\n".join(f"s[{-k}] = {k + 1} * a" for k in range(12))
    cell = Cell("x: input()\nu: ()\ns[t] = u * s[t-12] + x[t]\n" + ends)
    params = {"u": 0.5, "a": 2.0}
    by_hand = [2.0 * (k + 1) for k in range(11, -1, -1)]
    for value in x:
        by_hand.append(0.5 * by_hand[-12] + value)
    np.testing.assert_allclose(cell.run(params, x=x)["s"], by_hand[12:], rtol=1e-14)
    state, found = None, []
    for part in (x[:5], x[5:12], x[12:30], x[30:]):
        trace = cell.run(params, x=part, initial=state)
        state = trace.final
        found += list(trace["s"])
    np.testing.assert_allclose(found, by_hand[12:], rtol=1e-14)
    assert cell.check_gradients(params, x=x[:20], cotangents={"s": np.ones(20)}).ok
    assert Cell(system_text(cell.system)).system == cell.system


def test_final_is_asked_by_a_name_alone_too():
    final = Cell("h[t] = h[t-1] + x[t]\nx: input()").run({}, x=np.ones(3)).final
    assert final["h"] == final["h[0]"] == 3 and list(final) == ["h[0]", "t"]
    for copied in (copy.deepcopy(final), pickle.loads(pickle.dumps(final))):
        copied["h"] = 4
        assert copied == {"h[0]": 4, "t": 3} and copied["h"] == 4
    with pytest.raises(KeyError, match="is not carried on; there are h"):
        final["q"]
    assert "y" not in Cell("s[t] = s[t-2] + x[t]\nx: input()").run({}, x=np.ones(3)).final


def test_products_are_read_without_recursion():
    product, turned, power = " * ".join(["x[t]"] * 900), "W" + ".T" * 901, " @ ".join(["M"] * 900)
    trace = Cell(f"x: input()\nh[t] = {product}\na = {turned} @ v\nb = {power}").run(
        {"W": np.arange(6.0).reshape(3, 2), "v": np.ones(3), "M": np.array([[1.0, 1.0], [0.0, 1.0]])}, x=[1.001])
    assert trace["h"] == pytest.approx(1.001**900) and trace["a"].tolist() == [6, 9] and trace["b"][0, 1] == 900


@pytest.mark.parametrize("text", [
    "_h[t] = tanh(U @ _h[t-1] + x[t])", "_h[t] = tanh(U @ _h[t-1] + x[t])\nh[t] = tanh(V @ _h[t])",
    "_[t] = tanh(U @ _[t-1] + x[t])", "_h[t] = tanh(U @ _h[t-3] + W @ _x[t])\nd_h[t] = _h[t]\n_h[0] = _a",
])
def test_derived_cells_of_names_with_underscores_parse_back(text):
    cell = Cell(text)
    for derived in (cell.backward(), cell.tangent()):
        assert Cell(derived.text).system == derived.system


def test_two_private_names_of_calls_never_become_one():
    tied = Cell("s[t] = tanh(_W @ x[t] + W @ x[t])")
    assert Cell("h[t] = enc(x=x[t])", enc=Cell("s[t] = tanh(_W @ x[t])")).parameters == ("h_W",)
    for text, enc in (("h[t] = enc(x=x[t])", tied), ("h[t] = enc(x=x[t])\nh_[t] = enc(x=x[t])", RNN)):
        with pytest.raises(CellError, match="`h_W` of this call is taken"):
            Cell(text, enc=enc)


def test_a_derived_cell_with_rules_shows_what_it_showed():
    backward = Cell("h[t] = tanh(U @ h[t-1] + W @ x[t])\nL = sum_t(sum(h[t]))").backward()
    for same in (backward.initialised(U=1.0), backward.substitute(h="0.5 * tanh(a_h[t])")):
        assert (str(same), same.outputs, same.loss) == (str(backward), backward.outputs, backward.loss)
    assert (backward.initialised(U=1.0).init(x=2, h=2)["U"] == 1).all()


def test_sizes_answer_to_the_name_of_any_variable():
    cell = systems.cell("vanilla")
    a, b = cell.init(x=2, h=3, y=4), cell.init(x=2, b=3, c=4)
    assert {n: v.shape for n, v in a.items()} == {n: v.shape for n, v in b.items()} == {
        "W": (3, 2), "U": (3, 3), "b": (3,), "V": (4, 3), "c": (4,)}
    assert all((a[n] == b[n]).all() for n in a) and not a["b"].any() and np.abs(a["W"]).max() <= 1 / np.sqrt(2)
    assert cell.init(x=2, h=3, k=4)["V"].shape == (4, 3)  # as many classes as logits


def test_a_dimension_of_a_concatenation_is_the_sum_of_its_parts():
    cell = Cell("h[t] = tanh(W @ concat(x[t], h[t-1]))")
    assert cell.init(x=2, h=3)["W"].shape == (3, 5)


# --- ragged batches, stretches, batches of one ----------------------------------------------------------------------

ALL = tuple(dict.fromkeys((*systems.TEXTS, *systems.DEEP)))


@pytest.mark.parametrize("name", ALL)
def test_what_padding_holds_changes_no_bit(name):
    cell = systems.cell(name)
    params, inputs = systems.draw(cell, T=5, batch=3)
    steps, lengths = systems.steps(cell), systems.lengths(cell, batch=3)
    spoilt = {}
    for key, array in inputs.items():
        spoilt[key] = array.copy()
        for k, i in enumerate(cell.system.axes[key]):
            if i in lengths:
                where = np.moveaxis(spoilt[key], (k, len(cell.system.axes[key])), (0, 1))
                for b, n in enumerate(lengths[i]):
                    where[n:, b] = 12345 if array.dtype.kind == "i" else np.nan
    a, b = (cell.run(params, lengths=lengths, **x, **steps) for x in (inputs, spoilt))
    assert all(a[n].tobytes() == b[n].tobytes() for n in a)
    grads = [cell.gradient(params, lengths=lengths, cotangents=cotangents(cell, a), **x, **steps) for x in (inputs,
        spoilt)]
    assert grads[0][0] == grads[1][0]
    assert all(grads[0][1][n].tobytes() == grads[1][1][n].tobytes() for n in grads[0][1])


def cotangents(cell, trace):
    return None if cell.loss else {n: np.ones(trace[n].shape) for n in cell.outputs}


@pytest.mark.parametrize("name", ALL)
def test_a_ragged_batch_is_its_examples(name):
    """Each example of a ragged batch, run alone at its own length, gives the same values; gradients add up."""
    cell = systems.cell(name)
    system, T, batch = cell.system, 5, 3
    params, inputs = systems.draw(cell, T, batch)
    lengths = systems.lengths(cell, T, batch)
    steps = systems.steps(cell, T)
    trace = cell.run(params, lengths=lengths, **inputs, **steps)
    value, grads = cell.gradient(params, lengths=lengths, cotangents=cotangents(cell, trace), **inputs, **steps)
    total, added = 0.0, dict.fromkeys(cell.parameters, 0.0)
    for b in range(batch):
        n = {i: int(lengths[i][b]) if i in lengths else e for i, e in systems.extents(cell, T).items()}
        one = {k: example(system, k, v, b, n) for k, v in inputs.items()}
        own_steps = {"steps": {i: n[i] for i in steps["steps"]}} if steps else {}
        alone = cell.run(params, **one, **own_steps)
        for key in alone:
            if key in system.per_example:
                assert np.abs(alone[key] - example(system, key, trace[key], b, n)).max(initial=0) < 1e-12, key
        own, part = cell.gradient(params, cotangents=cotangents(cell, alone), **one, **own_steps)
        total += own
        added = {k: added[k] + part[k] for k in added}
    if name != "antisymmetric_penalty":  # its penalty on U is a shared term: counted once for the batch
        assert abs(total - value) < 1e-11 * max(1, abs(value))
        assert all(np.abs(added[k] - grads[k]).max() < 1e-11 * max(1, np.abs(added[k]).max()) for k in added)


def streams(name):
    """Whether a cell can be run in stretches: one data index, read backwards only, at no end."""
    system = systems.cell(name).system
    data = [i for i in system.indices if i not in system.model]
    positions = [p for n in system.reads for p in n.params[1] if p.index in data]
    ahead = any(p.offset > 0 or (p.base != "i" and not p.outside) for p in positions)
    whole = any(n.op.name != "sum" and n.op.fill is not None and n.params and n.params[0] in data for n in system.nodes)
    return len(data) == 1 and not ahead and not whole and name != "divide"


STREAMS = [name for name in ALL if streams(name)]


@pytest.mark.parametrize("name", STREAMS)
def test_stretches_and_steps_are_one_long_run(name):
    cell = systems.cell(name)
    params, inputs = systems.draw(cell, T=7, batch=2)
    whole = cell.run(params, **inputs)
    timed = [n for n in whole if cell.system.axes[n][:1] == ("t",)]
    for cuts in ((3,), (1, 2, 6), tuple(range(1, 7))):
        state, parts = None, []
        for a, b in zip((0, *cuts), (*cuts, 7)):
            cut = {k: v[a:b] if cell.system.axes[k] else v for k, v in inputs.items()}
            parts.append(cell.run(params, initial=state, **cut))
            state = parts[-1].final
            assert state["t"] == b
        for n in timed:
            assert np.abs(np.concatenate([part[n] for part in parts]) - whole[n]).max() < 1e-13, n
    state = None
    for k in range(7):
        values, state = cell.step(params, state, **{n: v[k] if cell.system.axes[n] else v for n, v in inputs.items()})
        for n in timed:
            assert np.abs(values[n] - whole[n][k]).max() < 1e-13, n


def test_enough_cells_are_streamed():
    assert len(STREAMS) >= 12 and {"clockwork", "recurrent_highway", "storn", "two_layers"} <= set(STREAMS)


def test_t_goes_on_counting_across_stretches():
    cell = Cell("y[t] = t * x[t]\nx: input(1)")
    assert cell.run({}, initial={"t": 10}, x=np.ones((3, 1)))["y"].ravel().tolist() == [11, 12, 13]


@pytest.mark.parametrize("name", ALL)
def test_unbatched_is_a_batch_of_one(name):
    cell = systems.cell(name)
    params, inputs = systems.draw(cell, T=4, batch=1)
    system = cell.system
    single = {k: np.take(v, 0, axis=len(system.axes[k])) for k, v in inputs.items()}
    steps = systems.steps(cell, 4)
    one, many = cell.run(params, **single, **steps), cell.run(params, **inputs, **steps)
    for n in one:
        want = np.take(many[n], 0, axis=len(system.axes[n])) if n in system.per_example else many[n]
        assert one[n].shape == want.shape and (one[n] == want).all()
    a = cell.gradient(params, cotangents=cotangents(cell, one), **single, **steps)[1]
    b = cell.gradient(params, cotangents=cotangents(cell, many), **inputs, **steps)[1]
    assert all((a[n].ravel() == b[n].ravel()).all() for n in a)


def _from(p, x, start, last):
    h = sweep(lambda t, h: np.tanh(x[t - 1] @ p["W"].T + h @ p["U"].T), start, steps_of(len(x)))
    return h, sweep(lambda t, b: np.tanh(h[t - 1] + p["v"] * b), last, reversed(steps_of(len(x))))


def test_initial_overrides_zero_and_the_texts_own_end():
    for end in ("", "h[0] = a\n"):
        cell = Cell(end + "h[t] = tanh(W @ x[t] + U @ h[t-1])\nb[t] = tanh(h[t] + v*b[t+1])")
        params, inputs = systems.draw(cell, batch=2)
        size = params["U"].shape[0]
        start, last = np.full((2, size), 0.3), np.full((2, size), -0.4)
        trace = cell.run(params, initial={"h": start, "b": last}, **inputs)
        h, b = _from(params, inputs["x"], start, last)
        assert np.abs(trace["h"] - h).max() < 1e-14 and np.abs(trace["b"] - b).max() < 1e-14
        grads = cell.gradient(params, cotangents={"b": np.ones_like(b)}, initial={"h": start, "b": last}, **inputs)[1]
        assert {"h[0]", "b[T+1]"} <= set(grads) and grads["h[0]"].shape == start.shape
        assert cell.check_gradients(params, initial={"h": start, "b": last}, **inputs).ok


def test_steps_say_how_long_a_sequence_without_inputs_is():
    cell = Cell("h[0] = a\nh[t] = tanh(U @ h[t-1])")
    params, _ = systems.draw(cell)
    assert cell.run(params, steps=7)["h"].shape[0] == 7
    with pytest.raises(CellError, match="steps="):
        cell.run(params)


def test_noise_is_drawn_from_a_seed_or_is_its_mean():
    cell = Cell("eps: noise(x)\nkeep: bernoulli(x, 0.8)\ny[t] = x[t]*keep[t] + eps[t]")
    x = np.ones((200, 5, 3))
    a, b, c = (cell.run({}, x=x, noise=seed) for seed in (0, 0, 1))
    assert (a["y"] == b["y"]).all() and (a["y"] != c["y"]).any()
    assert abs(a["keep"].mean() - 0.8) < 0.03 and abs(a["eps"].std() - 1) < 0.05
    assert (cell.run({}, x=x, noise="mean")["y"] == 0.8).all()


def test_a_loss_is_summed_over_the_batch_and_a_frame_average_says_so():
    cell = Cell("h[t] = W @ x[t]\nl[t] = sum(h[t]**2)\nL = sum_t(l[t])\nmean_ = sum_batch(sum_t(l[t])) / sum_batch(T)")
    params, inputs = systems.draw(cell, T=5, batch=3)
    lengths = np.array([2, 5, 3])
    trace = cell.run(params, lengths=lengths, **inputs)
    frames = [np.sum((inputs["x"][t, b] @ params["W"].T) ** 2) for b in range(3) for t in range(lengths[b])]
    assert abs(cell.gradient(params, loss="L", lengths=lengths, **inputs)[0] - sum(frames)) < 1e-12
    assert abs(trace["mean_"] - np.mean(frames)) < 1e-13
    assert cell.check_gradients(params, loss="mean_", lengths=lengths, **inputs).ok


# --- systems of the literature --------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ALL)
def test_systems_of_the_literature(name):
    """Each infers, its gradients are right whole and ragged, and its text and its derivatives' texts parse back."""
    cell = systems.cell(name)
    params, inputs = systems.draw(cell)
    steps = systems.steps(cell)
    assert cell.check_gradients(params, **inputs, **steps).ok
    assert cell.check_gradients(params, lengths=systems.lengths(cell), **inputs, **steps).ok
    for other in (cell, cell.backward(), cell.tangent()):
        assert Cell(system_text(other.system)) == other
    if len(cell.system.equations) < 12:
        twice = cell.backward().backward()
        assert Cell(system_text(twice.system)) == twice


def test_the_survey_is_covered():
    assert set(systems.DEEP) <= set(ALL) and len(ALL) >= 25


# --- order ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("text, names", [
    ("a[t] = b[t] + x[t]\nb[t] = a[t]", {"a[t]", "b[t]"}),
    ("a[t] = b[t-1] + x[t]\nb[t] = a[t+1]", {"a[t]", "b[t]"}),
    ("a[t] = a[t-1] + sum_t(a[t])", {"a[t]"}),
    ("a[t] = a[T] + x[t]", {"a[t]"}),
    ("a[t] = b[t-1]\nb[t] = c[t]\nc[t] = b[t] + x[t]", {"b[t]", "c[t]"}),
])
def test_a_cycle_is_refused_by_name(text, names):
    with pytest.raises(CellError) as caught:
        Cell(text)
    assert "wait for each other" in caught.value.fact
    assert set(caught.value.fact.split(": ")[1].strip(".").split(" -> ")) == names


# --- targets ---------------------------------------------------------------------------------------------------------

TARGETS = {  # text, inputs that a prediction has, and names that a run without the others leaves out
    "class": ("h[t] = tanh(W @ x[t] + U @ h[t-1])\nL = sum_t(cross_entropy(V @ h[t], k[t]))", {"k", "L", "V"}),
    "vector": ("h[t] = tanh(W @ x[t] + U @ h[t-1])\ne[t] = h[t] - y[t]\nL = sum_t(sum(e[t]**2))", {"y", "e", "L"}),
    "number": ("h[t] = tanh(u * h[t-1] + x[t])\nL = sum_t((h[t] - y[t])**2)\ny: input()", {"y", "L"}),
    "at the end": ("h[t] = tanh(W @ x[t] + U @ h[t-1])\nL = cross_entropy(V @ h[T], k)", {"k", "L", "V"}),
    "weighted": ("h[t] = tanh(W @ x[t])\nL = sum_t(m[t] * cross_entropy(h[t], k[t]))\nm: input()", {"k", "m", "L"}),
}


@pytest.mark.parametrize("name", TARGETS)
def test_a_cell_runs_and_steps_without_its_targets(name):
    text, absent = TARGETS[name]
    cell = Cell(text)
    params, inputs = systems.draw(cell, T=4, batch=2)
    x = inputs["x"]
    whole, part = cell.run(params, **inputs), cell.run(params, x=x)
    assert set(whole) - set(part) == absent
    for n in part:
        np.testing.assert_array_equal(part[n], whole[n])
    missing = set(inputs) - {"x"}
    for n in absent - {"V"}:
        assert n not in part
        with pytest.raises(CellError) as caught:
            part[n]
        assert any(f"the input `{m}` was not given" in str(caught.value) for m in missing)
    state = None
    for k in range(4):
        values, state = cell.step(params, state, x=x[k])
        np.testing.assert_allclose(values["h"], whole["h"][k], rtol=1e-14, atol=1e-14)
        assert not absent & set(values)
    with pytest.raises(CellError, match=r"` is missing"):
        cell.gradient(params, x=x)


@pytest.mark.parametrize("text, missing", [
    ("h[t] = tanh(W @ x[t] + y[t])\nL = sum_t(mse(h[t], y[t]))", "y"),  # h needs it too
    ("h[t] = x[t]\ns[t] = s[t-1] + y[t]\nL = sum_t(mse(h[t], s[t]))", "y"),  # a state does
    ("h[t] = x[t]\ne[t] = h[t] - y[t]\nd[t] = 2 * e[t]\nL = sum_t(sum(e[t]**2))", "y"),  # an output beside the loss
    ("h[t] = x[t] + y[t-1]\nL = sum_t(mse(h[t], y[t]))", "y"),
    ("h[t] = x[t] + y[t]", "y"),
    ("h[t] = W @ x[t]\nL = sum_t(mse(h[t], y[t]))", "x"),
])
def test_any_other_input_that_is_missing_is_asked_for(text, missing):
    cell = Cell(text)
    params, inputs = systems.draw(cell, T=3, batch=2)
    del inputs[missing]
    for call in (cell.run, cell.step):
        with pytest.raises(CellError, match=f"`{missing}` is missing"):
            call(params, **{n: v if call == cell.run else v[0] for n, v in inputs.items()})


def test_a_misspelt_target_is_named():
    cell = Cell(TARGETS["class"][0])
    params, inputs = systems.draw(cell, T=3)
    with pytest.raises(CellError, match="Did you mean `k`"):
        cell.run(params, x=inputs["x"], kk=inputs["k"])


def test_a_number_stays_one_where_the_end_that_says_so_is_overridden():
    cell = Cell("h[t] = tanh(u * h[t-1] + x[t])\nh[0] = a\na: ()")
    given = {"u": 0.5, "a": 0.1}, {"x": np.array([0.3, -0.2]), "initial": {"h": 0.4}}
    assert cell.run(given[0], **given[1])["h"].shape == (2,)
    _, gradients = cell.gradient(given[0], **given[1], cotangents={"h": np.ones(2)})
    assert gradients["a"] == 0 and gradients["h[0]"] > 0


@pytest.mark.parametrize("cell, shown", [
    (Cell("h[t] = tanh(U @ h[t-1] + x[t])"), "<Cell: h from x>"), (zoo["rnn"], "<Cell rnn: h from x>"),
    (Cell("h[t] = tanh(U @ h[t-1])"), "<Cell: h from no inputs>"), (Cell("h[t] = x[t]"), "<Cell: no states from x>")])
def test_a_cell_shows_itself(cell, shown):
    assert repr(cell) == shown
