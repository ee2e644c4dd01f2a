"""The loop of an LSTM as TorchScript takes it: annotated, in a module of its own that it reads the source of."""

from torch import Tensor, sigmoid, stack, tanh


def lstm_loop(a: Tensor, U: Tensor, h: Tensor, c: Tensor) -> Tensor:
    found: list[Tensor] = []
    for t in range(a.size(0)):
        i, f, o, g = (a[t] + h @ U).chunk(4, 1)
        c = sigmoid(f) * c + sigmoid(i) * tanh(g)
        h = sigmoid(o) * tanh(c)
        found.append(h)
    return stack(found)
