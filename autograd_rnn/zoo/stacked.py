"""Layers and directions: depth as an index like time, both directions of time, a character model."""

from ..init import uniform

STACKED = """
l: axis                                                        # layers, from 1 to L
h[t,0] = E @ x[t]
i[t,l] = sigmoid(W_i[l] @ h[t,l-1] + U_i[l] @ h[t-1,l] + b_i[l])
f[t,l] = sigmoid(W_f[l] @ h[t,l-1] + U_f[l] @ h[t-1,l] + b_f[l])
o[t,l] = sigmoid(W_o[l] @ h[t,l-1] + U_o[l] @ h[t-1,l] + b_o[l])
g[t,l] = tanh(W_g[l] @ h[t,l-1] + U_g[l] @ h[t-1,l] + b_g[l])
c[t,l] = f[t,l] * c[t-1,l] + i[t,l] * g[t,l]
h[t,l] = o[t,l] * tanh(c[t,l])
"""
DEPTH_GATED = """
l: axis
h[t,0] = E @ x[t]
i[t,l] = sigmoid(W_i[l] @ h[t,l-1] + U_i[l] @ h[t-1,l] + p_i[l] * c[t-1,l] + b_i[l])
f[t,l] = sigmoid(W_f[l] @ h[t,l-1] + U_f[l] @ h[t-1,l] + p_f[l] * c[t-1,l] + b_f[l])
d[t,l] = sigmoid(W_d[l] @ h[t,l-1] + p_d[l] * c[t-1,l] + q_d[l] * c[t,l-1] + b_d[l])
g[t,l] = tanh(W_g[l] @ h[t,l-1] + U_g[l] @ h[t-1,l] + b_g[l])
c[t,l] = d[t,l] * c[t,l-1] + f[t,l] * c[t-1,l] + i[t,l] * g[t,l]
o[t,l] = sigmoid(W_o[l] @ h[t,l-1] + U_o[l] @ h[t-1,l] + p_o[l] * c[t,l] + b_o[l])
h[t,l] = o[t,l] * tanh(c[t,l])
"""
BIDIRECTIONAL = """
hf[t] = tanh(W_f @ x[t] + U_f @ hf[t-1] + b_f)
hb[t] = tanh(W_b @ x[t] + U_b @ hb[t+1] + b_b)
h[t] = concat(hf[t], hb[t])
"""
BOTH_LSTM = """
i_f[t] = sigmoid(W_if @ x[t] + U_if @ hf[t-1] + b_if)
f_f[t] = sigmoid(W_ff @ x[t] + U_ff @ hf[t-1] + b_ff)
o_f[t] = sigmoid(W_of @ x[t] + U_of @ hf[t-1] + b_of)
g_f[t] = tanh(W_gf @ x[t] + U_gf @ hf[t-1] + b_gf)
cf[t] = f_f[t] * cf[t-1] + i_f[t] * g_f[t]
hf[t] = o_f[t] * tanh(cf[t])
i_b[t] = sigmoid(W_ib @ x[t] + U_ib @ hb[t+1] + b_ib)
f_b[t] = sigmoid(W_fb @ x[t] + U_fb @ hb[t+1] + b_fb)
o_b[t] = sigmoid(W_ob @ x[t] + U_ob @ hb[t+1] + b_ob)
g_b[t] = tanh(W_gb @ x[t] + U_gb @ hb[t+1] + b_gb)
cb[t] = f_b[t] * cb[t+1] + i_b[t] * g_b[t]
hb[t] = o_b[t] * tanh(cb[t])
h[t] = concat(hf[t], hb[t])
"""
BOTH_STACKED = """
l: axis
h[t,0] = E @ x[t]                                              # as long as both directions together
r_f[t,l] = sigmoid(W_rf[l] @ h[t,l-1] + U_rf[l] @ hf[t-1,l] + b_rf[l])
z_f[t,l] = sigmoid(W_zf[l] @ h[t,l-1] + U_zf[l] @ hf[t-1,l] + b_zf[l])
n_f[t,l] = tanh(W_nf[l] @ h[t,l-1] + U_nf[l] @ (r_f[t,l] * hf[t-1,l]) + b_nf[l])
hf[t,l] = (1 - z_f[t,l]) * hf[t-1,l] + z_f[t,l] * n_f[t,l]
r_b[t,l] = sigmoid(W_rb[l] @ h[t,l-1] + U_rb[l] @ hb[t+1,l] + b_rb[l])
z_b[t,l] = sigmoid(W_zb[l] @ h[t,l-1] + U_zb[l] @ hb[t+1,l] + b_zb[l])
n_b[t,l] = tanh(W_nb[l] @ h[t,l-1] + U_nb[l] @ (r_b[t,l] * hb[t+1,l]) + b_nb[l])
hb[t,l] = (1 - z_b[t,l]) * hb[t+1,l] + z_b[t,l] * n_b[t,l]
h[t,l] = concat(hf[t,l], hb[t,l])
"""
CHARACTERS = """
x[t] = onehot(k[t-1])                                          # the character before the one to predict
i1[t] = sigmoid(W_i1 @ x[t] + U_i1 @ h1[t-1] + b_i1)
f1[t] = sigmoid(W_f1 @ x[t] + U_f1 @ h1[t-1] + b_f1)
o1[t] = sigmoid(W_o1 @ x[t] + U_o1 @ h1[t-1] + b_o1)
g1[t] = tanh(W_g1 @ x[t] + U_g1 @ h1[t-1] + b_g1)
c1[t] = f1[t] * c1[t-1] + i1[t] * g1[t]
h1[t] = o1[t] * tanh(c1[t])
i2[t] = sigmoid(W_i2 @ h1[t] + U_i2 @ h2[t-1] + b_i2)
f2[t] = sigmoid(W_f2 @ h1[t] + U_f2 @ h2[t-1] + b_f2)
o2[t] = sigmoid(W_o2 @ h1[t] + U_o2 @ h2[t-1] + b_o2)
g2[t] = tanh(W_g2 @ h1[t] + U_g2 @ h2[t-1] + b_g2)
c2[t] = f2[t] * c2[t-1] + i2[t] * g2[t]
h2[t] = o2[t] * tanh(c2[t])
y[t] = V @ h2[t] + c
L = sum_t(cross_entropy(y[t], k[t]))
"""
EMBEDDED = ("E brings the input to the layers' size, like an embedding; where x has it already, "
            "substitute(**{'h[t,0]': 'x[t]'}).")

