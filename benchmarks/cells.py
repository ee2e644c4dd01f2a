"""The cells that are measured: ours as text, and one step of each as its peers write it.

    `CELLS[name]` -> the cell;   `STEPS[name](xp, p)` -> (before, step), the same cell in JAX, PyTorch or autograd

`xp` is a namespace with sigmoid, tanh, relu, concat (rows) and split (columns). `p` holds the parameters by our names.
`before(x)` is what needs no state: of all steps at once, where the peer can, else of one. `step(state, *before)` gives
the next state, h first. The steps are written as one would for speed: weights stacked, input products hoisted.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from autograd_rnn import Cell, zoo

TEXTS = {
    # Jozefowicz, Zaremba, Sutskever, An empirical exploration of recurrent network architectures, ICML 2015
    "mut1": """
P: const(h, x)
z[t] = sigmoid(W_z @ x[t] + b_z)
r[t] = sigmoid(W_r @ x[t] + U_r @ h[t-1] + b_r)
h[t] = tanh(U_h @ (r[t] * h[t-1]) + tanh(P @ x[t]) + b_h) * z[t] + h[t-1] * (1 - z[t])
""",
    # Chang, Chen, Haber, Chi, AntisymmetricRNN: a dynamical system view on recurrent neural networks, ICLR 2019
    "antisymmetric": """
A = U - U.T
h[t] = h[t-1] + 0.1 * tanh(A @ h[t-1] - 0.01 * h[t-1] + W @ x[t] + b)
""",
}


def cell(name: str) -> Cell:
    """A new cell by its name here or in the zoo, nothing of it computed yet."""
    return Cell(TEXTS[name] if name in TEXTS else zoo[name].text, name=name)


def stacked(xp: Any, p: dict, gates: str, letters: str = "WUb") -> list:
    """Weights of several gates as one matrix, to be multiplied from the right; their biases as one vector."""
    wholes = (xp.concat([p[f"{letter}_{gate}"] for gate in gates]) for letter in letters)
    return [whole if letter == "b" else whole.T for letter, whole in zip(letters, wholes)]


def states(name: str) -> int:
    return 2 if name.startswith("lstm") else 1


def rnn(xp, p, activation="tanh"):
    W, U, b = p["W"].T, p["U"].T, p["b"]
    f = getattr(xp, activation)
    return lambda x: (x @ W + b,), lambda state, a: (f(a + state[0] @ U),)


def lstm(xp, p):
    W, U, b = stacked(xp, p, "ifog")
    n = p["U_i"].shape[0]

    def step(state, a):
        h, c = state
        a = a + h @ U
        i, f, o = xp.split(xp.sigmoid(a[:, :3 * n]), 3)
        c = f * c + i * xp.tanh(a[:, 3 * n:])
        return o * xp.tanh(c), c

    return lambda x: (x @ W + b,), step


def lstm_peephole(xp, p):
    W, U, b = stacked(xp, p, "ifog")
    p_i, p_f, p_o = p["p_i"], p["p_f"], p["p_o"]

    def step(state, a):
        h, c = state
        i, f, o, g = xp.split(a + h @ U, 4)
        i, f = xp.sigmoid(i + p_i * c), xp.sigmoid(f + p_f * c)
        c = f * c + i * xp.tanh(g)
        return xp.sigmoid(o + p_o * c) * xp.tanh(c), c

    return lambda x: (x @ W + b,), step


def lstm_coupled(xp, p, gate="i"):
    W, U, b = stacked(xp, p, gate + "og")
    n = p["U_o"].shape[0]

    def step(state, a):
        h, c = state
        a = a + h @ U
        s, o = xp.split(xp.sigmoid(a[:, :2 * n]), 2)
        g = xp.tanh(a[:, 2 * n:])
        c = c + s * (g - c) if gate == "i" else g + s * (c - g)
        return o * xp.tanh(c), c

    return lambda x: (x @ W + b,), step


def gru(xp, p, keep=False):
    W, b = stacked(xp, p, "rzn", "Wb")
    (U,), U_n = stacked(xp, p, "rz", "U"), p["U_n"].T
    n = U_n.shape[0]

    def step(state, a):
        h, = state
        r, z = xp.split(xp.sigmoid(a[:, :2 * n] + h @ U), 2)
        new = xp.tanh(a[:, 2 * n:] + (r * h) @ U_n)
        return (new + z * (h - new) if keep else h + z * (new - h),)

    return lambda x: (x @ W + b,), step


def gru_reset_after(xp, p, keep=True):
    W, U, b = stacked(xp, p, "rzn")
    b_Rn, n = p["b_Rn"], p["U_n"].shape[0]

    def step(state, a):
        h, = state
        q = h @ U
        r, z = xp.split(xp.sigmoid(a[:, :2 * n] + q[:, :2 * n]), 2)
        new = xp.tanh(a[:, 2 * n:] + r * (q[:, 2 * n:] + b_Rn))
        return (new + z * (h - new) if keep else h + z * (new - h),)

    return lambda x: (x @ W + b,), step


def mut1(xp, p):
    W = xp.concat([p["W_z"], p["W_r"], p["P"]]).T
    U_r, U_h, b_z, b_r, b_h = p["U_r"].T, p["U_h"].T, p["b_z"], p["b_r"], p["b_h"]

    def before(x):
        z, r, m = xp.split(x @ W, 3)
        return xp.sigmoid(z + b_z), r + b_r, xp.tanh(m) + b_h

    def step(state, z, r, m):
        h, = state
        r = xp.sigmoid(r + h @ U_r)
        return (h + z * (xp.tanh(m + (r * h) @ U_h) - h),)

    return before, step


def antisymmetric(xp, p):
    W, A, b = p["W"].T, p["U"].T - p["U"], p["b"]
    return lambda x: (x @ W + b,), lambda state, a: (
        state[0] + 0.1 * xp.tanh(a + state[0] @ A - 0.01 * state[0]),)


STEPS: dict[str, Callable] = {
    "rnn": rnn,
    "rnn_relu": partial(rnn, activation="relu"),
    "lstm": lstm,
    "lstm_peephole": lstm_peephole,
    "lstm_coupled": lstm_coupled,
    "lstm_coupled_forget": partial(lstm_coupled, gate="f"),
    "gru": gru,
    "gru_cho": partial(gru, keep=True),
    "gru_reset_after": gru_reset_after,
    "gru_reset_after_update": partial(gru_reset_after, keep=False),
    "mut1": mut1,
    "antisymmetric": antisymmetric,
}
