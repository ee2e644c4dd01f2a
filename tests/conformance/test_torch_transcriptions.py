"""Systems of the literature beyond torch.nn, transcribed plainly in torch, example by example without padding.

Value and every gradient in float64 at 1e-12, with ragged lengths: Bahdanau's attention, two data indices; a variational
RNN, whose inputs are targets too.
"""

import numpy as np
import pytest
from networks import agree

from autograd_rnn import Cell

torch = pytest.importorskip("torch", reason="the transcriptions are torch's: pip install 'autograd_rnn[conformance]'")

BAHDANAU = """
    hf[j] = tanh(W_f @ x[j] + U_f @ hf[j-1])
    hb[j] = tanh(W_b @ x[j] + U_b @ hb[j+1])
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
"""
VRNN = """
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
"""


def attention(p, x, k, ends):
    """The loss of one example: x the source (J, size), k the target classes (T,), ends the first states.

    s[0] is computed here and put among the ends, so that its gradient can be compared.
    """
    forward, backward = [ends["hf[0]"]], [ends["hb[J+1]"]]
    for row in x:
        forward.append(torch.tanh(p["W_f"] @ row + p["U_f"] @ forward[-1]))
    for row in x.flip(0):
        backward.append(torch.tanh(p["W_b"] @ row + p["U_b"] @ backward[-1]))
    h = torch.stack([torch.cat(pair) for pair in zip(forward[1:], backward[:0:-1])])
    s = ends["s[0]"] = torch.tanh(p["W_s"] @ backward[-1])
    s.retain_grad()
    loss = torch.zeros((), dtype=torch.float64)
    for step, target in enumerate(k):
        energy = torch.stack([p["v"] @ torch.tanh(p["W_a"] @ s + p["U_a"] @ row) for row in h])
        ctx = torch.softmax(energy, 0) @ h
        y = p["E"][:, k[step - 1]] if step else torch.zeros(len(p["E"]), dtype=torch.float64)
        r = torch.sigmoid(p["W_r"] @ y + p["U_r"] @ s + p["C_r"] @ ctx)
        u = torch.sigmoid(p["W_u"] @ y + p["U_u"] @ s + p["C_u"] @ ctx)
        n = torch.tanh(p["W"] @ y + p["U"] @ (r * s) + p["C"] @ ctx)
        s = u * n + (1 - u) * s
        m = torch.maximum(p["M_1"] @ s + p["N_1"] @ ctx, p["M_2"] @ s + p["N_2"] @ ctx)
        loss = loss - torch.log_softmax(p["O"] @ m, 0)[target]
    return loss


def variational(p, x, eps, ends):
    """The negative ELBO of one example: x (T, size), eps the noise (T, size of z)."""
    h = ends["h[0]"]
    loss = torch.zeros((), dtype=torch.float64)
    for row, noise in zip(x, eps):
        fx = torch.relu(p["W_fx"] @ row + p["b_fx"])
        prior = torch.relu(p["W_pr"] @ h + p["b_pr"])
        mu0 = p["W_m0"] @ prior + p["b_m0"]
        s0 = softplus(p["W_s0"] @ prior + p["b_s0"]) + 1e-4
        encoder = torch.relu(p["W_en"] @ torch.cat([fx, h]) + p["b_en"])
        mu = p["W_mu"] @ encoder + p["b_mu"]
        s = softplus(p["W_sg"] @ encoder + p["b_sg"]) + 1e-4
        fz = torch.relu(p["W_fz"] @ (mu + s * noise) + p["b_fz"])
        y = p["V"] @ torch.relu(p["W_de"] @ torch.cat([fz, h]) + p["b_de"]) + p["c"]
        h = torch.tanh(p["W"] @ torch.cat([fx, fz]) + p["U"] @ h + p["b"])
        kl = torch.distributions.kl_divergence(torch.distributions.Normal(mu, s), torch.distributions.Normal(mu0, s0))
        loss = loss + (softplus(y) - row * y).sum() + kl.sum()
    return loss