CELLS = {
    "lstm_stacked": dict(
        text=STACKED, rules=dict(b_f=1.0),
        citation="Zaremba, Sutskever, Vinyals, Recurrent neural network regularization, arXiv:1409.2329, 2014, without "
                 "dropout",
        notes=EMBEDDED + " Graves, arXiv:1308.0850, feeds the input to every layer.",
    ),
    "lstm_depth_gated": dict(
        text=DEPTH_GATED, rules=dict(b_f=1.0),
        citation="Yao, Cohn, Vylomova, Duh, Dyer, Depth-gated LSTM, arXiv:1508.03790, 2015",
        notes=EMBEDDED + " The first layer has nothing below its cell: c[t,0] = 0. From memory of the paper and from "
              "DyNet's dglstm.cc, in which f = 1 - i, peepholes are matrices, the input is scaled by a learned "
              "exponential, and the first layer has a depth gate that reads x through a matrix of its own.",
    ),
    "birnn": dict(
        text=BIDIRECTIONAL,
        citation="Schuster, Paliwal, Bidirectional recurrent neural networks, IEEE Transactions on Signal Processing "
                 "45(11), 1997",
        notes="What lies past an example's own length is zero, so that padding changes nothing.",
    ),
    "bilstm": dict(
        text=BOTH_LSTM, rules=dict(b_ff=1.0, b_fb=1.0),
        citation="Graves, Schmidhuber, Framewise phoneme classification with bidirectional LSTM and other neural "
                 "network architectures, Neural Networks 18, 2005; here without peepholes",
        notes="Any cell goes both ways through calls: cell(x=x[t], h=hf[t-1]), cell(x=x[t], h=hb[t+1]).",
    ),
    "bigru_stacked": dict(
        text=BOTH_STACKED,
        citation="Graves, Mohamed, Hinton, Speech recognition with deep recurrent neural networks, arXiv:1303.5778, "
                 "2013, for both directions in every layer; here with the unit of Chung and others, arXiv:1412.3555",
        notes="A layer's both directions see both of the layer below. " + EMBEDDED,
    ),
    "charlm": dict(
        text=CHARACTERS, rules=dict(default=uniform(0.08), b_f1=1.0, b_f2=1.0),
        citation="Karpathy, char-rnn, 2015: two layers, one-hot characters",
        notes="Weights within 0.08 and a forget bias of 1, as there. learn.character_model stacks any cell, with an "
              "embedding and dropout.",
    ),
}
