"""Gated recurrent units: reset before or after the product, and both conventions of the update gate."""

CHUNG = """
r[t] = sigmoid(W_r @ x[t] + U_r @ h[t-1] + b_r)
z[t] = sigmoid(W_z @ x[t] + U_z @ h[t-1] + b_z)
n[t] = tanh(W_n @ x[t] + U_n @ (r[t] * h[t-1]) + b_n)
h[t] = (1 - z[t]) * h[t-1] + z[t] * n[t]
"""
AFTER = "tanh(W_n @ x[t] + b_n + r[t] * (U_n @ h[t-1] + b_Rn))"
KEEP = "z[t] * h[t-1] + (1 - z[t]) * n[t]"

CELLS = {
    "gru": dict(
        text=CHUNG,
        citation="Chung, Gulcehre, Cho, Bengio, Empirical evaluation of gated recurrent neural networks on sequence "
                 "modeling, arXiv:1412.3555, 2014",
        notes="Reset before the product; z takes the new state.",
    ),
    "gru_cho": dict(
        base="gru", changes=dict(h=KEEP),
        citation="Cho et al., Learning phrase representations using RNN encoder-decoder for statistical machine "
                 "translation, arXiv:1406.1078v3, 2014",
        notes="Reset before the product; z keeps the old state. ONNX with linear_before_reset=0.",
    ),
    "gru_reset_after": dict(
        base="gru", changes=dict(n=AFTER, h=KEEP),
        citation="Cho et al., arXiv:1406.1078v1, 2014; the form of cuDNN and torch.nn.GRU",
        notes="Reset after the product, with a bias of its own (b_Rn) inside; z keeps the old state. Keras with "
              "reset_after=True, ONNX with linear_before_reset=1.",
    ),
    "gru_reset_after_update": dict(
        base="gru", changes=dict(n=AFTER),
        citation="Cho et al., arXiv:1406.1078v1, 2014, with the update convention of Chung et al. 2014",
        notes="Reset after the product; z takes the new state.",
    ),
}
