"""Every model of the zoo beside a plain transcription of its paper in torch, example by example without padding.

Value and every gradient in float64 at 1e-12, with ragged lengths; what the bounds of DRAW, VRNN and STORN are made of,
beside torch.distributions. A transcription takes parameters by our names, the inputs of one example, each as long as it
is, and its first states, and gives its loss. What it computes of first states it puts beside them, and what it has to
show under the names of ours.
"""

import numpy as np
import pytest
import systems
from networks import agree

from autograd_rnn import zoo

torch = pytest.importorskip("torch", reason="the transcriptions are torch's: pip install 'autograd_rnn[conformance]'")
Normal, Bernoulli, divergence = (
    torch.distributions.Normal, torch.distributions.Bernoulli, torch.distributions.kl_divergence)
sigmoid, tanh, relu, cat, stack = torch.sigmoid, torch.tanh, torch.relu, torch.cat, torch.stack


def softplus(v):
    """log(1 + e^v); torch's own gives up accuracy above its threshold."""
    return torch.logaddexp(v, torch.zeros_like(v))


def net(p, gate, x, h):
    return p[f"W_{gate}"] @ x + p[f"U_{gate}"] @ h + p[f"b_{gate}"]


def lstm(p, end, x, h, c, beside=lambda gate: 0.0):
    """One step of an LSTM whose gates are called i, f, o, g and an ending; what else a gate is given."""
    i, f, o, g = (net(p, gate + end, x, h) + beside(gate) for gate in "ifog")
    c = sigmoid(f) * c + sigmoid(i) * tanh(g)
    return sigmoid(o) * tanh(c), c


def surprise(y, target):
    return -torch.log_softmax(y, 0)[target]


def embedded(p, k, step):
    """What was told the step before; nothing at first."""
    return p["E"][:, k[step - 1]] if step else torch.zeros(len(p["E"]), dtype=torch.float64)


def shown(ends, name, value):
    """A first state that is computed: kept, so that its gradient can be compared."""
    value.retain_grad()
    ends[name] = value
    return value


def layer(p, number):
    return {n: w[number] for n, w in p.items() if w.dim() > 1 and not n.startswith(("E", "V"))}


# --- encoders and decoders ------------------------------------------------------------------------------------------


def sutskever(p, data, ends, show):
    depth, below = len(p["W_ie"]), [p["E_x"] @ row for row in data["x"]]
    first, cells = [], []
    for number in range(depth):
        own, h, c, found = layer(p, number), ends["h[S+1,l]"][number], ends["c_e[S+1,l]"][number], []
        for row in reversed(below):
            h, c = lstm(own, "e", row, h, c)
            found.append(h)
        below = found[::-1]
        first.append(h)
        cells.append(c)
    d, c = shown(ends, "d[0,l]", stack(first)), shown(ends, "c_d[0,l]", stack(cells))
    d, c, loss = list(d), list(c), 0.0
    for step, target in enumerate(data["k"]):
        up = embedded(p, data["k"], step)
        for number in range(depth):
            d[number], c[number] = lstm(layer(p, number), "d", up, d[number], c[number])
            up = d[number]
        loss = loss + surprise(p["V"] @ up + p["b_y"], target)
    return loss


def cho(p, data, ends, show):
    h = ends["h[0]"]
    for row in data["x"]:
        r, z = sigmoid(net(p, "re", row, h)), sigmoid(net(p, "ze", row, h))
        h = z * h + (1 - z) * tanh(net(p, "he", row, r * h))
    c = tanh(p["V_c"] @ h + p["b_c"])
    d = shown(ends, "d[0]", tanh(p["V_0"] @ c + p["b_0"]))
    loss = 0.0
    for step, target in enumerate(data["k"]):
        e = embedded(p, data["k"], step)
        r, z = (sigmoid(net(p, g, e, d) + p[f"C_{g}"] @ c) for g in ("rd", "zd"))
        n = tanh(p["W_nd"] @ e + r * (p["U_nd"] @ d + p["C_nd"] @ c) + p["b_nd"])
        d = z * d + (1 - z) * n
        loss = loss + surprise(p["V"] @ maxout(p, d, e, c) + p["b_y"], target)
    return loss


def maxout(p, d, e, ctx):
    return torch.maximum(*(p[f"O_{k}"] @ d + p[f"P_{k}"] @ e + p[f"Q_{k}"] @ ctx + p[f"b_m{k}"] for k in "12"))


