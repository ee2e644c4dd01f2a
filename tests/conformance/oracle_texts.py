"""Texts that stress what the notation says, and what the oracle makes of them, kept for tests that have no torch.

    PYTHONPATH=.:tests python tests/conformance/oracle_texts.py      writes tests/oracle_values.json

A case: (text, options). Options: sizes and extents for `systems.draw`; cells=texts called in it; outputs=what gets
cotangents (otherwise the loss, and where there is none the cell's outputs); ends=what `initial` is to hold, by shapes.
"""

import json
from pathlib import Path

import numpy as np
import systems
from oracle import Oracle

from autograd_rnn import Cell

VALUES = Path(__file__).parents[1] / "oracle_values.json"
N = "\nx: input()"
RNN = "h[t] = tanh(W @ x[t] + U @ h[t-1] + b)"

CASES = {
    # far reads, in either direction, along each index
    "a carry of two steps": ("h[t] = x[t] + h[t-2]" + N, {}),
    "a carry of three steps": ("h[t] = tanh(W @ x[t] + U @ h[t-3] + b)", {"T": 7}),
    "two steps ahead": ("h[t] = tanh(W @ x[t] + U @ h[t+2])", {}),
    "several lags": ("h[t] = tanh(u * h[t-1] + v * h[t-2] + w * h[t-3] + W @ x[t-2])", {"T": 6}),
    "exchanged places": ("a[t] = b[t-1]\nb[t] = a[t-1] + x[t]\ny[t] = a[t] * b[t]" + N, {}),
    "a ring of three": ("a[t] = b[t-1]\nb[t] = c[t-1]\nc[t] = a[t-1] + x[t]\ny[t] = a[t] * c[t]" + N, {"T": 8}),
    "inputs from afar": ("y[t] = tanh(W @ x[t-2] + V @ x[t+3])", {}),
    "a lag and an end": ("h[0] = h0\nh[t] = tanh(U @ h[t-1] + V @ h[t-2] + W @ x[t])", {}),
    "a lag given": ("h[t] = tanh(U @ h[t-1] + V @ h[t-2] + W @ x[t])", {"ends": {"h": (2, 3)}, "x": 2, "h": 3}),
    "diagonal": ("h[t,j] = tanh(u * h[t-1,j-1] + v * h[t-2,j-1] + x[t,j])\nu: ()\nv: ()" + N, {"T": 4}),
    "a knight's move": ("h[t,j] = tanh(u * h[t-1,j-2] + v * h[t-2,j+1] + x[t,j])\nu: ()\nv: ()" + N, {"T": 4}),
    "diagonal ahead": ("h[t,j] = tanh(u * h[t+2,j-1] + x[t,j])\nu: ()" + N, {"T": 4}),
    "a far layer": ("l: axis\ny[t,0] = x[t]\ny[t,l] = y[t-2,l-1]\no[t] = y[t,L]" + N, {"l": 1}),
    "a far layer ahead": ("l: axis\ny[t,0] = x[t]\ny[t,l] = u * y[t+2,l-1]\no[t] = y[t,L]\nu: ()" + N, {"l": 2}),
    "a far column": ("y[0,j] = 100 + j\ny[t,j] = y[t-1,j-2] + x[t,j]" + N, {"T": 4}),
    # ends
    "ends on both sides": (
        "f[0] = p\nf[t] = tanh(W @ x[t] + U @ f[t-1])\ng[T+1] = q\ng[t] = tanh(V @ x[t] + R @ g[t+1])\n"
        "y[t] = f[t-1] * g[t+1] + f[0] * g[T+1] + f[T] * g[1]",
        {"T": 4},
    ),
    "grid with ends": (
        "h[0,j] = tanh(p * j / J)\nh[t,0] = tanh(q * t)\nh[t,j] = tanh(u * h[t-1,j] + v * h[t,j-1] + x[t,j])\n"
        "p: ()\nq: ()\nu: ()\nv: ()" + N,
        {"T": 4},
    ),
    "grid with far ends": (
        "h[0,j] = tanh(p * j)\ng[t,J+1] = q\nh[t,j] = tanh(u * h[t-1,j] + v * g[t,j+1])\n"
        "g[t,j] = tanh(v * g[t,j+1] + x[t,j])\ny[t] = sum_j(h[t,j] * g[t,j])\np: ()\nq: ()\nu: ()\nv: ()" + N,
        {"T": 4},
    ),
    "a computed end": ("h[0] = tanh(V @ mean_t(x[t]))\nh[t] = tanh(W @ x[t] + U @ h[t-1])", {}),
    "a literal end": ("h[0] = 1\nh[t] = (1 - a) * h[t-1] + a * tanh(W @ x[t])", {}),
    "ends given": (
        "h[t] = tanh(U @ h[t-1] + W @ x[t-1] + V @ x[t+1])",
        {"ends": {"h": (2, 3), "x[0]": (2, 2), "x[T+1]": (2, 2)}, "x": 2, "h": 3},
    ),
    "an end given that is defined": (
        "h[0] = h0\nh[t] = tanh(U @ h[t-1] + W @ x[t])",
        {"ends": {"h": (2, 3)}, "x": 2, "h": 3},
    ),
    "first and last": ("y[t] = x[t] * h[T] + h[1]\nh[t] = tanh(u * h[t-1] + x[t])", {}),
    "the state of the last layer": (
        "l: axis\ns[t,0] = s[t-1,L]\ns[t,l] = tanh(where(l == 1, W @ x[t], 0) + R[l] @ s[t,l-1])\ny[t] = s[t,L]",
        {"T": 4},
    ),
    # values of parameters alone
    "a product of weights": ("E = A @ B\nL = sum(E * C) + sum_t(x[t])\nA: (2, 2)\nB: (2, 2)\nC: (2, 2)" + N, {}),
    "a weight and its transpose": ("S = G @ G.T\nh[t] = tanh(S @ h[t-1] + W @ x[t])", {}),
    "a weight twice": ("S = A @ A\nh[t] = tanh(S @ h[t-1] + W @ x[t])", {}),
    "low rank": ("h[t] = tanh(U @ V @ h[t-1] + W @ x[t])\nU: (h, 2)\nV: (2, h)", {"h": 3}),
    "a scaled weight": ("R = W @ diag(s)\nh[t] = tanh(R @ h[t-1] + V @ x[t])\ns: (h)", {}),
    "outer of matrices": ("E = outer(A, B)\nL = sum(E * E) + sum_t(sum(E @ x[t]))\nA: (3, 2)\nB: (4, 2)", {}),
    "the sign of a unit": ("D: const(h)\nA = abs(W) @ diag(D)\nh[t] = tanh(A @ h[t-1] + V @ x[t])", {}),
    "weight normalisation": ("W = g * (M / sqrt(sum(M**2)))\nh[t] = tanh(W @ h[t-1] + V @ x[t])\ng: ()\nM: (h, h)", {}),
    "a penalty alone": ("h[t] = tanh(W @ x[t] + U @ h[t-1])\nL = sum_t(sum(h[t]**2)) + 0.1 * sum(U**2)", {}),
    "a loss of weights alone": ("h[t] = tanh(W @ x[t] + U @ h[t-1])\nL = sum_batch(sum_t(sum(h[t]))) + sum(U**2)", {}),
    # sums over an index
    "less its mean": ("y[t] = x[t] - mean_t(x[t])\nL = sum_t(sum(y[t]**3))", {}),
    "a mean in a loop": ("h[t] = tanh(U @ h[t-1] + W @ (x[t] - mean_t(x[t])))", {}),
    "a sum with its index": ("y[t] = tanh(x[t] * sum_t(t * x[t] / T))" + N, {}),
    "a softmax over time": ("a[t] = softmax_t(sum(w * x[t]))\nc = sum_t(a[t] * x[t])\nL = sum(c**2)", {}),
    "a softmax over time of vectors": ("y[t] = x[t] * softmax_t(x[t])\nL = sum_t(sum(y[t]**2))", {}),
    "the logarithm of a sum": ("L = logsumexp_t(sum(x[t]**2))", {}),
    "the greatest": ("c = max_t(W @ x[t])\nL = sum(c**2)", {}),
    "sums so far": ("c[t] = cumsum_t(W @ x[t])\nL = sum_t(sum(tanh(c[t])))", {}),
    "the log of sums across": (
        "h[t,j] = softplus(x[t,j] + h[t,j-1] + h[t-1,j])\nL = sum_t(logsumexp_j(h[t,j]))" + N, {"T": 4}
    ),
    "attention to itself": (
        "a[t,s] = softmax_s(sum((Q @ x[t]) * (K @ y[s])))\nc[t] = sum_s(a[t,s] * y[s])\nL = sum_t(sum(c[t]**2))", {}
    ),
    "reductions of layers": (
        "l: axis\nh[t,l] = tanh(W[l] @ x[t] + U[l] @ h[t-1,l])\na[t,l] = softmax_l(sum(h[t,l]))\n"
        "c[t,l] = cumsum_l(h[t,l])\ny[t] = sum_l(a[t,l] * c[t,l] * l / L) + max_l(h[t,l]) + mean_l(c[t,l])",
        {"T": 3},
    ),
    "a mean over frames": ("l[t] = sum((W @ x[t])**2)\nL = sum_batch(sum_t(l[t])) / sum_batch(T)", {}),
    # classes
    "an embedding": ("h[t] = tanh(E @ onehot(k[t-1]) + U @ h[t-1])\nL = sum_t(cross_entropy(V @ h[t], k[t]))", {}),
    "a class of the sequence": ("h[t] = tanh(W @ x[t] + U @ h[t-1])\nL = cross_entropy(V @ h[T], k)\nk: input", {}),
    "a class ahead": ("h[t] = tanh(E @ onehot(k[t+1]) + D @ onehot(k[t]) + U @ h[t-1])", {}),
    # functions
    "a function": ("swish(v) = v * sigmoid(v)\nf(a, b) = swish(a) - b * swish(b)\nh[t] = f(W @ x[t], U @ h[t-1])", {}),
    "pointwise": (
        "a[t] = W @ x[t] + U @ tanh(y[t-1])\n"
        "y[t] = exp(-a[t]**2) + log(1.5 + a[t]**2) * sqrt(1 + a[t]**2) + sin(a[t]) * cos(a[t]) + sech(a[t]) "
        "- sigmoid(a[t]) * softplus(a[t]) + abs(a[t]) / 3 + sign(a[t]) * a[t] + floor(3 * a[t]) * tanh(a[t]) / 5\n"
        "L = sum_t(sum(tanh(y[t])))",
        {"T": 4},
    ),
    "chosen": (
        "a[t] = W @ x[t]\nb[t] = V @ x[t]\nm[t] = maximum(a[t], b[t]) * minimum(a[t], 0.2)\n"
        "h[t] = where(a[t] > b[t], h[t-1] * 0.5 + a[t], tanh(b[t])) + mod(a[t], 0.7) + a[t] % (1 + b[t]**2) + m[t]\n"
        "g[t] = where(t % 2 == 0, h[t], g[t-1])",
        {"T": 4},
    ),
    "composed": (
        "a[t] = W @ x[t] + b\ny[t] = relu(a[t]) + leaky_relu(a[t]) * elu(a[t]) - silu(a[t]) * gelu(a[t]) "
        "+ hard_sigmoid(a[t]) * layer_norm(a[t])\nkeep: bernoulli(a, 0.8)\nd[t] = dropout(y[t], keep[t], 0.8)\n"
        "p[t] = sigmoid(V @ x[t])\nL = sum_t(mse(d[t], a[t]) + bce(y[t], p[t]))",
        {"T": 3, "a": 3},
    ),
    "of components": (
        "a[t] = W @ x[t]\nb[t] = V @ x[t]\nc[t] = concat(a[t], b[t], a[t])\n"
        "y[t] = sum(a[t]) * max(b[t]) + mean(c[t]) * logsumexp(a[t])\nz[t] = softmax(a[t]) * cumsum(a[t]) * y[t]\n"
        "w[t] = slice(c[t], 1, 3) * slice(z[t], 0, 2)\n"
        "L = sum_t(sum(w[t]**2) + sum(split(c[t], a[t], b[t], a[t], 2)**3) + sum(like(y[t], b[t]) * b[t]))",
        {"T": 3, "a": 3, "b": 2},
    ),
    "matrices": (
        "k[t] = W @ x[t]\nv[t] = V @ x[t]\nS[t] = S[t-1] @ diag(sigmoid(k[t])) + outer(v[t], k[t])\n"
        "M[t] = S[t].T @ S[t]\ny[t] = S[t] @ k[t] + S[t] @ diagonal(M[t])\nL = sum_t(sum(tanh(y[t])))",
        {"T": 3, "k": 2, "v": 3},
    ),
    "no gradient": (
        "h[t] = tanh(W @ x[t] + U @ stop_gradient(h[t-1]) + V @ g[t-1])\ng[t] = stop_gradient(h[t]) * h[t]", {}
    ),
    "noise": (
        "eps: noise(z)\nz[t] = m[t] + exp(m[t]) * eps[t]\nm[t] = W @ x[t] + U @ z[t-1]\nL = sum_t(sum(tanh(z[t])))", {}
    ),
    "an average over the batch": (
        "m[t] = mean_batch(W @ x[t])\ny[t] = (W @ x[t] - m[t]) / sqrt(mean_batch((W @ x[t] - m[t])**2) + 1)\n"
        "L = sum_t(sum(tanh(y[t]) * (W @ x[t])) * sum_batch(1))",
        {},
    ),
    "the greatest of the batch": ("y[t] = tanh(max_batch(x[t]) * x[t] + logsumexp_batch(x[t]))" + N, {}),
    # what is not reached, and odd sizes
    "unreached": ("h[t] = tanh(U @ h[t-1] + W @ x[t])\ng[t] = sigmoid(V @ x[t])", {"outputs": ["g"]}),
    "means side by side": ("p[t] = mean(A @ x[t])\nq[t] = mean(B @ x[t])\nh[t] = tanh(p[t] * h[t-1] + q[t])", {}),
    "one of each": (RNN, {"x": 1, "h": 1, "T": 1}),
    "one step, far reads": ("h[t] = tanh(W @ x[t-1] + V @ x[t] + U @ h[t-3])", {"T": 1}),
    "odd": (RNN, {"x": 7, "h": 5, "T": 3}),
    # calls
    "a stack": (
        "a[t] = rnn(x=x[t], h=a[t-1])\nb[t] = rnn(x=a[t], h=b[t-1])",
        {"cells": {"rnn": RNN}},
    ),
    "backward, with a private state": (
        "f[t] = cell(x=x[t], h=f[t-1])\nb[t] = cell(x=x[t], h=b[t+1])\ny[t] = concat(f[t], b[t])",
        {"cells": {"cell": "c[t] = 0.5 * c[t-1] + W @ x[t]\nh[t] = tanh(c[t] + U @ h[t-1])"}},
    ),
    "no state passed": (
        "y[s] = cell(x=x[s])",
        {"cells": {"cell": "h[t] = tanh(W @ x[t] + U @ h[t-1])\no[t] = V @ h[t]"}},
    ),
    "a shared weight, a state of another": (
        "a[t] = cell(x=x[t], h=tanh(s[t-1]), W=V)\ns[t] = a[t] + V @ x[t]",
        {"cells": {"cell": "h[t] = tanh(W @ x[t] + U @ h[t-1])"}},
    ),
    "a callee that looks back": (
        "z[t] = R @ x[t]\na[t] = cell(x=z[t], h=a[t-1])\nb[t] = cell(x=z[t], h=b[t+1])\ny[t] = a[t] * b[t]",
        {"cells": {"cell": "h[t] = tanh(W @ x[t-1] + U @ h[t-1])"}},
    ),
    "a callee that counts, backward": (
        "b[t] = cell(x=x[t], h=b[t+1])",
        {"cells": {"cell": "h[t] = where(t % 2 == 0, tanh(W @ x[t] + U @ h[t-1]), h[t-1]) * t / T"}},
    ),
    "a callee with an end, backward": (
        "b[t] = cell(x=x[t], h=b[t+1])",
        {"cells": {"cell": "h[0] = h0\nh[t] = tanh(W @ x[t] + U @ h[t-1])"}},
    ),
    "a call for each layer": (
        "l: axis\nh[t,0] = E @ x[t]\nh[t,l] = cell(x=h[t,l-1], h=h[t-1,l])",
        {"T": 3, "cells": {"cell": "A = U - U.T\nh[t] = tanh(W @ x[t] + A @ h[t-1] + b)"}},
    ),
}


