"""Simple recurrent networks: one tanh, and what is added to it so that gradients last."""

from ..init import identity, normal

RNN = "h[t] = tanh(W @ x[t] + U @ h[t-1] + b)"

ANTISYMMETRIC = """
epsilon = 0.1                # the step of the Euler method
gamma = 0.01                 # diffusion
A = U - U.T
h[t] = h[t-1] + epsilon * tanh(A @ h[t-1] - gamma * h[t-1] + W @ x[t] + b)
"""

GATED = """
epsilon = 0.1
gamma = 0.01
A = U - U.T
a[t] = A @ h[t-1] - gamma * h[t-1]
z[t] = sigmoid(a[t] + W_z @ x[t] + b_z)
h[t] = h[t-1] + epsilon * z[t] * tanh(a[t] + W @ x[t] + b)
"""

CELLS = {
    "rnn": dict(
        text=RNN,
        citation="Elman, Finding structure in time, Cognitive Science 14, 1990",
        notes="PyTorch and ONNX keep two biases; only their sum matters.",
    ),
    "rnn_relu": dict(
        base="rnn", changes=dict(h="relu(W @ x[t] + U @ h[t-1] + b)"),
        citation="Le, Jaitly, Hinton, A simple way to initialize recurrent networks of rectified linear units, "
                 "arXiv:1504.00941, 2015",
        notes="U starts at the identity. The paper's other weights are N(0, 0.001^2), by our memory of it. relu has "
              "derivative 0 at 0.",
        rules=dict(U=identity, W=normal(0.001)),
    ),
    "rnn_softmax": dict(
        text=RNN + "\ny[t] = V @ h[t] + c\nL = sum_t(cross_entropy(y[t], k[t]))",
        citation="Werbos, Backpropagation through time: what it does and how to do it, Proceedings of the IEEE 78(10), "
                 "1990, for the algorithm",
        notes="y holds the logits, k the classes; the probabilities are softmax(y[t]). The loss is summed over steps.",
    ),
    "rnn_residual": dict(
        base="rnn", changes=dict(h="h[t-1] + tanh(W @ x[t] + U @ h[t-1] + b)"),
        citation="He, Zhang, Ren, Sun, Deep residual learning for image recognition, arXiv:1512.03385, 2015; as a "
                 "recurrence: Liao, Poggio, arXiv:1604.03640, 2016",
        notes="The state adds up: nothing bounds it, and nothing forgets.",
    ),
    "antisymmetric": dict(
        text=ANTISYMMETRIC,
        citation="Chang, Chen, Haber, Chi, AntisymmetricRNN: a dynamical system view on recurrent neural networks, "
                 "ICLR 2019, arXiv:1902.09689",
        notes="U - U.T has imaginary eigenvalues: the linear flow neither grows nor decays. Step and diffusion are the "
              "user's: substitute(epsilon=0.05, gamma=0.1). From memory of the paper.",
    ),
    "antisymmetric_gated": dict(
        text=GATED,
        citation="Chang, Chen, Haber, Chi, arXiv:1902.09689, 2019, the gated form",
        notes="The gate and the candidate share the antisymmetric matrix. From memory of the paper.",
    ),
}
