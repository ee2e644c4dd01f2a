"""From one sequence to another: encoders, decoders, and attention of the decoder to what the encoder found.

x[s] is the source, a vector at each of its positions; k[t] the classes to be told, each from those before it.
"""

DEEP_ENCODER = """
l: axis                                                        # layers, from 1 to L
h[s,0] = E_x @ x[s]
i_e[s,l] = sigmoid(W_ie[l] @ h[s,l-1] + U_ie[l] @ h[s+1,l] + b_ie[l])   # the source is read from its end
f_e[s,l] = sigmoid(W_fe[l] @ h[s,l-1] + U_fe[l] @ h[s+1,l] + b_fe[l])
o_e[s,l] = sigmoid(W_oe[l] @ h[s,l-1] + U_oe[l] @ h[s+1,l] + b_oe[l])
g_e[s,l] = tanh(W_ge[l] @ h[s,l-1] + U_ge[l] @ h[s+1,l] + b_ge[l])
c_e[s,l] = f_e[s,l] * c_e[s+1,l] + i_e[s,l] * g_e[s,l]
h[s,l] = o_e[s,l] * tanh(c_e[s,l])
d[0,l] = h[1,l]
c_d[0,l] = c_e[1,l]
d[t,0] = E @ onehot(k[t-1])
i_d[t,l] = sigmoid(W_id[l] @ d[t,l-1] + U_id[l] @ d[t-1,l] + b_id[l])
f_d[t,l] = sigmoid(W_fd[l] @ d[t,l-1] + U_fd[l] @ d[t-1,l] + b_fd[l])
o_d[t,l] = sigmoid(W_od[l] @ d[t,l-1] + U_od[l] @ d[t-1,l] + b_od[l])
g_d[t,l] = tanh(W_gd[l] @ d[t,l-1] + U_gd[l] @ d[t-1,l] + b_gd[l])
c_d[t,l] = f_d[t,l] * c_d[t-1,l] + i_d[t,l] * g_d[t,l]
d[t,l] = o_d[t,l] * tanh(c_d[t,l])
y[t] = V @ d[t,L] + b_y
L_t[t] = cross_entropy(y[t], k[t])
loss = sum_t(L_t[t])
"""
SUMMARY = """
r_e[s] = sigmoid(W_re @ x[s] + U_re @ h[s-1] + b_re)
z_e[s] = sigmoid(W_ze @ x[s] + U_ze @ h[s-1] + b_ze)
h[s] = z_e[s] * h[s-1] + (1 - z_e[s]) * tanh(W_he @ x[s] + U_he @ (r_e[s] * h[s-1]) + b_he)
ctx = tanh(V_c @ h[S] + b_c)                                   # all that the decoder learns of the source
d[0] = tanh(V_0 @ ctx + b_0)
e[t] = E @ onehot(k[t-1])
r_d[t] = sigmoid(W_rd @ e[t] + U_rd @ d[t-1] + C_rd @ ctx + b_rd)
z_d[t] = sigmoid(W_zd @ e[t] + U_zd @ d[t-1] + C_zd @ ctx + b_zd)
n_d[t] = tanh(W_nd @ e[t] + r_d[t] * (U_nd @ d[t-1] + C_nd @ ctx) + b_nd)
d[t] = z_d[t] * d[t-1] + (1 - z_d[t]) * n_d[t]
m_1[t] = O_1 @ d[t] + P_1 @ e[t] + Q_1 @ ctx + b_m1
m_2[t] = O_2 @ d[t] + P_2 @ e[t] + Q_2 @ ctx + b_m2
y[t] = V @ maximum(m_1[t], m_2[t]) + b_y
loss = sum_t(cross_entropy(y[t], k[t]))
"""
ALIGNED = """
r_f[s] = sigmoid(W_rf @ x[s] + U_rf @ hf[s-1] + b_rf)
z_f[s] = sigmoid(W_zf @ x[s] + U_zf @ hf[s-1] + b_zf)
hf[s] = (1 - z_f[s]) * hf[s-1] + z_f[s] * tanh(W_hf @ x[s] + U_hf @ (r_f[s] * hf[s-1]) + b_hf)
r_b[s] = sigmoid(W_rb @ x[s] + U_rb @ hb[s+1] + b_rb)
z_b[s] = sigmoid(W_zb @ x[s] + U_zb @ hb[s+1] + b_zb)
hb[s] = (1 - z_b[s]) * hb[s+1] + z_b[s] * tanh(W_hb @ x[s] + U_hb @ (r_b[s] * hb[s+1]) + b_hb)
h[s] = concat(hf[s], hb[s])
d[0] = tanh(W_0 @ hb[1] + b_0)
energy[t,s] = sum(v * tanh(W_a @ d[t-1] + U_a @ h[s] + b_a))
alpha[t,s] = softmax_s(energy[t,s])                            # what the word at t owes to the word at s
ctx[t] = sum_s(alpha[t,s] * h[s])
e[t] = E @ onehot(k[t-1])
r_d[t] = sigmoid(W_rd @ e[t] + U_rd @ d[t-1] + C_rd @ ctx[t] + b_rd)
z_d[t] = sigmoid(W_zd @ e[t] + U_zd @ d[t-1] + C_zd @ ctx[t] + b_zd)
n_d[t] = tanh(W_nd @ e[t] + U_nd @ (r_d[t] * d[t-1]) + C_nd @ ctx[t] + b_nd)
d[t] = (1 - z_d[t]) * d[t-1] + z_d[t] * n_d[t]
m_1[t] = O_1 @ d[t-1] + P_1 @ e[t] + Q_1 @ ctx[t] + b_m1
m_2[t] = O_2 @ d[t-1] + P_2 @ e[t] + Q_2 @ ctx[t] + b_m2
y[t] = V @ maximum(m_1[t], m_2[t]) + b_y
loss = sum_t(cross_entropy(y[t], k[t]))
"""
SHOWN = """
lam: const()                                                   # how much each annotation is to be seen once in all
h[0] = tanh(W_h0 @ mean_s(x[s]) + b_h0)
c[0] = tanh(W_c0 @ mean_s(x[s]) + b_c0)
energy[t,s] = sum(u * tanh(U_a @ x[s] + W_a @ h[t-1] + b_a)) + b_u
alpha[t,s] = softmax_s(energy[t,s])
beta[t] = sigmoid(sum(w_beta * h[t-1]) + b_beta)               # the selector: whether to look at all
z[t] = beta[t] * sum_s(alpha[t,s] * x[s])
e[t] = E @ onehot(k[t-1])
i[t] = sigmoid(W_i @ e[t] + U_i @ h[t-1] + Z_i @ z[t] + b_i)
f[t] = sigmoid(W_f @ e[t] + U_f @ h[t-1] + Z_f @ z[t] + b_f)
o[t] = sigmoid(W_o @ e[t] + U_o @ h[t-1] + Z_o @ z[t] + b_o)
g[t] = tanh(W_g @ e[t] + U_g @ h[t-1] + Z_g @ z[t] + b_g)
c[t] = f[t] * c[t-1] + i[t] * g[t]
h[t] = o[t] * tanh(c[t])
y[t] = V @ (e[t] + V_h @ h[t] + V_z @ z[t]) + b_y
loss = sum_t(cross_entropy(y[t], k[t])) + lam * sum_s((1 - sum_t(alpha[t,s]))**2)
"""

