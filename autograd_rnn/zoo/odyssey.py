"""The search space odyssey: eight variants of the peephole LSTM, one change each."""

GREFF = ("Greff, Srivastava, Koutnik, Steunebrink, Schmidhuber, LSTM: a search space odyssey, arXiv:1503.04069, 2015 "
         "({})")

FULL_GATE_RECURRENCE = dict(
    i="sigmoid(W_i @ x[t] + U_i @ h[t-1] + p_i * c[t-1] + R_ii @ i[t-1] + R_fi @ f[t-1] + R_oi @ o[t-1] + b_i)",
    f="sigmoid(W_f @ x[t] + U_f @ h[t-1] + p_f * c[t-1] + R_if @ i[t-1] + R_ff @ f[t-1] + R_of @ o[t-1] + b_f)",
    o="sigmoid(W_o @ x[t] + U_o @ h[t-1] + p_o * c[t] + R_io @ i[t-1] + R_fo @ f[t-1] + R_oo @ o[t-1] + b_o)",
)


def variant(short: str, notes: str, **changes) -> dict:
    return dict(base="lstm_peephole", changes=changes, citation=GREFF.format(short), notes=notes)


CELLS = {
    "lstm_nig": variant("NIG", "No input gate.", i=1),
    "lstm_nfg": variant("NFG", "No forget gate.", f=1),
    "lstm_nog": variant("NOG", "No output gate.", o=1),
    "lstm_niaf": variant("NIAF", "No input activation function.", g="W_g @ x[t] + U_g @ h[t-1] + b_g"),
    "lstm_noaf": variant("NOAF", "No output activation function.", h="o[t] * c[t]"),
    "lstm_np": variant("NP", "No peepholes: the equations of `lstm`.", p_i=0, p_f=0, p_o=0),
    "lstm_cifg": variant("CIFG", "Coupled input and forget gate, with the peepholes of the other two. "
                         "TensorFlow's CoupledInputForgetGateLSTMCell learns f instead of i.", f="1 - i[t]"),
    "lstm_fgr": variant("FGR", "Full gate recurrence: nine more matrices; gates become states, as they were in 1997. "
                        "Often left out where eight variants are counted.", **FULL_GATE_RECURRENCE),
}