def bahdanau(new_state=False):
    def run(p, data, ends, show):
        directions = {}
        for d, rows, start in (("f", data["x"], ends["hf[0]"]), ("b", data["x"].flip(0), ends["hb[S+1]"])):
            h, found = start, []
            for row in rows:
                r, z = sigmoid(net(p, "r" + d, row, h)), sigmoid(net(p, "z" + d, row, h))
                h = (1 - z) * h + z * tanh(net(p, "h" + d, row, r * h))
                found.append(h)
            directions[d] = found
        h = stack([cat(pair) for pair in zip(directions["f"], directions["b"][::-1])])
        s = shown(ends, "d[0]", tanh(p["W_0"] @ directions["b"][-1] + p["b_0"]))
        loss = 0.0
        for step, target in enumerate(data["k"]):
            energy = stack([p["v"] @ tanh(p["W_a"] @ s + p["U_a"] @ row + p["b_a"]) for row in h])
            alpha = torch.softmax(energy, 0)
            show.setdefault("alpha", []).append(alpha)
            ctx, e = alpha @ h, embedded(p, data["k"], step)
            r, z = (sigmoid(net(p, g, e, s) + p[f"C_{g}"] @ ctx) for g in ("rd", "zd"))
            new = (1 - z) * s + z * tanh(net(p, "nd", e, r * s) + p["C_nd"] @ ctx)
            loss = loss + surprise(p["V"] @ maxout(p, new if new_state else s, e, ctx) + p["b_y"], target)
            s = new
        return loss
    return run


def xu(selector=True):
    def run(p, data, ends, show):
        mean = data["x"].mean(0)
        h = shown(ends, "h[0]", tanh(p["W_h0"] @ mean + p["b_h0"]))
        c = shown(ends, "c[0]", tanh(p["W_c0"] @ mean + p["b_c0"]))
        loss, looks = 0.0, []
        for step, target in enumerate(data["k"]):
            energy = stack([p["u"] @ tanh(p["U_a"] @ a + p["W_a"] @ h + p["b_a"]) for a in data["x"]]) + p["b_u"]
            alpha = torch.softmax(energy, 0)
            z, e = alpha @ data["x"], embedded(p, data["k"], step)
            if selector:
                z = sigmoid(p["w_beta"] @ h + p["b_beta"]) * z
            looks.append(alpha)
            h, c = lstm({n + "_" if n[:2] in ("W_", "U_", "b_") else n: w for n, w in p.items()}, "_", e, h, c,
                        lambda gate, z=z: p[f"Z_{gate}"] @ z)
            loss = loss + surprise(p["V"] @ (e + p["V_h"] @ h + p["V_z"] @ z) + p["b_y"], target)
        show["alpha"] = looks
        return loss + p["lam"] * ((1 - stack(looks).sum(0)) ** 2).sum()
    return run


def bigru_stacked(p, data, ends, show):
    below, loss = [p["E"] @ row for row in data["x"]], 0.0
    for number in range(len(p["U_rf"])):
        own, halves = layer(p, number), []
        for d, rows, start in (("f", below, ends["hf[0,l]"]), ("b", below[::-1], ends["hb[T+1,l]"])):
            h, found = start[number], []
            for row in rows:
                r, z = sigmoid(net(own, "r" + d, row, h)), sigmoid(net(own, "z" + d, row, h))
                h = (1 - z) * h + z * tanh(net(own, "n" + d, row, r * h))
                found.append(h)
            halves.append(found if d == "f" else found[::-1])
        below = [cat(pair) for pair in zip(*halves)]
        loss = loss + sum((h ** 2).sum() for h in below)
    return loss


# --- grids ----------------------------------------------------------------------------------------------------------