def drawn(cell, options, seed):
    """Parameters, inputs and the other arguments of `gradient`, rounded so that their digits are few."""
    chosen = {n: v for n, v in options.items() if n not in ("cells", "outputs", "ends")}
    T = chosen.pop("T", 5)
    params, inputs = systems.draw(cell, T=T, seed=seed, **chosen)
    rng = np.random.default_rng(seed)
    more = dict(systems.steps(cell, T))
    if "ends" in options:
        more["initial"] = {n: rng.normal(size=shape).round(2) for n, shape in options["ends"].items()}
    params = {n: np.round(v, 2) for n, v in params.items()}
    inputs = {n: v if v.dtype.kind in "iu" else v.round(2) for n, v in inputs.items()}
    names = options.get("outputs") or ([] if cell.loss else list(cell.outputs))
    if names:
        values = cell.run(params, **inputs, **more)
        more["cotangents"] = {n: rng.normal(size=np.shape(values[n])).round(2) for n in names}
    else:
        more["loss"] = cell.loss
    return params, inputs, more


def both(name):
    """The case as the library's cell and as the oracle's."""
    text, options = CASES[name]
    cells = options.get("cells", {})
    return Cell(text, **{n: Cell(t) for n, t in cells.items()}), Oracle(text, **cells), options


