"""The cells that are measured: ours from the zoo, and the same as its peers write it.

    `cell(name)` -> the cell
    `STEPS[name](xp, p)` -> (before, step), one step of it in JAX, PyTorch or autograd
    `MODELS[name](xp, p, *inputs)` -> its output: h at every step, or the loss of each example

`xp` is a namespace with sigmoid, tanh, relu, concat (rows), split (columns), stack, where, cut (a value without its
gradient). `p` holds the parameters by our names.
`before(x)` is what needs no state: of all steps at once, where the peer can, else of one. `step(state, *before)` gives
the next state, h first. The steps are written as one would for speed: weights stacked, input products hoisted.
For models `xp` also has join (columns), onehot, cross_entropy (of each row), softmax (over rows), maximum, softplus,
log, and `sweep((before, step), x, states, layers, reverse, first)`, the peer's loop from the first states, zeros where
none are given: of each step's state the first array.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from autograd_rnn import Cell, zoo

LAYERS = 3  # of a cell that has layers, or transformations within a step


def cell(name: str) -> Cell:
    """A new cell by its name in the zoo, nothing of it computed yet."""
    return Cell(zoo[name].text, name=name)


def output(name: str) -> str:
    """What is differentiated, summed: the loss, or where there is none h at every step."""
    return zoo[name].loss or "h"


def stacked(xp: Any, p: dict, gates: str, letters: str = "WUb") -> list:
    """Weights of several gates as one matrix, to be multiplied from the right; their biases as one vector."""
    wholes = (xp.concat([p[f"{letter}_{gate}"] for gate in gates]) for letter in letters)
    return [whole if letter == "b" else whole.T for letter, whole in zip(letters, wholes)]


def states(name: str) -> int:
    """How many arrays a step carries: h, c, gates that gates see, and of a clockwork the number of the step."""
    return len(zoo[name].states) + bool(zoo[name].constants and "period" in zoo[name].constants)


def layers(name: str) -> tuple[int, ...]:
    """What stands before (batch, h) in the shape of h: the layers, where h has any."""
    return (LAYERS,) * (len(zoo[name].system.axes["h"]) - 1)


def rnn(xp, p, activation="tanh", residual=False):
    W, U, b = p["W"].T, p["U"].T, p["b"]
    f = getattr(xp, activation)

    def step(state, a):
        h, = state
        new = f(a + h @ U)
        return (h + new if residual else new,)

    return lambda x: (x @ W + b,), step


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


def lstm_variant(xp, p, gates="ifo", peepholes="", coupled=False, squash_in=True, squash_out=True, see_gates=False):
    """gates: those there are. peepholes: p (diagonal), P (full), before (o sees the old cell). coupled: f is 1 - i."""
    W, U, b = stacked(xp, p, gates + "g")
    R = [xp.concat([p[f"R_{source}{g}"] for g in gates]).T for source in gates] if see_gates else []
    if peepholes == "P":
        see = {g: (lambda a, cell, P=p[f"P_{g}"].T: a + cell @ P) for g in gates}
    elif peepholes:
        see = {g: (lambda a, cell, d=p[f"p_{g}"]: a + d * cell) for g in gates}
    else:
        see = dict.fromkeys(gates, lambda a, cell: a)

    def step(state, a):
        h, c, *seen = state
        *inner, g = xp.split(a + h @ U, len(gates) + 1)
        if see_gates:
            more = xp.split(sum(s @ r for s, r in zip(seen, R)), len(gates))
            inner = [one + two for one, two in zip(inner, more)]
        inner = dict(zip(gates, inner))
        i, f = (xp.sigmoid(see[g](inner[g], c)) if g in inner else None for g in "if")
        if coupled:
            f = 1 - i
        g = xp.tanh(g) if squash_in else g
        new = (c if f is None else f * c) + (g if i is None else i * g)
        h = xp.tanh(new) if squash_out else new
        if "o" in inner:
            o = xp.sigmoid(see["o"](inner["o"], c if peepholes == "before" else new))
            h = o * h
        return (h, new, i, f, o) if see_gates else (h, new)

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


def lstm_1997(xp, p, cut=True):
    """cut: what is fed back has no gradient. With B, the cells of a block share its gates."""
    W, U, b = stacked(xp, p, "iog")
    G_i, G_o = (xp.concat([p[f"G_{g}{source}"] for g in "iog"]).T for source in "io")
    n = p["b_i"].shape[0]

    def step(state, a):
        h, c, i, o = state
        back = [xp.cut(v) if cut else v for v in (h, i, o)]
        a = xp.sigmoid(a + back[0] @ U + back[1] @ G_i + back[2] @ G_o)
        i, o, g = a[:, :n], a[:, n:2 * n], a[:, 2 * n:]
        opened, shown = (i @ p["B"].T, o @ p["B"].T) if "B" in p else (i, o)
        c = c + opened * (4 * g - 2)
        return shown * (2 * xp.sigmoid(c) - 1), c, i, o

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


def mut1(xp, p, inner="P"):
    W = xp.concat([p["W_z"], p["W_r"], p[inner]]).T
    U_r, U_h, b_z, b_r, b_h = p["U_r"].T, p["U_h"].T, p["b_z"], p["b_r"], p["b_h"]

    def before(x):
        z, r, m = xp.split(x @ W, 3)
        return xp.sigmoid(z + b_z), r + b_r, xp.tanh(m) + b_h

    def step(state, z, r, m):
        h, = state
        r = xp.sigmoid(r + h @ U_r)
        return (h + z * (xp.tanh(m + (r * h) @ U_h) - h),)

    return before, step


def mut23(xp, p, inner="W_r", squashed=False):
    """inner: what r multiplies x with. squashed: z sees tanh(h)."""
    W, b = xp.concat([p["W_z"], p[inner], p["W_h"]]).T, xp.concat([p["b_z"], p["b_r"], p["b_h"]])
    U_z, U_r, U_h = p["U_z"].T, p["U_r"].T, p["U_h"].T

    def step(state, a):
        h, = state
        z, r, m = xp.split(a, 3)
        z, r = xp.sigmoid(z + (xp.tanh(h) if squashed else h) @ U_z), xp.sigmoid(r + h @ U_r)
        return (h + z * (xp.tanh(m + (r * h) @ U_h) - h),)

    return lambda x: (x @ W + b,), step


def highway(xp, p):
    W, R, b = stacked(xp, p, "ag", "WRb")
    n = p["R_a"].shape[0]

    def step(state, a):
        h, = state
        a = a + h @ R
        return (h + xp.sigmoid(a[:, n:]) * (xp.tanh(a[:, :n]) - h),)

    return lambda x: (x @ W + b,), step


def antisymmetric(xp, p):
    W, A, b = p["W"].T, p["U"].T - p["U"], p["b"]
    return lambda x: (x @ W + b,), lambda state, a: (
        state[0] + 0.1 * xp.tanh(a + state[0] @ A - 0.01 * state[0]),)


def antisymmetric_gated(xp, p):
    W, A, b = xp.concat([p["W_z"], p["W"]]).T, p["U"].T - p["U"], xp.concat([p["b_z"], p["b"]])

    def step(state, a):
        h, = state
        (z, n), flow = xp.split(a, 2), h @ A - 0.01 * h
        return (h + 0.1 * xp.sigmoid(z + flow) * xp.tanh(n + flow),)

    return lambda x: (x @ W + b,), step


def clockwork(xp, p, first=1, masked=True):
    """first: the number of the first step. masked: a unit sees those of its own period and slower ones."""
    W, b, period = p["W"].T, p["b"], p["period"]
    R = (xp.where(period[:, None] <= period, p["U"], 0 * p["U"]) if masked else p["U"]).T

    def step(state, a):
        h, number = state
        return xp.where((number + first) % period == 0, xp.tanh(a + h @ R), h), number + 1

    return lambda x: (x @ W + b,), step


def recurrent_highway(xp, p, gates="agc"):
    """The transformations of a step one after the other; the first sees x."""
    W = xp.concat([p[f"W_{g}"] for g in gates]).T

    def step(state, a):
        s, = state
        for depth in range(LAYERS):
            R, b = (xp.concat([p[f"{letter}_{g}"][depth] for g in gates]) for letter in "Rb")
            a = (0 if depth else a) + s @ R.T + b
            n = s.shape[-1]
            new, g = xp.tanh(a[:, :n]), xp.sigmoid(a[:, n:2 * n])
            s = new * g + s * (xp.sigmoid(a[:, 2 * n:]) if "c" in gates else 1 - g)
        return (s,)

    return lambda x: (x @ W,), step


def layered(xp, p, gated=False):
    """LSTMs above one another, over a projection of x; gated: each cell also takes from the one below."""
    E, gates = p["E"].T, "ifog"

    def step(state, h):
        c, found = 0 * h, []
        for layer, (h_old, c_old) in enumerate(zip(*state)):
            W, b = (xp.concat([p[f"{letter}_{g}"][layer] for g in gates + "d" * gated]) for letter in "Wb")
            U, n = xp.concat([p[f"U_{g}"][layer] for g in gates]), h.shape[-1]
            a = h @ W.T + b
            i, f, o, g = xp.split(a[:, :4 * n] + h_old @ U.T, 4)
            if gated:
                i, f = i + p["p_i"][layer] * c_old, f + p["p_f"][layer] * c_old
                d = a[:, 4 * n:] + p["p_d"][layer] * c_old + p["q_d"][layer] * c
                c = xp.sigmoid(d) * c + xp.sigmoid(f) * c_old + xp.sigmoid(i) * xp.tanh(g)
                o = o + p["p_o"][layer] * c
            else:
                c = xp.sigmoid(f) * c_old + xp.sigmoid(i) * xp.tanh(g)
            h = xp.sigmoid(o) * xp.tanh(c)
            found.append((h, c))
        return tuple(xp.stack(values) for values in zip(*found))

    return lambda x: (x @ E,), step


def part(p: dict, letter: str) -> dict:
    """The parameters of one sweep of several, under the names that it has alone: W_i of W_i1, W of W_f."""
    return {name[:-1].rstrip("_"): value for name, value in p.items() if name.endswith(letter)}


def once(xp, p, x, name):
    """One sweep from x to h."""
    return xp.sweep(STEPS[name](xp, p), x, states(name), layers(name))


def both_ways(xp, p, x, name):
    """Forward in time, and back."""
    return xp.join([xp.sweep(STEPS[name](xp, part(p, way)), x, states(name), reverse=way == "b") for way in "fb"])


def classified(xp, p, x, k):
    h = xp.sweep(rnn(xp, p), x)
    return xp.cross_entropy(h @ p["V"].T + p["c"], k).sum(0)


def characters(xp, p, k):
    """Two layers over the character before."""
    x = xp.onehot(k, len(p["c"]))
    h = xp.concat([0 * x[:1], x[:-1]])
    for layer in "12":
        h = xp.sweep(lstm(xp, part(p, layer)), h, states=2)
    return xp.cross_entropy(h @ p["V"].T + p["c"], k).sum(0)


def attentive(xp, p, x, k, new_state=False):
    """Bahdanau's: an encoder both ways, a decoder that looks at all of it; the read-out after the loop."""
    found = []
    for way in "fb":
        own = part(p, way)
        own.update({f"{letter}_n": own[f"{letter}_h"] for letter in "WUb"})
        found.append(xp.sweep(gru(xp, own), x, reverse=way == "b"))
    h = xp.join(found)
    keys, begun = h @ p["U_a"].T + p["b_a"], xp.tanh(found[1][0] @ p["W_0"].T + p["b_0"])
    e = xp.onehot(k, p["V"].shape[0]) @ p["E"].T
    e = xp.concat([0 * e[:1], e[:-1]])
    own = part(p, "d")
    W, C, b = stacked(xp, own, "rzn", "WCb")
    (U,), U_n, W_a, v = stacked(xp, own, "rz", "U"), own["U_n"].T, p["W_a"].T, p["v"]
    n = U_n.shape[0]

    def step(state, a):
        _, d = state
        alpha = xp.softmax((xp.tanh(keys + d @ W_a) * v).sum(-1))
        ctx = (alpha[..., None] * h).sum(0)
        a = a + ctx @ C
        r, z = xp.split(xp.sigmoid(a[:, :2 * n] + d @ U), 2)
        new = d + z * (xp.tanh(a[:, 2 * n:] + (r * d) @ U_n) - d)
        return xp.join([new if new_state else d, ctx]), new

    seen = xp.sweep((lambda e: (e @ W + b,), step), e, first=(xp.join([begun, h[0]]), begun))
    pieces = (seen @ xp.join([p[f"O_{m}"], p[f"Q_{m}"]]).T + e @ p[f"P_{m}"].T + p[f"b_m{m}"] for m in "12")
    return xp.cross_entropy(xp.maximum(*pieces) @ p["V"].T + p["b_y"], k).sum(0)


