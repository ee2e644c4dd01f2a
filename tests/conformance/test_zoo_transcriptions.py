"""Every cell of the zoo beside a plain transcription of its paper in torch: outputs and every gradient at 1e-12.

A transcription takes parameters by our names, x as (batch, size) for each step, and initial states; it gives the output
of each step. It is written from the paper's equations: units by units, modules by modules, no text of ours read.
"""

import numpy as np
import pytest
from networks import agree
from test_model_transcriptions import TRANSCRIPTIONS as MODELS

from autograd_rnn import zoo

torch = pytest.importorskip("torch", reason="the transcriptions are torch's: pip install 'autograd_rnn[conformance]'")
sigmoid, tanh, relu = torch.sigmoid, torch.tanh, torch.relu


def net(p, gate, x, h, W="W", U="U"):
    """W x + U h + b of a gate."""
    return x @ p[f"{W}_{gate}"].T + h @ p[f"{U}_{gate}"].T + p[f"b_{gate}"]


def simple(new):
    """A network whose state is its output: new(p, x, h, step) is the next one."""
    def run(p, X, s):
        h, found = s["h"], []
        for step, x in enumerate(X):
            h = new(p, x, h, step)
            found.append(h)
        return found
    return run


def elman(f=tanh, residual=0.0):
    return simple(lambda p, x, h, step: residual * h + f(x @ p["W"].T + h @ p["U"].T + p["b"]))


def antisymmetric(gated):
    def new(p, x, h, step):
        flow = h @ (p["U"] - p["U"].T - 0.01 * torch.eye(len(p["U"]), dtype=h.dtype)).T
        gate = sigmoid(flow + x @ p["W_z"].T + p["b_z"]) if gated else 1.0
        return h + 0.1 * gate * tanh(flow + x @ p["W"].T + p["b"])
    return simple(new)


def lstm(without="", peepholes="", coupled="", linear_in=False, linear_out=False, recurrent_gates=False):
    """All of Greff's variants and more. peepholes: diagonal, full, before (o sees the old cell); coupled: what is
    learned, i or f."""
    other = {"i": "f", "f": "i", "": ""}[coupled]

    def peep(p, gate, c):
        if peepholes == "full":
            return c @ p[f"P_{gate}"].T
        return c * p[f"p_{gate}"] if peepholes else 0.0

    def gate(p, g, x, h, cell, before):
        if g in without:
            return torch.ones_like(cell)
        a = net(p, g, x, h) + peep(p, g, cell)
        if recurrent_gates:
            a = a + sum(before[source] @ p[f"R_{source}{g}"].T for source in "ifo")
        return sigmoid(a)

    def run(p, X, s):
        h, c, found = s["h"], s["c"], []
        gates = {g: s.get(g) for g in "ifo"}
        for x in X:
            new = {g: gate(p, g, x, h, c, gates) for g in "if" if g != other}
            if coupled:
                new[other] = 1 - new[coupled]
            z = net(p, "g", x, h)
            cell = new["f"] * c + new["i"] * (z if linear_in else tanh(z))
            new["o"] = gate(p, "o", x, h, c if peepholes == "before" else cell, gates)
            h, c, gates = new["o"] * (cell if linear_out else tanh(cell)), cell, new
            found.append(h)
        return found
    return run


def lstm_1997(whole):
    """Hochreiter and Schmidhuber, section 4: the net input of a unit sums over inputs, cells and gates, all of the
    last step; g(x) = 4 s(x) - 2, h(x) = 2 s(x) - 1."""
    def run(p, X, s):
        y_cell, y_in, y_out, state, found = s["h"], s["i"], s["o"], s["c"], []
        block = state.shape[1] // y_in.shape[1]
        for x in X:
            units = torch.cat([y_cell, y_in, y_out], 1)
            units = units if whole else units.detach()
            nets = {}
            for kind in "iog":
                weights = torch.cat([p[f"U_{kind}"], p[f"G_{kind}i"], p[f"G_{kind}o"]], 1)
                nets[kind] = x @ p[f"W_{kind}"].T + units @ weights.T + p[f"b_{kind}"]
            y_in, y_out = sigmoid(nets["i"]), sigmoid(nets["o"])
            state = state + y_in.repeat_interleave(block, 1) * (4 * sigmoid(nets["g"]) - 2)
            y_cell = y_out.repeat_interleave(block, 1) * (2 * sigmoid(state) - 1)
            found.append(y_cell)
        return found
    return run