CELLS = {
    "sutskever": dict(
        text=DEEP_ENCODER, rules=dict(b_fe=1.0, b_fd=1.0),
        citation="Sutskever, Vinyals, Le, Sequence to sequence learning with neural networks, arXiv:1409.3215, 2014",
        notes="The source is read from its last word to its first, as in the paper; the decoder begins with what the "
              "encoder ends with, layer by layer. From memory of the paper. The forget bias of 1 is ours.",
    ),
    "cho": dict(
        text=SUMMARY,
        citation="Cho, van Merrienboer, Gulcehre, Bahdanau, Bougares, Schwenk, Bengio, Learning phrase representations "
                 "using RNN encoder-decoder for statistical machine translation, arXiv:1406.1078, 2014, appendix",
        notes="The encoder resets before the product, the decoder after it, where the summary is reset too. The "
              "read-out is a maxout of two pieces. The paper leaves biases out of print; it writes Vh, Vh' for V_c, "
              "V_0. From memory of the paper.",
    ),
    "bahdanau": dict(
        text=ALIGNED,
        citation="Bahdanau, Cho, Bengio, Neural machine translation by jointly learning to align and translate, "
                 "arXiv:1409.0473, 2014, appendix",
        notes="The paper leaves biases out of print. Its alignment e_ij is energy[t,s] here, a softmax over the "
              "source's own length. The read-out sees the decoder's last state, as the appendix has it, by our memory "
              "of it; bahdanau_new_state reads the new one.",
    ),
    "bahdanau_new_state": dict(
        base="bahdanau", changes=dict(m_1="O_1 @ d[t] + P_1 @ e[t] + Q_1 @ ctx[t] + b_m1",
                                      m_2="O_2 @ d[t] + P_2 @ e[t] + Q_2 @ ctx[t] + b_m2"),
        citation="Bahdanau, Cho, Bengio, arXiv:1409.0473, 2014, as many implementations read it",
        notes="The read-out sees the decoder's new state.",
    ),
    "xu": dict(
        text=SHOWN, rules=dict(b_f=1.0, lam=1.0),
        citation="Xu, Ba, Kiros, Cho, Courville, Salakhutdinov, Zemel, Bengio, Show, attend and tell: neural image "
                 "caption generation with visual attention, ICML 2015, arXiv:1502.03044; soft attention",
        notes="x[s] are the annotations, parts of an image in any order. The gates' order and the selector are those "
              "of the authors' code; lam weighs the doubly stochastic penalty. b_u has no gradient but of rounding: a "
              "shift of all energies changes no softmax. The two first states are one layer each here. The forget bias "
              "of 1 is ours.",
    ),
    "xu_without_selector": dict(
        base="xu", changes=dict(beta="1"),
        citation="Xu and others, arXiv:1502.03044, 2015, without the gate of section 4.2.1",
        notes="The context is the annotations' mean, however little they have to say.",
    ),
}
