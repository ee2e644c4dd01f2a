"""The recurrent samples of PyTorch's own module database: same outputs and gradients from our equations."""

from collections import Counter
from functools import cache

import pytest
from torch_networks import compare

torch = pytest.importorskip("torch", reason="the samples are torch's: pip install 'autograd_rnn[conformance]'")
pytest.importorskip("expecttest", reason="torch's module database imports it: pip install 'autograd_rnn[conformance]'")
database = pytest.importorskip("torch.testing._internal.common_modules", reason="this torch carries no module database")

COUNTS = {"RNN": 32, "LSTM": 32, "GRU": 16, "RNNCell": 3, "LSTMCell": 2, "GRUCell": 2}


@cache
def samples(name: str) -> list:
    torch.manual_seed(0)
    (info,) = (m for m in database.module_db if m.module_cls is getattr(torch.nn, name))
    return list(info.module_inputs_func(info, device="cpu", dtype=torch.float64, requires_grad=True, training=True))


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
    sample = samples(name)[k]
    torch.manual_seed(k)
    module = getattr(torch.nn, name)(*sample.constructor_input.args, **sample.constructor_input.kwargs).double()
    x, *state = sample.forward_input.args
    assert not sample.forward_input.kwargs and len(state) < 2
    initial = None if not state else state[0] if isinstance(state[0], tuple) else (state[0],)
    count = compare(torch, module, x, initial, seed=k)
    assert count >= 5 + len(list(module.parameters()))
