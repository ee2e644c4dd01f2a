"""The loop of an LSTM as TorchScript takes it: annotated, in a module of its own that it reads the source of."""

from torch import Tensor, sigmoid, stack, tanh


def lstm_loop(a: Tensor, U: Tensor, h: Tensor, c: Tensor) -> Tensor:
    found: list[Tensor] = []
    for step in a.unbind():  # indexing a would cost all of it at each step back
        i, f, o, g = (step + h @ U).chunk(4, 1)
        c = sigmoid(f) * c + sigmoid(i) * tanh(g)
        h = sigmoid(o) * tanh(c)
        found.append(h)
    return stack(found)