def gru(after, keep):
    def new(p, x, h, step):
        r, z = sigmoid(net(p, "r", x, h)), sigmoid(net(p, "z", x, h))
        if after:
            n = tanh(x @ p["W_n"].T + p["b_n"] + r * (h @ p["U_n"].T + p["b_Rn"]))
        else:
            n = tanh(x @ p["W_n"].T + (r * h) @ p["U_n"].T + p["b_n"])
        return z * h + (1 - z) * n if keep else (1 - z) * h + z * n
    return simple(new)


def mut(number, projected=False):
    def bare(p, x, h, name):
        """The x that the paper prints without a matrix, brought to the size of h."""
        if projected:
            return x @ p[name].T
        return torch.cat([x, x.new_zeros(len(x), h.shape[1] - x.shape[1])], 1)

    def new(p, x, h, step):
        if number == 1:
            z = sigmoid(x @ p["W_z"].T + p["b_z"])
            r = sigmoid(net(p, "r", x, h))
            inner = tanh(bare(p, x, h, "W_h"))
        else:
            z = sigmoid(net(p, "z", x, h if number == 2 else tanh(h)))
            r = sigmoid(net(p, "r", x, h)) if number == 3 else sigmoid(
                bare(p, x, h, "W_r") + h @ p["U_r"].T + p["b_r"])
            inner = x @ p["W_h"].T
        return tanh((r * h) @ p["U_h"].T + inner + p["b_h"]) * z + h * (1 - z)
    return simple(new)


def clockwork(triangular, first):
    """Koutnik et al., module by module; `first` is the number of the first step."""
    def new(p, x, h, step):
        periods = sorted(set(p["period"].tolist()))
        members = {T: (p["period"] == T).nonzero()[:, 0] for T in periods}
        out = h.clone()
        for T, own in members.items():
            if (step + first) % T:
                continue
            a = x @ p["W"][own].T + p["b"][own]
            for other, units in members.items():
                if other >= T or not triangular:
                    a = a + h[:, units] @ p["U"][own][:, units].T
            out[:, own] = tanh(a)
        return out
    return simple(new)


def rhn(coupled):
    def new(p, x, h, step):
        s = h
        for layer in range(len(p["R_a"])):
            def a(g, s=s, layer=layer):
                given = x @ p[f"W_{g}"].T if layer == 0 else 0.0
                return given + s @ p[f"R_{g}"][layer].T + p[f"b_{g}"][layer]
            transform = sigmoid(a("g"))
            carry = 1 - transform if coupled else sigmoid(a("c"))
            s = tanh(a("a")) * transform + s * carry
        return s
    return simple(new)


def highway(p, x, h, step):
    transform = sigmoid(net(p, "g", x, h, U="R"))
    return tanh(net(p, "a", x, h, U="R")) * transform + h * (1 - transform)


def stacked(depth_gated):
    """Layer after layer, each over the whole sequence; the output is that of the last."""
    def run(p, X, s):
        below, cells = [x @ p["E"].T for x in X], [torch.zeros_like(s["c"][0])] * len(X)
        for layer in range(len(p["U_i"])):
            own = {n: w[layer] for n, w in p.items() if n != "E"}
            h, c, outputs, states = s["h"][layer], s["c"][layer], [], []
            for x, lower in zip(below, cells):
                p_i, p_f, p_o = (own[f"p_{g}"] for g in "ifo") if depth_gated else (0.0, 0.0, 0.0)
                i, f = sigmoid(net(own, "i", x, h) + p_i * c), sigmoid(net(own, "f", x, h) + p_f * c)
                new = f * c + i * tanh(net(own, "g", x, h))
                if depth_gated:
                    d = sigmoid(own["b_d"] + x @ own["W_d"].T + own["p_d"] * c + own["q_d"] * lower)
                    new = d * lower + new
                h, c = sigmoid(net(own, "o", x, h) + p_o * new) * tanh(new), new
                outputs.append(h)
                states.append(c)
            below, cells = outputs, states
        return below
    return run


