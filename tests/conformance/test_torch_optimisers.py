"""Our optimisers against torch.optim over 20 steps in float64, on the loss of a small GRU and on given gradients."""

import numpy as np
import pytest
from networks import agree

from autograd_rnn import Cell, zoo
from autograd_rnn.learn.optimisers import adam, adamw, rmsprop, sgd

torch = pytest.importorskip("torch", reason="compares with torch.optim: pip install 'autograd_rnn[conformance]'")

STEPS = 20
OPTIMISERS = {
    "SGD": (sgd(0.1), lambda p: torch.optim.SGD(p, lr=0.1)),
    "SGD, momentum": (sgd(0.05, momentum=0.9), lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9)),
    "SGD, Nesterov": (sgd(0.05, momentum=0.9, nesterov=True),
                      lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True)),
    "SGD, Nesterov, decay": (sgd(0.05, momentum=0.8, nesterov=True, decay=0.1),
                             lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.8, nesterov=True, weight_decay=0.1)),
    "RMSProp": (rmsprop(0.01), lambda p: torch.optim.RMSprop(p, lr=0.01)),
    "RMSProp, all options": (rmsprop(0.003, alpha=0.95, eps=1e-6, momentum=0.7, decay=0.05),
                             lambda p: torch.optim.RMSprop(p, lr=0.003, alpha=0.95, eps=1e-6, momentum=0.7,
                                                           weight_decay=0.05)),
    "Adam": (adam(0.01), lambda p: torch.optim.Adam(p, lr=0.01)),
    "Adam, all options": (adam(0.003, beta1=0.8, beta2=0.95, eps=1e-6, decay=0.05),
                          lambda p: torch.optim.Adam(p, lr=0.003, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.05)),
    "AdamW": (adamw(0.01), lambda p: torch.optim.AdamW(p, lr=0.01)),
    "AdamW, all options": (adamw(0.003, beta1=0.8, beta2=0.95, eps=1e-6, decay=0.2),
                           lambda p: torch.optim.AdamW(p, lr=0.003, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.2)),
}


@pytest.mark.parametrize("name", list(OPTIMISERS))
def test_given_gradients(name):
    """The same gradients at every step, some of them zero, some large, some small."""
    ours, make = OPTIMISERS[name]
    rng = np.random.default_rng(0)
    params = {"W": rng.normal(size=(3, 4)), "b": rng.normal(size=3), "w": rng.normal(size=())}
    theirs = {n: torch.tensor(v, requires_grad=True) for n, v in params.items()}
    start, optimiser, state = dict(params), make(list(theirs.values())), {}
    for step in range(STEPS):
        gradients = {n: np.asarray(rng.normal(size=v.shape) * 10.0 ** (step % 5 - 2)) for n, v in params.items()}
        gradients["b"][step % 3] = 0.0
        for n, p in theirs.items():
            p.grad = torch.tensor(gradients[n])
        optimiser.step()
        params, state = ours.update(params, gradients, state)
        for n, p in theirs.items():
            agree(params[n], p.detach().numpy(), 1e-12, f"{n} after step {step + 1}")
    assert all((params[n] != start[n]).all() for n in params)


@pytest.mark.parametrize("name", list(OPTIMISERS))
def test_training_side_by_side(name):
    """torch.nn.GRU under torch.optim, and its equations under ours: the same weights after every step."""
    ours, make = OPTIMISERS[name]
    biases = {n: 0 for n in zoo["gru_reset_after"].parameters if n.startswith("b")}
    cell = Cell(zoo["gru_reset_after"].substitute(**biases).text + "\nL = sum_t(mse(h[t], y[t]))")
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(6, 3, 2)), rng.normal(size=(6, 3, 4))
    params = {n: rng.normal(scale=0.5, size=v.shape) for n, v in cell.init(x=2, h=4).items()}
    module = torch.nn.GRU(2, 4, bias=False, dtype=torch.float64)
    stacked = {"weight_ih_l0": "W", "weight_hh_l0": "U"}

    def stack(letter):
        return np.concatenate([params[f"{letter}_{gate}"] for gate in "rzn"])

    with torch.no_grad():
        for n, letter in stacked.items():
            getattr(module, n).copy_(torch.from_numpy(stack(letter)))
    optimiser, state = make(list(module.parameters())), {}
    for step in range(STEPS):
        optimiser.zero_grad()
        loss = ((module(torch.from_numpy(x))[0] - torch.from_numpy(y)) ** 2).sum()
        loss.backward()
        optimiser.step()
        value, gradients = cell.gradient(params, x=x, y=y)
        agree(value, loss.item(), 1e-12, f"the loss of step {step + 1}")
        params, state = ours.update(params, gradients, state)
        for n, letter in stacked.items():
            agree(stack(letter), getattr(module, n).detach().numpy(), 1e-12, f"{n} after step {step + 1}")
