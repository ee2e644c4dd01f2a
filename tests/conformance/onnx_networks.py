"""ONNX's RNN, LSTM and GRU operators as (Cell, parameters): X, W, R, B, P and attributes -> Y, Y_h, Y_c.

Weights are stacked over directions; gates in the order i,o,f,c (LSTM), z,r,h (GRU); peepholes i,o,f. A sequence that is
shorter is reversed within its own length, and Y is zero past its end. layout=1 puts the batch first.
"""

from collections.abc import Mapping

import numpy as np
from networks import DIRECTIONS, Layout, network, places

from autograd_rnn import zoo

INPUTS = {
    "RNN": ("X", "W", "R", "B", "sequence_lens", "initial_h"),
    "LSTM": ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P"),
    "GRU": ("X", "W", "R", "B", "sequence_lens", "initial_h"),
}
OUTPUTS = {"RNN": ("Y", "Y_h"), "LSTM": ("Y", "Y_h", "Y_c"), "GRU": ("Y", "Y_h")}
LAYOUTS = {
    "RNN Tanh": Layout(zoo["rnn"], ("",)),
    "RNN Relu": Layout(zoo["rnn_relu"], ("",)),
    "LSTM": Layout(zoo["lstm"], ("i", "o", "f", "g")),
    "LSTM peepholes": Layout(zoo["lstm_peephole"], ("i", "o", "f", "g"), peepholes=("i", "o", "f")),
    "GRU 0": Layout(zoo["gru_cho"], ("z", "r", "n")),
    "GRU 1": Layout(zoo["gru_reset_after"], ("z", "r", "n"), apart="n"),
}


def layout_of(op: str, attributes: Mapping, arrays: Mapping[str, np.ndarray]) -> Layout:
    """The layout of a node's weights: the operator, its attributes, and which of its inputs are there."""
    key = op
    if op == "RNN":
        names = set(attributes.get("activations", ["Tanh"]))
        assert len(names) == 1
        key = f"RNN {names.pop()}"
    elif op == "GRU":
        key = f"GRU {attributes.get('linear_before_reset', 0)}"
    elif "P" in arrays:
        key = "LSTM peepholes"
    return LAYOUTS[key] if "B" in arrays else LAYOUTS[key].without_bias()


def run_node(op: str, attributes: Mapping, arrays: Mapping[str, np.ndarray], layout: Layout | None = None
             ) -> dict[str, np.ndarray]:
    """Y, Y_h (and Y_c) of one node from our equations; arrays are named as in ONNX's operator pages."""
    known = {"direction", "hidden_size", "layout", "linear_before_reset", "activations"}
    assert set(attributes) <= known, f"the adapter does not know {set(attributes) - known}"
    layout = layout or layout_of(op, attributes, arrays)
    directions = DIRECTIONS[attributes.get("direction", "forward")]
    batch_first, size = attributes.get("layout", 0) == 1, attributes["hidden_size"]
    params, initial = {}, {}
    for k, place in enumerate(places(1, directions)):
        own = {"W": arrays["W"][k], "U": arrays["R"][k]}
        if "B" in arrays:
            own["b_W"], own["b_U"] = np.split(arrays["B"][k], 2)
        if "P" in arrays:
            own["P"] = arrays["P"][k]
        params.update({f"h{place}_{name}": value for name, value in layout.split(**own).items()})
        for s in layout.states:
            if f"initial_{s}" in arrays:
                initial[s + place] = arrays[f"initial_{s}"][:, k] if batch_first else arrays[f"initial_{s}"][k]
    x = np.swapaxes(arrays["X"], 0, 1) if batch_first else arrays["X"]
    cell = network(layout.cell, layout.states, 1, directions)
    trace = cell.run(params, x=x, initial=initial, lengths=arrays.get("sequence_lens"))
    assert trace["y"].dtype == x.dtype and trace["y"].shape[-1] == size * len(directions)
    y = np.stack(np.split(trace["y"], len(directions), axis=-1), axis=1)  # (T, directions, batch, size)
    found = {"Y": y.transpose(2, 0, 1, 3) if batch_first else y}
    for s in layout.states:
        last = np.stack([trace[f"{s}{place}_last"] for place in places(1, directions)])
        found[f"Y_{s}"] = np.swapaxes(last, 0, 1) if batch_first else last
    return found