def grid(tied=False, priority=False, printed=False, depth=3):
    """Kalchbrenner's two dimensions, cell by cell: H of both sides through each side's own LSTM; the sum of squares of
    what the zoo's entry has as outputs."""
    def run(p, data, ends, show):
        def side(letter, H, m, number):
            end = {"A": "t", "B": "d"}[letter]
            of = lambda n: p[n] if tied else p[n][number]
            i, f, o, g = (of(f"{letter}_{gate}") @ H + of(f"b_{gate}{end}") for gate in "ifog")
            m = sigmoid(f) * m + sigmoid(i) * tanh(g)
            return tanh(sigmoid(o) * m) if printed else sigmoid(o) * tanh(m), m

        before, cells, loss = list(ends["ht[0,l]"]), list(ends["mt[0,l]"]), 0.0
        for row in data["x"]:
            up, memory = p["W_h"] @ row, p["W_m"] @ row
            for number in range(depth):
                new, cells[number] = side("A", cat([before[number], up]), cells[number], number)
                up, memory = side("B", cat([new if priority else before[number], up]), memory, number)
                before[number] = new
                loss = loss + (up ** 2).sum() + (0.0 if priority else (new ** 2).sum())
            loss = loss + (up ** 2).sum()
        return loss
    return run


# --- latent variables -----------------------------------------------------------------------------------------------


def told(show, name, value):
    show.setdefault(name, []).append(value)
    return value


def against_noise(show, mean, deviation):
    """The divergence from N(0, 1)."""
    return told(show, "kl", divergence(Normal(mean, deviation), Normal(
        torch.zeros_like(mean), torch.ones_like(mean))).sum())


def bernoulli(show, logits, x):
    """Numbers from 0 to 1 count as probabilities."""
    return told(show, "nll", -Bernoulli(logits=logits, validate_args=False).log_prob(x).sum())


def draw(p, data, ends, show):
    x, canvas = data["x"], ends["C[0]"]
    encoder, decoder = (ends["he[0]"], ends["ce[0]"]), (ends["hd[0]"], ends["cd[0]"])
    loss = 0.0
    for noise in data["eps"]:
        encoder = lstm(p, "e", cat([x, x - sigmoid(canvas), decoder[0]]), *encoder)
        mean, deviation = p["W_mu"] @ encoder[0] + p["b_mu"], (p["W_sigma"] @ encoder[0] + p["b_sigma"]).exp()
        decoder = lstm(p, "d", mean + deviation * noise, *decoder)
        canvas = canvas + p["W_c"] @ decoder[0] + p["b_c"]
        loss = loss + against_noise(show, mean, deviation)
    return loss + bernoulli(show, canvas, x)


def draw_attention(p, data, ends, show):
    x, canvas = data["x"], ends["C[0,b,a]"]
    (B, A), (J, I) = x.shape, p["b_w"].shape
    across, down = torch.arange(1, A + 1, dtype=torch.float64), torch.arange(1, B + 1, dtype=torch.float64)

    def filters(h, w, b):
        """F_X, F_Y and the intensity, equations 21 to 27."""
        gx, gy, log_variance, log_stride, log_gamma = (
            p[f"{w}_{n}"] @ h + p[f"{b}_{n}"] for n in ("x", "y", "var", "delta", "gamma"))
        gx, gy = (A + 1) / 2 * (gx + 1), (B + 1) / 2 * (gy + 1)
        stride = (max(A, B) - 1) / (max(I, J) - 1) * log_stride.exp()
        banks = []
        for centre, count, places in ((gx, I, across), (gy, J, down)):
            mu = centre + (torch.arange(1, count + 1, dtype=torch.float64) - count / 2 - 0.5) * stride
            bank = (-(places - mu[:, None]) ** 2 / (2 * log_variance.exp())).exp()
            banks.append(bank / bank.sum(1, keepdim=True))
        return (*banks, log_gamma.exp())

    encoder, decoder = (ends["he[0]"], ends["ce[0]"]), (ends["hd[0]"], ends["cd[0]"])
    loss = 0.0
    for noise in data["eps"]:
        fx, fy, gamma = filters(decoder[0], "w", "b")
        patches = [gamma * fy @ image @ fx.T for image in (x, x - sigmoid(canvas))]
        read = lambda gate, patches=patches: sum(
            torch.einsum("jih,ji->h", p[f"{letter}_{gate}"], patch) for letter, patch in zip("PQ", patches))
        encoder = lstm(p, "e", decoder[0], *encoder, read)
        mean, deviation = p["W_mu"] @ encoder[0] + p["b_mu"], (p["W_sigma"] @ encoder[0] + p["b_sigma"]).exp()
        decoder = lstm(p, "d", mean + deviation * noise, *decoder)
        fx, fy, gamma = filters(decoder[0], "v", "c")
        canvas = canvas + fy.T @ (p["W_w"] @ decoder[0] + p["b_w"]) @ fx / gamma
        loss = loss + against_noise(show, mean, deviation)
    return loss + bernoulli(show, canvas, x)