def both_ways(run, gates):
    """Forward with the parameters that end in f, backward with those in b: concatenated."""
    def both(p, X, s):
        halves = []
        for d in "fb":
            own = {f"{letter}_{g}" if g else letter: p[f"{letter}_{g}{d}"] for letter in "WUb" for g in gates}
            start = {n: s[n + d] for n in "hc" if n + d in s}
            found = run(own, X if d == "f" else X[::-1], start)
            halves.append(found if d == "f" else found[::-1])
        return [torch.cat(pair, 1) for pair in zip(*halves)]
    return both


def logits_of_rnn(p, X, s):
    return [h @ p["V"].T + p["c"] for h in elman()(p, X, s)]


def characters(p, X, s):
    for n in "12":
        own = {f"{letter}_{g}": p[f"{letter}_{g}{n}"] for letter in "WUb" for g in "ifog"}
        X = lstm()(own, X, {"h": s[f"h{n}"], "c": s[f"c{n}"]})
    return [h @ p["V"].T + p["c"] for h in X]


TRANSCRIPTIONS = {
    "rnn": elman(), "rnn_relu": elman(relu), "rnn_softmax": logits_of_rnn, "rnn_residual": elman(residual=1.0),
    "antisymmetric": antisymmetric(False), "antisymmetric_gated": antisymmetric(True),
    "lstm": lstm(), "lstm_zero_bias": lstm(), "lstm_without_f": lstm("f"), "lstm_without_i": lstm("i"),
    "lstm_without_o": lstm("o"), "lstm_peephole": lstm(peepholes="diagonal"),
    "lstm_peephole_full": lstm(peepholes="full"), "lstm_peephole_before": lstm(peepholes="before"),
    "lstm_coupled": lstm(coupled="i"), "lstm_coupled_forget": lstm(coupled="f"),
    "lstm_nig": lstm("i", "diagonal"), "lstm_nfg": lstm("f", "diagonal"), "lstm_nog": lstm("o", "diagonal"),
    "lstm_niaf": lstm(peepholes="diagonal", linear_in=True), "lstm_noaf": lstm(peepholes="diagonal", linear_out=True),
    "lstm_np": lstm(), "lstm_cifg": lstm(peepholes="diagonal", coupled="i"),
    "lstm_fgr": lstm(peepholes="diagonal", recurrent_gates=True),
    "lstm_1997": lstm_1997(False), "lstm_1997_whole": lstm_1997(True),
    "lstm_1997_blocks": lstm_1997(False), "lstm_1997_blocks_whole": lstm_1997(True),
    "gru": gru(False, False), "gru_cho": gru(False, True), "gru_reset_after": gru(True, True),
    "gru_reset_after_update": gru(True, False),
    "mut1": mut(1), "mut1_projected": mut(1, True), "mut2": mut(2), "mut2_projected": mut(2, True), "mut3": mut(3),
    "clockwork": clockwork(True, 1), "clockwork_from_zero": clockwork(True, 0), "clockwork_full": clockwork(False, 0),
    "rhn": rhn(False), "rhn_coupled": rhn(True), "rnn_highway": simple(highway),
    "lstm_stacked": stacked(False), "lstm_depth_gated": stacked(True),
    "birnn": both_ways(elman(), [""]),
    "bilstm": both_ways(lstm(), "ifog"), "charlm": characters,
}
T, BATCH, LAYERS = 7, 3, 3
SIZES = {"rnn_softmax": dict(x=3, h=4, y=5), "charlm": dict(k=5, h1=4, h2=3), "birnn": dict(x=3, hf=4, hb=2),
         "bilstm": dict(x=3, hf=4, hb=2), "lstm_1997_blocks": dict(x=3, h=6, i=3),
         "lstm_1997_blocks_whole": dict(x=3, h=6, i=3)}


def test_every_cell_has_a_transcription():
    """Here, or example by example in test_model_transcriptions."""
    assert set(TRANSCRIPTIONS) | set(MODELS) == set(zoo)


