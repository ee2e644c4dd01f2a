"""Random RNN, LSTM and GRU nodes against ONNX Runtime: directions, lengths, initial states, peepholes, in float32."""

import numpy as np
import pytest
from networks import Layout, agree
from onnx_networks import INPUTS, OUTPUTS, run_node

from autograd_rnn import zoo

onnx = pytest.importorskip("onnx", reason="builds ONNX models: pip install 'autograd_rnn[conformance]'")
runtime = pytest.importorskip("onnxruntime", reason="runs ONNX models: pip install 'autograd_rnn[conformance]'")

T, BATCH, X, H = 7, 3, 4, 5
NODES = {
    "RNN tanh": ("RNN", {}, ()),
    "RNN relu": ("RNN", {"activations": "Relu"}, ()),
    "LSTM": ("LSTM", {}, ()),
    "LSTM peepholes": ("LSTM", {}, ("P",)),
    "GRU reset before": ("GRU", {"linear_before_reset": 0}, ()),
    "GRU reset after": ("GRU", {"linear_before_reset": 1}, ()),
}
GATES = {"RNN": 1, "LSTM": 4, "GRU": 3}


def draw(name: str, direction: str, seed: int) -> tuple[str, dict, dict[str, np.ndarray]]:
    """(operator, attributes, arrays by name), float32, of random lengths."""
    op, own, extra = NODES[name]
    count, gates = 2 if direction == "bidirectional" else 1, GATES[op]
    attributes = {"hidden_size": H, "direction": direction, **own}
    if "activations" in own:
        attributes["activations"] = [own["activations"]] * count
    shapes = {"X": (T, BATCH, X), "W": (count, gates * H, X), "R": (count, gates * H, H), "B": (count, 2 * gates * H),
              "initial_h": (count, BATCH, H), "initial_c": (count, BATCH, H), "P": (count, 3 * H)}
    rng = np.random.default_rng(seed)
    wanted = [n for n in INPUTS[op] if n in shapes and (n != "P" or n in extra)]
    arrays = {n: rng.normal(scale=0.5, size=shapes[n]).astype(np.float32) for n in wanted}
    arrays["sequence_lens"] = rng.integers(1, T + 1, BATCH).astype(np.int32)
    return op, attributes, arrays


def outputs_of_runtime(op: str, attributes: dict, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    helper, kinds = onnx.helper, {"float32": onnx.TensorProto.FLOAT, "int32": onnx.TensorProto.INT32}
    node = helper.make_node(op, [n if n in arrays else "" for n in INPUTS[op]], list(OUTPUTS[op]), **attributes)
    inputs = [helper.make_tensor_value_info(n, kinds[str(a.dtype)], a.shape) for n, a in arrays.items()]
    outputs = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [None] * (4 if n == "Y" else 3))
               for n in OUTPUTS[op]]
    model = helper.make_model(helper.make_graph([node], op, inputs, outputs), ir_version=8,
                              opset_imports=[helper.make_opsetid("", 14)])
    onnx.checker.check_model(model)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip(OUTPUTS[op], session.run(list(OUTPUTS[op]), arrays)))


def compare(op: str, attributes: dict, arrays: dict[str, np.ndarray], layout: Layout | None = None) -> None:
    theirs = outputs_of_runtime(op, attributes, arrays)
    ours = run_node(op, attributes, arrays, layout)
    assert set(ours) == set(theirs) == set(OUTPUTS[op])
    for name, array in theirs.items():
        agree(ours[name], array, 1e-6, name, floor=1.0)


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("name", list(NODES))
def test_random(name, direction):
    for seed in range(3):
        op, attributes, arrays = draw(name, direction, seed)
        compare(op, attributes, arrays)
        for left_out in ("sequence_lens", "initial_h", "B"):
            compare(op, attributes, {n: a for n, a in arrays.items() if n != left_out})


IOFG, IOF = ("i", "o", "f", "g"), ("i", "o", "f")
O_SEES_THE_OLD_CELL = "sigmoid(W_o @ x[t] + U_o @ h[t-1] + p_o * c[t-1] + b_o)"
FAULTS = {
    "LSTM, torch's order": ("LSTM", Layout(zoo["lstm"], ("i", "f", "g", "o"))),
    "LSTM, o and f swapped": ("LSTM", Layout(zoo["lstm"], ("i", "f", "o", "g"))),
    "peepholes i,f,o": ("LSTM peepholes", Layout(zoo["lstm_peephole"], IOFG, peepholes=("i", "f", "o"))),
    "o sees c[t-1]": (
        "LSTM peepholes", Layout(zoo["lstm_peephole"].substitute(o=O_SEES_THE_OLD_CELL), IOFG, peepholes=IOF)),
    "GRU, torch's order": ("GRU reset after", Layout(zoo["gru_reset_after"], ("r", "z", "n"), apart="n")),
    "GRU, reset after for before": ("GRU reset before", Layout(zoo["gru_reset_after"], ("z", "r", "n"), apart="n")),
    "GRU, reset before for after": ("GRU reset after", Layout(zoo["gru_cho"], ("z", "r", "n"))),
}


@pytest.mark.parametrize("fault", list(FAULTS))
def test_faults_are_caught(fault):
    name, wrong = FAULTS[fault]
    node = draw(name, "forward", seed=0)
    compare(*node)
    with pytest.raises(AssertionError, match="differ by"):
        compare(*node, wrong)
