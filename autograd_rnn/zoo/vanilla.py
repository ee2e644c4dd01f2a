"""Simple recurrent networks."""

CELLS = {
    "rnn": dict(
        text="h[t] = tanh(W @ x[t] + U @ h[t-1] + b)",
        citation="Elman, Finding structure in time, Cognitive Science 14, 1990",
        notes="PyTorch and ONNX keep two biases; only their sum matters.",
    ),
    "rnn_relu": dict(
        text="h[t] = relu(W @ x[t] + U @ h[t-1] + b)",
        citation="Le, Jaitly, Hinton, A simple way to initialize recurrent networks of rectified linear units, "
                 "arXiv:1504.00941, 2015",
        notes="The paper starts U at the identity: initialised(U=lambda rng, shape: np.eye(shape[0])). "
              "relu has derivative 0 at 0.",
    ),
}