def gaussian(p, show, dec, mean, x):
    deviation = softplus(p["V_s"] @ dec + p["b_s"]) + 1e-4
    return told(show, "nll", -Normal(mean, deviation).log_prob(x).sum())


def vrnn(gauss=False, informed=True):
    def run(p, data, ends, show):
        h, c, loss = ends["h[0]"], ends["c[0]"], 0.0
        gates = {n + "_" if n in {f"{w}_{g}" for w in "WUb" for g in "ifog"} else n: v for n, v in p.items()}
        for x, noise in zip(data["x"], data["eps"]):
            phi_x = relu(p["W_x"] @ x + p["b_x"])
            enc = relu(p["W_e"] @ cat([phi_x, h]) + p["b_e"])
            mean, deviation = p["W_em"] @ enc + p["b_em"], softplus(p["W_es"] @ enc + p["b_es"]) + 1e-4
            if informed:
                prior = relu(p["W_p"] @ h + p["b_p"])
                expected = Normal(p["W_pm"] @ prior + p["b_pm"], softplus(p["W_ps"] @ prior + p["b_ps"]) + 1e-4)
                loss = loss + told(show, "kl", divergence(Normal(mean, deviation), expected).sum())
            else:
                loss = loss + against_noise(show, mean, deviation)
            phi_z = relu(p["W_z"] @ (mean + deviation * noise) + p["b_z"])
            dec = relu(p["W_d"] @ cat([phi_z, h]) + p["b_d"])
            y = p["V"] @ dec + p["b_y"]
            loss = loss + (gaussian(p, show, dec, y, x) if gauss else bernoulli(show, y, x))
            h, c = lstm(gates, "_", cat([phi_x, phi_z]), h, c)
        return loss
    return run


def storn(both=False, gauss=False):
    def run(p, data, ends, show):
        def recognised(rows, end, h):
            found = []
            for row in rows:
                h = tanh(net(p, "q" + end, row, h))
                found.append(h)
            return found

        if both:
            forward, backward = (recognised(data["x"], "f", ends["qf[0]"]),
                                 recognised(data["x"].flip(0), "b", ends["qb[T+1]"])[::-1])
            inferred = [cat(pair) for pair in zip(forward, backward)]
        else:
            inferred = recognised(data["x"], "", ends["q[0]"])
        before, dec, loss = ends["x[0]"], ends["dec[0]"], 0.0
        for x, q, noise in zip(data["x"], inferred, data["eps"]):
            mean, deviation = p["W_mu"] @ q + p["b_mu"], softplus(p["W_sigma"] @ q + p["b_sigma"])
            dec = tanh(p["W"] @ before + p["W_z"] @ (mean + deviation * noise) + p["U"] @ dec + p["b"])
            y = p["V"] @ dec + p["b_y"]
            loss = loss + against_noise(show, mean, deviation) + (
                gaussian(p, show, dec, y, x) if gauss else bernoulli(show, y, x))
            before = x
        return loss
    return run


TRANSCRIPTIONS = {
    "sutskever": sutskever, "cho": cho, "bahdanau": bahdanau(), "bahdanau_new_state": bahdanau(True),
    "xu": xu(), "xu_without_selector": xu(False), "bigru_stacked": bigru_stacked,
    "grid_lstm": grid(), "grid_lstm_tied": grid(tied=True), "grid_lstm_priority": grid(priority=True),
    "grid_lstm_printed": grid(printed=True),
    "draw": draw, "draw_attention": draw_attention, "vrnn": vrnn(), "vrnn_gauss": vrnn(True),
    "vrnn_i": vrnn(informed=False), "storn": storn(), "storn_both": storn(both=True), "storn_gauss": storn(gauss=True),
}


