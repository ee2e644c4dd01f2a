"""Systems of the literature in the notation, and random sizes, parameters and inputs for any cell.

    TEXTS[name] -> Cell -> draw(cell) -> (params, inputs)

Nothing here knows a cell by name: sizes, shapes, roles and class ranges are read off `cell.system`.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from autograd_rnn import Cell, CellError, zoo
from autograd_rnn.init import lone_sizes

SQUARES = "\nL = sum_t(sum(h[t]**2))"
TEXTS = {
    "vanilla": zoo["rnn_softmax"].text,
    "peephole": zoo["lstm_peephole"].text,
    "gru": zoo["gru"].text,
    "fgr": zoo["lstm_fgr"].text + SQUARES,
    "mut1": zoo["mut1"].text + SQUARES,
    "antisymmetric_penalty": """
A = U - U.T - zeta * I
zeta: ()
I: const(h, h)
h[t] = h[t-1] + 0.1*tanh(A @ h[t-1] + W @ x[t] + b)
L = sum_t(sum(h[t]**2)) + 0.01*sum(U**2)
""",
    "bidirectional": """
hf[t] = tanh(W_f @ x[t] + U_f @ hf[t-1] + b_f)
hb[t] = tanh(W_b @ x[t] + U_b @ hb[t+1] + b_b)
m[t] = concat(hf[t], hb[t])
h[t] = tanh(W @ m[t] + U @ h[t-1] + b)
y[t] = V @ h[t] + c
L = sum_t(cross_entropy(y[t], k[t]))
""",
    "charlm": zoo["charlm"].text,
    "last_loss": """
h[0] = h0
h[t] = tanh(W @ x[t] + U @ h[t-1] + b)
L = cross_entropy(V @ h[T] + c, k)
k: input
""",
    "divide": """
h[t] = (W @ x[t]) / (1.5 + h[t-1]**2) + exp(a * log(2 + h[t-1]**2))
q[t] = sqrt(h[t-1]**2 + 0.1) / s[t]
s[t] = 2 + h[t]**2
y[t] = x[t] - mean_t(x[t]) + q[t]
L = sum_t(sum(h[t] / s[t])) + sum_t(sum(y[t]**2 / s[t]))
""",
    "matrix_memory": """
q[t] = W_q @ x[t]
k[t] = W_k @ x[t]
v[t] = W_v @ x[t]
f[t] = sigmoid(sum(w_f * x[t]) + b_f)
C[t] = f[t]*C[t-1] + outer(v[t], k[t])
n[t] = f[t]*n[t-1] + k[t]
h[t] = (C[t] @ q[t]) / maximum(abs(sum(n[t]*q[t])), 1)
L = sum_t(sum(h[t]**2))
""",
    "two_layers": zoo["lstm_stacked"].text + """
L_t[t] = cross_entropy(V @ h[t,L] + b_y, k[t])
loss = sum_t(L_t[t])
""",
    "depth_gated": zoo["lstm_depth_gated"].text + "\nloss = sum_t(sum(h[t,L]**2))",
    "recurrent_highway": zoo["rhn_coupled"].text + "\nloss = sum_t(sum(h[t]**2))",
    "memory_blocks": """
j: axis                                          # cells in a memory block; i, o are vectors over blocks
i[t] = sigmoid(W_i @ x[t] + sum_j(U_i[j] @ hs[t,j]) + G_ii @ stop_gradient(i[t-1]) + G_io @ stop_gradient(o[t-1]) + b_i)
o[t] = sigmoid(W_o @ x[t] + sum_j(U_o[j] @ hs[t,j]) + G_oi @ stop_gradient(i[t-1]) + G_oo @ stop_gradient(o[t-1]) + b_o)
hs[t,j] = stop_gradient(h[t-1,j])
n[t,j] = W_g[j] @ x[t] + G_gi[j] @ stop_gradient(i[t-1]) + G_go[j] @ stop_gradient(o[t-1]) + b_g[j]
g[t,j] = 4*sigmoid(n[t,j]) - 2
c[t,j] = c[t-1,j] + i[t] * g[t,j]
h[t,j] = o[t] * (2*sigmoid(c[t,j]) - 1)
y[t] = sum_j(V[j] @ h[t,j]) + b_y
L = sum_t(sum((y[t] - k[t])**2))
k: input
""",
    "concatenated": """
f[t] = sigmoid(W_f @ concat(h[t-1], x[t], c[t-1], x[t-1]) + b_f)
v[t] = concat(x[t], h[t-1])
g[t] = tanh(W_g @ v[t] + b_g)
c[t] = f[t] * c[t-1] + (1 - f[t]) * g[t]
h[t] = tanh(V @ concat(c[t], x[t]))
L = sum_t(sum(h[t]**2))
""",
    "clockwork": zoo["clockwork"].text + """