def lengths(cell, options, seed):
    """Full length, and, where there are two steps and a data index, examples of different lengths."""
    T = options.get("T", 5)
    return [{}, {"lengths": systems.lengths(cell, T=T, seed=seed)}] if T > 1 else [{}]


def plain(value):
    if isinstance(value, dict):
        return {n: plain(v) for n, v in value.items()}
    return np.asarray(value).tolist() if not isinstance(value, str) else value


def main():
    kept = []
    for seed, name in enumerate(CASES):
        cell, oracle, options = both(name)
        params, inputs, more = drawn(cell, options, seed)
        for ragged in lengths(cell, options, seed):
            value, grads, _ = oracle.gradient(params, **inputs, **more, **ragged)
            cancels = [n for n, s in grads.sizes.items() if s.max(initial=0) > 1e3 * np.abs(grads[n]).max(initial=0)]
            sizes = {n: grads.sizes[n].round(2) for n in cancels}
            case = {"name": name, "text": CASES[name][0], "cells": options.get("cells", {}), "params": params}
            case |= {"inputs": inputs, "with": more | ragged, "value": value, "gradients": dict(grads), "sizes": sizes}
            kept.append(plain(case))
    VALUES.write_text("[\n" + ",\n".join(json.dumps(case, separators=(",", ":")) for case in kept) + "\n]\n")
    print(f"{len(kept)} cases, {VALUES.stat().st_size} bytes")


if __name__ == "__main__":
    main()
