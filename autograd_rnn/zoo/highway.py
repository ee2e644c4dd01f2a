"""Recurrent highways: a gate carries the state past a transformation, once or several times a step."""

RHN = """
l: axis                                                        # transformations within a step, from 1 to L
s[t,0] = h[t-1]
a[t,l] = tanh(where(l == 1, W_a @ x[t], 0) + R_a[l] @ s[t,l-1] + b_a[l])
g[t,l] = sigmoid(where(l == 1, W_g @ x[t], 0) + R_g[l] @ s[t,l-1] + b_g[l])
c[t,l] = sigmoid(where(l == 1, W_c @ x[t], 0) + R_c[l] @ s[t,l-1] + b_c[l])
s[t,l] = a[t,l] * g[t,l] + s[t,l-1] * c[t,l]
h[t] = s[t,L]
"""
ONE = """
a[t] = tanh(W_a @ x[t] + R_a @ h[t-1] + b_a)
g[t] = sigmoid(W_g @ x[t] + R_g @ h[t-1] + b_g)
h[t] = a[t] * g[t] + h[t-1] * (1 - g[t])
"""
PAPER = "Zilly, Srivastava, Koutnik, Schmidhuber, Recurrent highway networks, ICML 2017, arXiv:1607.03474"
BIAS = " The transform gates start at a bias of -2, by our memory of the paper's experiments."

CELLS = {
    "rhn": dict(
        text=RHN, citation=PAPER, rules=dict(b_g=-2.0),
        notes="The paper's letters are h for a, t for g. The input enters the first transformation alone." + BIAS,
    ),
    "rhn_coupled": dict(
        base="rhn", changes=dict(c="1 - g[t,l]"), citation=PAPER + ", carry gate 1 - g",
        notes="The form of the paper's experiments." + BIAS,
    ),
    "rnn_highway": dict(
        text=ONE, rules=dict(b_g=-2.0),
        citation="Srivastava, Greff, Schmidhuber, Highway networks, arXiv:1505.00387, 2015, over time; depth 1 of "
                 + PAPER,
        notes="A gated recurrent unit without its reset gate." + BIAS,
    ),
}