y[t] = tanh(V @ h[t] + c)
L = sum_t(sum((y[t] - k[t])**2))
k: input
""",
}

# The sections 1.8 to 1.15 of the survey: depth, attention, latent variables, sequences to sequences.
DEEP = ("two_layers", "depth_gated", "recurrent_highway", "sutskever", "cho", "bahdanau", "xu", "grid_lstm_tied",
        "grid_lstm", "draw", "vrnn", "storn", "memory_blocks", "clockwork")


BASES = tuple(name for name in zoo if zoo.entry(name).text)  # the others are substitutions: for what takes long
LARGE = {name for name in zoo if len(zoo[name].equations) > 12}


def weighed(names) -> list:
    """Names for what takes long: variants, and models of many equations, run behind the marker."""
    return [pytest.param(name, marks=[pytest.mark.long] if name in LARGE or name in set(zoo) - set(BASES) else [])
            for name in names]


SHORT_FIRST = weighed(zoo)
NAMES = (*zoo, *(name for name in TEXTS if name not in zoo))
MOST = [pytest.param(name, marks=[pytest.mark.long] if name in LARGE - set(BASES) else []) for name in NAMES]


@cache
def cell(name: str) -> Cell:
    """By its name here, where a read-out and a loss may follow, or in the zoo."""
    return Cell(TEXTS[name], name) if name in TEXTS else zoo[name]


def with_loss(cell: Cell) -> Cell:
    """The cell and, where it has none, a loss: the sum of the squares of its outputs."""
    terms = []
    for name in () if cell.loss else cell.outputs:
        axes = cell.system.axes[name]
        term = f"sum({name}[{','.join(axes)}]**2)"
        for i in reversed(axes):
            term = f"sum_{i}({term})"
        terms.append(term)
    return Cell(cell.text + ("\nloss = " + " + ".join(terms) if terms else ""), cell.name)


def sizes(cell: Cell, **chosen: int) -> dict[str, int]:
    """A small size for everything that has one, different ones side by side; concatenations follow from their parts."""
    system = cell.system
    least = {}
    for n in system.nodes:
        if n.op.name == "slice":
            d = system.inferred.nodes[n.args[0]][0]
            least[d] = max(least.get(d, 1), n.params[1])
    wholes = [whole for whole, _ in system.inferred.sums]
    for k, i in enumerate(i for i in system.indices if i in system.model):
        chosen.setdefault(i, 3 - k % 2)
    open_ = sorted((d for d in system.inferred.aliases if not d.isdigit()), key=wholes.__contains__)
    for k, d in enumerate(open_):
        known = system.sizes(chosen)
        if d in known:
            continue
        for size in (2 + k % 3, *range(1, 20)):
            try:
                if size >= least.get(d, 1):
                    chosen[d] = size
                    system.sizes(chosen)
                    break
            except CellError:
                del chosen[d]
    return system.sizes(chosen)


def extents(cell: Cell, T: int = 5, **chosen: int) -> dict[str, int]:
    """T steps along the first data index (`t` where there is one), fewer along others; sizes along model indices."""
    system = cell.system
    data = sorted((i for i in system.indices if i not in system.model), key=lambda i: i != "t")
    steps = {i: chosen.get(i, max(1, T - k)) for k, i in enumerate(data)}
    known = sizes(cell, **{n: v for n, v in chosen.items() if n not in steps})
    return {**steps, **{i: known[i] for i in system.indices if i in system.model}}


def draw(cell: Cell, T: int = 5, batch: int | None = 2, seed: int = 0, **chosen: int) -> tuple[dict, dict]:
    """(params, inputs) for `cell.run`: parameters N(0, 0.6^2), inputs N(0, 1), classes, noise, and constants 1, 2 or 3.

    batch=None draws inputs without a batch axis. `chosen` fixes sizes, or extents of other data indices, by name.
    """
    system, rng = cell.system, np.random.default_rng(seed)
    long = extents(cell, T, **chosen)
    size = sizes(cell, **{n: v for n, v in chosen.items() if n not in long or n in system.model})
    params, inputs = {}, {}
    for name in system.given:
        role, declared = system.roles[name], system.declarations.get(name)
        shape = tuple(long[i] for i in system.axes[name])
        shape += (batch,) if name in system.per_example and batch is not None else ()
        shape += tuple(d if isinstance(d, int) else size[d] for d in system.shapes[name])
        if role == "class":
            classes = next(d for d, names in system.inferred.aliases.items() if name in names)
            inputs[name] = rng.integers(0, int(classes) if classes.isdigit() else size[classes], shape)
        elif role == "const":
            params[name] = rng.integers(1, 4, shape).astype(float)
        elif role == "parameter":
            params[name] = 0.6 * rng.normal(size=shape)
        elif declared is not None and declared.kind == "bernoulli":
            inputs[name] = (rng.random(shape) < declared.probability).astype(float)
        else:
            inputs[name] = rng.normal(size=shape)
    params |= {name: np.asarray(long[name] if name in long else size[name]) for name in lone_sizes(system)}
    return params, inputs


def steps(cell: Cell, T: int = 5) -> dict[str, dict]:
    """`steps=` for the data indices that no input shows the extent of."""
    shown = {i for name in cell.system.given for i in cell.system.axes[name]}
    hidden = {i: n for i, n in extents(cell, T).items() if i not in shown and i not in cell.system.model}
    return {"steps": hidden} if hidden else {}


def lengths(cell: Cell, T: int = 5, batch: int = 2, seed: int = 0) -> dict[str, np.ndarray]:
    """Lengths along every data index, at least one example shorter than the longest."""
    rng = np.random.default_rng(seed)
    found = {}
    for i, longest in extents(cell, T).items():
        if i not in cell.system.model:
            found[i] = rng.integers(1, longest, batch)
            found[i][rng.integers(batch)] = longest
            if batch > 1 and (found[i] == longest).all():
                found[i][0] = 1
    return found
