"""The recurrent samples of PyTorch's own module database: same outputs and gradients from our equations."""

from collections import Counter
from functools import cache

import pytest
from networks import agree
from torch_networks import compare, from_torch

torch = pytest.importorskip("torch", reason="the samples are torch's: pip install 'autograd_rnn[conformance]'")
pytest.importorskip("expecttest", reason="torch's module database imports it: pip install 'autograd_rnn[conformance]'")
database = pytest.importorskip("torch.testing._internal.common_modules", reason="this torch carries no module database")

COUNTS = {"RNN": 32, "LSTM": 32, "GRU": 16, "RNNCell": 3, "LSTMCell": 2, "GRUCell": 2}


@cache
def samples(name: str) -> list:
    torch.manual_seed(0)
    (info,) = (m for m in database.module_db if m.module_cls is getattr(torch.nn, name))
    return list(info.module_inputs_func(info, device="cpu", dtype=torch.float64, requires_grad=True, training=True))


def build(name: str, k: int):
    """Sample k as the module it makes, with weights of its own, its input, and a tuple of its states or None."""
    sample = samples(name)[k]
    torch.manual_seed(k)
    module = getattr(torch.nn, name)(*sample.constructor_input.args, **sample.constructor_input.kwargs).double()
    x, *state = sample.forward_input.args
    assert not sample.forward_input.kwargs and len(state) < 2
    return module, x, None if not state else state[0] if isinstance(state[0], tuple) else (state[0],)


def test_there_are_87_samples():
    assert {name: len(samples(name)) for name in COUNTS} == COUNTS
    assert sum(COUNTS.values()) == 87


def test_the_samples_cover_the_options():
    """Else the table below would promise more than it checks."""
    seen = Counter()
    for name in COUNTS:
        for sample in samples(name):
            given = sample.forward_input.args
            seen.update(f"{k}={v}" for k, v in sample.constructor_input.kwargs.items())
            seen["initial state" if len(given) > 1 else "no initial state"] += 1
    wanted = ["bias=True", "bias=False", "bidirectional=True", "batch_first=True", "num_layers=2", "proj_size=2",
              "nonlinearity=relu", "nonlinearity=tanh", "initial state", "no initial state"]
    assert not [option for option in wanted if not seen[option]]


@pytest.mark.parametrize("name, k", [(name, k) for name, count in COUNTS.items() for k in range(count)])
def test_sample(name, k):
    module, x, initial = build(name, k)
    # The samples' inputs reach 9 and saturate gates, where torch's 1 - h^2 loses digits: steps are not told apart.
    count = compare(torch, module, x, initial, seed=k, by_step=False)
    assert count >= 5 + len(list(module.parameters()))


@pytest.mark.parametrize("name, k", [(name, k) for name, count in COUNTS.items() if name.endswith("Cell")
                                     for k in range(count)])
def test_five_steps(name, k):
    """A module of one step, fed its own state, against `Cell.step`."""
    module, x, initial = build(name, k)
    net, states = from_torch(module), initial
    params = {n.removeprefix("h1f_"): v for n, v in net.params.items()}
    state = {s: v.detach().numpy() for s, v in zip(net.layout.states, initial)}
    for step in range(5):
        given = x.detach() * (step - 2)
        states = module(given, states if len(states) == 2 else states[0])
        states = states if isinstance(states, tuple) else (states,)
        values, state = net.layout.cell.step(params, state, x=given.numpy())
        for s, theirs in zip(net.layout.states, states):
            agree(values[s], theirs.detach().numpy(), 1e-12, f"{s} after step {step + 1}")
            agree(state[s], theirs.detach().numpy(), 1e-12, f"the state {s} after step {step + 1}")