def variational(xp, p, x, eps):
    """The VRNN: in the loop what h depends on; what is expected, the read-out and the bound after it."""
    phi = xp.relu(x @ p["W_x"].T + p["b_x"])
    n, m, width = phi.shape[-1], p["W_z"].shape[0], eps.shape[-1]
    W, U, b = stacked(xp, p, "ifog")
    enc_x, enc_h = p["W_e"][:, :n].T, p["W_e"][:, n:].T
    told, told_b = xp.concat([p["W_em"], p["W_es"]]).T, xp.concat([p["b_em"], p["b_es"]])
    W_z, hidden = p["W_z"].T, p["U_i"].shape[0]

    def before(given):
        phi, eps = given[..., :n], given[..., n:]
        return phi @ enc_x + p["b_e"], phi @ W[:n] + b, eps

    def step(state, e, a, eps):
        _, h, c = state
        mu, s = xp.split(xp.relu(e + h @ enc_h) @ told + told_b, 2)
        s = xp.softplus(s) + 1e-4
        phi_z = xp.relu((mu + s * eps) @ W_z + p["b_z"])
        seen = xp.join([h, phi_z, mu, s])
        i, f, o, g = xp.split(a + phi_z @ W[n:] + h @ U, 4)
        c = xp.sigmoid(f) * c + xp.sigmoid(i) * xp.tanh(g)
        return seen, xp.sigmoid(o) * xp.tanh(c), c

    zero = 0 * (phi[0] @ W[:n, :hidden])
    first = xp.join([zero, 0 * (phi[0] @ W[:n, :m]), 0 * eps[0], 0 * eps[0]]), zero, zero
    seen = xp.sweep((before, step), xp.join([phi, eps]), first=first)
    h, phi_z = seen[..., :hidden], seen[..., hidden:hidden + m]
    mu, s = seen[..., -2 * width:-width], seen[..., -width:]
    prior = xp.relu(h @ p["W_p"].T + p["b_p"])
    mu_0, s_0 = prior @ p["W_pm"].T + p["b_pm"], xp.softplus(prior @ p["W_ps"].T + p["b_ps"]) + 1e-4
    y = xp.relu(xp.join([phi_z, h]) @ p["W_d"].T + p["b_d"]) @ p["V"].T + p["b_y"]
    kl = 0.5 * (2 * xp.log(s_0 / s) + (s**2 + (mu - mu_0)**2) / s_0**2 - 1).sum(-1)
    return (kl + (xp.softplus(y) - x * y).sum(-1)).sum(0)