def compare(name, transcription):
    """Outputs, and gradients of parameters, inputs and initial states, from random ones."""
    cell, rng = zoo[name], np.random.default_rng(5)
    deep = {i: LAYERS for i in cell.system.indices if i in cell.system.model}
    started = cell.init(**{**(SIZES.get(name) or dict(x=3, h=4)), **deep})
    params = {n: 0.6 * rng.normal(size=v.shape) if n in cell.parameters else v for n, v in started.items()}
    size = {n: v for d, v in cell.system.sizes(SIZES.get(name, dict(x=3, h=4))).items() for n in cell.dims.get(d, ())}
    classes = rng.integers(0, 5, (T, BATCH)) if "k" in cell.inputs else None
    inputs = {"x": rng.normal(size=(T, BATCH, 3))} if "x" in cell.inputs else {}
    layers = (LAYERS,) if "h" in cell.states and "l" in cell.system.axes["h"] else ()
    initial = {s: rng.normal(size=(*layers, BATCH, size[s])) for s in cell.states}

    leaf = lambda v: torch.tensor(v, requires_grad=True)
    theirs = {n: leaf(v) if n in cell.parameters else torch.tensor(v) for n, v in params.items()}
    data, ends = {n: leaf(v) for n, v in inputs.items()}, {n: leaf(v) for n, v in initial.items()}
    X = list(data["x"]) if data else list(torch.cat([torch.zeros(1, BATCH, 5, dtype=torch.float64), torch.eye(
        5, dtype=torch.float64)[torch.tensor(classes[:-1])]]))
    outputs = torch.stack(transcription(theirs, X, ends))

    given = dict(inputs) if classes is None else {**inputs, "k": classes}
    given["initial"] = initial
    shown = cell.run(params, **given)
    if classes is None:
        weights = rng.normal(size=outputs.shape)
        (outputs * torch.tensor(weights)).sum().backward()
        ours = shown["h"][:, -1] if layers else shown["h"]
        cotangents = {"h": weights}
        if layers:
            cotangents = {"h": np.zeros(shown["h"].shape)}
            cotangents["h"][:, -1] = weights
        _, gradients = cell.gradient(params, cotangents=cotangents, **given)
    else:
        flat = outputs.reshape(T * BATCH, -1), torch.tensor(classes.reshape(-1))
        loss = torch.nn.functional.cross_entropy(*flat, reduction="sum")
        loss.backward()
        ours = shown["y"]
        value, gradients = cell.gradient(params, **given)
        agree(value, loss.item(), 1e-12, "loss")
    agree(ours, outputs.detach().numpy(), 1e-12, "outputs")

    wanted = {n: v.grad for n, v in {**theirs, **data}.items() if v.requires_grad}
    at = lambda s: "[T+1]" if s in ("hb", "cb") else "[0,l]" if layers else "[0]"
    wanted |= {s + at(s): v.grad for s, v in ends.items()}
    assert set(gradients) >= {n for n, g in wanted.items() if g is not None}
    for n, gradient in wanted.items():
        if gradient is None or not gradient.abs().max() > 0:
            assert not np.any(gradients.get(n, 0)), f"d{n}"  # what is cut off
        else:
            agree(gradients[n], gradient.numpy(), 1e-12, f"d{n}")
    cut = {n for n, gradient in wanted.items() if gradient is None}
    assert cut <= {"h[0]", "i[0]", "o[0]"} and (not cut or name in ("lstm_1997", "lstm_1997_blocks"))


@pytest.mark.parametrize("name", list(TRANSCRIPTIONS))
def test_transcription(name):
    compare(name, TRANSCRIPTIONS[name])


@pytest.mark.parametrize("name, transcription", [
    ("lstm_1997", lstm_1997(True)), ("lstm_1997_blocks_whole", lstm_1997(False)), ("clockwork", clockwork(True, 0)),
    ("clockwork", clockwork(False, 1)), ("lstm_peephole", lstm(peepholes="before")), ("gru", gru(False, True)),
    ("lstm_fgr", lstm(peepholes="diagonal")), ("rhn", rhn(True)), ("rnn_relu", elman())])
def test_a_wrong_transcription_is_seen(name, transcription):
    with pytest.raises(AssertionError):
        compare(name, transcription)
