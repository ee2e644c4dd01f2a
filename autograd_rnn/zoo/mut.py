"""Mutants: three cells that a search over architectures found, starting from the gated recurrent unit."""

from ..init import identity

MUT1 = """
P: const(h, x)
z[t] = sigmoid(W_z @ x[t] + b_z)
r[t] = sigmoid(W_r @ x[t] + U_r @ h[t-1] + b_r)
h[t] = tanh(U_h @ (r[t] * h[t-1]) + tanh(P @ x[t]) + b_h) * z[t] + h[t-1] * (1 - z[t])
"""
MUT2 = """
P: const(h, x)
z[t] = sigmoid(W_z @ x[t] + U_z @ h[t-1] + b_z)
r[t] = sigmoid(P @ x[t] + U_r @ h[t-1] + b_r)
h[t] = tanh(U_h @ (r[t] * h[t-1]) + W_h @ x[t] + b_h) * z[t] + h[t-1] * (1 - z[t])
"""
MUT3 = """
z[t] = sigmoid(W_z @ x[t] + U_z @ tanh(h[t-1]) + b_z)
r[t] = sigmoid(W_r @ x[t] + U_r @ h[t-1] + b_r)
h[t] = tanh(U_h @ (r[t] * h[t-1]) + W_h @ x[t] + b_h) * z[t] + h[t-1] * (1 - z[t])
"""
PAPER = "Jozefowicz, Zaremba, Sutskever, An empirical exploration of recurrent network architectures, ICML 2015"
BARE = ("The paper prints {} bare, which has a meaning only where x and h have one size. P is the identity there; "
        "where the sizes differ it keeps the first components, and Keras of 2015 had random signs over sqrt(n). "
        "Others learn a matrix: {}.")

CELLS = {
    "mut1": dict(
        text=MUT1, citation=PAPER, rules=dict(P=identity),
        notes=BARE.format("tanh(x[t])", "mut1_projected") + " The bias b_h stands outside the inner tanh, as in the "
              "paper and in Keras; Theanets and RecurrentLayers.jl have it inside.",
    ),
    "mut1_projected": dict(
        base="mut1", changes=dict(P="W_h"), citation=PAPER + ", with a learned matrix before the inner tanh",
        notes="As in Theanets and RecurrentLayers.jl, but for the place of the bias.",
    ),
    "mut2": dict(
        text=MUT2, citation=PAPER, rules=dict(P=identity),
        notes=BARE.format("x[t], in the reset gate,", "mut2_projected"),
    ),
    "mut2_projected": dict(
        base="mut2", changes=dict(P="W_r"), citation=PAPER + ", with a learned matrix in the reset gate",
        notes="As in Theanets and RecurrentLayers.jl.",
    ),
    "mut3": dict(text=MUT3, citation=PAPER, notes="The update gate sees tanh(h[t-1])."),
}
