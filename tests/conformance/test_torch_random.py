"""Random weights, lengths and initial states against torch.nn's RNN, LSTM and GRU, packed and not, in float64."""

import numpy as np
import pytest
from networks import Layout
from torch_networks import compare, layout_of

from autograd_rnn import zoo

torch = pytest.importorskip("torch", reason="compares with torch.nn: pip install 'autograd_rnn[conformance]'")

T, BATCH, X, H = 7, 3, 4, 5
MODULES = {
    "RNN tanh": ("RNN", {"nonlinearity": "tanh"}),
    "RNN relu": ("RNN", {"nonlinearity": "relu"}),
    "LSTM": ("LSTM", {}),
    "LSTM projected": ("LSTM", {"proj_size": 2}),
    "GRU": ("GRU", {}),
}


def draw(name: str, layers: int, both: bool, seed: int, **options):
    """A module with random weights, an input, and states for every layer and direction."""
    kind, own = MODULES[name]
    rng = np.random.default_rng(seed)
    module = getattr(torch.nn, kind)(X, H, layers, bidirectional=both, dtype=torch.float64, **own, **options)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.from_numpy(rng.normal(scale=0.6, size=p.shape)))
    shape = (BATCH, T, X) if module.batch_first else (T, BATCH, X)
    x = torch.from_numpy(rng.normal(size=shape))
    sizes = [module.proj_size or H, H] if kind == "LSTM" else [H]
    initial = tuple(torch.from_numpy(rng.normal(size=(layers * (1 + both), BATCH, n))) for n in sizes)
    return module, x, initial, rng.integers(1, T + 1, BATCH)


@pytest.mark.parametrize("packed", [False, True], ids=["full", "packed"])
@pytest.mark.parametrize("both", [False, True], ids=["one way", "both ways"])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("name", list(MODULES))
def test_random(name, layers, both, packed):
    for seed in range(3):
        module, x, initial, lengths = draw(name, layers, both, seed, batch_first=seed == 1, bias=seed != 2)
        count = compare(torch, module, x, initial, lengths if packed else None, seed=seed)
        assert count > 3 + layers * (1 + both) * (4 if module.bias else 2)


@pytest.mark.parametrize("lengths", [[7, 1, 4], [1, 1, 1], [2, 7, 7], [3, 5, 6]])
@pytest.mark.parametrize("name", list(MODULES))
def test_lengths(name, lengths):
    """The longest may be shorter than the padding; sorted or not; of one step."""
    module, x, initial, _ = draw(name, 2, True, seed=5)
    compare(torch, module, x, initial, np.array(lengths))
    module.zero_grad()
    compare(torch, module, x, None, np.array(lengths))


FAULTS = {
    "LSTM, i and f swapped": ("LSTM", Layout(zoo["lstm"], ("f", "i", "g", "o"))),
    "LSTM, ONNX's order": ("LSTM", Layout(zoo["lstm"], ("i", "o", "f", "g"))),
    "GRU, r and z swapped": ("GRU", Layout(zoo["gru_reset_after"], ("z", "r", "n"), apart="n")),
    "GRU, z takes the new state": ("GRU", Layout(zoo["gru_reset_after_update"], ("r", "z", "n"), apart="n")),
    "GRU, reset before": ("GRU", Layout(zoo["gru_cho"], ("r", "z", "n"))),
    "RNN, relu for tanh": ("RNN tanh", Layout(zoo["rnn_relu"], ("",))),
}


@pytest.mark.parametrize("fault", list(FAULTS))
def test_faults_are_caught(fault):
    name, wrong = FAULTS[fault]
    module, x, initial, lengths = draw(name, 1, False, seed=0)
    compare(torch, module, x, initial, lengths, layout_of(module))
    module.zero_grad()
    with pytest.raises(AssertionError, match="differ by"):
        compare(torch, module, x, initial, lengths, wrong)
