"""Long short-term memory and its gates."""

LSTM = """
i[t] = sigmoid(W_i @ x[t] + U_i @ h[t-1] + b_i)
f[t] = sigmoid(W_f @ x[t] + U_f @ h[t-1] + b_f)
o[t] = sigmoid(W_o @ x[t] + U_o @ h[t-1] + b_o)
g[t] = tanh(W_g @ x[t] + U_g @ h[t-1] + b_g)
c[t] = f[t] * c[t-1] + i[t] * g[t]
h[t] = o[t] * tanh(c[t])
"""

PEEPHOLE = """
i[t] = sigmoid(W_i @ x[t] + U_i @ h[t-1] + p_i * c[t-1] + b_i)
f[t] = sigmoid(W_f @ x[t] + U_f @ h[t-1] + p_f * c[t-1] + b_f)
g[t] = tanh(W_g @ x[t] + U_g @ h[t-1] + b_g)
c[t] = f[t] * c[t-1] + i[t] * g[t]
o[t] = sigmoid(W_o @ x[t] + U_o @ h[t-1] + p_o * c[t] + b_o)
h[t] = o[t] * tanh(c[t])
"""

CELLS = {
    "lstm": dict(
        text=LSTM,
        citation="Gers, Schmidhuber, Cummins, Learning to forget: continual prediction with LSTM, Neural Computation "
                 "12(10), 2000; forget bias 1: Jozefowicz, Zaremba, Sutskever, ICML 2015",
        notes="Gate orders elsewhere: PyTorch i,f,g,o; Keras i,f,c,o; ONNX i,o,f,c.",
        rules=dict(b_f=1.0),
    ),
    "lstm_peephole": dict(
        text=PEEPHOLE,
        citation="Gers, Schmidhuber, Recurrent nets that time and count, IJCNN 2000; in the form of Graves, "
                 "arXiv:1308.0850, and Greff et al., arXiv:1503.04069",
        notes="The output gate sees c[t], the others c[t-1]. Any subset: substitute(p_i=0), for instance.",
        rules=dict(b_f=1.0),
    ),
    "lstm_coupled": dict(
        text=None, base="lstm", changes=dict(f="1 - i[t]"),
        citation="Greff, Srivastava, Koutnik, Steunebrink, Schmidhuber, LSTM: a search space odyssey, "
                 "arXiv:1503.04069 (CIFG)",
        notes="Greff learns i and sets f = 1 - i; others learn f and set i = 1 - f: the same family with the sign of "
              "the bias reversed, in the zoo as lstm_coupled_forget.",
        rules=dict(b_i=-1.0),
    ),
    "lstm_coupled_forget": dict(
        text=None, base="lstm", changes=dict(i="1 - f[t]"),
        citation="Olah, Understanding LSTM networks, 2015",
        notes="Learns f and sets i = 1 - f.",
        rules=dict(b_f=1.0),
    ),
}