def compare(name, transcription, given_ends=True, padding=0):
    cell, rng = systems.with_loss(zoo[name]), np.random.default_rng(3)
    system, batch = cell.system, 4
    lengths = systems.lengths(cell, T=6, batch=batch, seed=2)
    params, inputs = systems.draw(cell, T=6, batch=batch, seed=1)
    for n, values in inputs.items():  # what may be had besides
        if padding and (long := [i for i in system.axes[n] if i in lengths]):
            (index,) = long
            axis = system.axes[n].index(index)
            inputs[n] = np.pad(values, [(0, padding * (k == axis)) for k in range(values.ndim)])
    ends = {}
    known, extents = systems.sizes(cell), systems.extents(cell)
    for n, found in system.delayed.items():
        for at in found:
            if system.roles[n] != "class" and not any(
                    eq.at == system.outside(n, at) for eq in system.definitions.get(n, ())):
                deep = tuple(extents[i] for i in system.axes[n] if i in system.model)
                shape = (*deep, batch, *(known[d] for d in system.shapes[n]))
                deep_first = len(deep) if system.axes[n] != ("t", "b", "a") else 2
                ends[system.labels[n, at]] = (n, deep_first, rng.normal(size=shape) if given_ends
                                                      else np.zeros(shape))

    leaf = lambda v, n: torch.tensor(v, requires_grad=np.asarray(v).dtype.kind == "f" and n in cell.parameters)
    theirs = {n: leaf(v, n) for n, v in params.items()}
    data = {n: torch.tensor(v, requires_grad=v.dtype.kind == "f" and n != "eps") for n, v in inputs.items()}
    starts = {label: torch.tensor(v, requires_grad=True) for label, (_, _, v) in ends.items()}
    losses, computed, terms = [], [], []
    for b in range(batch):
        own, show = {label: v.select(ends[label][1], b) for label, v in starts.items()}, {}
        one = {}
        for n, v in data.items():
            axes = system.axes[n]
            example = v.select(len(axes), b)
            one[n] = example[:lengths[axes[0]][b]] if axes and axes[0] in lengths else example
        losses.append(transcription(theirs, one, own, show))
        computed.append({label: v for label, v in own.items() if label not in starts})
        terms.append(show)
    sum(losses).backward()
    wanted = {n: v.grad.numpy() for n, v in (theirs | data | starts).items() if v.grad is not None}
    for label in computed[0]:
        deep = sum(i in system.model for i in system.axes[label.split("[")[0]])
        wanted[label] = np.stack([c[label].grad.numpy() for c in computed], axis=deep)

    for n, values in inputs.items():  # what stands past an example's end is never looked at
        if system.axes[n] and system.axes[n][0] in lengths:
            for b, end in enumerate(lengths[system.axes[n][0]]):
                values[end:, b] = -1 if values.dtype.kind == "i" else np.nan
    given = {**inputs, "lengths": lengths}
    if given_ends:
        given["initial"] = {n: v for n, _, v in ends.values()}
    value, gradients = cell.gradient(params, **given)
    agree(value, sum(losses).item(), 1e-12, "value")
    assert set(gradients) == set(wanted)
    for n, gradient in wanted.items():
        if n == "b_u":  # a shift of all energies
            assert max(np.abs(gradient), np.abs(gradients[n])) < 1e-13
            continue
        assert np.abs(gradient).max() > 1e-6, f"the check of {n} says little"
        agree(gradients[n], gradient, 1e-12, f"d{n}")
    trace = cell.run(params, **given)
    agree(trace[cell.loss], [v.item() for v in losses], 1e-12, "each example's loss")
    for b, show in enumerate(terms):
        for n, values in show.items():
            theirs_ = torch.stack(values).detach().numpy()
            ours = trace[n][:, b] if system.axes[n] == ("t",) else trace[n][b] if not system.axes[n] else np.moveaxis(
                trace[n], 2, 0)[b]
            cut = tuple(slice(m) for m in theirs_.shape)
            agree(ours[cut] if system.axes[n] else [ours], theirs_, 1e-12, n)


@pytest.mark.parametrize("padding", [0, 2], ids=["", "padded further"])
@pytest.mark.parametrize("given_ends", [True, False], ids=["states given", "states zero"])
@pytest.mark.parametrize("name", list(TRANSCRIPTIONS))
def test_transcription(name, given_ends, padding):
    compare(name, TRANSCRIPTIONS[name], given_ends, padding)


@pytest.mark.parametrize("name, transcription", [
    ("bahdanau", bahdanau(True)), ("xu", xu(False)), ("grid_lstm", grid(priority=True)), ("vrnn_i", vrnn()),
    ("grid_lstm_tied", grid(tied=True, printed=True)), ("storn_gauss", storn())])
def test_a_wrong_transcription_is_seen(name, transcription):
    with pytest.raises((AssertionError, KeyError)):
        compare(name, transcription)
