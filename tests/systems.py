"""Systems of the literature in the notation, and random sizes, parameters and inputs for any cell.

    TEXTS[name] -> Cell -> draw(cell) -> (params, inputs)

Nothing here knows a cell by name: sizes, shapes, roles and class ranges are read off `cell.system`.
"""

from __future__ import annotations

from functools import cache

import numpy as np

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
    "sutskever": """
i_e[s] = sigmoid(W_ei @ x[s] + U_ei @ h[s-1] + b_ei)
f_e[s] = sigmoid(W_ef @ x[s] + U_ef @ h[s-1] + b_ef)
o_e[s] = sigmoid(W_eo @ x[s] + U_eo @ h[s-1] + b_eo)
c[s] = f_e[s]*c[s-1] + i_e[s]*tanh(W_eg @ x[s] + U_eg @ h[s-1] + b_eg)
h[s] = o_e[s]*tanh(c[s])
d[0] = h[S]
m[0] = c[S]
e[t] = E @ onehot(k[t-1])
i_d[t] = sigmoid(W_di @ e[t] + U_di @ d[t-1] + b_di)
f_d[t] = sigmoid(W_df @ e[t] + U_df @ d[t-1] + b_df)
o_d[t] = sigmoid(W_do @ e[t] + U_do @ d[t-1] + b_do)
m[t] = f_d[t]*m[t-1] + i_d[t]*tanh(W_dg @ e[t] + U_dg @ d[t-1] + b_dg)
d[t] = o_d[t]*tanh(m[t])
L = sum_t(cross_entropy(V @ d[t] + b_y, k[t]))
""",
    "cho": """
r[s] = sigmoid(W_r @ x[s] + U_r @ h[s-1])
z[s] = sigmoid(W_z @ x[s] + U_z @ h[s-1])
h[s] = z[s]*h[s-1] + (1 - z[s])*tanh(W @ x[s] + U @ (r[s]*h[s-1]))
c = tanh(V @ h[S])
d[0] = tanh(Vp @ c)
e[t] = E @ onehot(k[t-1])
rd[t] = sigmoid(W_rd @ e[t] + U_rd @ d[t-1] + C_r @ c)
zd[t] = sigmoid(W_zd @ e[t] + U_zd @ d[t-1] + C_z @ c)
d[t] = zd[t]*d[t-1] + (1 - zd[t])*tanh(W_d @ e[t] + rd[t]*(U_d @ d[t-1] + C @ c))
y[t] = O_h @ d[t] + O_c @ c + O_e @ e[t]
L = sum_t(cross_entropy(y[t], k[t]))
""",
    "bahdanau": """
rf[j] = sigmoid(W_rf @ x[j] + U_rf @ hf[j-1])
zf[j] = sigmoid(W_zf @ x[j] + U_zf @ hf[j-1])
hf[j] = (1 - zf[j])*hf[j-1] + zf[j]*tanh(W_f @ x[j] + U_f @ (rf[j]*hf[j-1]))
rb[j] = sigmoid(W_rb @ x[j] + U_rb @ hb[j+1])
zb[j] = sigmoid(W_zb @ x[j] + U_zb @ hb[j+1])
hb[j] = (1 - zb[j])*hb[j+1] + zb[j]*tanh(W_b @ x[j] + U_b @ (rb[j]*hb[j+1]))
h[j] = concat(hf[j], hb[j])
s[0] = tanh(W_s @ hb[1])
a[t,j] = softmax_j(sum(v * tanh(W_a @ s[t-1] + U_a @ h[j])))
ctx[t] = sum_j(a[t,j] * h[j])
y[t] = E @ onehot(k[t-1])
r[t] = sigmoid(W_r @ y[t] + U_r @ s[t-1] + C_r @ ctx[t])
u[t] = sigmoid(W_u @ y[t] + U_u @ s[t-1] + C_u @ ctx[t])
s[t] = u[t]*tanh(W @ y[t] + U @ (r[t]*s[t-1]) + C @ ctx[t]) + (1 - u[t])*s[t-1]
m[t] = maximum(M_1 @ s[t] + N_1 @ ctx[t], M_2 @ s[t] + N_2 @ ctx[t])
loss = sum_t(cross_entropy(O @ m[t], k[t]))
""",
    "xu": """
c[0] = tanh(W_c @ mean_i(a[i]) + b_c)
h[0] = tanh(W_h @ mean_i(a[i]) + b_h)
alpha[t,i] = softmax_i(sum(u * tanh(U_a @ a[i] + b + W_d @ h[t-1])) + c0)
beta[t] = sigmoid(sum(w_sel * h[t-1]) + b_sel)
z[t] = beta[t] * sum_i(alpha[t,i] * a[i])
y[t] = E @ onehot(k[t-1])
g_i[t] = sigmoid(W_i @ y[t] + U_i @ h[t-1] + C_i @ z[t] + b_i)
g_f[t] = sigmoid(W_f @ y[t] + U_f @ h[t-1] + C_f @ z[t] + b_f)
g_o[t] = sigmoid(W_o @ y[t] + U_o @ h[t-1] + C_o @ z[t] + b_o)
c[t] = g_f[t]*c[t-1] + g_i[t]*tanh(W_g @ y[t] + U_g @ h[t-1] + C_g @ z[t] + b_g)
h[t] = g_o[t]*tanh(c[t])
p[t] = L_o @ (y[t] + L_h @ h[t] + L_z @ z[t])
lam: const()
loss = sum_t(cross_entropy(p[t], k[t])) + lam*sum_i((1 - sum_t(alpha[t,i]))**2)
""",
    "grid_tied": """
l: axis
hd[t,0] = W_h @ x[t]
md[t,0] = W_m @ x[t]
Ht[t,l] = concat(ht[t-1,l], hd[t,l-1])
mt[t,l] = sigmoid(A_f @ Ht[t,l])*mt[t-1,l] + sigmoid(A_i @ Ht[t,l])*tanh(A_g @ Ht[t,l])
ht[t,l] = sigmoid(A_o @ Ht[t,l])*tanh(mt[t,l])
Hd[t,l] = concat(ht[t,l], hd[t,l-1])
md[t,l] = sigmoid(B_f @ Hd[t,l])*md[t,l-1] + sigmoid(B_i @ Hd[t,l])*tanh(B_g @ Hd[t,l])
hd[t,l] = sigmoid(B_o @ Hd[t,l])*tanh(md[t,l])
loss = sum_t(cross_entropy(V @ hd[t,L], k[t]))
""",
    "grid_untied": """
l: axis
hd[t,0] = W_h @ x[t]
md[t,0] = W_m @ x[t]
Ht[t,l] = concat(ht[t-1,l], hd[t,l-1])
mt[t,l] = sigmoid(A_f[l] @ Ht[t,l])*mt[t-1,l] + sigmoid(A_i[l] @ Ht[t,l])*tanh(A_g[l] @ Ht[t,l])
ht[t,l] = sigmoid(A_o[l] @ Ht[t,l])*tanh(mt[t,l])
Hd[t,l] = concat(ht[t,l], hd[t,l-1])
md[t,l] = sigmoid(B_f[l] @ Hd[t,l])*md[t,l-1] + sigmoid(B_i[l] @ Hd[t,l])*tanh(B_g[l] @ Hd[t,l])
hd[t,l] = sigmoid(B_o[l] @ Hd[t,l])*tanh(md[t,l])
loss = sum_t(cross_entropy(V @ hd[t,L], k[t]))
""",
    "draw": """
i: axis
j: axis
a: axis
b: axis
x: input()
eps: noise(z)
xh[t,b,a] = x[b,a] - sigmoid(C[t-1,b,a])
gX[t] = (A + 1)/2 * (sum(w_gx * hd[t-1]) + 1)
gY[t] = (B + 1)/2 * (sum(w_gy * hd[t-1]) + 1)
s2[t] = exp(sum(w_s * hd[t-1]))
de[t] = (maximum(A, B) - 1)/(I - 1) * exp(sum(w_d * hd[t-1]))
ga[t] = exp(sum(w_g * hd[t-1]))
fX[t,i,a] = softmax_a(-(a - gX[t] - (i - I/2 - 0.5)*de[t])**2 / (2*s2[t]))
fY[t,j,b] = softmax_b(-(b - gY[t] - (j - J/2 - 0.5)*de[t])**2 / (2*s2[t]))
q1[t,j,a] = sum_b(fY[t,j,b] * x[b,a])
q2[t,j,a] = sum_b(fY[t,j,b] * xh[t,b,a])
r1[t,j,i] = ga[t] * sum_a(q1[t,j,a] * fX[t,i,a])
r2[t,j,i] = ga[t] * sum_a(q2[t,j,a] * fX[t,i,a])
e_i[t] = sigmoid(sum_i(sum_j(P_i[j,i]*r1[t,j,i] + Q_i[j,i]*r2[t,j,i])) + V_i @ hd[t-1] + U_i @ he[t-1] + c_i)
e_f[t] = sigmoid(sum_i(sum_j(P_f[j,i]*r1[t,j,i] + Q_f[j,i]*r2[t,j,i])) + V_f @ hd[t-1] + U_f @ he[t-1] + c_f)
ce[t] = e_f[t]*ce[t-1] + e_i[t]*tanh(sum_i(sum_j(P_g[j,i]*r1[t,j,i] + Q_g[j,i]*r2[t,j,i])) + U_g @ he[t-1])
he[t] = tanh(ce[t])
mu[t] = W_mu @ he[t]
sg[t] = exp(W_sg @ he[t])
z[t] = mu[t] + sg[t]*eps[t]
d_i[t] = sigmoid(W_di @ z[t] + U_di @ hd[t-1])
cd[t] = cd[t-1] + d_i[t]*tanh(W_dg @ z[t] + U_dg @ hd[t-1])
hd[t] = tanh(cd[t])
w[t,j,i] = sum(W_w[j,i] * hd[t])
u[t,b,i] = sum_j(fY[t,j,b] * w[t,j,i])
C[t,b,a] = C[t-1,b,a] + sum_i(u[t,b,i] * fX[t,i,a]) / ga[t]
Lx = sum_a(sum_b(softplus(C[T,b,a]) - x[b,a]*C[T,b,a]))
Lz = 0.5*sum_t(sum(mu[t]**2 + sg[t]**2 - log(sg[t]**2) - 1))
loss = Lx + Lz
""",
    "vrnn": """
eps: noise(z)
fx[t] = relu(W_fx @ x[t] + b_fx)
pr[t] = relu(W_pr @ h[t-1] + b_pr)
mu0[t] = W_m0 @ pr[t] + b_m0
s0[t] = softplus(W_s0 @ pr[t] + b_s0) + 0.0001
en[t] = relu(W_en @ concat(fx[t], h[t-1]) + b_en)
mu[t] = W_mu @ en[t] + b_mu
s[t] = softplus(W_sg @ en[t] + b_sg) + 0.0001
z[t] = mu[t] + s[t]*eps[t]
fz[t] = relu(W_fz @ z[t] + b_fz)
de[t] = relu(W_de @ concat(fz[t], h[t-1]) + b_de)
y[t] = V @ de[t] + c
h[t] = tanh(W @ concat(fx[t], fz[t]) + U @ h[t-1] + b)
kl[t] = 0.5*sum(2*log(s0[t]/s[t]) + (s[t]**2 + (mu[t] - mu0[t])**2)/s0[t]**2 - 1)
L = sum_t(bce(y[t], x[t]) + kl[t])
""",
    "storn": """
eps: noise(z)
hr[t] = tanh(W_r @ x[t] + U_r @ hr[t-1] + b_r)
mu[t] = W_mu @ hr[t] + b_mu
sg[t] = softplus(W_sg @ hr[t] + b_sg)
z[t] = mu[t] + sg[t]*eps[t]
hg[t] = tanh(W @ x[t-1] + W_z @ z[t] + U @ hg[t-1] + b)
y[t] = V @ hg[t] + c
L = sum_t(bce(y[t], x[t]) + 0.5*sum(mu[t]**2 + sg[t]**2 - 2*log(sg[t]) - 1))
""",
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
    "clockwork": zoo["clockwork"].text + """
y[t] = tanh(V @ h[t] + c)
L = sum_t(sum((y[t] - k[t])**2))
k: input
""",
}

# The sections 1.8 to 1.15 of the survey: depth, attention, latent variables, sequences to sequences.
DEEP = ("two_layers", "depth_gated", "recurrent_highway", "sutskever", "cho", "bahdanau", "xu", "grid_tied",
        "grid_untied", "draw", "vrnn", "storn", "memory_blocks", "clockwork")


BASES = tuple(name for name in zoo if zoo.entry(name).text)  # the others are substitutions: for what takes long
NAMES = (*zoo, *(name for name in TEXTS if name not in zoo))


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
