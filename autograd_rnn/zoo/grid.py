"""Grid LSTM: cells along time and along depth, each with a memory of its own."""

UNTIED = """
l: axis                                                        # layers, from 1 to L
hd[t,0] = W_h @ x[t]
md[t,0] = W_m @ x[t]
Ht[t,l] = concat(ht[t-1,l], hd[t,l-1])
it[t,l] = sigmoid(A_i[l] @ Ht[t,l] + b_it[l])
ft[t,l] = sigmoid(A_f[l] @ Ht[t,l] + b_ft[l])
ot[t,l] = sigmoid(A_o[l] @ Ht[t,l] + b_ot[l])
gt[t,l] = tanh(A_g[l] @ Ht[t,l] + b_gt[l])
mt[t,l] = ft[t,l] * mt[t-1,l] + it[t,l] * gt[t,l]
ht[t,l] = ot[t,l] * tanh(mt[t,l])
Hd[t,l] = concat(ht[t-1,l], hd[t,l-1])
id[t,l] = sigmoid(B_i[l] @ Hd[t,l] + b_id[l])
fd[t,l] = sigmoid(B_f[l] @ Hd[t,l] + b_fd[l])
od[t,l] = sigmoid(B_o[l] @ Hd[t,l] + b_od[l])
gd[t,l] = tanh(B_g[l] @ Hd[t,l] + b_gd[l])
md[t,l] = fd[t,l] * md[t,l-1] + id[t,l] * gd[t,l]
hd[t,l] = od[t,l] * tanh(md[t,l])
h[t] = hd[t,L]
"""
TIED = UNTIED
for _gate in "ifog":
    for _own in (f"A_{_gate}", f"B_{_gate}", f"b_{_gate}t", f"b_{_gate}d"):
        TIED = TIED.replace(_own + "[l]", _own)

CELLS = {
    "grid_lstm": dict(
        text=UNTIED, rules=dict(b_ft=1.0, b_fd=1.0),
        citation="Kalchbrenner, Danihelka, Graves, Grid long short-term memory, arXiv:1507.01526, 2015; two "
                 "dimensions, weights of their own in each layer",
        notes="A along time, B along depth; both see the same hidden vectors. The input enters the depth's hidden and "
              "memory vectors below the first layer. h = o * tanh(m), as implementations have it; see "
              "grid_lstm_printed. The forget bias of 1 is ours. A depth without a memory is "
              "substitute(hd='tanh(B_g[l] @ Hd[t,l] + b_gd[l])', ...).",
    ),
    "grid_lstm_tied": dict(
        text=TIED, rules=dict(b_ft=1.0, b_fd=1.0),
        citation="Kalchbrenner, Danihelka, Graves, arXiv:1507.01526, 2015, section 3.5: tied weights",
        notes="The same weights in all layers: depth is a recurrence too.",
    ),
    "grid_lstm_priority": dict(
        base="grid_lstm", changes=dict(Hd="concat(ht[t,l], hd[t,l-1])"),
        citation="Kalchbrenner, Danihelka, Graves, arXiv:1507.01526, 2015, section 3.2: a priority dimension",
        notes="The depth comes last and sees what the time has just become.",
    ),
    "grid_lstm_printed": dict(
        base="grid_lstm", changes=dict(ht="tanh(ot[t,l] * mt[t,l])", hd="tanh(od[t,l] * md[t,l])"),
        citation="Kalchbrenner, Danihelka, Graves, arXiv:1507.01526, 2015, as the paper prints its output",
        notes="The output gate inside the tanh. From memory of the paper.",
    ),
}
