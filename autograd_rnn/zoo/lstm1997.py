"""The LSTM of 1997: no forget gate, gates that see gates, memory blocks, and a gradient truncated by design."""

import numpy as np

from ..init import uniform

CELL = """
hp[t] = stop_gradient(h[t-1])
ip[t] = stop_gradient(i[t-1])
op[t] = stop_gradient(o[t-1])
i[t] = sigmoid(W_i @ x[t] + U_i @ hp[t] + G_ii @ ip[t] + G_io @ op[t] + b_i)
o[t] = sigmoid(W_o @ x[t] + U_o @ hp[t] + G_oi @ ip[t] + G_oo @ op[t] + b_o)
g[t] = 4 * sigmoid(W_g @ x[t] + U_g @ hp[t] + G_gi @ ip[t] + G_go @ op[t] + b_g) - 2
c[t] = c[t-1] + i[t] * g[t]
h[t] = o[t] * (2 * sigmoid(c[t]) - 1)
"""
BLOCKS = "B: const(c, i)                         # B[cell, block] is 1 where the cell lies in the block" + CELL.replace(
    "+ i[t] * g", "+ (B @ i[t]) * g").replace("= o[t] * (", "= (B @ o[t]) * (")
WHOLE = dict(hp="h[t-1]", ip="i[t-1]", op="o[t-1]")
PAPER = "Hochreiter, Schmidhuber, Long short-term memory, Neural Computation 9(8), 1997"


def blocks(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Which block each cell lies in, (cells, blocks): as many cells in one as in another, neighbours together."""
    cells, count = shape
    return (np.arange(cells)[:, None] * count // cells == np.arange(count)).astype(float)


def descending(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """-1, -2, -3, ...: the paper's output gates, so that blocks come into use one after another."""
    return -np.arange(1.0, shape[0] + 1)


RULES = dict(default=uniform(0.2), b_o=descending)

CELLS = {
    "lstm_1997": dict(
        text=CELL, citation=PAPER, rules=RULES,
        notes="Blocks of one cell. All units of the hidden layer see each other, gates too; a cell's input and output "
              "are squashed by logistic functions, scaled to (-2, 2) and (-1, 1). Errors that arrive at a gate or at a "
              "cell's input go no further back in time; only the cell carries them. Initial weights and output biases "
              "are those of the embedded Reber grammar; the adding problem starts within 0.1, with input biases -3 and "
              "-6.",
    ),
    "lstm_1997_whole": dict(
        base="lstm_1997", changes=WHOLE, citation=PAPER + ", with the whole gradient",
        notes="The same network by full backpropagation through time.",
    ),
    "lstm_1997_blocks": dict(
        text=BLOCKS, citation=PAPER, rules=dict(RULES, B=blocks),
        notes="Memory blocks: the cells of one share its two gates. init(x=7, h=6, i=3) has three blocks of two cells.",
    ),
    "lstm_1997_blocks_whole": dict(
        base="lstm_1997_blocks", changes=WHOLE, citation=PAPER + ", with the whole gradient",
        notes="Memory blocks by full backpropagation through time.",
    ),
}
