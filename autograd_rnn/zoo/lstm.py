"""Long short-term memory: with and without peepholes, gates coupled or left out."""

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

FULL = dict(
    i="sigmoid(W_i @ x[t] + U_i @ h[t-1] + P_i @ c[t-1] + b_i)",
    f="sigmoid(W_f @ x[t] + U_f @ h[t-1] + P_f @ c[t-1] + b_f)",
    o="sigmoid(W_o @ x[t] + U_o @ h[t-1] + P_o @ c[t] + b_o)",
)
BEFORE = dict(o="sigmoid(W_o @ x[t] + U_o @ h[t-1] + p_o * c[t-1] + b_o)")

JOZEFOWICZ = "Jozefowicz, Zaremba, Sutskever, An empirical exploration of recurrent network architectures, ICML 2015"

CELLS = {
    "lstm": dict(
        text=LSTM,
        citation="Gers, Schmidhuber, Cummins, Learning to forget: continual prediction with LSTM, Neural Computation "
                 "12(10), 2000; forget bias 1: " + JOZEFOWICZ,
        notes="Gate orders elsewhere: PyTorch i,f,g,o; Keras i,f,c,o; ONNX i,o,f,c; char-rnn i,f,o,g. TensorFlow's "
              "contrib cells add the forget bias of 1 inside the sigmoid instead of storing it.",
        rules=dict(b_f=1.0),
    ),
    "lstm_zero_bias": dict(
        base="lstm",
        citation=JOZEFOWICZ + ": their LSTM, where `lstm` is their LSTM-b",
        notes="The same equations; the forget gate starts half open.",
        rules=dict(b_f=0.0),
    ),
    "lstm_without_f": dict(
        base="lstm", changes=dict(f=1),
        citation=JOZEFOWICZ + " (LSTM-f)",
        notes="What many libraries call the original LSTM; that of 1997, in the zoo as lstm_1997, has gates that see "
              "gates, other squashing functions, and a truncated gradient.",
    ),
    "lstm_without_i": dict(base="lstm", changes=dict(i=1), citation=JOZEFOWICZ + " (LSTM-i)"),
    "lstm_without_o": dict(base="lstm", changes=dict(o=1), citation=JOZEFOWICZ + " (LSTM-o)",
                           notes="The output is tanh(c[t])."),
    "lstm_peephole": dict(
        text=PEEPHOLE,
        citation="Gers, Schmidhuber, Recurrent nets that time and count, IJCNN 2000; in the form of Graves, "
                 "arXiv:1308.0850, and Greff et al., arXiv:1503.04069",
        notes="The output gate sees c[t], the others c[t-1]. Any subset: substitute(p_i=0), for instance. The gradient "
              "here is the whole one; that of Gers and Schmidhuber is truncated.",
        rules=dict(b_f=1.0),
    ),
    "lstm_peephole_full": dict(
        base="lstm_peephole", changes=FULL,
        citation="Olah, Understanding LSTM networks, 2015, where the gates see [C, h, x]; DyNet's dglstm.cc",
        notes="Peepholes that are matrices: every gate sees every cell. Those of Gers, Graves and Greff are diagonal.",
    ),
    "lstm_peephole_before": dict(
        base="lstm_peephole", changes=BEFORE,
        citation="RecurrentLayers.jl, PeepholeLSTMCell, against Gers, Schmidhuber, IJCNN 2000",
        notes="The output gate sees c[t-1] too. That library's code does so; its documentation has c[t], as papers do.",
    ),
    "lstm_coupled": dict(
        base="lstm", changes=dict(f="1 - i[t]"),
        citation="Greff, Srivastava, Koutnik, Steunebrink, Schmidhuber, LSTM: a search space odyssey, "
                 "arXiv:1503.04069, 2015 (CIFG), without peepholes",
        notes="Greff learns i and sets f = 1 - i; others learn f and set i = 1 - f: the same family with the sign of "
              "the bias reversed, in the zoo as lstm_coupled_forget.",
        rules=dict(b_i=-1.0),
    ),
    "lstm_coupled_forget": dict(
        base="lstm", changes=dict(i="1 - f[t]"),
        citation="Olah, Understanding LSTM networks, 2015",
        notes="Learns f and sets i = 1 - f.",
        rules=dict(b_f=1.0),
    ),
}
