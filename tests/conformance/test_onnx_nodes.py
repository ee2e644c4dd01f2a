"""ONNX's own node tests of RNN, LSTM and GRU, from our equations at 1e-6."""

import re
import warnings
from functools import cache

import pytest
from networks import agree
from onnx_networks import INPUTS, OUTPUTS, run_node

onnx = pytest.importorskip("onnx", reason="the node tests are ONNX's: pip install 'autograd_rnn[conformance]'")
loader = pytest.importorskip("onnx.backend.test.loader", reason="this onnx carries no node tests")

RECURRENT = re.compile(r"^test_(simple_rnn|rnn|lstm|gru)_.*_cpu$")
NAMES = (
    "test_simple_rnn_defaults", "test_simple_rnn_with_initial_bias", "test_rnn_seq_length", "test_simple_rnn_batchwise",
    "test_simple_rnn_reverse", "test_simple_rnn_bidirectional",
    "test_lstm_defaults", "test_lstm_with_initial_bias", "test_lstm_with_peepholes", "test_lstm_batchwise",
    "test_lstm_reverse", "test_lstm_bidirectional",
    "test_gru_defaults", "test_gru_with_initial_bias", "test_gru_seq_length", "test_gru_batchwise",
    "test_gru_reverse", "test_gru_bidirectional",
)


@cache
def cases() -> dict:
    """ONNX's runner names a case by its device: test_lstm_defaults_cpu."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other operators' cases overflow on purpose
        return {c.name: c for c in loader.load_model_tests(kind="node") if RECURRENT.match(f"{c.name}_cpu")}


def test_there_are_18_cases():
    assert sorted(cases()) == sorted(NAMES)
    assert len(NAMES) == 18


@pytest.mark.parametrize("name", NAMES)
def test_node(name):
    case = cases()[name]
    (node,) = case.model.graph.node
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    attributes = {k: v.decode() if isinstance(v, bytes) else v for k, v in attributes.items()}
    assert case.data_sets
    for inputs, outputs in case.data_sets:
        given = dict(zip([n for n in node.input if n], inputs, strict=True))
        arrays = {name: given[n] for name, n in zip(INPUTS[node.op_type], node.input) if n}
        found = run_node(node.op_type, attributes, arrays)
        wanted = [name for name, n in zip(OUTPUTS[node.op_type], node.output) if n]
        assert wanted
        for output, theirs in zip(wanted, outputs, strict=True):
            agree(found[output], theirs, 1e-6, output)