def softplus(v):
    """log(1 + e^v); torch's own gives up accuracy above its threshold."""
    return torch.logaddexp(v, torch.zeros_like(v))


SIZES = {
    "bahdanau": {"x": 3, "hf": 4, "hb": 2, "s": 5, "v": 3, "y": 4, "m": 3, "k": 6},
    "vrnn": {"x": 4, "fx": 3, "pr": 5, "mu0": 2, "en": 4, "fz": 3, "de": 6, "h": 5},
}
# name: text, transcription, its arguments and the index of each, ends and their sizes, lengths
SYSTEMS = {
    "bahdanau": (BAHDANAU, attention, {"x": "j", "k": "t"}, {"hf[0]": "hf", "hb[J+1]": "hb"},
                 {"j": [6, 2, 4, 1], "t": [3, 5, 1, 2]}),
    "vrnn": (VRNN, variational, {"x": "t", "eps": "t"}, {"h[0]": "h"}, {"t": [7, 1, 4, 6]}),
}


@pytest.mark.parametrize("padding", [0, 2], ids=["", "padded further"])
@pytest.mark.parametrize("given_ends", [True, False], ids=["states given", "states zero"])
@pytest.mark.parametrize("name", list(SYSTEMS))
def test_transcription(name, given_ends, padding):
    text, transcription, axes, end_sizes, lengths = SYSTEMS[name]
    cell, sizes, rng = Cell(text), SIZES[name], np.random.default_rng(3)
    params = {n: rng.normal(scale=0.5, size=p.shape) for n, p in cell.init(**sizes).items()}
    batch = len(next(iter(lengths.values())))
    inputs = {}
    for n, index in axes.items():
        shape = (max(lengths[index]) + padding, batch)
        inputs[n] = (rng.integers(0, sizes["k"], shape) if n == "k" else rng.random((*shape, sizes["x"])) if n == "x"
                     else rng.normal(size=(*shape, sizes["mu0"])))
    initial = {end: rng.normal(size=(batch, sizes[d])) if given_ends else np.zeros((batch, sizes[d]))
               for end, d in end_sizes.items()}

    theirs = {n: torch.tensor(v, requires_grad=True) for n, v in params.items()}
    data = {n: torch.tensor(v, requires_grad=v.dtype.kind == "f") for n, v in inputs.items()}
    ends = {n: torch.tensor(v, requires_grad=True) for n, v in initial.items()}
    losses, computed = [], []
    for b in range(batch):
        own = {n: v[b] for n, v in ends.items()}
        losses.append(transcription(theirs, *(data[n][:lengths[index][b], b] for n, index in axes.items()), own))
        computed.append({n: v for n, v in own.items() if n not in ends})
    sum(losses).backward()
    wanted = {n: v.grad.numpy() for n, v in (theirs | data | ends).items() if v.grad is not None and n != "eps"}
    wanted |= {n: np.stack([c[n].grad.numpy() for c in computed]) for n in computed[0]}

    for n, index in axes.items():  # what stands past an example's end is never looked at
        for b, end in enumerate(lengths[index]):
            inputs[n][end:, b] = -1 if n == "k" else np.nan
    given = {"initial": {end.split("[")[0]: v for end, v in initial.items()} if given_ends else None,
             "lengths": {index: np.array(v) for index, v in lengths.items()}, **inputs}
    value, gradients = cell.gradient(params, **given)
    agree(value, sum(losses).item(), 1e-12, "value")
    assert set(gradients) == set(wanted)
    for n, gradient in wanted.items():
        assert np.abs(gradient).max() > 1e-6, f"the check of {n} says little"
        agree(gradients[n], gradient, 1e-12, f"d{n}")
    assert np.shape(cell.run(params, **given)[cell.loss]) == (batch,)
    agree(cell.run(params, **given)[cell.loss], [v.item() for v in losses], 1e-12, "each example's loss")