# Those that sweep once from x to h.
STEPS: dict[str, Callable] = {
    "rnn": rnn,
    "rnn_relu": partial(rnn, activation="relu"),
    "rnn_residual": partial(rnn, residual=True),
    "antisymmetric": antisymmetric,
    "antisymmetric_gated": antisymmetric_gated,
    "lstm_1997": lstm_1997,
    "lstm_1997_whole": partial(lstm_1997, cut=False),
    "lstm_1997_blocks": lstm_1997,
    "lstm_1997_blocks_whole": partial(lstm_1997, cut=False),
    "lstm": lstm,
    "lstm_zero_bias": lstm,
    "lstm_without_f": partial(lstm_variant, gates="io"),
    "lstm_without_i": partial(lstm_variant, gates="fo"),
    "lstm_without_o": partial(lstm_variant, gates="if"),
    "lstm_peephole": partial(lstm_variant, peepholes="p"),
    "lstm_peephole_full": partial(lstm_variant, peepholes="P"),
    "lstm_peephole_before": partial(lstm_variant, peepholes="before"),
    "lstm_coupled": lstm_coupled,
    "lstm_coupled_forget": partial(lstm_coupled, gate="f"),
    "lstm_nig": partial(lstm_variant, gates="fo", peepholes="p"),
    "lstm_nfg": partial(lstm_variant, gates="io", peepholes="p"),
    "lstm_nog": partial(lstm_variant, gates="if", peepholes="p"),
    "lstm_niaf": partial(lstm_variant, peepholes="p", squash_in=False),
    "lstm_noaf": partial(lstm_variant, peepholes="p", squash_out=False),
    "lstm_np": lstm,
    "lstm_cifg": partial(lstm_variant, gates="io", peepholes="p", coupled=True),
    "lstm_fgr": partial(lstm_variant, peepholes="p", see_gates=True),
    "gru": gru,
    "gru_cho": partial(gru, keep=True),
    "gru_reset_after": gru_reset_after,
    "gru_reset_after_update": partial(gru_reset_after, keep=False),
    "mut1": mut1,
    "mut1_projected": partial(mut1, inner="W_h"),
    "mut2": partial(mut23, inner="P"),
    "mut2_projected": mut23,
    "mut3": partial(mut23, squashed=True),
    "rnn_highway": highway,
    "clockwork": clockwork,
    "clockwork_from_zero": partial(clockwork, first=0),
    "clockwork_full": partial(clockwork, first=0, masked=False),
    "rhn": recurrent_highway,
    "rhn_coupled": partial(recurrent_highway, gates="ag"),
    "lstm_stacked": layered,
    "lstm_depth_gated": partial(layered, gated=True),
}

MODELS: dict[str, Callable] = {
    **{name: partial(once, name=name) for name in STEPS},
    "rnn_softmax": classified,
    "birnn": partial(both_ways, name="rnn"),
    "bilstm": partial(both_ways, name="lstm"),
    "charlm": characters,
    "bahdanau": attentive,
    "bahdanau_new_state": partial(attentive, new_state=True),
    "vrnn": variational,
}
